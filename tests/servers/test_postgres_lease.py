"""The lease of a PostgreSQL spool is kept while the database is slow with something else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from poller.core.spool import anything
from tests.servers.databases import Database, database, started
from tests.servers.postgres_spools import dsn_of, schema_of, spool_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

LEASE = 2.0


@asynccontextmanager
async def locked(server: Database, folder: Path, table: str) -> AsyncIterator[asyncpg.Connection]:
    """Nobody can read a table meanwhile."""
    link = await asyncpg.connect(dsn_of(server))
    try:
        async with link.transaction():
            await link.execute(f"LOCK TABLE {schema_of(folder)}.{table} IN ACCESS EXCLUSIVE MODE")
            yield link
    finally:
        link.terminate()


async def held(link: asyncpg.Connection, folder: Path) -> bool:
    schema = schema_of(folder)
    return bool(await link.fetchval(f"SELECT due > clock_timestamp() FROM {schema}.heartbeat"))


async def still_held(link: asyncpg.Connection, folder: Path) -> bool:
    """Whether the lease is held at each look, for twice its length, once it was taken."""
    async with asyncio.timeout(20):
        while not await held(link, folder):
            await asyncio.sleep(0.05)
    for _ in range(8):
        await asyncio.sleep(LEASE / 4)
        if not await held(link, folder):
            return False
    return True


def test_a_question_that_takes_long_does_not_end_the_lease(tmp_path: Path, database: Database) -> None:
    async def scenario() -> None:
        async with spool_of(database, tmp_path, lease=LEASE) as spool:
            await spool.attach("a", anything)
            async with locked(database, tmp_path, "quarantine") as link:
                asked = asyncio.ensure_future(spool.quarantine_size())
                assert await still_held(link, tmp_path)
                assert not asked.done()
            assert await asked == 0

    asyncio.run(scenario())


def test_a_state_that_takes_long_to_read_does_not_end_the_lease(tmp_path: Path, database: Database) -> None:
    async def scenario() -> None:
        async with spool_of(database, tmp_path, lease=LEASE):
            pass
        spool = spool_of(database, tmp_path, lease=LEASE)
        async with locked(database, tmp_path, "stream") as link:
            entering = asyncio.ensure_future(spool.__aenter__())
            assert await still_held(link, tmp_path)
            assert not entering.done()
        await entering
        await spool.__aexit__(None, None, None)

    asyncio.run(scenario())
