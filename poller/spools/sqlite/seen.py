"""The index of seen ids: those of the last 30 days, as 64-bit hashes (keys).

Layout
    A new key is written to `seen_page` in order of arrival, in the same transaction as its event, and is kept
    in memory. The table `seen` orders keys by value. It gets new keys later, in large sorted batches: one at
    a time, each of a million keys would dirty a page of its own. The row `merged` of `meta` has the last row
    of `seen_page` that is merged. A merge waits for the end of a burst, unless too many keys are in memory.

Provisional events
    `meta` also has a row `provisional <key>` with the number of each event that only provisional pages
    contained. The row is deleted when another page confirms the event, or when its id is forgotten.
"""

import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from poller.core.model import Event
from poller.spools.catalogue_rounds import BURST
from poller.spools.retention import Stretches
from poller.spools.rows import blob_of, epoch, reads_back
from poller.spools.sqlite.pruning import is_old

MERGE_AT = 50_000
"""The number of keys in memory at which a merge begins; they take some 5 MB."""
MERGE_ANYWAY = 200_000
"""The number of keys in memory at which a merge begins and goes on during a burst too; they take some 20 MB."""
MERGE_STEP = 2_000
"""Keys merged in one transaction, which takes a few milliseconds. A transaction that adds more than half as many keys
merges twice the number that it adds."""
IN_STATEMENT = 500
"""The most keys in one statement. `MERGE_STEP` is a multiple of it, so that nearly all statements are the same."""
KEY_SIZE = 8
"""Bytes of a key in `seen_page`."""
_MASK = (1 << 64) - 1
_SIGN = 1 << 63
_PREFIX = "provisional "


class DedupIndex:
    """Works inside the writer's transactions. The writer calls `keep` or `discard` after each transaction."""

    def __init__(self, connection: sqlite3.Connection, factor: int) -> None:
        self._connection = connection
        self._factor = factor
        self._merged = _number(connection, "SELECT CAST(value AS INTEGER) FROM meta WHERE name='merged'")
        rows = connection.execute("SELECT n, keys FROM seen_page WHERE n > ?", (self._merged,)).fetchall()
        self._young = {key for _, packed in rows for key in _unpacked(packed)}
        # a number is never used again, not even when all rows are gone: `merged` would cover unmerged rows
        self._next = max(self._merged, _number(connection, "SELECT max(n) FROM seen_page")) + 1
        self._run: list[int] = []
        self._run_end = 0
        self._anyway = False
        self._done = 0
        self._begin_transaction()

    def _begin_transaction(self) -> None:
        self._start = self._next
        self._added: list[int] = []
        self._forgotten: list[int] = []
        self._stepped = 0

    def keep(self) -> None:
        """Accept the transaction, which is durable."""
        self._done += self._stepped
        if self._run and self._done >= len(self._run):
            self._young.difference_update(self._run)
            self._merged, self._run, self._anyway = self._run_end, [], False
        if len(self._young) >= MERGE_ANYWAY:
            self._anyway = True
        if not self._run and len(self._young) >= MERGE_AT:
            self._run, self._run_end, self._done = sorted(self._young), self._next - 1, 0
        self._begin_transaction()

    def discard(self) -> None:
        """Undo the changes of a transaction that was rolled back. The next transaction merges nothing: the merge may
        have been the reason of the failure."""
        self._young.difference_update(self._added)
        self._young.update(self._forgotten)
        self._next, self._run = self._start, []
        self._begin_transaction()

    def fresh(self, events: tuple[Event, ...], now: datetime) -> tuple[Event, ...]:
        """The events whose ids were not seen before. The ids are remembered; of equal events the first is returned."""
        if "recording" in {event.kind for event in events}:
            return tuple([event for event in events if self._is_fresh(event.ids, now)])
        factor = self._factor
        # multiply-shift hashing (Dietzfelbinger et al., 1997): two ids collide with odds of 2**-63
        keys = [(int(event.id, 16) * factor >> 64 & _MASK) - _SIGN for event in events]
        by_key = dict(zip(reversed(keys), reversed(events), strict=True))
        new = self._remember(keys if len(by_key) == len(keys) else list(dict.fromkeys(keys)), now)
        if len(new) == len(events):
            return events
        unseen = set(new)
        return tuple([by_key[key] for key in dict.fromkeys(keys) if key in unseen])

    def _is_fresh(self, ids: tuple[str, ...], now: datetime) -> bool:
        """Whether none of an event's ids was seen before. All of them are remembered."""
        keys = [self._key(id) for id in ids]
        return len(self._remember(keys, now)) == len(ids)

    def knows(self, id: str) -> bool:
        """Whether this id is remembered."""
        key = self._key(id)
        return key in self._young or bool(self._in_table([key]))

    def _remember(self, keys: list[int], now: datetime) -> list[int]:
        young = self._young
        new = [key for key in keys if key not in young]
        if new and (old := self._in_table(new)):
            new = [key for key in new if key not in old]
        if new:
            self._connection.execute(
                "INSERT INTO seen_page (n, at, keys) VALUES (?, ?, ?)",
                (self._next, epoch(now), struct.pack(f">{len(new)}q", *new)),
            )
            self._next += 1
            young.update(new)
            self._added += new
        return new

    # ------------------------------------------------------------ provisional events

    def note_provisional(self, first: int, events: Sequence[Event]) -> None:
        """Remember fresh events as provisional. Their numbers are `first` and the following."""
        rows = [(self._key(event.id), number) for number, event in enumerate(events, first)]
        put_provisional(self._connection, rows)

    def provisional(self, events: Iterable[Event]) -> list[tuple[int, Event]]:
        """The events among these that are provisional, each with its number."""
        found = []
        for event in events:
            name = _name(self._key(event.id))
            row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
            if row is not None:
                found.append((int(row[0]), event))
        return found

    def confirm(self, events: Iterable[Event]) -> None:
        """Forget that the events were provisional."""
        self._unname(self._key(event.id) for event in events)

    def _any_provisional(self) -> bool:
        ends = (_PREFIX, _PREFIX + "~")
        query = "SELECT 1 FROM meta WHERE name BETWEEN ? AND ? LIMIT 1"
        return self._connection.execute(query, ends).fetchone() is not None

    def _unname(self, keys: Iterable[int]) -> None:
        self._connection.executemany("DELETE FROM meta WHERE name = ?", [(_name(key),) for key in keys])

    def _key(self, id: str) -> int:
        return (int(id, 16) * self._factor >> 64 & _MASK) - _SIGN

    def _in_table(self, keys: Sequence[int]) -> set[int]:
        found: set[int] = set()
        for some, marks in _portions(keys):
            rows = self._connection.execute(
                f"WITH asked(k) AS (VALUES {marks}) SELECT k FROM asked CROSS JOIN seen ON key = k",  # noqa: S608
                some,
            ).fetchall()
            found.update([key for (key,) in rows])
        return found

    def merge(self) -> None:
        """Merge one step, if a merge has begun. During a burst only if too many keys are in memory."""
        if not self._run or (len(self._added) > BURST and not self._anyway):
            return
        self._stepped = max(MERGE_STEP, 2 * len(self._added))
        some = self._run[self._done : self._done + self._stepped]
        self._put(some)
        if self._done + self._stepped >= len(self._run):
            self._connection.execute(
                "INSERT OR REPLACE INTO meta VALUES ('merged', ?)", (str(self._run_end),)
            )

    def _put(self, keys: Sequence[int]) -> None:
        # a statement for each key would take half as much again, and hand over the interpreter's lock each time
        for some, marks in _portions(keys):
            self._connection.execute(f"INSERT OR IGNORE INTO seen VALUES {marks}", some)  # noqa: S608

    def prune(self, young: Stretches, step: int) -> bool:
        """Forget up to `step` rows of old keys; true when there may be more."""
        condition, ends = is_old("at", young)
        rows = self._connection.execute(
            f"SELECT n, keys FROM seen_page WHERE {condition} ORDER BY n LIMIT ?",  # noqa: S608 - our own words
            (*ends, step),
        ).fetchall()
        any_provisional = bool(rows) and self._any_provisional()
        for n, packed in rows:
            gone = _unpacked(packed)
            self._connection.executemany("DELETE FROM seen WHERE key = ?", zip(gone, strict=True))
            self._connection.execute("DELETE FROM seen_page WHERE n = ?", (n,))
            if any_provisional:
                self._unname(gone)
            if n > self._merged:
                self._young.difference_update(gone)
                self._forgotten += gone
                self._run = []  # the merge in progress holds these keys: a new merge begins
        return len(rows) == step


