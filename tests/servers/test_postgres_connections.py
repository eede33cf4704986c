"""The connections of a postgres spool: servers that vanish without a word, and settings that a role has."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import pytest
import uvloop

from poller.core.errors import StorageError
from poller.core.model import Done
from poller.core.spool import anything
from poller.spools.postgres import PostgresSpool, links
from poller.spools.postgres.links import StorageAway
from poller.testing.factories import some_event, some_reading, some_reject
from tests.servers.databases import PASSWORD, Database, database, started
from tests.servers.middle_box import middle_box
from tests.servers.postgres_spools import schema_of, spool_of
from tests.servers.sql_sinks import POSTGRESQL
from tests.servers.standbys import hung, standby_away
from tests.servers.test_postgres_commits import END_ALL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

LEASE: Final = 6.0
SOON: Final = 40.0
"""Seconds within which a daemon goes on: far less than the kernel takes by itself to give a connection up."""


def dsn_by(*ports: int) -> str:
    """The address of servers on these ports of this machine."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgresql://poller:{PASSWORD}@{hosts}/live?sslmode=disable"


async def append(spool: PostgresSpool, *numbers: int) -> int:
    """Append events, again and again until that is confirmed, as the journal does. Returns how many are new."""
    async with asyncio.timeout(SOON):
        while True:
            with suppress(StorageAway):
                return (await spool.append("source", [some_reading(*numbers)])).total()
            await asyncio.sleep(0.1)


async def drained(spool: PostgresSpool, count: int) -> list[str]:
    """The ids of the next `count` events, which are delivered."""
    got: list[str] = []
    async with asyncio.timeout(SOON):
        while len(got) < count:
            batch = await spool.claim("a", 100)
            got += [event.id for event in batch.events]
            await spool.settle(batch, [Done()] * len(batch.events))
    return got


def ids(*numbers: int) -> list[str]:
    return [some_event(number).id for number in numbers]


# ---------------------------------------------------------------- servers that vanish


def connect_and_lose(monkeypatch: pytest.MonkeyPatch, dsn: str, losses: int) -> links.Link:
    """Connect in the daemon's own loop. The first connections have ended when they are made, as on a slow machine."""
    make, left = asyncpg.connect, losses

    async def make_and_lose(*words: Any, **settings: Any) -> links.Link:
        nonlocal left
        link = await make(*words, **settings)
        if left:
            left -= 1
            link._transport.abort()
            await asyncio.sleep(0.01)
        return link

    async def connected() -> links.Link:
        link = await links.connect(links.Address("spool", dsn, "public"))
        link.terminate()
        return link

    monkeypatch.setattr(asyncpg, "connect", make_and_lose)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(connected())


TLS: Final = pytest.mark.parametrize("tls", ["require", "disable"])


