"""What the queues of the sinks have changed: their positions, their waiting batches and their dead letters."""

from collections.abc import Sequence

import asyncpg

from poller.runtime.failpoints import reached
from poller.spools.postgres import shares
from poller.spools.postgres.books import count_settled
from poller.spools.postgres.conditions import arrays, spread
from poller.spools.postgres.dead_letters import put_dead
from poller.spools.postgres.delivered import record
from poller.spools.postgres.waiting_rows import drop_waiting, put_waiting
from poller.spools.sink_queue import Changes
from poller.spools.waiting import Waiting

_PUT_AHEAD = f"INSERT INTO dead_ahead SELECT * FROM {spread('text', 'bigint')} ON CONFLICT DO NOTHING"  # noqa: S608
_MOVE = (
    f"WITH moved AS (SELECT * FROM {spread('text', 'bigint')} AS moved (sink, position)),"  # noqa: S608 - our own words
    " passed AS (DELETE FROM dead_ahead USING moved"
    " WHERE dead_ahead.sink = moved.sink AND number < moved.position)"
    " UPDATE sink SET position = moved.position FROM moved WHERE name = moved.sink"
)

_PAUSE = """
INSERT INTO paused VALUES ($1, $2, CASE WHEN $2 THEN 0 ELSE 1 END) ON CONFLICT (sink) DO UPDATE
SET paused = excluded.paused, resumed = paused.resumed + excluded.resumed
"""


async def apply(connection: asyncpg.Connection, session: int, due: Sequence[Changes]) -> None:
    """Write changes of a session's queues, in their order. Raises `Fenced` if a share is not held any more."""
    if not due:
        return
    await _write_waiting(connection, session, due)
    await put_dead(connection, [letter for changes in due for letter in changes.dead])
    if ahead := [(changes.key, number) for changes in due for number in changes.dead_ahead]:
        await connection.execute(_PUT_AHEAD, *arrays(ahead))
    reached("settlements.written")
    await record(connection, due)
    await count_settled(connection, session, due)
    await shares.move(connection, session, due)
    if positions := {changes.key: changes.position for changes in due if changes.position}:
        await connection.execute(_MOVE, *arrays(positions.items()))


async def _write_waiting(connection: asyncpg.Connection, session: int, due: Sequence[Changes]) -> None:
    """Delete and put the waiting batches of changes. Where several changes name a batch, the last one counts."""
    latest: dict[tuple[str, str], Waiting | None] = {}
    for changes in due:
        latest |= {(changes.key, id): None for id in changes.dropped}
        latest |= {(changes.key, waiting.id): waiting for waiting in changes.put}
    await drop_waiting(connection, [key for key, waiting in latest.items() if waiting is None])
    await put_waiting(
        connection, session, [(sink, waiting) for (sink, _), waiting in latest.items() if waiting is not None]
    )


async def pause(connection: asyncpg.Connection, sink: str, paused: bool) -> None:
    """Record that the operator paused a sink, or resumed it."""
    await connection.execute(_PAUSE, sink, paused)
