"""A commit whose outcome the daemon cannot see: the server stops waiting for its standby, or the connection dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from poller.core.errors import StorageError
from poller.core.spool import anything
from poller.spools.postgres import PostgresSpool
from poller.testing.factories import some_event, some_reading
from tests.patience import PATIENCE, patiently
from tests.servers.databases import Database, database, started
from tests.servers.postgres_spools import appended, claimed, spool_of
from tests.servers.sql_sinks import POSTGRESQL
from tests.servers.standbys import hung, standby_away

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

END_ALL = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'poller'"
MOMENTS = 30


async def delivered(spool: PostgresSpool) -> None:
    """The event of the tests is handed out, and a second time it is known."""
    async with asyncio.timeout(PATIENCE):
        assert (await spool.claim("a", 9)).events == (some_event(1),)
    assert (await spool.append("source", [some_reading(1)])).total() == 0


@asynccontextmanager
async def appending_alone(server: Database, folder: Path) -> AsyncIterator[None]:
    """An event is appended, and no standby has it. Behind the block it counts, once."""
    async with spool_of(server, folder, lease=60) as spool:
        await spool.attach("a", anything)
        with standby_away(server):
            appending = asyncio.ensure_future(spool.append("source", [some_reading(1)]))
            yield
            assert not appending.done(), "no standby has it"
        assert (await appending).total() == 1
        await delivered(spool)


def test_a_commit_counts_once_a_standby_has_it_although_the_server_stopped_waiting(
    tmp_path: Path, database: Database
) -> None:
    async def scenario() -> None:
        async with appending_alone(database, tmp_path):
            await database.ask(f"SELECT pg_cancel_backend({await hung(database)})")
            await asyncio.sleep(0.5)
            await hung(database)

    asyncio.run(scenario())


def test_a_commit_that_was_not_answered_is_found_in_the_database(tmp_path: Path, database: Database) -> None:
    """Its connection died while the server waited for the standby: the events are there, and are handed out."""

    async def scenario() -> None:
        async with appending_alone(database, tmp_path):
            await database.ask(f"SELECT pg_terminate_backend({await hung(database)})")
            await asyncio.sleep(1)

    asyncio.run(scenario())


def test_a_commit_whose_second_wait_breaks_off_is_found_in_the_database(
    tmp_path: Path, database: Database
) -> None:
    async def scenario() -> None:
        async with appending_alone(database, tmp_path):
            await database.ask(f"SELECT pg_cancel_backend({await hung(database)})")
            await asyncio.sleep(0.5)
            await database.ask(f"SELECT pg_terminate_backend({await hung(database)})")
            await asyncio.sleep(1)

    asyncio.run(scenario())


def test_a_connection_that_the_server_ends_at_any_moment_of_a_busy_daemon_is_replaced(
    tmp_path: Path, database: Database
) -> None:
    """The daemon stands still meanwhile, so that it reads the server's last answer and the end at once."""

    async def scenario() -> None:
        async with spool_of(database, tmp_path, lease=60) as spool:
            await spool.attach("a", anything)
            for number in range(1, MOMENTS):
                appending = asyncio.ensure_future(spool.append("source", [some_reading(number)]))
                await asyncio.sleep(number * 0.0005)
                database.ask_now(END_ALL)
                with suppress(StorageError):
                    await patiently(appending)
                await patiently(appended(spool, number))
            assert await claimed(spool, MOMENTS - 1) == [
                some_event(number).id for number in range(1, MOMENTS)
            ]

    asyncio.run(scenario())
