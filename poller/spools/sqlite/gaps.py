"""The rows of `gap`: pictures that are missing between two pictures of the same task."""

import sqlite3
from collections.abc import Sequence

from poller.core.history import GAPS_KEPT, Gap, LatePicture
from poller.core.selection import Selection
from poller.runtime.clock import Clock
from poller.spools.history_rows import GAP_COLUMNS, gap_of, gap_row
from poller.spools.retention import PRUNE_STEP
from poller.spools.rows import epoch, readable_rows
from poller.spools.sqlite.pruning import is_old

_PUT = f"INSERT OR IGNORE INTO gap ({GAP_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own words
_FILL = (
    "UPDATE gap SET filled = min(missing, filled + 1)"
    " WHERE account = ? AND stream_id = ? AND from_at < ? AND to_at > ?"
)


def put_gaps(connection: sqlite3.Connection, gaps: Sequence[Gap], late: Sequence[LatePicture]) -> None:
    """Add the gaps that are new. Then each late picture fills the gap that it lies in."""
    connection.executemany(_PUT, map(gap_row, gaps))
    for picture in late:
        at = epoch(picture.taken_at)
        connection.execute(_FILL, (picture.account, picture.stream_id, at, at))


def gaps(chosen: Selection, limit: int, reader: sqlite3.Connection) -> list[Gap]:
    """The selected gaps, those that end last first."""
    parts: list[tuple[str, object]] = [
        ("account = ?", chosen.account),
        ("stream_id = ?", chosen.stream),
        ("to_at > ?", None if chosen.taken_since is None else epoch(chosen.taken_since)),
        ("from_at < ?", None if chosen.taken_until is None else epoch(chosen.taken_until)),
    ]
    given = [(condition, argument) for condition, argument in parts if argument is not None]
    condition = " AND ".join(["1", *(condition for condition, _ in given)])
    rows = reader.execute(
        f"SELECT {GAP_COLUMNS} FROM gap WHERE {condition} ORDER BY to_at DESC, id LIMIT ?",  # noqa: S608 - our own words
        (*(argument for _, argument in given), limit),
    )
    return readable_rows("gap", gap_of, rows)


def prune_gaps(connection: sqlite3.Connection, clock: Clock, retain: float) -> bool:
    """Delete some gaps that ended long ago; true if there may be more."""
    condition, ends = is_old("to_at", clock.young(max(retain, GAPS_KEPT)))
    gone = connection.execute(
        f"DELETE FROM gap WHERE id IN (SELECT id FROM gap WHERE {condition} LIMIT ?)",  # noqa: S608 - our own words
        (*ends, PRUNE_STEP),
    )
    return gone.rowcount == PRUNE_STEP
