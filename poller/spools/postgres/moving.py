"""The tables of a PostgreSQL spool as the old or the new spool of a move, as `core.moving` describes the rows.

Life cycle
    `hold` begins a session that is alone, and prolongs its lease on a connection of its own. Each transaction that
    writes checks the session. So a spool that another session has taken over meanwhile stays as it is.

Sinks
    What is read has one queue for each sink (`modes.unite`). What is written begins with one queue, by shares or in
    order. The daemons that serve the sink make lanes of it.
"""

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

from poller.core.errors import StorageError
from poller.core.moving import COLUMNS, CanBeMoved, HeldSpool, Move, Numbers, Standing, Table
from poller.spools.moving import (
    ARRIVED,
    MOST_BYTES,
    MOST_ROWS,
    MOVED,
    MOVING,
    RECORDS,
    pack,
    record_of,
    refuse,
    size_of,
    standing_of,
    unpack,
)
from poller.spools.pages import check_page
from poller.spools.postgres import meta, modes, sessions
from poller.spools.postgres.conditions import arrays, as_text, spread
from poller.spools.postgres.links import Address, EndedWaits, Link, connect, refusals, translated
from poller.spools.postgres.schema import prepare, to_bytes, to_text
from poller.spools.postgres.waiting_rows import put_waiting
from poller.spools.rows import Row, blob_of, number_of, reads_back, waiting_of
from poller.spools.waiting import Waiting

TABLES: Final = (
    *(
        "page",
        "seen",
        "seen_at",
        "provisional",
        "dead_ahead",
        "waiting",
        "dead",
        "quarantine",
        "source",
        "stream",
    ),
    *("delivered", "redelivered", "gap", "replay", "replay_without", "tally"),
    *("share", "duty", "attached", "correction", "paused"),
)
"""The tables that are empty in a new spool, beside `sink`."""
TEXT: Final = "text from outside"
"""The type of a column that holds text in `bytea` (`schema`)."""
KINDS: Final[Mapping[Table, tuple[str, ...]]] = {
    Table.PAGE: (
        *("bigint", "bigint", "float8", "float8", "text", TEXT, "float8", "text", "text"),
        *("bigint", "bigint", "bigint", "bytea"),
    ),
    Table.PROVISIONAL: ("bigint", "bigint"),
    Table.SINK: ("text", "bigint", "bool", "bigint"),
    Table.AHEAD: ("text", "bigint"),
    Table.WAITING: ("text", "text", "bigint", "float8", "float8", "bytea", "bytea", "bytea"),
    Table.DEAD: ("bigint", "text", "text", "bigint", "float8", "float8", TEXT, "bytea", "bytea", TEXT),
    Table.QUARANTINE: ("bigint", "bytea", "text", "float8", TEXT, "text", "bytea"),
    Table.SOURCE: ("text", TEXT, "bytea", "float8"),
    Table.STREAM: ("text", TEXT, "bytea"),
    Table.DELIVERED: ("text", "float8", "bigint", "bigint", "bytea", "bigint", "bigint", "bytea"),
    Table.REDELIVERED: ("text", "text", "float8", "bigint", "bigint", "bytea"),
    Table.GAP: (
        *("text", "text", TEXT, "float8", "float8", "bigint", TEXT, "bigint"),
        *("float8", "float8", "float8", "bigint"),
    ),
    Table.REPLAY: ("bigint", "text", "bytea", "bigint", "bigint", "float8", "bigint", "bigint", "text"),
    Table.REPLAY_WITHOUT: ("bigint", "bytea"),
    Table.TALLY: ("text", "text", "bigint", "float8"),
}
"""The types of the columns that `COLUMNS` names."""
NAMES: Final = {Table.AHEAD: "dead_ahead"}
"""The tables that have another name here."""
MOST_KEYS: Final = 20_000
"""The most keys in one statement."""
FETCHED: Final = 10
FETCHED_OF: Final = {
    Table.PAGE: FETCHED,
    Table.QUARANTINE: FETCHED,
    Table.WAITING: FETCHED,
    Table.SEEN: FETCHED,
}
"""Rows that are fetched at once from tables with large rows."""

