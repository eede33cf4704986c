"""Deletes settled and old rows, in bounded steps inside the writer's transactions."""

from typing import Final

import asyncpg

from poller.core.catalogue import Catalogue
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.spools.postgres.conditions import is_old
from poller.spools.postgres.schema import to_bytes
from poller.spools.postgres.sessions import NOBODY
from poller.spools.retention import MEMORY_KEPT, PRUNE_STEP, STREAMS_KEPT, Stretches

MOST_AHEAD: Final = 3600.0
"""Seconds by which a daemon's clock may be ahead of the database's while it deletes what is old."""

_FORGET_STREAMS = """
DELETE FROM stream USING unnest($1::text[], $2::bytea[]) AS gone(account, stream_id)
WHERE stream.account = gone.account AND stream.stream_id = gone.stream_id
"""

_FORGET_AHEAD = """
DELETE FROM dead_ahead USING sink WHERE sink = name AND number < least(
    position, (SELECT min(first) FROM share WHERE share.sink = name AND first < upto)
)
"""


async def database_time(connection: asyncpg.Connection) -> float:
    """The database's clock, as an epoch in seconds."""
    return float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())"))


async def prune_pages(connection: asyncpg.Connection, floor: int, young: Stretches, step: int) -> bool:
    """Delete the oldest `step` pages of the log, as far as they end below `floor` and are old.

    True when all of them were deleted: then there may be more.
    """
    rows = await connection.fetch("SELECT first, last, received_at FROM page ORDER BY first LIMIT $1", step)
    old = [
        first
        for first, last, at in rows
        if last < floor and not any(start <= at <= end for start, end in young)
    ]
    if old:
        await connection.execute("DELETE FROM page WHERE first = ANY($1::bigint[])", old)
    reached("prune.written")
    return len(old) == step


async def prune_settled_ahead(connection: asyncpg.Connection) -> None:
    """Forget which numbers were settled ahead, where every share has passed them, and empty shares of nobody."""
    await connection.execute("DELETE FROM share WHERE holder = $1 AND first >= upto", NOBODY)
    await connection.execute(_FORGET_AHEAD)


async def older(connection: asyncpg.Connection, table: str, column: str, young: Stretches) -> list[int]:
    """The numbers of a table's oldest rows that are old, at most `PRUNE_STEP` of them."""
    condition, ends = is_old(column, young)
    rows = await connection.fetch(
        f"SELECT n FROM {table} WHERE {condition} ORDER BY {column} LIMIT {PRUNE_STEP}",  # noqa: S608 - our own words
        *ends,
    )
    return [n for (n,) in rows]


async def prune_streams(connection: asyncpg.Connection, catalogue: Catalogue, clock: Clock) -> None:
    """Forget streams that were last seen long ago, and old memories of sources about streams."""
    gone = catalogue.forget(lambda stream: clock.age(stream.last_seen) > STREAMS_KEPT)
    if gone:
        accounts, ids = zip(*gone, strict=True)
        await connection.execute(_FORGET_STREAMS, accounts, list(map(to_bytes, ids)))
    condition, ends = is_old("changed_at", clock.young(MEMORY_KEPT))
    await connection.execute(f"DELETE FROM source WHERE about <> '' AND {condition}", *ends)  # noqa: S608 - our own words