def read_provisional(connection: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """The key and the number of each provisional event."""
    rows = connection.execute(
        "SELECT name, value FROM meta WHERE name BETWEEN ? AND ?", (_PREFIX, _PREFIX + "~")
    )
    return ((int(name.removeprefix(_PREFIX), 16) - _SIGN, int(value)) for name, value in rows)


def put_provisional(connection: sqlite3.Connection, rows: Iterable[tuple[int, int]]) -> None:
    """Write keys and numbers of provisional events."""
    named = [(_name(key), str(number)) for key, number in rows]
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", named)


def put_merged(connection: sqlite3.Connection, at: float, packed: bytes) -> None:
    """Add keys that were remembered at the same time, to both tables. No other key waits for a merge."""
    keys = _unpacked(packed)
    n = connection.execute("INSERT INTO seen_page (at, keys) VALUES (?, ?)", (at, packed)).lastrowid
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('merged', ?)", (str(n),))
    for some, marks in _portions(sorted(keys)):
        connection.execute(f"INSERT OR IGNORE INTO seen VALUES {marks}", some)  # noqa: S608


def _portions(keys: Sequence[int]) -> Iterator[tuple[Sequence[int], str]]:
    """The keys of each statement, and the marks that stand for them in it."""
    for start in range(0, len(keys), IN_STATEMENT):
        some = keys[start : start + IN_STATEMENT]
        yield some, ",".join(["(?)"] * len(some))


def _name(key: int) -> str:
    return f"{_PREFIX}{key + _SIGN:016x}"


def _number(connection: sqlite3.Connection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0] or 0) if row else 0


@reads_back
def _unpacked(packed: bytes) -> list[int]:
    whole = len(blob_of(packed)) // KEY_SIZE  # without a torn last key, which SQLite does not notice
    return list(struct.unpack(f">{whole}q", packed[: whole * KEY_SIZE]))
