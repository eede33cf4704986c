"""What is read from the spool's tables, each by one statement or a few, on the reading connection."""

from datetime import datetime

import asyncpg
import msgspec

from poller.core.history import Origin
from poller.core.model import LARGEST_NUMBER, DeadLetter, Filter, Quarantined
from poller.spools.postgres import shares
from poller.spools.postgres.conditions import all_of, as_text
from poller.spools.postgres.dead_letters import letter_of
from poller.spools.postgres.page_sizes import PageSizes
from poller.spools.postgres.schema import to_bytes, to_text
from poller.spools.postgres.sessions import NOBODY
from poller.spools.postgres.waiting_rows import QUEUES
from poller.spools.rows import (
    DEAD_COLUMNS,
    QUARANTINE_COLUMNS,
    Row,
    blob_of,
    epoch,
    events_of,
    moment,
    numbers_of,
    quarantined_of,
    readable_rows,
    reads_back,
)

BYTES_OF_AN_ID = 130
_SIZE = """
SELECT coalesce((SELECT sum(octet_length(event)) FROM dead), 0)
     + coalesce((SELECT sum(octet_length(body)) FROM quarantine), 0)
     + coalesce((SELECT sum(octet_length(events)) FROM waiting), 0)
     + (SELECT greatest(reltuples, 0)::bigint * $1::bigint FROM pg_class WHERE oid = to_regclass('seen'))
"""

_ELSEWHERE = """
WITH queues AS (SELECT name, position FROM sink WHERE parent = $1 AND position IS NOT NULL),
others AS (
    SELECT id LIKE 'replayed %' AS again, size, oldest, holder FROM waiting WHERE sink IN (SELECT name FROM queues)
),
open AS (SELECT first, upto, holder FROM share WHERE sink = $1 AND first < upto)
SELECT greatest(
        (SELECT head FROM log) - (SELECT min(position) FROM queues)
            - (SELECT count(*) FROM dead_ahead, queues WHERE sink = $1 AND name = $1 AND number >= position), 0
    ),
    (SELECT coalesce(sum(upto - first), 0)::bigint FROM open WHERE holder <> $2)
        - (
            SELECT count(*) FROM dead_ahead, open
            WHERE sink = $1 AND holder <> $2 AND number >= first AND number < upto
        ),
    (SELECT coalesce(sum(size), 0)::bigint FROM others WHERE holder <> $2 AND NOT again),
    (SELECT coalesce(sum(size), 0)::bigint FROM others WHERE holder <> $2 AND again),
    least(
        (SELECT min(position) FROM queues WHERE position < (SELECT head FROM log)), (SELECT min(first) FROM open)
    ),
    (SELECT min(oldest) FROM others WHERE NOT again)
"""
_NOT_HERE = """
SELECT first, upto FROM share WHERE sink = $1 AND holder <> $2
UNION ALL SELECT position, $3 FROM sink WHERE name = $1 AND position IS NOT NULL
"""
_FREED = """
SELECT DISTINCT sink, 'share' FROM share WHERE holder = $1 AND first < upto UNION ALL
SELECT DISTINCT sink, 'waiting' FROM waiting WHERE holder = $1
"""


async def received_at(number: int, reader: asyncpg.Connection) -> datetime | None:
    """When the event of this number was received, or the first one after it."""
    at = await reader.fetchval(
        "SELECT received_at FROM page WHERE last >= $1 AND first >= coalesce("  # `last` has no index
        "(SELECT max(first) FROM page WHERE first <= $1), 0) ORDER BY first LIMIT 1",
        number,
    )
    return None if at is None else moment(at)


async def origin(number: int, reader: asyncpg.Connection) -> Origin | None:
    """Where the event of this number came from; None if it is not in the log."""
    row = await reader.fetchrow(
        "SELECT source, about, asked_at, received_at, outcome, last - first + 1"
        " FROM (SELECT * FROM page WHERE first <= $1 ORDER BY first DESC LIMIT 1) AS page WHERE last >= $1",
        number,
    )
    return None if row is None else _origin_of(tuple(row))


@reads_back
def _origin_of(row: tuple[str, bytes, float | None, float, str, int]) -> Origin:
    source, about, asked_at, received, outcome, events = row
    return Origin(
        source=source,
        about=to_text(about),
        asked_at=None if asked_at is None else moment(asked_at),
        received_at=moment(received),
        outcome=outcome,
        events=events,
    )


async def dead_letters(limit: int, chosen: Filter, reader: asyncpg.Connection) -> list[DeadLetter]:
    """Dead letters, newest first."""
    condition, arguments = where(chosen, of="sink", id="event_id", at="died_at", stream="stream_id")
    rows = await reader.fetch(
        f"SELECT {DEAD_COLUMNS} FROM dead WHERE {condition}"  # noqa: S608 - our own words
        f" ORDER BY n DESC LIMIT ${len(arguments) + 1}",
        *arguments,
        limit,
    )
    return readable_rows("dead letter", letter_of, rows)


async def paused(reader: asyncpg.Connection) -> frozenset[str]:
    """The sinks that the operator paused."""
    return frozenset(sink for (sink,) in await reader.fetch("SELECT sink FROM paused WHERE paused"))


