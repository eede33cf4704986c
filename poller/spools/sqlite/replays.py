"""Replays in the spool file: reading all of them at the start, and writing a change of one."""

import sqlite3

from poller.core.history import Replay, ReplayState
from poller.core.replays import OPEN
from poller.runtime.failpoints import reached
from poller.spools.history_rows import REPLAYS, replay_of, replay_row, without_row
from poller.spools.places import is_replayed
from poller.spools.replays import KEPT_FINISHED, ReplayChange
from poller.spools.rows import numbers_of, readable_rows, waiting_row
from poller.spools.sqlite.schema import PUT_WAITING
from poller.spools.sqlite.writer import Writer


def stored(reader: sqlite3.Connection) -> list[tuple[Replay, frozenset[str]]]:
    """All replays in the order of their numbers, each with the ids that it leaves out."""
    return readable_rows("replay", replay_of, reader.execute(REPLAYS))


def dead_ids(sink: str, reader: sqlite3.Connection) -> frozenset[str]:
    """The event ids of a sink's dead letters."""
    return frozenset(id for (id,) in reader.execute("SELECT event_id FROM dead WHERE sink = ?", (sink,)))


def count_waiting(sink: str, reader: sqlite3.Connection) -> int:
    """How many replayed events wait for a sink."""
    rows = reader.execute("SELECT numbers FROM waiting WHERE sink = ?", (sink,)).fetchall()
    batches = [numbers_of(numbers) for (numbers,) in rows]
    return sum(len(numbers) for numbers in batches if is_replayed(numbers[0]))


def write(change: ReplayChange, writer: Writer) -> None:
    """Write a change of a replay, and the events that it queues or removes."""
    replay, execute = change.replay, writer.connection.execute
    execute(
        "INSERT OR REPLACE INTO replay VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        replay_row(replay),
    )
    if change.left_out is not None:
        execute(
            "INSERT OR REPLACE INTO replay_without VALUES (?, ?)",
            without_row(replay, change.left_out),
        )
        reached("replay.ordered")
    for waiting in change.put:
        execute(PUT_WAITING, waiting_row(replay.sink, waiting))
    if change.put:
        reached("replay.filled")
    if change.drop:
        _drop_waiting(writer.connection, replay.sink)
    if replay.state not in OPEN:
        _forget(writer.connection, replay)


def _forget(connection: sqlite3.Connection, replay: Replay) -> None:
    """Delete what a finished replay does not need, and the oldest finished replays."""
    connection.execute("DELETE FROM replay_without WHERE n = ?", (replay.number,))
    connection.execute(
        "DELETE FROM replay WHERE n IN (SELECT n FROM replay WHERE state NOT IN (?, ?) ORDER BY n DESC"
        " LIMIT -1 OFFSET ?)",
        (*OPEN, KEPT_FINISHED),
    )
    if replay.state is ReplayState.DONE:
        reached("replay.done")
    else:
        reached("replay.cancelled")


def _drop_waiting(connection: sqlite3.Connection, sink: str) -> None:
    rows = connection.execute("SELECT id, numbers FROM waiting WHERE sink = ?", (sink,)).fetchall()
    gone = [(sink, id) for id, numbers in rows if is_replayed(numbers_of(numbers)[0])]
    connection.executemany("DELETE FROM waiting WHERE sink = ? AND id = ?", gone)
