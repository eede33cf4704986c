"""One customer's messages in the database: pages in order, of which the first may be partly gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from poller.sandbox.database import Database
from poller.sandbox.query.messages import Facts, pack, unpack

PAGE = 1000
"""Messages of one row at most, because SQLite deletes a long row bit by bit."""


class Pages:
    """The durable copy of a queue that is also in memory.

    Each change is one transaction, done when the method returns. A method that raises sqlite3.Error has changed
    nothing.
    """

    def __init__(self, database: Database, app_id: int) -> None:
        self._database = database
        self._app_id = app_id
        self._taken = 0
        self._last = 0
        self._pages: deque[tuple[int, int]] = deque()
        """Place and count of each page."""

    def resume(self) -> tuple[int, int]:
        """Loads the numbers of the newest message and of the last poll that an earlier run stored."""
        own = (self._app_id,)
        self._database.execute("INSERT OR IGNORE INTO customer (app_id) VALUES (?)", own)
        last_n, polls, self._taken = self._database.execute(
            "SELECT last_n, polls, taken FROM customer WHERE app_id = ?", own
        ).fetchone()
        self._pages.extend(
            self._database.execute(
                "SELECT place, count FROM message_page WHERE app_id = ? ORDER BY place", own
            )
        )
        self._last = self._pages[-1][0] if self._pages else 0
        return last_n, polls

    def messages(self) -> Iterator[Facts]:
        """All messages, oldest first."""
        gone = self._taken
        for (body,) in self._database.execute(
            "SELECT body FROM message_page WHERE app_id = ? ORDER BY place", (self._app_id,)
        ):
            yield from unpack(body)[gone:]
            gone = 0

    def remember(self, polls: int) -> None:
        """Keeps the number of a poll."""
        self._keep("polls", polls)

    def append(self, messages: Sequence[Facts], last_n: int) -> None:
        """Adds messages at the end, and keeps the number of the newest there is."""
        pages = [messages[start : start + PAGE] for start in range(0, len(messages), PAGE)]
        with self._database.together():
            for place, page in enumerate(pages, self._last + 1):
                self._insert(place, page)
            self._keep("last_n", last_n)
        self._pages.extend((place, len(page)) for place, page in enumerate(pages, self._last + 1))
        self._last += len(pages)

    def prepend(self, messages: Sequence[Facts], last_n: int) -> None:
        """Adds messages at the head. A first page that has lost messages is rewritten without them."""
        if not self._pages:
            self.append(messages, last_n)
            return
        first, size = self._pages[0]
        with self._database.together():
            if self._taken:
                self._shorten(first)
            self._insert(first - 1, messages)
            self._keep("last_n", last_n)
        self._pages[0] = (first, size - self._taken)
        self._pages.appendleft((first - 1, len(messages)))
        self._taken = 0

    def remove(self, count: int) -> None:
        """Removes so many messages from the head; there are at least as many."""
        taken, passed, gone = self._taken + count, 0, None
        for place, size in self._pages:
            if taken < size:
                break
            taken, passed, gone = taken - size, passed + 1, place
        if gone is None:
            self._keep("taken", taken)
        else:
            with self._database.together():
                self._delete(gone)
                self._keep("taken", taken)
        self._taken = taken
        for _ in range(passed):
            self._pages.popleft()

    def _shorten(self, place: int) -> None:
        """Rewrites the first page without its removed messages."""
        (body,) = self._database.execute(
            "SELECT body FROM message_page WHERE app_id = ? AND place = ?", (self._app_id, place)
        ).fetchone()
        self._delete(place)
        self._insert(place, unpack(body)[self._taken :])
        self._keep("taken", 0)

    def _insert(self, place: int, messages: Sequence[Facts]) -> None:
        self._database.execute(
            "INSERT INTO message_page (app_id, place, count, body) VALUES (?, ?, ?, ?)",
            (self._app_id, place, len(messages), pack(messages)),
        )

    def _delete(self, upto: int) -> None:
        """Deletes all pages to this place."""
        self._database.execute(
            "DELETE FROM message_page WHERE app_id = ? AND place <= ?", (self._app_id, upto)
        )

    def _keep(self, column: str, value: int) -> None:
        self._database.execute(
            f"UPDATE customer SET {column} = ? WHERE app_id = ?",  # noqa: S608 - one of our own columns
            (value, self._app_id),
        )
