"""The spool file as the old or the new spool of a move: its rows as `core.moving` describes them.

Life cycle
    `hold` locks the file as a daemon does, and opens one connection that reads and writes, in threads. A file that is
    damaged or lacks its newest commits is refused: a start of the daemon deals with it.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from poller.core.errors import StorageError, StorageFull
from poller.core.moving import COLUMNS, CanBeMoved, HeldSpool, Move, Numbers, Standing, Table
from poller.runtime.durable_files import make_folder, sync_folder
from poller.spools.moving import ARRIVED, MOVED, MOVING, in_portions, record_of, standing_of
from poller.spools.pages import Came, check_page, checksum, page_events, received
from poller.spools.rows import Row, blob_of, epoch, events_of, moment, number_of, reads_back
from poller.spools.sqlite import meta, seen
from poller.spools.sqlite.corrupt_file import is_condemned
from poller.spools.sqlite.examine import opened
from poller.spools.sqlite.file_locks import FileLocks
from poller.spools.sqlite.head import HeadFile, copied_wal, identity
from poller.spools.sqlite.page_index import UNINDEXED, arrays, put_index
from poller.spools.sqlite.page_times import PageTimes
from poller.spools.sqlite.schema import ahead, recognised
from poller.spools.sqlite.writer import set_up

Result = TypeVar("Result")
Read = Callable[[sqlite3.Connection], Iterator[Row]]
Write = Callable[[sqlite3.Connection, Sequence[Any]], object]

TABLES: Final = (
    *("page", "page_index", "seen", "seen_page", "sink", "waiting", "dead", "quarantine", "source", "stream"),
    *("delivered", "redelivered", "gap", "replay", "replay_without", "tally", "meta"),
)
COUNTED: Final = ("dead", "quarantine")
"""The tables whose numbers are never used again."""
NOT_CONTENT: Final = ("sink", "meta")
"""Tables that have rows before the first event."""

_PAGES: Final = (
    "SELECT page.first, last, page_index.received_at, received_to, source, about, asked_at, outcome, kinds, oldest,"
    " newest, crc, events FROM page LEFT JOIN page_index USING (first) ORDER BY page.first"
)
_SINKS: Final = (
    "SELECT name, position, paused, (SELECT CAST(value AS INTEGER) FROM meta WHERE meta.name = 'ordered ' || sink.name)"
    " FROM sink ORDER BY name"
)
_ORDER: Final = {
    Table.SEEN: ("seen_page", "n"),
    Table.WAITING: ("waiting", "sink, id"),
    Table.DEAD: ("dead", "n"),
    Table.QUARANTINE: ("quarantine", "n"),
    Table.SOURCE: ("source", "name, about"),
    Table.STREAM: ("stream", "account, stream_id"),
    Table.DELIVERED: ("delivered", "n"),
    Table.REDELIVERED: ("redelivered", "n"),
    Table.GAP: ("gap", "id"),
    Table.REPLAY: ("replay", "n"),
    Table.REPLAY_WITHOUT: ("replay_without", "n"),
    Table.TALLY: ("tally", "owner, book"),
}
"""The tables that hold rows as they are moved, with their order."""


class MovableFile(CanBeMoved):
    """What makes a spool movable that is one file. The engine has the path."""

    _path: Path

    @property
    def place(self) -> str:
        """See `CanBeMoved.place`."""
        return str(self._path.resolve())

    def why_not_in_force(self) -> str | None:
        """See `CanBeMoved.why_not_in_force`."""
        with _translated(self._path), closing(opened(self._path, at_rest=True)) as db:
            return standing_of(meta.read_records(db), factor=None, empty=False).refusal

    @asynccontextmanager
    async def hold(self, *, create: bool) -> AsyncIterator[HeldSpool]:
        """See `CanBeMoved.hold`."""
        path, locks = self._path, FileLocks(self._path)
        try:
            with _translated(path):
                db = await asyncio.to_thread(_open, path, locks, create)
            with closing(db):
                yield HeldFile(path, db)
        finally:
            locks.unlock_all()


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as errors of the spool. The file is not condemned: nothing is wrong with a daemon's."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        is_full = code is not None and code & 0xFF == sqlite3.SQLITE_FULL
        raise (StorageFull if is_full else StorageError)(f"spool {path}: {error}") from error
    except OSError as error:
        raise StorageError(f"spool {path}: {error.strerror}") from error


def _open(path: Path, locks: FileLocks, create: bool) -> sqlite3.Connection:
    if not create and not path.exists():
        raise StorageError(f"spool {path}: there is no such file")
    make_folder(path.parent)
    locks.lock_name()
    if is_condemned(path):
        raise StorageError(f"spool {path}: the file is damaged: start the daemon with it first")
    locks.lock_file()
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        version = recognised(db)
        if not create and version == 0:
            raise StorageError(f"spool {path}: it is empty: no daemon has used it yet")
        if version:
            _check_whole(db, path)
        set_up(db, path, version)
        sync_folder(path.parent)
    except BaseException:
        db.close()
        raise
    return db


def _check_whole(db: sqlite3.Connection, path: Path) -> None:
    """Raise `StorageError` for a file that lacks its newest part."""
    said = HeadFile(_head_path(path)).read()
    if said is None or identity(meta.read_factor(db) or b"") != said.id:
        return
    commits, following = meta.extent(db)
    if commits < said.commits or following < said.next:
        copied_wal(path, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        raise StorageError(
            f"spool {path}: the file lacks its newest part: start the daemon with it first, which reports the loss"
        )


def _drop_head_file(path: Path) -> None:
    """Delete the head file, which describes content that goes."""
    _head_path(path).unlink(missing_ok=True)
    sync_folder(path.parent)


def _head_path(path: Path) -> Path:
    return path.with_name(path.name + ".head")


class HeldFile(HeldSpool):
    """A locked spool file with its connection."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self._path = path
        self._db = db
        self._times = PageTimes(db)

    # ------------------------------------------------------------ reading

    async def standing(self) -> Standing:
        """See `HeldSpool.standing`."""
        return await self._run(_standing)

    async def numbers(self) -> Numbers:
        """See `HeldSpool.numbers`."""
        return await self._run(_numbers)

    async def begin_reading(self) -> None:
        """See `HeldSpool.begin_reading`. The rows have this form."""

    async def portions(self, table: Table) -> AsyncIterator[list[Row]]:
        """See `HeldSpool.portions`."""
        portions = in_portions(_READ[table](self._db) if table in _READ else _plain_rows(table, self._db))
        following = reads_back(lambda _: next(portions, None))
        while (some := await self._run(following)) is not None:
            yield some

    async def count(self, table: Table) -> int:
        """See `HeldSpool.count`."""
        return await self._run(lambda db: _count(db, table))

    # ------------------------------------------------------------ writing

    async def begin(self, move: Move) -> None:
        """See `HeldSpool.begin`."""

        def clear(db: sqlite3.Connection) -> None:
            for table in TABLES:
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own words
            _put(db, MOVING, record_of(move))
            _put(db, UNINDEXED, "0")

        await self._run(lambda _: _drop_head_file(self._path))
        await self._commit(clear)
        self._times = PageTimes(self._db)

    async def write(self, table: Table, rows: Sequence[Row]) -> None:
        """See `HeldSpool.write`."""
        if table is Table.PAGE:
            await self._commit(lambda db: _write_pages(db, self._times, rows))
        elif table in _WRITE:
            await self._commit(lambda db: _WRITE[table](db, rows))
        else:
            await self._commit(lambda db: _write_plain(db, table, rows))

    async def write_numbers(self, numbers: Numbers, kept_as: int) -> None:
        """See `HeldSpool.write_numbers`."""
        await self._commit(lambda db: _write_numbers(db, numbers, kept_as))

    async def give_up(self, move: Move) -> None:
        """See `HeldSpool.give_up`."""
        await self._commit(lambda db: _put(db, MOVED, record_of(move)))

    async def put_in_force(self, move: Move) -> None:
        """See `HeldSpool.put_in_force`."""

        def end(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM meta WHERE name = ?", (MOVING,))
            _put(db, ARRIVED, record_of(move))

        await self._commit(end)

    async def _commit(self, job: Callable[[sqlite3.Connection], object]) -> None:
        def transaction(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            try:
                job(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

        await self._run(transaction)

    async def _run(self, job: Callable[[sqlite3.Connection], Result]) -> Result:
        with _translated(self._path):
            return await asyncio.to_thread(job, self._db)


# ---------------------------------------------------------------- what the file says of itself


@reads_back
def _standing(db: sqlite3.Connection) -> Standing:
    filled = any(
        db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608 - our own words
        for table in TABLES
        if table not in NOT_CONTENT
    )
    records, factor = meta.read_records(db), meta.read_factor(db)
    return standing_of(records, factor=factor, empty=not filled and meta.next_number(db) == 1)


@reads_back
def _numbers(db: sqlite3.Connection) -> Numbers:
    factor = meta.read_factor(db)
    if factor is None:
        raise StorageError("its table meta lacks a row")
    last = dict(db.execute("SELECT name, seq FROM sqlite_sequence"))
    return Numbers(
        factor=factor,
        head=meta.next_number(db),
        catalogue=meta.read_number(db, meta.CATALOGUE),
        **{table: number_of(last.get(table, 0)) for table in COUNTED},
    )


def _write_numbers(db: sqlite3.Connection, numbers: Numbers, kept_as: int) -> None:
    if (head := meta.next_number(db)) != numbers.head:  # a file has no other place for it
        raise StorageError(f"the next number would be {head} instead of {numbers.head}")
    _put(db, "factor", numbers.factor)
    meta.put_number(db, meta.CATALOGUE, numbers.catalogue)
    meta.put_number(db, meta.KEPT_AS, kept_as)
    for table, last in (("dead", numbers.dead), ("quarantine", numbers.quarantine)):
        db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, last))


def _put(db: sqlite3.Connection, name: str, value: bytes | str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


# ---------------------------------------------------------------- rows of most tables


def _plain_rows(table: Table, db: sqlite3.Connection) -> Iterator[Row]:
    name, order = _ORDER[table]
    return db.execute(f"SELECT {COLUMNS[table]} FROM {name} ORDER BY {order}")  # noqa: S608 - our own words


def _write_plain(db: sqlite3.Connection, table: Table, rows: Sequence[Row]) -> None:
    columns, (name, _) = COLUMNS[table], _ORDER[table]
    marks = ", ".join("?" * len(columns.split(",")))
    db.executemany(f"INSERT INTO {name} ({columns}) VALUES ({marks})", rows)  # noqa: S608 - our own words


def _count(db: sqlite3.Connection, table: Table) -> int:
    if table in (Table.PROVISIONAL, Table.AHEAD):
        return sum(1 for _ in _READ[table](db))
    name = table.value if table in (Table.PAGE, Table.SINK) else _ORDER[table][0]
    return int(db.execute(f"SELECT count(*) FROM {name}").fetchone()[0])  # noqa: S608 - our own words


# ---------------------------------------------------------------- pages


def _pages(db: sqlite3.Connection) -> Iterator[Row]:
    return (_page(row) for row in db.execute(_PAGES))


def _page(row: Row) -> Row:
    first, last, *index, crc, events = row
    blob = check_page(number_of(first), events, crc)
    if crc is None:
        return _unindexed_page(number_of(first), number_of(last), blob)
    return (first, last, *index, crc, blob)


def _unindexed_page(first: int, last: int, blob: bytes) -> Row:
    """A page of schema 1 that has no index row yet."""
    events = events_of(blob)
    found = arrays(events)
    bounds = (found.kinds, found.oldest, found.newest)
    return (first, last, *received(events), "", "", None, "", *bounds, checksum(blob), blob)


def _write_pages(db: sqlite3.Connection, times: PageTimes, rows: Sequence[Row]) -> None:
    for row in rows:
        _write_page(db, times, row)


@reads_back
def _write_page(db: sqlite3.Connection, times: PageTimes, row: Row) -> None:
    first, last, _, _, source, about, asked_at, outcome, _, _, _, crc, blob = row
    number, events = number_of(first), page_events(number_of(first), blob, crc)
    origin = Came(
        source=str(source),
        about=str(about),
        asked_at=moment(asked_at) if isinstance(asked_at, float) else None,
        outcome=str(outcome),
    )
    received_at = epoch(events[0].received_at)
    times.note(number, received_at)
    put_index(db, number, events, blob_of(blob), origin)
    db.execute("INSERT INTO page VALUES (?, ?, ?, ?)", (first, last, received_at, blob))


# ---------------------------------------------------------------- rows that lie elsewhere


def _sinks(db: sqlite3.Connection) -> Iterator[Row]:
    return ((name, position, bool(paused), since) for name, position, paused, since in db.execute(_SINKS))


def _write_sinks(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    db.executemany("INSERT INTO sink (name, position, paused) VALUES (?, ?, ?)", [row[:3] for row in rows])
    for name, _, _, since in rows:
        if since is not None:
            _put(db, f"ordered {name}", str(since))


def _ahead(db: sqlite3.Connection) -> Iterator[Row]:
    names = db.execute("SELECT name FROM meta WHERE name GLOB 'dead *' ORDER BY name")
    split = (name.removeprefix("dead ").rpartition(" ") for (name,) in names)
    return ((sink, int(number)) for sink, _, number in split)


def _write_ahead(db: sqlite3.Connection, rows: Sequence[Any]) -> None:
    db.executemany("INSERT INTO meta VALUES (?, '')", [(ahead(sink, number),) for sink, number in rows])


def _write_seen(db: sqlite3.Connection, rows: Iterable[Any]) -> None:
    for at, keys in rows:
        seen.put_merged(db, at, keys)


_READ: Final[Mapping[Table, Read]] = {
    Table.PAGE: _pages,
    Table.PROVISIONAL: seen.read_provisional,
    Table.SINK: _sinks,
    Table.AHEAD: _ahead,
}
_WRITE: Final[Mapping[Table, Write]] = {
    Table.SEEN: _write_seen,
    Table.PROVISIONAL: seen.put_provisional,
    Table.SINK: _write_sinks,
    Table.AHEAD: _write_ahead,
}
