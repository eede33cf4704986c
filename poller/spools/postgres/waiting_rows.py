"""The rows of `waiting`: the batches that wait for a retry, written and deleted many at once."""

from collections.abc import Collection, Iterable

import asyncpg

from poller.spools.postgres.conditions import arrays, spread
from poller.spools.rows import Row

WAITING_COLUMNS = "id, failed, first_attempt_at, due, history, numbers, events"

_PUT = (
    f"INSERT INTO waiting (sink, {WAITING_COLUMNS})"  # noqa: S608 - our own words
    f" SELECT * FROM {spread('text', 'text', 'bigint', 'float8', 'float8', 'bytea', 'bytea', 'bytea')}"
    " ON CONFLICT (sink, id) DO UPDATE SET failed = excluded.failed,"
    " first_attempt_at = excluded.first_attempt_at, due = excluded.due, history = excluded.history,"
    " numbers = excluded.numbers, events = excluded.events"
)
_DROP = (
    f"DELETE FROM waiting USING {spread('text', 'text')} AS gone (sink, id)"  # noqa: S608 - our own words
    " WHERE waiting.sink = gone.sink AND waiting.id = gone.id"
)


async def put_waiting(connection: asyncpg.Connection, rows: Iterable[Row]) -> None:
    """Write batches, in place of those with the same ids. Of two with the same id, the last counts."""
    if put := {row[:2]: row for row in rows}:
        await connection.execute(_PUT, *arrays(put.values()))


async def drop_waiting(connection: asyncpg.Connection, keys: Collection[tuple[str, str]]) -> None:
    """Delete batches, by sink and id."""
    if keys:
        await connection.execute(_DROP, *arrays(keys))
