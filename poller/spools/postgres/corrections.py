"""Corrections of stored events: a later message has a better URL for the same event."""

import asyncpg

from poller.core.model import Event, corrected
from poller.spools.pages import checksum, page_events
from poller.spools.rows import events_of, lines
from poller.spools.waiting import Corrections

_PAGE = """
SELECT first, events, crc FROM page
WHERE first = (SELECT max(first) FROM page WHERE first <= $1) AND last >= $1
"""
_WAITING = """
SELECT sink, id, events FROM waiting
WHERE EXISTS (SELECT FROM unnest($1::bytea[]) AS event(id) WHERE position(event.id IN events) > 0)
"""
_PUT_WAITING = """
UPDATE waiting SET events = better.events
FROM unnest($1::text[], $2::text[], $3::bytea[]) AS better(sink, id, events)
WHERE waiting.sink = better.sink AND waiting.id = better.id
"""


async def correct_page(connection: asyncpg.Connection, number: int, by: Event) -> bool:
    """Correct one event of the log; false where its URL is right already.

    True for an event that was pruned: it may still wait for a retry, or be a dead letter.
    """
    row = await connection.fetchrow(_PAGE, number)
    if row is None:
        return True
    first, events = row[0], page_events(*row)
    event = events[number - first]
    if event.id != by.id:
        return True
    if event.url == by.url:
        return False
    events[number - first] = corrected(event, by)
    blob = lines(events)
    await connection.execute(
        "UPDATE page SET events = $1, crc = $2 WHERE first = $3", blob, checksum(blob), first
    )
    return True


async def correct_waiting(connection: asyncpg.Connection, by: Corrections) -> None:
    """Correct the events of batches that wait for their retry."""
    rows = await connection.fetch(_WAITING, [id.encode() for id in by])
    better = [
        (sink, id, lines([corrected(e, by[e.id]) if e.id in by else e for e in events_of(blob)]))
        for sink, id, blob in rows
    ]
    if better:
        await connection.execute(_PUT_WAITING, *zip(*better, strict=True))