_READ: Final[Mapping[Table, str]] = {
    Table.SEEN: "SELECT at, array_agg(key ORDER BY key) FROM seen JOIN seen_at USING (token) GROUP BY token, at"
    " ORDER BY token",
    Table.SINK: "SELECT name, position, coalesce(paused, false), since FROM sink LEFT JOIN paused ON sink = name"
    " WHERE name = parent ORDER BY name",
    Table.TALLY: "SELECT owner, book, sum(count)::bigint, max(at) FROM tally GROUP BY owner, book",
    Table.DELIVERED: f"SELECT {COLUMNS[Table.DELIVERED]} FROM delivered ORDER BY n",  # noqa: S608 - our own words
    Table.REDELIVERED: f"SELECT {COLUMNS[Table.REDELIVERED]} FROM redelivered ORDER BY n",  # noqa: S608
}
_PUT_SINKS: Final = (
    "INSERT INTO sink (name, parent, position, mode, since)"  # noqa: S608 - our own words
    f" SELECT name, name, position, CASE WHEN since IS NULL THEN '{modes.SHARES}' ELSE '{modes.ORDERED}' END, since"
    f" FROM {spread('text', 'bigint', 'bigint')} AS put (name, position, since)"
)
_PUT_PAUSED: Final = "INSERT INTO paused SELECT unnest($1::text[]), true, 0"
_PUT_TALLIES: Final = (
    f"INSERT INTO tally (owner, book, session, count, at) SELECT owner, book, {sessions.NOBODY}, count, at"  # noqa: S608
    f" FROM {spread('text', 'text', 'bigint', 'float8')} AS put (owner, book, count, at)"
)
_END_IDLE: Final = "SELECT set_config('idle_in_transaction_session_timeout', $1, true)"
_PUT_SEEN_AT: Final = (
    f"INSERT INTO seen_at OVERRIDING SYSTEM VALUE SELECT * FROM {spread('bigint', 'float8')}"  # noqa: S608
)
_PUT_SEEN: Final = f"INSERT INTO seen SELECT * FROM {spread('bigint', 'bigint')} ON CONFLICT DO NOTHING"  # noqa: S608
_TOKENS: Final = (
    "SELECT nextval(pg_get_serial_sequence('seen_at', 'token')) FROM generate_series(1, $1::bigint)"
)
_LAST: Final = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {}_n_seq"
_HOSTS: Final = re.compile(r"[\w.-]*(:\d+)?(,[\w.-]*(:\d+)?)*|\[[0-9a-fA-F:]*\](:\d+)?")


class MovableSchema(CanBeMoved):
    """What makes a spool movable that lies in a schema of a database. The engine has its name, its address, the schema
    and the lease."""

    _address: Address
    _lease: float

    @property
    def place(self) -> str:
        """See `CanBeMoved.place`."""
        return f"PostgreSQL {where(self._address.dsn) or 'database'}, schema {self._address.schema}"

    def why_not_in_force(self) -> str | None:
        """See `CanBeMoved.why_not_in_force`."""
        return None

    @asynccontextmanager
    async def hold(self, *, create: bool) -> AsyncIterator[HeldSpool]:
        """See `CanBeMoved.hold`."""
        name, schema = self._address.name, self._address.schema
        link = await connect(self._address)
        held = HeldSchema(self._address, link, self._lease)
        try:
            async with translated(name):
                if not create and await link.fetchval("SELECT to_regclass($1)", f"{schema}.meta") is None:
                    raise StorageError(f"spool {name}: {self.place} has no spool")
                if found := await refusals(link):
                    raise StorageError(f"spool {name}: {'; '.join(found)}")
                await prepare(link, schema)
                await held.take()
            yield held
        finally:
            await held.release()


def where(dsn: str) -> str:
    """The hosts and the database of an address. Empty if they cannot be told from a password."""
    with suppress(ValueError):
        parts = urlsplit(dsn)
        hosts = parts.netloc.rpartition("@")[2]
        is_plain = _HOSTS.fullmatch(hosts) and "@" not in f"{parts.path}{parts.query}{parts.fragment}"
        if parts.scheme in ("postgres", "postgresql") and is_plain:
            return f"{hosts}{parts.path}"
    return ""


async def refuse_moved(name: str, link: Link) -> None:
    """Raise `SpoolMoved` if the spool is not in force. A session has begun, so no move begins meanwhile."""
    refuse(f"spool {name}", await _records(link))


async def _records(link: Link) -> dict[str, bytes]:
    return dict(
        map(tuple, await link.fetch("SELECT name, value FROM meta WHERE name = ANY($1::text[])", RECORDS))
    )


