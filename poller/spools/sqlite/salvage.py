"""Salvages the readable rows of a damaged or old spool file. The file itself is not changed.

Damaged pages
    SQLite stops at the first bad page. So a table is read upwards until the damage and downwards until the
    damage. The range between is halved and read in the same way, so that a bad page costs only its own rows.

A damaged first page
    The first page says where the tables are. A copy of the file gets the first page of a new file. That works
    because the same statements in the same order made every spool file.
"""

import heapq
import os
import shutil
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from poller.core.errors import StorageError, Unreadable
from poller.core.model import DeadLetter, Event
from poller.core.spool import Salvaged
from poller.spools.pages import check_page
from poller.spools.rows import DEAD_COLUMNS, QUARANTINE_COLUMNS, dead_of, event_of, quarantined_of
from poller.spools.sqlite.page_index import ENTRY
from poller.spools.sqlite.schema import VERSION, lossy, prepare, recognised

PAGE = 8192
MOST_TRIES = 20_000
"""The most attempts to find a row between damaged places; they take a second or two."""
NUMBERS_A_PAGE = 64
"""Numbers per page of the file: a generous guess, for a table whose end cannot be read."""


Row = tuple[object, ...]


class Table(msgspec.Struct, frozen=True):
    """A table with an integer key. The key is the first of `columns`."""

    name: str
    key: str
    columns: str


PAGES = Table("page", "first", "first, last, received_at, events")
DEAD = Table("dead", "n", f"n, {DEAD_COLUMNS}")
QUARANTINE = Table("quarantine", "n", QUARANTINE_COLUMNS)


def salvage(file: Path, sinks: Sequence[str]) -> Iterator[Salvaged]:
    """The contents of a file: events that are pending for one of these sinks, dead letters, rejects.

    Without sinks, and where positions cannot be read, every event counts as pending. Events come in order,
    except around damage. `damage` reports the parts that could not be read. Raises `StorageError` for a
    missing file and for the file of another program.
    """
    if not file.exists():
        raise StorageError(f"{file}: there is no such file")
    with TemporaryDirectory(dir=file.parent, prefix=".salvage-") as scratch:
        damage: tuple[str, ...] = ()
        try:
            db = _opened(file)
        except sqlite3.DatabaseError as error:
            db = _with_new_first_page(file, Path(scratch))
            damage = (f"the first page: {error}; the tables were found without it",)
        with closing(db):
            yield Salvaged(damage=damage)
            yield from _everything(db, sinks)


