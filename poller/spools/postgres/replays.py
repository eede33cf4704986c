"""Replays in the spool: reading all of them at the start, and writing a change of one."""

import asyncpg

from poller.core.history import Replay, ReplayState
from poller.core.replays import OPEN
from poller.runtime.failpoints import reached
from poller.spools.history_rows import REPLAYS, replay_of, replay_row, without_row
from poller.spools.places import is_replayed
from poller.spools.postgres.waiting_rows import drop_waiting, put_waiting
from poller.spools.replays import KEPT_FINISHED, ReplayChange
from poller.spools.rows import numbers_of, readable_rows, waiting_row

_PUT = (
    "INSERT INTO replay VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (n) DO UPDATE"
    " SET sink = excluded.sink, chosen = excluded.chosen, at = excluded.at, until = excluded.until,"
    " asked_at = excluded.asked_at, total = excluded.total, queued = excluded.queued, state = excluded.state"
)
_PUT_WITHOUT = "INSERT INTO replay_without VALUES ($1, $2) ON CONFLICT (n) DO UPDATE SET ids = excluded.ids"
_FORGET = (
    "DELETE FROM replay WHERE n IN"
    " (SELECT n FROM replay WHERE state <> ALL($1::text[]) ORDER BY n DESC OFFSET $2)"
)


async def stored(reader: asyncpg.Connection) -> list[tuple[Replay, frozenset[str]]]:
    """All replays in the order of their numbers, each with the ids that it leaves out."""
    return readable_rows("replay", replay_of, map(tuple, await reader.fetch(REPLAYS)))


async def dead_ids(sink: str, reader: asyncpg.Connection) -> frozenset[str]:
    """The event ids of a sink's dead letters."""
    return frozenset(id for (id,) in await reader.fetch("SELECT event_id FROM dead WHERE sink = $1", sink))


async def count_waiting(sink: str, reader: asyncpg.Connection) -> int:
    """How many replayed events wait for a sink."""
    rows = await reader.fetch("SELECT numbers FROM waiting WHERE sink = $1", sink)
    batches = [numbers_of(numbers) for (numbers,) in rows]
    return sum(len(numbers) for numbers in batches if is_replayed(numbers[0]))


async def write(change: ReplayChange, connection: asyncpg.Connection) -> None:
    """Write a change of a replay, and the events that it queues or removes."""
    replay = change.replay
    await connection.execute(_PUT, *replay_row(replay))
    if change.left_out is not None:
        await connection.execute(_PUT_WITHOUT, *without_row(replay, change.left_out))
        reached("replay.ordered")
    if change.put:
        await put_waiting(connection, [waiting_row(replay.sink, waiting) for waiting in change.put])
        reached("replay.filled")
    if change.drop:
        await _drop_waiting(connection, replay.sink)
    if replay.state not in OPEN:
        await _forget(connection, replay)


async def _forget(connection: asyncpg.Connection, replay: Replay) -> None:
    """Delete what a finished replay does not need, and the oldest finished replays."""
    await connection.execute("DELETE FROM replay_without WHERE n = $1", replay.number)
    await connection.execute(_FORGET, [state.value for state in OPEN], KEPT_FINISHED)
    if replay.state is ReplayState.DONE:
        reached("replay.done")
    else:
        reached("replay.cancelled")


async def _drop_waiting(connection: asyncpg.Connection, sink: str) -> None:
    rows = await connection.fetch("SELECT id, numbers FROM waiting WHERE sink = $1", sink)
    await drop_waiting(
        connection, [(sink, id) for id, numbers in rows if is_replayed(numbers_of(numbers)[0])]
    )
