"""Checks and exports a spool file without owning it, also while a daemon uses it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from poller.core.catalogue import Stream
from poller.core.errors import StorageError, Unreadable
from poller.core.model import LARGEST_NUMBER, Event
from poller.core.spool import Examined
from poller.runtime.durable_files import check_one_name
from poller.spools.pages import check_page
from poller.spools.rows import DEAD_COLUMNS, dead_of, epoch, event_of, events_of, reads_back, waiting_of
from poller.spools.sqlite.catalogue_rows import read_rows
from poller.spools.sqlite.delivered import misshapen
from poller.spools.sqlite.page_index import CRC, arrays, is_indexed, unindexed
from poller.spools.sqlite.schema import lossy, recognised
from poller.spools.sqlite.seen import KEY_SIZE

MOST_FINDINGS = 100
EXPORT_PAGES = 64


def opened(path: Path, *, at_rest: bool = False) -> sqlite3.Connection:
    """A connection that only reads; raises `StorageError` for a missing file and for another program's file.

    With `at_rest`, a file without a WAL is read as it is, so that SQLite makes no files beside it.
    """
    if not path.exists():
        raise StorageError(f"spool {path}: there is no such file")
    check_one_name(path, f"spool {path}")
    alone = at_rest and not path.with_name(path.name + "-wal").exists()
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}", uri=True, isolation_level=None
    )
    connection.text_factory = lossy
    try:
        if recognised(connection) == 0:
            raise StorageError("it is empty: no daemon has used it yet")
    except (sqlite3.Error, StorageError) as error:
        connection.close()
        raise StorageError(f"spool {path}: {error}") from error
    return connection


def examine(path: Path) -> Examined:
    """Check a whole file, in one read transaction; returns its contents in numbers, and the faults found."""
    with closing(opened(path)) as db:
        db.execute("BEGIN")
        found: list[str] = []
        summary = "unreadable"
        try:
            found += [
                row[0] for row in db.execute(f"PRAGMA integrity_check({MOST_FINDINGS})") if row[0] != "ok"
            ]
            found += _invariants(db)
            summary = _summary(db)
        except sqlite3.Error as error:
            found.append(str(error))
        return Examined(summary=summary, findings=tuple(found[:MOST_FINDINGS]))


def _summary(db: sqlite3.Connection) -> str:
    events, pages = db.execute("SELECT coalesce(sum(last - first + 1), 0), count(*) FROM page").fetchone()
    counts = [f"{events} events in {pages} pages"]
    for table, word in (
        ("dead", "dead letters"),
        ("quarantine", "in quarantine"),
    ):
        counts.append(f"{db.execute(f'SELECT count(*) FROM {table}').fetchone()[0]} {word}")  # noqa: S608 - ours
    keys = db.execute("SELECT coalesce(sum(length(keys)), 0) FROM seen_page").fetchone()[0] // KEY_SIZE
    counts.append(f"{keys} ids remembered")
    return ", ".join(counts)


def _invariants(db: sqlite3.Connection) -> Iterator[str]:
    positions = dict(db.execute("SELECT name, position FROM sink ORDER BY name"))
    head, bound = 0, unindexed(db) if is_indexed(db) else LARGEST_NUMBER
    for first, last, blob, *index in _with_index(db):
        if head and first < head:
            yield f"page {first}: its numbers overlap those before"
        if head and first > head and any(position < first for position in positions.values()):
            yield f"page {first}: numbers {head} to {first - 1}, which a sink has yet to get, are missing"
        yield from _page(first, last, blob, *index, indexed=first >= bound)
        head = last + 1
    for sink, position in positions.items():
        if head and not 1 <= position <= head:
            yield f"sink {sink}: its position {position} is outside of 1 to {head}"
    yield from _rows(db)


def _with_index(db: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Every page, with what the index says of it."""
    index, joined = ("NULL", "page")
    if is_indexed(db):
        index, joined = (
            "crc, kinds, oldest, newest, streams, taken, ids",
            "page LEFT JOIN page_index USING (first)",
        )
    return db.execute(f"SELECT page.first, last, events, {index} FROM {joined} ORDER BY page.first")  # noqa: S608