@TLS
def test_a_connection_that_has_ended_when_it_is_made_is_an_outage(
    database: Database, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    dsn = dsn_by(database.port).replace("disable", tls)
    with pytest.raises(StorageAway, match=f"127.0.0.1:{database.port}: the connection broke"):
        connect_and_lose(monkeypatch, dsn, 1)


@TLS
def test_after_a_connection_that_has_ended_when_it_is_made_the_next_server_is_tried(
    database: Database, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    server = f"127.0.0.1:{database.port}"
    dsn = dsn_by(database.port).replace(server, f"{server},localhost:{database.port}")
    assert connect_and_lose(monkeypatch, dsn.replace("disable", tls), 1) is not None


async def test_a_first_server_that_says_nothing_keeps_no_daemon_from_the_second(
    tmp_path: Path, database: Database
) -> None:
    """Neither at its start, nor when all of its connections are lost: its lease goes on."""
    async with middle_box(database.port) as box:
        box.silent = True
        dsn = dsn_by(box.port, database.port)
        async with asyncio.timeout(SOON), spool_of(database, tmp_path, dsn=dsn, lease=LEASE) as spool:
            await spool.attach("a", anything)
            await database.ask(END_ALL)
            await asyncio.sleep(1.5 * LEASE)
            assert spool.proven.is_set()
            assert await append(spool, 1) == 1
            assert await drained(spool, 1) == ids(1)


async def test_a_daemon_whose_connections_have_all_gone_silent_goes_on_over_new_ones(
    tmp_path: Path, database: Database
) -> None:
    async with middle_box(database.port) as box:
        async with spool_of(database, tmp_path, dsn=dsn_by(box.port), lease=LEASE) as spool:
            await spool.attach("a", anything)
            assert await append(spool, 1) == 1
            assert await drained(spool, 1) == ids(1)
            box.lose_after(1)
            assert await append(spool, 2) == 1
            assert await drained(spool, 1) == ids(2)
        assert box.fired == 1


async def test_the_kernel_asks_after_a_server_on_each_connection(tmp_path: Path, database: Database) -> None:
    async with spool_of(database, tmp_path) as spool:
        await spool.attach("a", anything)
        parts: list[Any] = [spool._membership._link, spool._reader._link]
        for link in (*parts, spool._writer.connection, spool._claims.connection):
            wire = link._transport.get_extra_info("socket")
            assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle, every, count = (
                wire.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle + every * count <= 15
            assert 0 < wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 15_000


async def test_events_that_a_replaced_server_does_not_have_are_not_taken_for_pruned(
    tmp_path: Path, database: Database
) -> None:
    """The connection that reads still leads to a server that lacks the newest events, as one that was cut off does."""
    schema = schema_of(tmp_path)
    async with spool_of(database, tmp_path) as first, spool_of(database, tmp_path) as second:
        await second.attach("a", anything)
        await second.backlog("a")
        for table in ("page", "log"):
            await database.ask(f"CREATE TABLE public.{table} AS SELECT * FROM {schema}.{table}")
        try:
            await database.ask("GRANT SELECT ON public.page, public.log TO poller")
            await second._reader.read(lambda link: link.execute("SET search_path = public"))
            link: Any = second._reader._link
            second._dispatcher.tail.most_bytes = 0
            assert await append(first, 1, 2, 3) == 3
            assert await drained(second, 3) == ids(1, 2, 3)
            assert second._reader._link is not link
        finally:
            await database.ask("DROP TABLE public.page, public.log")


# ---------------------------------------------------------------- settings of the role


@asynccontextmanager
async def role_with(server: Database, setting: str, value: str) -> AsyncIterator[None]:
    """The user of the spool has a setting of its own in each new connection."""
    await server.ask(f"ALTER ROLE poller SET {setting} = '{value}'")
    try:
        yield
    finally:
        await server.ask(f"ALTER ROLE poller RESET {setting}")


async def append_one_by_one(spool: PostgresSpool) -> int:
    """Append fifty events, each in a transaction of its own. Returns how many were new."""
    return sum([(await spool.append("source", [some_reading(number)])).total() for number in range(50)])


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_daemons_share_a_log_whatever_isolation_their_role_has(
    tmp_path: Path, database: Database, level: str
) -> None:
    async with (
        role_with(database, "default_transaction_isolation", level),
        spool_of(database, tmp_path) as one,
        spool_of(database, tmp_path) as two,
    ):
        for spool in (one, two):
            await spool.attach("a", anything)
        assert sum(await asyncio.gather(*map(append_one_by_one, (one, two)))) == 50
        assert sorted(await drained(one, 50)) == sorted(ids(*range(50)))


async def test_a_commit_whose_wait_was_cancelled_is_noticed_although_the_role_wants_no_warnings(
    tmp_path: Path, database: Database
) -> None:
    async with (
        role_with(database, "client_min_messages", "error"),
        spool_of(database, tmp_path, lease=60) as spool,
    ):
        with standby_away(database):
            appending = asyncio.ensure_future(append(spool, 1))
            await database.ask(f"SELECT pg_cancel_backend({await hung(database)})")
            await asyncio.sleep(0.5)
            assert not appending.done()
        assert await appending == 1


async def test_idle_connections_that_the_server_ends_are_made_anew(
    tmp_path: Path, database: Database
) -> None:
    async with (
        role_with(database, "idle_session_timeout", "700ms"),
        spool_of(database, tmp_path, lease=LEASE) as spool,
    ):
        await spool.attach("a", anything)
        for number in range(4):
            await asyncio.sleep(1)
            assert await append(spool, number) == 1
            assert await drained(spool, 1) == ids(number)


async def test_a_server_that_would_lose_what_it_confirms_is_refused_by_a_daemon_that_runs(
    tmp_path: Path, database: Database
) -> None:
    """As after a failover to a server with other settings."""
    async with spool_of(database, tmp_path) as spool:
        await spool.attach("a", anything)
        assert await append(spool, 1) == 1
        async with role_with(database, "synchronous_commit", "local"):
            await database.ask(END_ALL)
            with pytest.raises(StorageError, match="synchronous_commit is local"):
                await append(spool, 2)
            assert "synchronous_commit is local" in str(await spool.failed())
    async with spool_of(database, tmp_path) as spool:
        await spool.attach("a", anything)
        assert await drained(spool, 1) == ids(1)


# ---------------------------------------------------------------- rights


async def test_a_schema_that_an_administrator_made_is_used_without_the_right_to_make_one(
    tmp_path: Path, database: Database
) -> None:
    await database.ask(f"CREATE SCHEMA {schema_of(tmp_path)} AUTHORIZATION poller")
    await database.ask("REVOKE CREATE ON DATABASE live FROM poller")
    try:
        async with spool_of(database, tmp_path) as spool:
            await spool.attach("a", anything)
            assert await append(spool, 1) == 1
    finally:
        await database.ask("GRANT CREATE ON DATABASE live TO poller")


# ---------------------------------------------------------------- encodings


@asynccontextmanager
async def encoded(server: Database, encoding: str) -> AsyncIterator[str]:
    """The address of a database with an encoding of its own."""
    made = f"CREATE DATABASE other TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' OWNER poller"
    await server.ask(made)
    try:
        yield dsn_by(server.port).replace("/live", "/other")
    finally:
        await server.ask("DROP DATABASE other WITH (FORCE)")


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_CN"])
async def test_a_database_that_lacks_characters_is_refused(
    tmp_path: Path, database: Database, encoding: str
) -> None:
    async with encoded(database, encoding) as dsn:
        with pytest.raises(StorageError, match=f"the encoding {encoding}"):
            await spool_of(database, tmp_path, dsn=dsn).__aenter__()


async def test_a_database_that_stores_text_as_it_comes_keeps_every_character(
    tmp_path: Path, database: Database
) -> None:
    reject = msgspec.structs.replace(some_reject(1), reason="\u4f4d\0", encoding="\u4f4d\0")
    async with encoded(database, "SQL_ASCII") as dsn, spool_of(database, tmp_path, dsn=dsn) as spool:
        await spool.append("source", [msgspec.structs.replace(some_reading(1), rejects=(reject,))])
        (kept,) = await spool.quarantined(9)
        assert (kept.reject.reason, kept.reject.encoding) == ("\u4f4d\0", "\u4f4d\ufffd")