class HeldSchema(HeldSpool):
    """A schema in which this process has the only session."""

    def __init__(self, address: Address, link: Link, seconds: float) -> None:
        self._address = address
        self._name = address.name
        self._link = link
        self._seconds = seconds
        self._ended_waits = EndedWaits(link)
        self._session = 0
        self._beating: asyncio.Task[None] | None = None

    async def take(self) -> None:
        """Begin the session, and prolong its lease from now on. Raises `StorageLocked`."""
        holder = f"poller spool move on {socket.gethostname()}, process {os.getpid()}"
        self._session = await sessions.begin(
            self._link, self._name, holder, self._seconds, visits=True, alone=True
        )
        self._beating = asyncio.create_task(self._beat())

    async def release(self) -> None:
        """End the session, if it has begun, and close the connection."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait({self._beating})
            with suppress(StorageError, TimeoutError):
                async with asyncio.timeout(self._seconds), translated(self._name):
                    await sessions.end(self._link, self._session)
        self._link.terminate()

    async def _beat(self) -> None:
        """Prolong the lease until this is cancelled. Once the session has ended, no write succeeds."""
        link: Link | None = None
        try:
            while True:
                with suppress(StorageError, TimeoutError):
                    async with asyncio.timeout(self._seconds / 4), translated(self._name):
                        if link is None or link.is_closed():
                            link = await connect(self._address)
                        await sessions.renew(link, self._name, self._session, self._seconds)
                await asyncio.sleep(self._seconds / 4)
        finally:
            if link is not None:
                link.terminate()

    # ------------------------------------------------------------ reading

    async def standing(self) -> Standing:
        """See `HeldSpool.standing`."""
        async with translated(self._name):
            rows = " OR ".join(f"EXISTS (SELECT FROM {table})" for table in TABLES)
            filled = await self._link.fetchval(f"SELECT {rows}") or await meta.read_head(self._link) > 1
            factor = await meta.read_factor(self._link)
            return standing_of(await _records(self._link), factor=factor, empty=not filled)

    async def numbers(self) -> Numbers:
        """See `HeldSpool.numbers`."""
        async with translated(self._name):
            if (factor := await meta.read_factor(self._link)) is None:
                raise StorageError(f"spool {self._name}: it is empty: no daemon has used it yet")
            return Numbers(
                factor=factor,
                head=await meta.read_head(self._link),
                catalogue=await meta.read_number(self._link, meta.CATALOGUE),
                dead=await self._link.fetchval(_LAST.format("dead")),
                quarantine=await self._link.fetchval(_LAST.format("quarantine")),
            )

    async def begin_reading(self) -> None:
        """See `HeldSpool.begin_reading`."""
        async with self._transaction() as link:
            await modes.unite(link)

    async def portions(self, table: Table) -> AsyncIterator[list[Row]]:
        """See `HeldSpool.portions`."""
        some, size = list[Row](), 0
        async with translated(self._name), self._link.transaction():
            cursor = self._link.cursor(_query(table), prefetch=FETCHED_OF.get(table, MOST_ROWS))
            async for found in cursor:
                row = _row_of(table, tuple(found))
                some.append(row)
                size += size_of(row)
                if len(some) == MOST_ROWS or size >= MOST_BYTES:
                    yield some
                    some, size = [], 0
        if some:
            yield some

    async def count(self, table: Table) -> int:
        """See `HeldSpool.count`."""
        async with translated(self._name):
            return int(
                await self._link.fetchval(f"SELECT count(*) FROM ({_query(table)}) AS rows")  # noqa: S608
            )

    # ------------------------------------------------------------ writing

    async def begin(self, move: Move) -> None:
        """See `HeldSpool.begin`."""
        async with self._transaction() as link:
            await link.execute(f"TRUNCATE sink, {', '.join(TABLES)} RESTART IDENTITY")
            await link.execute("DELETE FROM meta WHERE name <> 'version'")
            await meta.put_head(link, 1)
            await _put(link, MOVING, record_of(move))

    async def write(self, table: Table, rows: Sequence[Row]) -> None:
        """See `HeldSpool.write`."""
        async with self._transaction() as link:
            await (_WRITE[table](link, rows) if table in _WRITE else _write_plain(link, table, rows))

    async def write_numbers(self, numbers: Numbers, kept_as: int) -> None:
        """See `HeldSpool.write_numbers`. A database counts no pages of journals, which lie on several machines."""
        async with self._transaction() as link:
            await meta.put_factor(link, numbers.factor)
            await meta.put_head(link, numbers.head)
            await meta.put_number(link, meta.CATALOGUE, numbers.catalogue)
            for table, last in (("dead", numbers.dead), ("quarantine", numbers.quarantine)):
                if last:
                    await link.execute(f"SELECT setval('{table}_n_seq', $1)", last)
            await link.execute("SELECT setval('replay_number', max(n)) FROM replay HAVING max(n) > 0")

    async def give_up(self, move: Move) -> None:
        """See `HeldSpool.give_up`."""
        async with self._transaction() as link:
            await _put(link, MOVED, record_of(move))

    async def put_in_force(self, move: Move) -> None:
        """See `HeldSpool.put_in_force`."""
        async with self._transaction() as link:
            await modes.mark_what_waits(link)
            await link.execute("DELETE FROM meta WHERE name = $1", MOVING)
            await _put(link, ARRIVED, record_of(move))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Link]:
        """A transaction that proves that the session goes on, and whose commit a standby has, where there is one.

        The server ends it if it stands still for half a lease, so that another session can begin.
        """
        async with translated(self._name):
            async with self._link.transaction():
                await self._link.execute(_END_IDLE, str(int(self._seconds / 2 * 1000)))
                await sessions.check(self._link, self._name, self._session)
                yield self._link
            while self._ended_waits.take():
                await self._link.execute("UPDATE meta SET value = value WHERE name = 'version'")


async def _put(link: Link, name: str, value: bytes) -> None:
    await link.execute(
        "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        name,
        value,
    )


# ---------------------------------------------------------------- rows


def _query(table: Table) -> str:
    if table in _READ:
        return _READ[table]
    return f"SELECT {COLUMNS[table]} FROM {NAMES.get(table, table.value)} ORDER BY 1, 2"  # noqa: S608 - our own words


def _insertion(table: Table) -> str:
    kinds = ["bytea" if kind == TEXT else kind for kind in KINDS[table]]
    return (
        f"INSERT INTO {NAMES.get(table, table.value)} ({COLUMNS[table]}) OVERRIDING SYSTEM VALUE"  # noqa: S608
        f" SELECT * FROM {spread(*kinds)}"
    )


@reads_back
def _row_of(table: Table, row: Row) -> Row:
    """A row as it is moved, from the columns of a table. Raises `Unreadable`."""
    if table is Table.SEEN:
        at, keys = row
        return at, pack(_keys(keys))
    if table is Table.PAGE:
        first, *_, crc, blob = row
        check_page(number_of(first), blob, crc)
    found = zip(row, KINDS[table], strict=True)
    return tuple([to_text(blob_of(value)) if kind == TEXT else value for value, kind in found])


def _stored(table: Table, row: Row) -> Row:
    """A row as it is stored."""
    return tuple([_value(value, kind) for value, kind in zip(row, KINDS[table], strict=True)])


def _value(value: object, kind: str) -> object:
    if not isinstance(value, str):
        return value
    return to_bytes(value) if kind == TEXT else as_text(value)


def _keys(found: object) -> list[int]:
    return [number_of(key) for key in found] if isinstance(found, Iterable) else []


async def _write_seen(link: Link, rows: Sequence[Any]) -> None:
    tokens = [token for (token,) in await link.fetch(_TOKENS, len(rows))]
    moments = [(token, at) for token, (at, _) in zip(tokens, rows, strict=True)]
    await link.execute(_PUT_SEEN_AT, *arrays(moments))
    keyed = [(key, token) for token, (_, packed) in zip(tokens, rows, strict=True) for key in unpack(packed)]
    keyed.sort()  # neighbours lie on the same pages of the index
    for start in range(0, len(keyed), MOST_KEYS):
        await link.execute(_PUT_SEEN, *arrays(keyed[start : start + MOST_KEYS]))


async def _write_plain(link: Link, table: Table, rows: Sequence[Row]) -> None:
    await link.execute(_insertion(table), *arrays(_stored(table, row) for row in rows))


async def _write_sinks(link: Link, rows: Sequence[Any]) -> None:
    names = [(as_text(name), position, paused, since) for name, position, paused, since in rows]
    await link.execute(_PUT_SINKS, *arrays((name, position, since) for name, position, _, since in names))
    await link.execute(_PUT_PAUSED, [name for name, _, paused, _ in names if paused])


@reads_back
def _batches(rows: Sequence[Any]) -> list[tuple[str, Waiting]]:
    return [(as_text(sink), waiting_of(tuple(row))) for sink, *row in rows]


async def _write_waiting(link: Link, rows: Sequence[Any]) -> None:
    await put_waiting(link, sessions.NOBODY, _batches(rows))


async def _write_tallies(link: Link, rows: Sequence[Row]) -> None:
    await link.execute(_PUT_TALLIES, *arrays(_stored(Table.TALLY, row) for row in rows))


_WRITE: Final = {
    Table.SEEN: _write_seen,
    Table.SINK: _write_sinks,
    Table.WAITING: _write_waiting,
    Table.TALLY: _write_tallies,
}