async def resumed(reader: asyncpg.Connection) -> dict[str, int]:
    """How often each sink was resumed."""
    return dict(map(tuple, await reader.fetch("SELECT sink, resumed FROM paused")))


async def count_dead(sink: str, reader: asyncpg.Connection) -> int:
    """How many dead letters a sink has."""
    return int(await reader.fetchval("SELECT count(*) FROM dead WHERE sink = $1", sink))


class Elsewhere(msgspec.Struct, frozen=True):
    """What is pending for a sink beside what one session holds.

    ahead:    events that nobody has taken, or that lie behind the position of the slowest lane
    shared:   events in shares of others
    retrying: events that wait for a retry with others, without replayed ones
    replayed: replayed events that wait with others
    lowest:   the lowest number that is not settled, at all sessions; None if there is none
    oldest:   when the oldest event that waits for a retry was received, at all sessions
    """

    ahead: int
    shared: int
    retrying: int
    replayed: int
    lowest: int | None
    oldest: datetime | None


async def elsewhere(sink: str, session: int, reader: asyncpg.Connection) -> Elsewhere:
    """What is pending for a sink beside what one session holds."""
    ahead, shared, retrying, replayed, lowest, oldest = await reader.fetchrow(_ELSEWHERE, sink, session)
    if shared or ahead:
        shared -= await _counted_twice(sink, session, reader)
    return Elsewhere(ahead, shared, retrying, replayed, lowest, None if oldest is None else moment(oldest))


async def _counted_twice(sink: str, session: int, reader: asyncpg.Connection) -> int:
    """How many events lie in shares of others, or beyond the position, and also wait for a retry."""
    stretches = [tuple(row) for row in await reader.fetch(_NOT_HERE, sink, session, LARGEST_NUMBER)]
    rows = await reader.fetch("SELECT numbers FROM waiting WHERE sink = $1", sink)
    marked = {
        number for (number,) in await reader.fetch("SELECT number FROM dead_ahead WHERE sink = $1", sink)
    }
    numbers = [number for (blob,) in rows for number in numbers_of(blob) if number not in marked]
    return sum(any(first <= number < upto for first, upto in stretches) for number in numbers)


async def freed(reader: asyncpg.Connection) -> tuple[frozenset[str], frozenset[str]]:
    """The sinks with shares that nobody holds, and those with waiting batches that nobody holds."""
    rows = await reader.fetch(_FREED, NOBODY)
    return tuple(  # type: ignore[return-value]
        frozenset(sink for sink, kind in rows if kind == wanted) for wanted in ("share", "waiting")
    )


async def quarantined(limit: int, chosen: Filter, reader: asyncpg.Connection) -> list[Quarantined]:
    """The contents of quarantine, newest first."""
    condition, arguments = where(chosen, of="source", id="n::text", at="received_at")
    rows = await reader.fetch(
        f"SELECT {QUARANTINE_COLUMNS} FROM quarantine WHERE {condition}"  # noqa: S608 - our own words
        f" ORDER BY n DESC LIMIT ${len(arguments) + 1}",
        *arguments,
        limit,
    )
    return readable_rows("reject", _reject_of, rows)


@reads_back
def _reject_of(row: Row) -> Quarantined:
    n, source, at, reason, *rest = row
    return quarantined_of((n, source, at, to_text(blob_of(reason)), *rest))


async def quarantine_size(reader: asyncpg.Connection) -> int:
    """How many pieces are in quarantine."""
    return int(await reader.fetchval("SELECT count(*) FROM quarantine"))


def where(
    chosen: Filter, *, of: str, id: str, at: str, stream: str | None = None
) -> tuple[str, list[object]]:
    """A choice as a condition on these columns, with its arguments."""
    streams = None if stream is None or chosen.stream is None else to_bytes(chosen.stream)
    return all_of(
        [
            (f"{of} = {{}}", None if chosen.of is None else as_text(chosen.of)),
            (f"{id} = ANY({{}}::text[])", None if chosen.ids is None else sorted(map(as_text, chosen.ids))),
            ("position({}::bytea IN reason) > 0", None if chosen.reason is None else to_bytes(chosen.reason)),
            (f"{at} < {{}}", None if chosen.before is None else epoch(chosen.before)),
            (f"{at} >= {{}}", None if chosen.since is None else epoch(chosen.since)),
            ("n < {}", chosen.below),
            (f"{stream} = {{}}", streams),
        ]
    )


async def size(pages: PageSizes, reader: asyncpg.Connection) -> int:
    """The bytes of what is stored: events, dead letters, quarantine, and ids as far as the server has counted them.

    The tables themselves do not shrink when rows are deleted, so they say nothing of the room that is left.
    """
    return await pages.total(reader) + int(await reader.fetchval(_SIZE, BYTES_OF_AN_ID))


async def unsettled(sink: str, reader: asyncpg.Connection) -> tuple[int, frozenset[str]]:
    """The number below which a sink has settled everything, but for what waits for it; and the ids of that.

    Replayed events do not count.
    """
    position = await shares.floor(reader, [sink])
    rows = await reader.fetch(
        f"SELECT events FROM waiting WHERE sink {QUEUES} AND id NOT LIKE 'replayed %'",  # noqa: S608
        sink,
    )
    return position or 1, frozenset(event.id for (blob,) in rows for event in events_of(blob))
