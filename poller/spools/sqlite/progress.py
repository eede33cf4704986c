"""The progress of an event as far as the file says: dead letters, and all about sinks that are not attached."""

import sqlite3
from collections.abc import Collection

from poller.core.history import SinkProgress, Stage
from poller.spools.event_progress import dead_progress, settled_progress, waiting_progress
from poller.spools.rows import DEAD_COLUMNS, dead_of, readable_rows, waiting_of
from poller.spools.sqlite.schema import ahead


def stored(
    number: int, id: str, attached: Collection[str], reader: sqlite3.Connection
) -> dict[str, SinkProgress]:
    """The progress at each sink that has the event as a dead letter, or that is not attached."""
    places = reader.execute("SELECT name, position FROM sink").fetchall()
    found = {sink: _by_position(sink, position, number, reader) for sink, position in places}
    letters = reader.execute(f"SELECT {DEAD_COLUMNS} FROM dead WHERE event_id = ?", (id,))  # noqa: S608
    found |= {letter.sink: dead_progress(letter) for letter in readable_rows("dead letter", dead_of, letters)}
    found |= _waiting(id, reader)
    return {sink: one for sink, one in found.items() if sink not in attached or one.stage is Stage.DEAD}


def _by_position(sink: str, position: int, number: int, reader: sqlite3.Connection) -> SinkProgress:
    if number < position:
        return settled_progress(sink)
    died = reader.execute("SELECT 1 FROM meta WHERE name = ?", (ahead(sink, number),)).fetchone()
    return settled_progress(sink) if died else SinkProgress(sink=sink, stage=Stage.PENDING)


def _waiting(id: str, reader: sqlite3.Connection) -> dict[str, SinkProgress]:
    rows = reader.execute(
        "SELECT sink, id, failed, first_attempt_at, due, history, numbers, events FROM waiting"
        " WHERE instr(events, ?)",
        (id.encode(),),
    )
    found = readable_rows("waiting batch", lambda row: (str(row[0]), waiting_of(row[1:])), rows)
    return {
        sink: waiting_progress(sink, waiting)
        for sink, waiting in found
        if any(event.id == id for _, event in waiting.members)
    }