def _page(first: int, last: int, blob: object, crc: object, *said: object, indexed: bool) -> Iterator[str]:
    try:
        content = check_page(first, blob, crc)
    except Unreadable as error:
        yield str(error)
        return
    try:
        events = events_of(content)
        found = _expected(events)
    except Unreadable as error:
        yield f"page {first}: an event does not read back: {error}"
        return
    if len(events) != last - first + 1:
        yield f"page {first}: {len(events)} events under the numbers {first} to {last}"
    if crc is None and indexed:
        yield f"page {first}: it has no index row"
    if crc is not None and found != list(said):
        yield f"page {first}: its index row does not fit its events"


@reads_back
def _expected(events: list[Event]) -> list[object]:
    return list(msgspec.structs.astuple(arrays(events)))


def _rows(db: sqlite3.Connection) -> Iterator[str]:
    for sink, id, *row in db.execute(
        "SELECT sink, id, failed, first_attempt_at, due, history, numbers, events FROM waiting"
    ):
        try:
            waiting_of((id, *row))
        except Unreadable as error:
            yield f"sink {sink}: the waiting batch {id} does not read back: {error}"
    for (n,) in db.execute("SELECT n FROM seen_page WHERE length(keys) % ?", (KEY_SIZE,)):
        yield f"seen_page {n}: its last key is cut"
    for n, *letter in db.execute(f"SELECT n, {DEAD_COLUMNS} FROM dead"):  # noqa: S608 - our own words
        try:
            dead_of(tuple(letter))
        except Unreadable as error:
            yield f"dead letter {n}: does not read back: {error}"
    yield from misshapen(db)


def export(path: Path, kinds: frozenset[str], since: datetime | None) -> Iterator[bytes]:
    """The public JSON of events in a file, oldest first: of `kinds` (empty: of all), received at `since` or later.

    Each read transaction covers a few pages: a long one would keep the daemon from emptying the WAL. Pages whose
    checksum is wrong are left out, and the end raises `Unreadable` for them.
    """
    least, wrong = 0.0 if since is None else epoch(since), 0
    with closing(opened(path)) as db:
        for first, received_at, blob, crc in _pages(db):
            if received_at < least:
                continue
            try:
                content = check_page(first, blob, crc)
            except Unreadable:
                wrong += 1
                continue
            yield from _lines(content, kinds)
    if wrong:
        raise Unreadable(
            f"spool {path}: the checksums of {wrong} pages are wrong, and their events are left out"
        )


def known_sinks(path: Path) -> frozenset[str]:
    """The names of the sinks in a file."""
    with closing(opened(path, at_rest=True)) as db:
        try:
            return frozenset(name for (name,) in db.execute("SELECT name FROM sink"))
        except sqlite3.Error as error:
            raise StorageError(f"spool {path}: {error}") from error


def known_streams(path: Path) -> list[Stream]:
    """The streams in a file, as they were last written there."""
    with closing(opened(path, at_rest=True)) as db:
        try:
            return read_rows(db).streams()
        except (sqlite3.Error, Unreadable) as error:
            raise StorageError(f"spool {path}: {error}") from error


def _pages(db: sqlite3.Connection) -> Iterator[tuple[int, float, object, object]]:
    after, crc = -1, CRC if is_indexed(db) else "NULL"
    query = f"SELECT first, received_at, events, {crc} FROM page WHERE first > ? ORDER BY first LIMIT ?"  # noqa: S608
    while rows := db.execute(query, (after, EXPORT_PAGES)).fetchall():
        after = rows[-1][0]
        yield from rows


def _lines(content: bytes, kinds: frozenset[str]) -> Iterator[bytes]:
    for line in content.split(b"\n"):
        if not kinds or event_of(line).kind in kinds:
            yield line
