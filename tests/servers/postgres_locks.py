"""Locks that a test holds in the database of a spool, and who waits for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.patience import PATIENCE
from tests.servers.databases import Database

_WAITING = "FROM pg_stat_activity WHERE application_name = 'poller' AND wait_event_type = 'Lock'"


@asynccontextmanager
async def locked(server: Database, statement: str) -> AsyncIterator[None]:
    """Hold the locks of a statement."""
    holder = await asyncpg.connect(host=str(server.folder), port=server.port, user="admin", database="live")
    try:
        async with holder.transaction():
            await holder.execute(statement)
            yield
    finally:
        await holder.close()


async def until_one_waits(server: Database) -> None:
    """Wait until a connection of a spool waits for a lock."""
    async with asyncio.timeout(PATIENCE):
        while not await server.ask(f"SELECT {_WAITING}"):
            await asyncio.sleep(0.02)


async def end_who_waits(server: Database) -> None:
    """End the connections of spools that wait for a lock."""
    await server.ask(f"SELECT pg_terminate_backend(pid, 5000) {_WAITING}")
