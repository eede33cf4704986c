"""Replays in the spool: reading all of them at the start, and writing a change of one."""

import asyncpg

from poller.core.history import Replay, ReplayState
from poller.core.replays import OPEN
from poller.runtime.failpoints import reached
from poller.spools.history_rows import REPLAYS, replay_of, replay_row, without_row
from poller.spools.places import is_replayed
from poller.spools.postgres.modes import mode_of, put_unheld
from poller.spools.postgres.sessions import CHANGED, FREED, notify
from poller.spools.postgres.waiting_rows import QUEUES, drop_waiting, put_waiting
from poller.spools.replays import KEPT_FINISHED, ReplayChange
from poller.spools.rows import numbers_of, readable_rows


class Overtaken(Exception):
    """Another daemon has changed the replay."""


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
    rows = await reader.fetch(f"SELECT numbers FROM waiting WHERE sink {QUEUES}", sink)  # noqa: S608
    batches = [numbers_of(numbers) for (numbers,) in rows]
    return sum(len(numbers) for numbers in batches if is_replayed(numbers[0]))


async def floor(connection: asyncpg.Connection) -> int | None:
    """The first number that an open replay of a sink that is served has yet to look at; None without one."""
    needed: int | None = await connection.fetchval(
        "SELECT min(at) FROM replay WHERE state = ANY($1::text[]) AND sink IN (SELECT sink FROM attached)",
        [state.value for state in OPEN],
    )
    return needed


async def next_number(connection: asyncpg.Connection) -> int:
    """The number of a new replay."""
    return int(await connection.fetchval("SELECT nextval('replay_number')"))


async def write(
    change: ReplayChange, session: int, before: Replay | None, connection: asyncpg.Connection
) -> None:
    """Write a change of a replay, and the events that it queues or removes.

    `before` is the replay as the caller knew it; None for a new one. Raises `Overtaken` if it is another by now.
    """
    replay = change.replay
    row = await connection.fetchrow(
        "SELECT state, at, queued FROM replay WHERE n = $1 FOR UPDATE", replay.number
    )
    known = None if before is None else (before.state.value, before.at, before.queued)
    if (None if row is None else tuple(row)) != known:
        raise Overtaken
    await connection.execute(_PUT, *replay_row(replay))
    if change.left_out is not None:
        await connection.execute(_PUT_WITHOUT, *without_row(replay, change.left_out))
        reached("replay.ordered")
    if change.put:
        await _queue(connection, session, change)
        reached("replay.filled")
    if not change.put or before is None or before.state is not replay.state:
        await notify(connection, CHANGED)
    if change.drop:
        await _drop_waiting(connection, replay.sink)
    if replay.state not in OPEN:
        await _forget(connection, replay)


async def _queue(connection: asyncpg.Connection, session: int, change: ReplayChange) -> None:
    """Queue events: with this session, or for whoever serves their lane."""
    sink = change.replay.sink
    if (await mode_of(connection, sink)).lanes == 1:
        await put_waiting(connection, session, [(sink, waiting) for waiting in change.put])
    else:
        await put_unheld(connection, sink, change.put)
        await notify(connection, FREED)


async def _forget(connection: asyncpg.Connection, replay: Replay) -> None:
    """Delete what a finished replay does not need, and the oldest finished replays."""
    await connection.execute("DELETE FROM replay_without WHERE n = $1", replay.number)
    await connection.execute(_FORGET, [state.value for state in OPEN], KEPT_FINISHED)
    if replay.state is ReplayState.DONE:
        reached("replay.done")
    else:
        reached("replay.cancelled")


async def _drop_waiting(connection: asyncpg.Connection, sink: str) -> None:
    rows = await connection.fetch(
        f"SELECT sink, id, numbers FROM waiting WHERE sink {QUEUES}",  # noqa: S608 - our own words
        sink,
    )
    await drop_waiting(
        connection, [(key, id) for key, id, numbers in rows if is_replayed(numbers_of(numbers)[0])]
    )
