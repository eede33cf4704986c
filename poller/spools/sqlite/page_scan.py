"""One step of a scan of the log: the index says which pages may hold selected events, and only these are read.

A step looks at one window of the index after the other, and reads pages, until its time is up. Pages without an index
row are all read.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import msgspec

from poller.core.model import LARGEST_NUMBER
from poller.core.selection import Numbered, Scan, Selection
from poller.spools.pages import check_page, second_of
from poller.spools.rows import Row, blob_of, epoch, event_of, readable_rows, reads_back
from poller.spools.sqlite.page_index import (
    ENTRY,
    entries,
    head_of,
    stream_hash,
    unindexed,
)

WINDOW = 400
"""Index rows that are searched at once, in less than a millisecond."""
WINDOW_UNINDEXED = 50
STEP = 0.012
"""Seconds after which a step reads no further page."""
MOST_ALTERNATIVES = 32
"""Ids or kinds that SQLite compares; for more of them, every page is read."""


class Narrow(msgspec.Struct, frozen=True, kw_only=True):
    """A selection as the index sees it. None does not restrict."""

    stream: bytes | None
    heads: frozenset[bytes] | None
    low: int | None
    high: int | None


def narrow(chosen: Selection) -> Narrow:
    """What the arrays of a page can tell about a selection."""
    return Narrow(
        stream=None if chosen.stream is None else stream_hash(chosen.stream),
        heads=frozenset(map(head_of, chosen.ids)) if chosen.ids else None,
        low=_second(chosen.taken_since),
        high=_second(chosen.taken_until),
    )


def _second(at: datetime | None) -> int | None:
    return None if at is None else second_of(at)


def condition(chosen: Selection, narrowed: Narrow) -> tuple[str, list[object]]:
    """An SQL condition on index rows, with its arguments: the page may hold selected events."""
    parts: list[tuple[str, object]] = [
        ("received_to >= ?", None if chosen.since is None else epoch(chosen.since)),
        ("i.received_at < ?", None if chosen.until is None else epoch(chosen.until)),
        ("newest >= ?", narrowed.low),
        ("oldest <= ?", narrowed.high),
        ("instr(streams, ?) > 0", narrowed.stream),
    ]
    given = [(one, [argument]) for one, argument in parts if argument is not None]
    given += _any_of("instr(ids, ?) > 0", narrowed.heads)
    given += _any_of("instr(' ' || kinds || ' ', ?) > 0", [f" {kind} " for kind in chosen.kinds] or None)
    return " AND ".join(["1", *(one for one, _ in given)]), [one for _, some in given for one in some]


def _any_of(one: str, arguments: Iterable[object] | None) -> list[tuple[str, list[object]]]:
    found = None if arguments is None else list(arguments)
    if found is None or len(found) > MOST_ALTERNATIVES:
        return []
    return [(f"({' OR '.join(['0', *[one] * len(found)])})", found)]


# ---------------------------------------------------------------- the pages of a step


class Window(msgspec.Struct, frozen=True):
    """The pages of a step, by their first numbers. `indexed` says that all of them have an index row."""

    low: int
    high: int
    indexed: bool


def next_window(start: int | None, newest_first: bool, reader: sqlite3.Connection) -> Window | None:
    """The pages from `start` on, in the direction of the scan; None at the end of the log."""
    bound = unindexed(reader)
    if newest_first:
        top = _one(reader, "SELECT max(first) FROM page WHERE first <= ?", _or(start, LARGEST_NUMBER))
        if top is None:
            return None
        indexed = top >= bound
        low = _edge(reader, top, "<= ?", "DESC", indexed) or 0
        return Window(max(low, bound) if indexed else low, top, indexed)
    first = _one(reader, "SELECT max(first) FROM page WHERE first <= ?", _or(start, 0)) or 0
    indexed = first >= bound
    return Window(first, _edge(reader, first, ">= ?", "ASC", indexed) or LARGEST_NUMBER, indexed)


def _or(start: int | None, otherwise: int) -> int:
    return otherwise if start is None else start


def _edge(reader: sqlite3.Connection, from_: int, bound: str, order: str, indexed: bool) -> int | None:
    """The last page of a window that begins with this one; None if there are fewer pages."""
    table, size = ("page_index", WINDOW) if indexed else ("page", WINDOW_UNINDEXED)
    query = f"SELECT first FROM {table} WHERE first {bound} ORDER BY first {order} LIMIT 1 OFFSET {size - 1}"  # noqa: S608
    return _one(reader, query, from_)


def _one(reader: sqlite3.Connection, query: str, number: int) -> int | None:
    row = reader.execute(query, (number,)).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def candidates(
    chosen: Selection, narrowed: Narrow, window: Window, newest_first: bool, reader: sqlite3.Connection
) -> Iterator[Row]:
    """The pages of a window that may hold selected events, each read when it is asked for."""
    said, arguments = condition(chosen, narrowed)
    table, joined = (
        ("i", f"page_index AS i CROSS JOIN page USING (first) WHERE i.first BETWEEN ? AND ? AND {said}")
        if window.indexed
        else (
            "page",
            "page LEFT JOIN page_index AS i USING (first)"
            f" WHERE page.first BETWEEN ? AND ? AND (i.first IS NULL OR ({said}))",
        )
    )
    order = "DESC" if newest_first else "ASC"
    return reader.execute(
        f"SELECT page.first, last, events, crc, streams, taken, ids FROM {joined} ORDER BY {table}.first {order}",  # noqa: S608
        (window.low, window.high, *arguments),
    )


# ---------------------------------------------------------------- one page


def places(narrowed: Narrow, count: int, streams: object, taken: object, ids: object) -> Sequence[int]:
    """The places of a page's events that may be selected."""
    if streams is None:
        return range(count)
    if narrowed.stream is not None:
        return _aligned(blob_of(streams), narrowed.stream)
    if narrowed.heads is not None:
        hits = [place for place, entry in enumerate(entries(ids)) if entry in narrowed.heads]
        return range(count) if hits and hits[-1] >= count else hits  # a further id of some recording
    if narrowed.low is None and narrowed.high is None:
        return range(count)
    low = (narrowed.low or 0).to_bytes(ENTRY, "big")
    high = b"\xff" * ENTRY if narrowed.high is None else narrowed.high.to_bytes(ENTRY, "big")
    return [place for place, entry in enumerate(entries(taken)) if low <= entry <= high]


