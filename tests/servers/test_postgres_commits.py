"""A commit whose outcome the daemon cannot see: the server stops waiting for its standby, or the connection dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from poller.core.spool import anything
from poller.spools.postgres import PostgresSpool
from poller.testing.factories import some_event, some_reading
from tests.servers.databases import Database, database, started
from tests.servers.postgres_spools import spool_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

HANGS = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'poller' AND wait_event = 'SyncRep'"
    " AND query NOT LIKE 'UPDATE heartbeat%'"
)


async def ask(server: Database, statement: str) -> list[asyncpg.Record]:
    found: list[asyncpg.Record] = list(await server.ask(statement))
    return found


async def set_standby(server: Database, names: str) -> None:
    await ask(server, f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    await ask(server, "SELECT pg_reload_conf()")


@asynccontextmanager
async def without_its_standby(server: Database) -> AsyncIterator[None]:
    """Commits wait for a standby that is not there."""
    await set_standby(server, "nobody")
    try:
        yield
    finally:
        await set_standby(server, "")


async def hung(server: Database) -> int:
    """The process of the server whose commit waits."""
    async with asyncio.timeout(10):
        while not (found := await ask(server, HANGS)):
            await asyncio.sleep(0.02)
    return int(found[0][0])


async def delivered(spool: PostgresSpool) -> None:
    """The event of the tests is handed out, and a second time it is known."""
    async with asyncio.timeout(10):
        assert (await spool.claim("a", 9)).events == (some_event(1),)
    assert (await spool.append("source", [some_reading(1)])).total() == 0


def test_a_commit_counts_once_a_standby_has_it_although_the_server_stopped_waiting(
    tmp_path: Path, database: Database
) -> None:
    async def scenario() -> None:
        async with spool_of(database, tmp_path, lease=60) as spool:
            await spool.attach("a", anything)
            async with without_its_standby(database):
                appending = asyncio.ensure_future(spool.append("source", [some_reading(1)]))
                first = await hung(database)
                await ask(database, f"SELECT pg_cancel_backend({first})")
                await asyncio.sleep(0.5)
                await hung(database)
                assert not appending.done()
            assert (await appending).total() == 1
            await delivered(spool)

    asyncio.run(scenario())


def test_a_commit_that_was_not_answered_is_found_in_the_database(tmp_path: Path, database: Database) -> None:
    """Its connection died while the server waited for the standby: the events are there, and are handed out."""

    async def scenario() -> None:
        async with spool_of(database, tmp_path, lease=60) as spool:
            await spool.attach("a", anything)
            async with without_its_standby(database):
                appending = asyncio.ensure_future(spool.append("source", [some_reading(1)]))
                await ask(database, f"SELECT pg_terminate_backend({await hung(database)})")
                await asyncio.sleep(1)
                assert not appending.done(), "no standby has it"
            assert (await appending).total() == 1
            await delivered(spool)

    asyncio.run(scenario())


def test_a_commit_whose_second_wait_breaks_off_is_found_in_the_database(
    tmp_path: Path, database: Database
) -> None:
    async def scenario() -> None:
        async with spool_of(database, tmp_path, lease=60) as spool:
            await spool.attach("a", anything)
            async with without_its_standby(database):
                appending = asyncio.ensure_future(spool.append("source", [some_reading(1)]))
                await ask(database, f"SELECT pg_cancel_backend({await hung(database)})")
                await asyncio.sleep(0.5)
                await ask(database, f"SELECT pg_terminate_backend({await hung(database)})")
                await asyncio.sleep(1)
                assert not appending.done(), "no standby has it"
            assert (await appending).total() == 1
            await delivered(spool)

    asyncio.run(scenario())
