"""A PostgreSQL spool as the old or the new spool of a move (`core.moving`). Its rows are in `moved_rows`.

Life cycle
    `hold` begins a session that is alone, and prolongs its lease on a connection of its own. Each transaction that
    writes checks the session. So a spool that another session has taken over meanwhile stays as it is. A command that
    stands still for half a lease within a transaction loses its connection, so that another session can begin.
"""

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

from poller.core.errors import StorageError
from poller.core.moving import CanBeMoved, HeldSpool, Move, Numbers, Standing, Table
from poller.spools.moving import (
    ARRIVED,
    MOST_BYTES,
    MOST_ROWS,
    MOVED,
    MOVING,
    RECORDS,
    record_of,
    refuse,
    size_of,
    standing_of,
)
from poller.spools.postgres import meta, modes, moved_rows, sessions
from poller.spools.postgres.links import Address, EndedWaits, Link, connect, refuse_unsafe, translated
from poller.spools.postgres.migration import prepare
from poller.spools.rows import Row

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
_MAY_STAND_STILL: Final = "SET LOCAL idle_in_transaction_session_timeout = 0"
_LAST: Final = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {}_n_seq"
_HOSTS: Final = re.compile(r"[\w.-]*(:\d+)?(,[\w.-]*(:\d+)?)*|\[[0-9a-fA-F:]*\](:\d+)?")


class MovableSchema(CanBeMoved):
    """Makes a spool movable that lies in a schema of a database. The engine sets the address and the lease."""

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
        link = await connect(self._address, idle_in_transaction=self._lease / 2)
        held = HeldSchema(self._address, link, self._lease)
        try:
            async with translated(name):
                if not create and await link.fetchval("SELECT to_regclass($1)", f"{schema}.meta") is None:
                    raise StorageError(f"{name}: {self.place} has no spool")
                await refuse_unsafe(name, link)
                await prepare(link, self._address, self._lease, migrates=False)
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
    refuse(name, await _records(link))


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
        await sessions.mark(self._link, self._session)
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
                raise StorageError(f"{self._name}: it is empty: no daemon has used it yet")
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
            await self._link.execute(_MAY_STAND_STILL)  # it keeps nobody out, and the other spool may be slow
            cursor = self._link.cursor(moved_rows.query(table), prefetch=moved_rows.fetched_at_once(table))
            async for found in cursor:
                row = moved_rows.row_of(table, tuple(found))
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
                await self._link.fetchval(f"SELECT count(*) FROM ({moved_rows.query(table)}) AS rows")  # noqa: S608
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
            await moved_rows.write(link, table, rows)

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
        """A transaction that proves that the session goes on, and whose commit a standby has, where there is one."""
        async with translated(self._name):
            async with self._link.transaction():
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