def _opened(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    db.text_factory = lossy
    try:
        if recognised(db) == 0:
            raise StorageError("there is nothing in it")
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except StorageError as error:
        db.close()
        raise StorageError(f"{file}: {error}") from error
    except sqlite3.Error:
        db.close()
        raise
    return db


def _with_new_first_page(file: Path, scratch: Path) -> sqlite3.Connection:
    new, copy = scratch / "new.db", scratch / "copy.db"
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size={PAGE}")
        prepare(db, 0, os.urandom(16))
    shutil.copyfile(file, copy)
    wal = file.with_name(file.name + "-wal")
    if wal.exists():
        shutil.copyfile(wal, scratch / "copy.db-wal")
    first = bytearray(new.read_bytes()[:PAGE])
    first[18:20] = b"\x02\x02"  # WAL mode, both ways
    first[28:32] = (file.stat().st_size // PAGE).to_bytes(4, "big")  # the size in pages
    with copy.open("r+b") as stream:
        stream.write(first)
    try:
        db = sqlite3.connect(copy, isolation_level=None)
        db.text_factory = lossy
        db.execute("SELECT count(*) FROM page WHERE first < 0").fetchone()
    except sqlite3.DatabaseError as error:
        raise StorageError(
            f"{file}: nothing in it can be read as a spool of schema {VERSION}: {error}"
        ) from error
    return db


def _everything(db: sqlite3.Connection, sinks: Sequence[str]) -> Iterator[Salvaged]:
    try:
        positions = dict(db.execute("SELECT name, position FROM sink"))
    except sqlite3.DatabaseError as error:
        positions = {}
        yield Salvaged(damage=(f"table sink: {error}: every event counts as pending",))
    known = [at for sink in sinks if isinstance(at := positions.get(sink), int)]
    yield from _events(db, min(known, default=0))
    yield from _waiting(db, sinks)
    yield from _letters(db)
    yield from _rejects(db)


def _events(db: sqlite3.Connection, floor: int) -> Iterator[Salvaged]:
    lost: list[str] = []
    for first, last, _, blob in readable(db, PAGES, lost):
        if isinstance(last, int) and last < floor:
            continue
        number = int(str(first))
        try:
            check_page(number, blob, _checksum(db, number, last))
        except Unreadable as error:
            yield Salvaged(damage=(f"{error}: its events are left out",))
            continue
        events, bad = _parsed(blob)
        skip = max(0, floor - number) if not bad else 0
        damage = (f"page {first}: {bad} events do not read back",) if bad else ()
        yield Salvaged(events=tuple(events[skip:]), damage=damage)
    yield Salvaged(damage=tuple(lost))


def _checksum(db: sqlite3.Connection, first: int, last: object) -> object:
    """The checksum of a page; None where it cannot be read.

    With the first page of a new file, a table of a later schema may begin at a page that belongs to another table. So
    the row has to look like an index row.
    """
    try:
        row = db.execute(
            "SELECT crc FROM page_index WHERE first = ?1 AND typeof(source) = 'text' AND typeof(crc) = 'integer'"
            " AND length(taken) = (?2 - ?1 + 1) * ?3",
            (first, last, ENTRY),
        ).fetchone()
    except sqlite3.DatabaseError:  # no such table, or a damaged one
        return None
    return None if row is None else row[0]


def _parsed(blob: object) -> tuple[list[Event], int]:
    """The events of a row, one a line, and the number of lines that are no events."""
    if not isinstance(blob, bytes):
        return [], 1
    events, lines = [], blob.split(b"\n")
    for line in lines:
        try:
            events.append(event_of(line))
        except Unreadable:
            continue
    return events, len(lines) - len(events)


def _waiting(db: sqlite3.Connection, sinks: Sequence[str]) -> Iterator[Salvaged]:
    met: set[tuple[str, str]] = set()
    for order in ("", "DESC"):
        try:
            # the table has no integer key to halve: it is read from both ends
            for sink, id, blob in db.execute(
                f"SELECT sink, id, events FROM waiting ORDER BY sink {order}, id {order}"  # noqa: S608 - ours
            ):
                if (sink, id) in met:
                    return
                met.add((sink, id))
                if not sinks or sink in sinks:
                    events, bad = _parsed(blob)
                    damage = (f"waiting batch {id}: {bad} events do not read back",) if bad else ()
                    yield Salvaged(events=tuple(events), damage=damage)
        except sqlite3.DatabaseError as error:
            yield Salvaged(damage=(f"table waiting: {error}",))
        else:
            return


def _letters(db: sqlite3.Connection) -> Iterator[Salvaged]:
    lost: list[str] = []
    for n, *row in readable(db, DEAD, lost):
        try:
            letter: DeadLetter = dead_of(tuple(row))
        except Unreadable as error:
            lost.append(f"dead letter {n}: {error}")
        else:
            yield Salvaged(dead=(letter,))
    yield Salvaged(damage=tuple(lost))


def _rejects(db: sqlite3.Connection) -> Iterator[Salvaged]:
    lost: list[str] = []
    for row in readable(db, QUARANTINE, lost):
        try:
            kept = quarantined_of(row)
        except Unreadable as error:
            lost.append(f"reject {row[0]}: {error}")
        else:
            yield Salvaged(rejects=((kept.source, kept.reject),))
    yield Salvaged(damage=tuple(lost))


# ---------------------------------------------------------------- around damage


def readable(db: sqlite3.Connection, table: Table, lost: list[str]) -> Iterator[Row]:
    """Each readable row of a table, once. Ranges of keys that may have had more rows are added to `lost`."""
    gaps, given_up = [(0, 0, _highest(db, table))], list[tuple[int, int]]()
    tries = 0
    while gaps:
        _, low, high = heapq.heappop(gaps)  # the widest gap first: it may have the most rows
        for order in ("ASC", "DESC"):
            last, error = yield from _until_damage(db, table, low, high, order)
            if order == "ASC" and last is not None:
                low = last + 1
            elif last is not None:
                high = last - 1
            if error is None or low > high:
                break
        else:
            tries += 1
            if low == high or tries > MOST_TRIES:
                given_up.append((low, high))
            else:
                middle = (low + high) // 2
                for part in ((low, middle), (middle + 1, high)):
                    heapq.heappush(gaps, (part[0] - part[1], *part))
    lost += [f"table {table.name}: {table.key} {low} to {high}" for low, high in _joined(given_up)]


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return joined


def _until_damage(
    db: sqlite3.Connection, table: Table, low: int, high: int, order: str
) -> Generator[Row, None, tuple[int | None, sqlite3.DatabaseError | None]]:
    query = (
        f"SELECT {table.columns} FROM {table.name} WHERE {table.key} BETWEEN ? AND ?"  # noqa: S608 - all ours
        f" ORDER BY {table.key} {order}"
    )
    last: int | None = None
    try:
        for row in db.execute(query, (low, high)):
            last = row[0]
            yield row
    except sqlite3.DatabaseError as error:
        return last, error
    return last, None


def _highest(db: sqlite3.Connection, table: Table) -> int:
    try:
        return int(db.execute(f"SELECT max({table.key}) FROM {table.name}").fetchone()[0] or 0)  # noqa: S608 - ours
    except sqlite3.DatabaseError:
        pages = int(db.execute("PRAGMA page_count").fetchone()[0])
        try:
            known = int(db.execute("SELECT max(position) FROM sink").fetchone()[0] or 0)
        except sqlite3.DatabaseError:
            known = 0
        return known + pages * NUMBERS_A_PAGE
