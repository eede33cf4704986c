"""Corrections of stored events: a later message has a better URL for the same event."""

import sqlite3

from poller.core.model import Event, corrected
from poller.spools.pages import checksum, page_events
from poller.spools.rows import events_of, lines
from poller.spools.sqlite.page_index import CRC
from poller.spools.waiting import Corrections


def correct_page(connection: sqlite3.Connection, number: int, by: Event) -> bool:
    """Correct one event of the log; false where its URL is right already.

    True for an event that was pruned: it may still wait for a retry, or be a dead letter.
    """
    row = connection.execute(
        f"SELECT first, events, {CRC} FROM page WHERE first <= ? AND last >= ? ORDER BY first DESC LIMIT 1",  # noqa: S608
        (number, number),
    ).fetchone()
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
    connection.execute("UPDATE page SET events = ? WHERE first = ?", (blob, first))
    connection.execute("UPDATE page_index SET crc = ? WHERE first = ?", (checksum(blob), first))
    return True


def correct_waiting(connection: sqlite3.Connection, by: Corrections) -> None:
    """Correct the events of batches that wait for their retry."""
    rows = connection.execute("SELECT sink, id, events FROM waiting").fetchall()
    ids = [id.encode() for id in by]
    for sink, id, blob in rows:
        if not any(one in blob for one in ids):
            continue
        events = [corrected(e, by[e.id]) if e.id in by else e for e in events_of(blob)]
        connection.execute(
            "UPDATE waiting SET events = ? WHERE sink = ? AND id = ?", (lines(events), sink, id)
        )
