"""Who delivered which events: writing the rows of `delivered` and `redelivered`, finding them, and deleting them."""

from collections.abc import Sequence

import asyncpg

from poller.core.history import Delivery
from poller.core.model import LARGEST_NUMBER
from poller.spools.delivered import LONGEST_ROW, rows
from poller.spools.history_rows import (
    AGAIN_COLUMNS,
    DELIVERED_COLUMNS,
    DELIVERY_COLUMNS,
    again_rows,
    delivered_of,
    delivered_row,
    delivery_of,
)
from poller.spools.postgres.conditions import affected, arrays, as_text, is_old, spread
from poller.spools.retention import Stretches
from poller.spools.rows import readable_rows
from poller.spools.sink_queue import Changes

PRUNED_AT_ONCE = 2_000

_ROWS = spread("text", "float8", "bigint", "bigint", "bytea", "bigint", "bigint", "bytea")
_PUT = f"INSERT INTO delivered ({DELIVERED_COLUMNS}) SELECT * FROM {_ROWS}"  # noqa: S608 - our own words
_AGAIN = spread("text", "text", "float8", "bigint", "bigint", "bytea")
_PUT_AGAIN = f"INSERT INTO redelivered ({AGAIN_COLUMNS}) SELECT * FROM {_AGAIN}"  # noqa: S608 - our own words


async def record(connection: asyncpg.Connection, due: Sequence[Changes]) -> None:
    """Record what settlements have delivered."""
    settled = [(changes.sink, done) for changes in due if (done := changes.settled) is not None]
    if found := [delivered_row(one) for one in rows(settled)]:
        await connection.execute(_PUT, *arrays(found))
    if again := [row for sink, done in settled for row in again_rows(sink, done)]:
        await connection.execute(_PUT_AGAIN, *arrays(again))


async def deliveries(number: int, id: str, reader: asyncpg.Connection) -> list[Delivery]:
    """See `SpoolHistory.deliveries`."""
    near = await reader.fetch(
        f"SELECT {DELIVERED_COLUMNS} FROM delivered"  # noqa: S608 - our own words
        " WHERE last BETWEEN $1 AND $2 AND first <= $1 ORDER BY n",
        number,
        min(number + LONGEST_ROW - 1, LARGEST_NUMBER),
    )
    again = await reader.fetch(
        f"SELECT {DELIVERY_COLUMNS} FROM redelivered WHERE event_id = $1 ORDER BY n",  # noqa: S608 - our own words
        as_text(id),
    )
    covering = readable_rows("delivery", delivered_of, map(tuple, near))
    found = [one.delivery for one in covering if one.covers(number)]
    found += readable_rows("delivery", delivery_of, map(tuple, again))
    return sorted(found, key=lambda one: one.at)


async def prune_delivered(connection: asyncpg.Connection, following: int, young: Stretches) -> bool:
    """Delete a step of the rows whose events are gone, and of old rows without numbers; true if there may be more.

    `following` is the number of the next event.
    """
    first = await connection.fetchval("SELECT min(first) FROM page")
    full = await _delete(
        connection, "delivered", "last < $1", "last", [following if first is None else first]
    )
    condition, ends = is_old("at", young)
    return full | await _delete(connection, "redelivered", condition, "at", ends)


async def _delete(
    connection: asyncpg.Connection, table: str, old: str, order: str, arguments: Sequence[object]
) -> bool:
    gone = await connection.execute(
        f"DELETE FROM {table} WHERE n IN"  # noqa: S608 - our own words
        f" (SELECT n FROM {table} WHERE {old} ORDER BY {order} LIMIT {PRUNED_AT_ONCE})",
        *arguments,
    )
    return affected(gone) == PRUNED_AT_ONCE
