"""What the queues of the sinks have changed: their positions, their waiting batches and their dead letters."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from poller.runtime.failpoints import reached
from poller.spools.postgres.books import count_settled
from poller.spools.postgres.conditions import arrays, spread
from poller.spools.postgres.dead_letters import put_dead
from poller.spools.postgres.delivered import record
from poller.spools.postgres.page_times import number_at
from poller.spools.postgres.waiting_rows import WAITING_COLUMNS, drop_waiting, put_waiting
from poller.spools.rows import Row, waiting_of, waiting_row
from poller.spools.sink_queue import Changes
from poller.spools.waiting import Waiting

_PUT_AHEAD = f"INSERT INTO dead_ahead SELECT * FROM {spread('text', 'bigint')} ON CONFLICT DO NOTHING"  # noqa: S608
_MOVE = (
    f"WITH moved AS (SELECT * FROM {spread('text', 'bigint')} AS moved (sink, position)),"  # noqa: S608 - our own words
    " passed AS (DELETE FROM dead_ahead USING moved"
    " WHERE dead_ahead.sink = moved.sink AND number < moved.position)"
    " UPDATE sink SET position = moved.position FROM moved WHERE name = moved.sink"
)


async def apply(connection: asyncpg.Connection, due: Sequence[Changes]) -> None:
    """Write changes, in their order."""
    if not due:
        return
    await _write_waiting(connection, due)
    await put_dead(connection, [letter for changes in due for letter in changes.dead])
    if ahead := [(changes.sink, number) for changes in due for number in changes.dead_ahead]:
        await connection.execute(_PUT_AHEAD, *arrays(ahead))
    reached("settlements.written")
    await record(connection, due)
    await count_settled(connection, due)
    await connection.execute(_MOVE, *arrays({changes.sink: changes.position for changes in due}.items()))


async def _write_waiting(connection: asyncpg.Connection, due: Sequence[Changes]) -> None:
    """Delete and put the waiting batches of changes. The last that is said of a batch counts."""
    said: dict[tuple[str, str], Row | None] = {}
    for changes in due:
        said |= {(changes.sink, id): None for id in changes.dropped}
        said |= {(changes.sink, waiting.id): waiting_row(changes.sink, waiting) for waiting in changes.put}
    await drop_waiting(connection, [key for key, row in said.items() if row is None])
    await put_waiting(connection, [row for row in said.values() if row is not None])


async def attach(
    connection: asyncpg.Connection, sink: str, start: datetime | None, following: int
) -> tuple[int, list[Waiting], list[int], bool]:
    """A sink's position, its waiting batches, the numbers of its dead letters from the position on, and whether it
    is new.

    The position of a new sink is that of the first event received at `start` or later; by default the end of the
    log. `following` is the number of the next event.
    """
    position = await connection.fetchval("SELECT position FROM sink WHERE name = $1", sink)
    is_new = position is None
    if is_new:
        position = following if start is None else await number_at(start, following, connection)
        await connection.execute("INSERT INTO sink (name, position) VALUES ($1, $2)", sink, position)
    rows = await connection.fetch(
        f'SELECT {WAITING_COLUMNS} FROM waiting WHERE sink = $1 ORDER BY id COLLATE "C"',  # noqa: S608 - our own words
        sink,
    )
    ahead = await connection.fetch("SELECT number FROM dead_ahead WHERE sink = $1 ORDER BY number", sink)
    return position, [waiting_of(tuple(row)) for row in rows], [number for (number,) in ahead], is_new


async def ordered_since(connection: asyncpg.Connection, sink: str, ordered: bool, begin: int) -> int | None:
    """The number from which on an ordered sink has been served in order; None for a sink without ordering.

    A sink that becomes ordered now is served in order from the number `begin` on.
    """
    since: int | None = await connection.fetchval(
        "UPDATE sink SET since = CASE WHEN $2 THEN coalesce(since, $3) END WHERE name = $1 RETURNING since",
        sink,
        ordered,
        begin,
    )
    return since


async def pause(connection: asyncpg.Connection, sink: str, paused: bool) -> None:
    """Record whether the operator paused a sink."""
    await connection.execute("UPDATE sink SET paused = $2 WHERE name = $1", sink, paused)
