"""The number of the first event received since a moment, found by bisection.

Pages are received nearly in the order of their numbers. A page is *late* if it was received more than `SLACK` before
an earlier page: the clock was set back, or the page lay in the journal or in quarantine. `meta` has a row `late NUMBER`
for each late page, with the time of its receipt. Between two late pages, times go back by less than `SLACK`, so that a
bisection is right but for the pages of a few seconds, which are read one by one.
"""

import sqlite3
from datetime import datetime

from poller.core.model import LARGEST_NUMBER
from poller.spools.rows import epoch, reads_back

SLACK = 2.0
_RECENT = 100
"""Pages whose times are read at the start."""
_PREFIX = "late "


def _name(first: int) -> str:
    return f"{_PREFIX}{first:020}"


class PageTimes:
    """Notes late pages, inside the writer's transactions. The writer calls `keep` or `discard` after each."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        recent = "SELECT received_at FROM page ORDER BY first DESC LIMIT ?"
        row = connection.execute(f"SELECT max(received_at) FROM ({recent})", (_RECENT,)).fetchone()  # noqa: S608
        self._newest = self._kept = float(row[0] or 0.0)

    def note(self, first: int, received_at: float) -> None:
        """Note the page that is about to be written."""
        if received_at < self._newest - SLACK:
            note_late(self._connection, first, received_at)
            self._newest = received_at
        elif received_at > self._newest:
            self._newest = received_at

    def keep(self) -> None:
        """The transaction is durable."""
        self._kept = self._newest

    def discard(self) -> None:
        """The transaction was rolled back."""
        self._newest = self._kept


def note_late(connection: sqlite3.Connection, first: int, received_at: float) -> None:
    """Write that a page is late."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_name(first), repr(received_at)))


def forget_late(connection: sqlite3.Connection, below: int) -> None:
    """Delete the rows of late pages below a number, which were pruned."""
    connection.execute("DELETE FROM meta WHERE name >= ? AND name < ?", (_PREFIX, _name(below)))


@reads_back
def number_at(at: datetime, head: int, reader: sqlite3.Connection) -> int:
    """The number behind the last page that was received before a moment, or the first number."""
    before, high = epoch(at), LARGEST_NUMBER
    for low, least in [*_late(reader), (0, float("-inf"))]:
        if least - SLACK < before:
            last = _last_before(before, low, high, reader)
            if last is not None:
                return last + 1
        high = low - 1
    first = reader.execute("SELECT min(first) FROM page").fetchone()[0]
    return head if first is None else int(first)


def _late(reader: sqlite3.Connection) -> list[tuple[int, float]]:
    """The late pages and their times, newest first."""
    rows = reader.execute(
        "SELECT name, value FROM meta WHERE name BETWEEN ? AND ? ORDER BY name DESC",
        (_name(0), _name(LARGEST_NUMBER)),
    )
    return [(int(name.removeprefix(_PREFIX)), float(value)) for name, value in rows]


def _last_before(before: float, low: int, high: int, reader: sqlite3.Connection) -> int | None:
    """The last number of the last page from `low` to `high` that was received before an epoch."""
    top = reader.execute("SELECT max(first) FROM page WHERE first <= ?", (high,)).fetchone()[0]
    left, right = low, -1 if top is None else int(top)
    while left <= right:  # no page beyond `right` was received before the epoch
        middle = (left + right) // 2
        row = reader.execute(
            "SELECT first, received_at FROM page WHERE first BETWEEN ? AND ? ORDER BY first DESC LIMIT 1",
            (low, middle),
        ).fetchone()
        if row is not None and row[1] >= before + 2 * SLACK:
            right = row[0] - 1
        else:
            left = middle + 1
    pages = reader.execute(
        "SELECT last, received_at FROM page WHERE first BETWEEN ? AND ? ORDER BY first DESC", (low, right)
    )
    return next((int(last) for last, received_at in pages if received_at < before), None)
