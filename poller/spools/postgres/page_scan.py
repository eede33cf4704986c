"""One step of a scan of the log: the columns say which pages may hold selected events, and only these are read.

A step looks at the columns of one window of pages, and reads a few of these pages.
"""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from poller.core.model import LARGEST_NUMBER
from poller.core.selection import Numbered, Scan, Selection
from poller.spools.pages import page_events, second_of
from poller.spools.rows import Row, epoch, readable_rows

WINDOW = 1_000
"""Pages whose columns are looked at in a step."""
PAGES = 16
"""Pages that are read and decoded in a step, which takes some milliseconds."""

_LOOK = """
SELECT array_agg(first) FILTER (WHERE
        ($3::float8 IS NULL OR received_to >= $3) AND ($4::float8 IS NULL OR received_at < $4)
        AND ($5::bigint IS NULL OR newest >= $5) AND ($6::bigint IS NULL OR oldest <= $6)
        AND ($7::text[] IS NULL OR string_to_array(kinds, ' ') && $7)
    ), min(first), max(last), (SELECT min(first) FROM page), (SELECT last FROM page ORDER BY first DESC LIMIT 1)
FROM (SELECT * FROM page WHERE {} LIMIT $2) AS part
"""
_LOOK_UP = _LOOK.format(
    "first >= coalesce((SELECT max(first) FROM page WHERE first <= $1), 0) ORDER BY first"
)
_LOOK_DOWN = _LOOK.format("first <= $1 ORDER BY first DESC")
_READ = "SELECT first, events, crc FROM page WHERE first = ANY($1::bigint[]) ORDER BY first"


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The pages of a step, from the number `low` to `high`.

    hits:        the first numbers of the pages that may hold selected events, in the direction of the scan
    least, most: the numbers at both ends of the log
    """

    hits: Sequence[int]
    low: int
    high: int
    least: int
    most: int

    def end(self, newest_first: bool) -> int:
        """The last number that the step looks at: before a page that is left to the next step, or the window's end."""
        if len(self.hits) > PAGES:
            return self.hits[PAGES - 1] if newest_first else self.hits[PAGES] - 1
        return self.low if newest_first else self.high

    def beyond(self, number: int, newest_first: bool) -> int | None:
        """The next number after an event; None at the end of the log."""
        if newest_first:
            return number - 1 if number > self.least else None
        return number + 1 if number < self.most else None


async def scan(
    chosen: Selection, start: int | None, limit: int, newest_first: bool, connection: asyncpg.Connection
) -> Scan:
    """One step through the log; see `SpoolHistory.scan`."""
    window = await _window(chosen, start, newest_first, connection)
    if window is None:
        return Scan(found=(), following=None)
    found: list[Numbered] = []
    for row in await _rows(window, newest_first, connection):
        for member in _from(start, newest_first, readable_rows("page", _members, [row])):
            if chosen.selects(member[1]):
                found.append(member)
            if len(found) == limit:
                return Scan(found=tuple(found), following=window.beyond(member[0], newest_first))
    return Scan(found=tuple(found), following=window.beyond(window.end(newest_first), newest_first))


async def _rows(window: Window, newest_first: bool, connection: asyncpg.Connection) -> list[Row]:
    """The pages that the step reads, in the direction of the scan."""
    if not window.hits:
        return []
    rows = [tuple(row) for row in await connection.fetch(_READ, window.hits[:PAGES])]
    return rows[::-1] if newest_first else rows


async def _window(
    chosen: Selection, start: int | None, newest_first: bool, connection: asyncpg.Connection
) -> Window | None:
    """The pages from `start` on, in the direction of the scan; None at the end of the log."""
    look, begin = (_LOOK_DOWN, LARGEST_NUMBER) if newest_first else (_LOOK_UP, 0)
    row = await connection.fetchrow(look, begin if start is None else start, WINDOW, *_arguments(chosen))
    if row is None or row[1] is None:
        return None
    hits, low, high, least, most = row
    hits = sorted(hits or (), reverse=newest_first)
    return Window(hits=hits, low=low, high=high, least=least, most=most)


def _arguments(chosen: Selection) -> Row:
    """What the columns can tell about a selection. None does not restrict."""
    return (
        None if chosen.since is None else epoch(chosen.since),
        None if chosen.until is None else epoch(chosen.until),
        _second(chosen.taken_since),
        _second(chosen.taken_until),
        # a kind with other characters is in no page, and may not be text to the server
        [kind for kind in chosen.kinds if kind.isascii() and kind.isprintable()] if chosen.kinds else None,
    )


def _second(at: datetime | None) -> int | None:
    return None if at is None else second_of(at)


def _members(row: Row) -> list[Numbered]:
    first, blob, crc = row
    start = int(str(first))
    return list(enumerate(page_events(start, blob, crc), start))


def _from(start: int | None, newest_first: bool, read: list[list[Numbered]]) -> list[Numbered]:
    """The members of a page from `start` on, in the direction of the scan."""
    some = [member for one in read for member in one]
    if newest_first:
        return [member for member in reversed(some) if start is None or member[0] <= start]
    return [member for member in some if start is None or member[0] >= start]