def _aligned(array: bytes, entry: bytes) -> list[int]:
    """The places of an entry in an array."""
    found, at = list[int](), array.find(entry)
    while at >= 0:
        if at % ENTRY == 0:
            found.append(at // ENTRY)
        at = array.find(entry, at + 1)
    return found


@reads_back
def members(narrowed: Narrow, row: Row) -> list[Numbered]:
    """The events of a page that may be selected, in order."""
    first, _, blob, crc, *found = row
    start = int(str(first))
    lines = check_page(start, blob, crc).split(b"\n")
    return [(start + place, event_of(lines[place])) for place in places(narrowed, len(lines), *found)]


# ---------------------------------------------------------------- the step


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """What a step looks for, in which direction, and until when (on the monotonic clock)."""

    chosen: Selection
    narrowed: Narrow
    newest_first: bool
    ends: float


def scan(
    chosen: Selection, start: int | None, limit: int, newest_first: bool, reader: sqlite3.Connection
) -> Scan:
    """One step through the log; see `SpoolHistory.scan`."""
    search = Search(
        chosen=chosen, narrowed=narrow(chosen), newest_first=newest_first, ends=time.monotonic() + STEP
    )
    found: list[Numbered] = []
    while True:
        start = _scan_window(search, start, limit, found, reader)
        if start is None or len(found) == limit or time.monotonic() >= search.ends:
            return Scan(found=tuple(found), following=start)


def _scan_window(
    search: Search, start: int | None, limit: int, found: list[Numbered], reader: sqlite3.Connection
) -> int | None:
    """Add what is found in the next window; returns the number to go on with."""
    newest_first = search.newest_first
    window = next_window(start, newest_first, reader)
    if window is None:
        return None

    def read(row: Row) -> list[Numbered]:
        return members(search.narrowed, row)

    for row in candidates(search.chosen, search.narrowed, window, newest_first, reader):
        for member in _from(start, newest_first, readable_rows("page", read, [row])):
            if search.chosen.selects(member[1]):
                found.append(member)
            if len(found) == limit:
                return _beyond(member[0], newest_first, reader)
        if time.monotonic() >= search.ends:
            return _beyond(int(str(row[0] if newest_first else row[1])), newest_first, reader)
    return _behind(window, newest_first, reader)


def _from(start: int | None, newest_first: bool, read: list[list[Numbered]]) -> list[Numbered]:
    """The members of a page from `start` on, in the direction of the scan."""
    some = [member for one in read for member in one]
    if newest_first:
        return [member for member in reversed(some) if start is None or member[0] <= start]
    return [member for member in some if start is None or member[0] >= start]


def _behind(window: Window, newest_first: bool, reader: sqlite3.Connection) -> int | None:
    """The next number behind a window; None at the end of the log."""
    if newest_first:
        query = "SELECT last FROM page WHERE first < ? ORDER BY first DESC LIMIT 1"
        return _one(reader, query, window.low)
    return _one(reader, "SELECT min(first) FROM page WHERE first > ?", window.high)


def _beyond(number: int, newest_first: bool, reader: sqlite3.Connection) -> int | None:
    """The next number after an event; None at the end of the log."""
    if newest_first:
        query = "SELECT min(last, ?1 - 1) FROM page WHERE first < ?1 ORDER BY first DESC LIMIT 1"
        return _one(reader, query, number)
    query = "SELECT max(first, ?1 + 1) FROM page WHERE last > ?1 AND first >= coalesce((SELECT max(first) FROM page"
    return _one(reader, f"{query} WHERE first <= ?1), 0) ORDER BY first LIMIT 1", number)
