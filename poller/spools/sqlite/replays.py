"""Replays in the spool file: reading all of them at the start, and writing a change of one."""

import sqlite3

import msgspec

from poller.core.history import Replay, ReplayState
from poller.core.replays import OPEN
from poller.core.selection import Selection
from poller.runtime.failpoints import reached
from poller.spools.places import is_replayed
from poller.spools.replays import KEPT_FINISHED, ReplayChange
from poller.spools.rows import Row, epoch, moment, readable_rows, reads_back, typed, waiting_row
from poller.spools.sqlite.schema import PUT_WAITING
from poller.spools.sqlite.writer import Writer

_chosen = msgspec.json.Decoder(Selection)
_ids = msgspec.json.Decoder(frozenset[str])
_numbers = msgspec.json.Decoder(list[int])
ReplayRow = tuple[int, str, bytes, int, int, float, int, int, ReplayState, bytes]


def stored(reader: sqlite3.Connection) -> list[tuple[Replay, frozenset[str]]]:
    """All replays in the order of their numbers, each with the ids that it leaves out."""
    rows = reader.execute(
        "SELECT replay.n, sink, chosen, at, until, asked_at, total, queued, state, coalesce(ids, x'5b5d')"
        " FROM replay LEFT JOIN replay_without ON replay.n = replay_without.n ORDER BY replay.n"
    )
    return readable_rows("replay", _replay_of, rows)


@reads_back
def _replay_of(row: Row) -> tuple[Replay, frozenset[str]]:
    number, sink, chosen, at, until, asked_at, total, queued, state, ids = typed(row, ReplayRow)
    replay = Replay(
        number=number,
        sink=sink,
        chosen=_chosen.decode(chosen),
        at=at,
        until=until,
        asked_at=moment(asked_at),
        total=total,
        queued=queued,
        state=state,
    )
    return replay, _ids.decode(ids)


def dead_ids(sink: str, reader: sqlite3.Connection) -> frozenset[str]:
    """The event ids of a sink's dead letters."""
    return frozenset(id for (id,) in reader.execute("SELECT event_id FROM dead WHERE sink = ?", (sink,)))


def count_waiting(sink: str, reader: sqlite3.Connection) -> int:
    """How many replayed events wait for a sink."""
    rows = reader.execute("SELECT numbers FROM waiting WHERE sink = ?", (sink,)).fetchall()
    batches = [_numbers_of(numbers) for (numbers,) in rows]
    return sum(len(numbers) for numbers in batches if is_replayed(numbers[0]))


def write(change: ReplayChange, writer: Writer) -> None:
    """Write a change of a replay, and the events that it queues or removes."""
    replay, execute = change.replay, writer.connection.execute
    execute(
        "INSERT OR REPLACE INTO replay VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            replay.number,
            replay.sink,
            msgspec.json.encode(replay.chosen),
            replay.at,
            replay.until,
            epoch(replay.asked_at),
            replay.total,
            replay.queued,
            replay.state.value,
        ),
    )
    if change.left_out is not None:
        execute(
            "INSERT OR REPLACE INTO replay_without VALUES (?, ?)",
            (replay.number, msgspec.json.encode(sorted(change.left_out))),
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
    gone = [(sink, id) for id, numbers in rows if is_replayed(_numbers_of(numbers)[0])]
    connection.executemany("DELETE FROM waiting WHERE sink = ? AND id = ?", gone)


@reads_back
def _numbers_of(numbers: bytes) -> list[int]:
    return _numbers.decode(numbers)
