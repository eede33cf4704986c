"""The connections of a postgres spool: servers that vanish without a word, and settings that a role has."""

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Final


from poller.core.model import Done
from poller.core.spool import anything
from poller.spools.postgres import PostgresSpool
from poller.spools.postgres.links import StorageAway
from poller.testing.factories import some_event, some_reading
from tests.servers.databases import PASSWORD, Database, database, started
from tests.servers.middle_box import middle_box
from tests.servers.postgres_spools import schema_of, spool_of
from tests.servers.sql_sinks import POSTGRESQL
from tests.servers.test_postgres_commits import END_ALL, ask

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

LEASE: Final = 2.0
SOON: Final = 10.0
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


async def test_a_first_server_that_says_nothing_keeps_no_daemon_from_the_second(
    tmp_path: Path, database: Database
) -> None:
    """Neither at its start, nor when all of its connections are lost: its lease goes on."""
    async with middle_box(database.port) as box:
        box.silent = True
        dsn = dsn_by(box.port, database.port)
        async with asyncio.timeout(SOON), spool_of(database, tmp_path, dsn=dsn, lease=LEASE) as spool:
            await spool.attach("a", anything)
            await ask(database, END_ALL)
            await asyncio.sleep(2 * LEASE)
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
        parts: list[Any] = [spool._desk._link, spool._reader._link]
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
            await ask(database, f"CREATE TABLE public.{table} AS SELECT * FROM {schema}.{table}")
        try:
            await ask(database, "GRANT SELECT ON public.page, public.log TO poller")
            await second._reader.read(lambda link: link.execute("SET search_path = public"))
            link: Any = second._reader._link
            second._dispatcher.tail.most_bytes = 0
            assert await append(first, 1, 2, 3) == 3
            assert await drained(second, 3) == ids(1, 2, 3)
            assert second._reader._link is not link
        finally:
            await ask(database, "DROP TABLE public.page, public.log")
