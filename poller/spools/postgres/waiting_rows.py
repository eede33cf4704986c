"""The rows of `waiting`: the batches that wait for a retry, written and deleted many at once."""

from collections.abc import Collection, Iterable

import asyncpg

from poller.spools.postgres.conditions import arrays, spread
from poller.spools.rows import Row, epoch, waiting_row
from poller.spools.waiting import Waiting

QUEUES = "IN (SELECT name FROM sink WHERE parent = $1)"
"""A condition: the queue is one of the sink that is the first argument."""
WAITING_COLUMNS = "id, failed, first_attempt_at, due, history, numbers, events"

_KINDS = (
    "text",
    "text",
    "bigint",
    "float8",
    "float8",
    "bytea",
    "bytea",
    "bytea",
    "bigint",
    "bigint",
    "float8",
)
_PUT = (
    f"INSERT INTO waiting (sink, {WAITING_COLUMNS}, holder, size, oldest) SELECT * FROM {spread(*_KINDS)}"  # noqa: S608
    " ON CONFLICT (sink, id) DO UPDATE SET failed = excluded.failed,"
    " first_attempt_at = excluded.first_attempt_at, due = excluded.due, history = excluded.history,"
    " numbers = excluded.numbers, events = excluded.events, holder = excluded.holder, size = excluded.size,"
    " oldest = excluded.oldest"
)
_DROP = (
    f"DELETE FROM waiting USING {spread('text', 'text')} AS gone (sink, id)"  # noqa: S608 - our own words
    " WHERE waiting.sink = gone.sink AND waiting.id = gone.id"
)


async def put_waiting(
    connection: asyncpg.Connection, holder: int, batches: Iterable[tuple[str, Waiting]]
) -> None:
    """Write batches of sinks, which a session holds, in place of those with the same ids.

    Of two with the same id, the last counts.
    """
    if put := {(sink, waiting.id): _row(sink, waiting, holder) for sink, waiting in batches}:
        await connection.execute(_PUT, *arrays(put.values()))


def _row(sink: str, waiting: Waiting, holder: int) -> Row:
    oldest = min(event.received_at for _, event in waiting.members)
    return (*waiting_row(sink, waiting), holder, len(waiting.members), epoch(oldest))


async def drop_waiting(connection: asyncpg.Connection, keys: Collection[tuple[str, str]]) -> None:
    """Delete batches, by sink and id."""
    if keys:
        await connection.execute(_DROP, *arrays(keys))


async def count(connection: asyncpg.Connection, sink: str) -> int:
    """How many events wait for a sink, at all daemons."""
    return int(
        await connection.fetchval(
            f"SELECT coalesce(sum(size), 0)::bigint FROM waiting WHERE sink {QUEUES}",  # noqa: S608
            sink,
        )
    )
