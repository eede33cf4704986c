"""What is read from the spool's tables, each by one statement or a few, on the reading connection."""

from datetime import datetime

import asyncpg

from poller.core.history import Origin
from poller.core.model import DeadLetter, Filter, Quarantined
from poller.spools.postgres.conditions import all_of, as_text
from poller.spools.postgres.dead_letters import letter_of
from poller.spools.postgres.schema import to_bytes, to_text
from poller.spools.rows import (
    DEAD_COLUMNS,
    QUARANTINE_COLUMNS,
    Row,
    blob_of,
    epoch,
    moment,
    quarantined_of,
    readable_rows,
    reads_back,
)

BYTES_OF_AN_ID = 130
_SIZE = """
SELECT coalesce((SELECT sum(octet_length(events)) FROM page), 0)
     + coalesce((SELECT sum(octet_length(event)) FROM dead), 0)
     + coalesce((SELECT sum(octet_length(body)) FROM quarantine), 0)
     + coalesce((SELECT sum(octet_length(events)) FROM waiting), 0)
     + (SELECT greatest(reltuples, 0)::bigint * $1::bigint FROM pg_class WHERE oid = to_regclass('seen'))
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
    return frozenset(name for (name,) in await reader.fetch("SELECT name FROM sink WHERE paused"))


async def count_dead(reader: asyncpg.Connection) -> list[tuple[str, int]]:
    """How many dead letters each sink has."""
    rows = await reader.fetch("SELECT sink, count(*) FROM dead GROUP BY sink")
    return [(sink, number) for sink, number in rows]


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


async def size(reader: asyncpg.Connection) -> int:
    """The bytes of what is stored: events, dead letters, quarantine, and ids as far as the server has counted them.

    The tables themselves do not shrink when rows are deleted, so they say nothing of the room that is left.
    """
    return int(await reader.fetchval(_SIZE, BYTES_OF_AN_ID))
