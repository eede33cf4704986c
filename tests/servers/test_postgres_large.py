"""A postgres spool that holds much: what a daemon does again and again does not read all of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from poller.core.errors import StorageFull
from poller.core.model import Dead
from poller.core.spool import anything
from poller.runtime.clock import Clock
from poller.spools.postgres import PostgresSpool, page_sizes
from poller.spools.postgres.page_sizes import PageSizes
from poller.spools.postgres.seen import DedupIndex
from poller.spools.retention import PRUNE_STEP
from poller.testing.factories import some_reading
from tests.patience import PATIENCE
from tests.servers.databases import Database, database, started
from tests.servers.postgres_spools import dsn_of, schema_of, spool_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

ROWS = 200_000


@asynccontextmanager
async def tables_of(server: Database, folder: Path) -> AsyncIterator[Any]:
    """A connection to the tables of a spool that nobody has entered."""
    async with spool_of(server, folder):
        pass
    connection = await asyncpg.connect(dsn_of(server), server_settings={"search_path": schema_of(folder)})
    try:
        yield connection
    finally:
        await connection.close()


async def rows_read(connection: Any, table: str) -> int:
    """How many rows of a table were read, by index or by a scan."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    return int(
        await connection.fetchval(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables"
            " WHERE schemaname = current_schema() AND relname = $1",
            table,
        )
    )


async def test_the_size_is_that_of_all_pages_while_pages_come_and_go(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_sizes, "STRETCH", 7)
    async with tables_of(database, tmp_path) as connection, spool_of(database, tmp_path) as spool:
        sizes = PageSizes()
        assert await sizes.total(connection) == 0
        for number in range(60):
            await spool.append("shots", [some_reading(*range(number * 3, number * 3 + 3))])
            if number % 5 == 4:
                await connection.execute(
                    "DELETE FROM page WHERE first IN (SELECT first FROM page ORDER BY first LIMIT 4)"
                )
            stored = await connection.fetchval("SELECT sum(octet_length(events)) FROM page")
            assert await sizes.total(connection) == stored
        await connection.execute("DELETE FROM page")
        assert await sizes.total(connection) == 0


async def test_a_second_look_at_the_size_reads_few_pages(tmp_path: Path, database: Database) -> None:
    async with tables_of(database, tmp_path) as connection:
        await connection.execute(
            "INSERT INTO page SELECT n * 100, n * 100 + 99, n, n, 'shots', '', n, 'full', 'screenshot', n, n, 0, '1234'"
            f" FROM generate_series(1, {ROWS}) AS n"
        )
        await connection.execute(f"UPDATE log SET head = {ROWS + 1} * 100")
        await connection.execute("ANALYZE page")
        sizes = PageSizes()
        assert await sizes.total(connection) == 4 * ROWS
        before = await rows_read(connection, "page")
        assert await sizes.total(connection) == 4 * ROWS
        assert await rows_read(connection, "page") - before < 4 * page_sizes.STRETCH // 100


async def test_pruning_ids_reads_none_that_are_young(tmp_path: Path, database: Database) -> None:
    async with tables_of(database, tmp_path) as connection:
        await connection.execute(
            f"INSERT INTO seen_at OVERRIDING SYSTEM VALUE SELECT n, 1000 + n FROM generate_series(1, {ROWS}) AS n"
        )
        await connection.execute("ANALYZE seen_at")
        before = await rows_read(connection, "seen_at")
        assert not await DedupIndex.prune(connection, [(1000.0, 1e9)], PRUNE_STEP)
        assert await rows_read(connection, "seen_at") - before < 100
        assert await DedupIndex.prune(connection, [(1040.0, 1e9)], PRUNE_STEP)
        assert await connection.fetchval("SELECT min(token) FROM seen_at") == PRUNE_STEP + 1
        assert await rows_read(connection, "seen_at") - before < 1_000


async def test_pages_are_compressed_by_the_cheaper_method_where_there_is_one(
    tmp_path: Path, database: Database
) -> None:
    async with tables_of(database, tmp_path) as connection:
        offered = await connection.fetchval(
            "SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'"
        )
        chosen = await connection.fetchval(
            "SELECT attcompression FROM pg_attribute WHERE attrelid = 'page'::regclass AND attname = 'events'"
        )
        assert chosen == (b"l" if "lz4" in (offered or []) else b"\0")
        blob = b'{"a":"some event that is like all others"}\n' * 2_000
        await connection.execute(
            "INSERT INTO page VALUES (1, 1, 1, 1, 'shots', '', 1, 'full', 'screenshot', 1, 1, 0, $1)", blob
        )
        assert await connection.fetchval("SELECT events FROM page") == blob
        assert await connection.fetchval("SELECT pg_column_size(events) FROM page") < len(blob) // 10


@pytest.mark.parametrize("asks", [False, True], ids=["a visit", "somebody is about to append"])
async def test_a_full_spool_deletes_nothing_before_its_sinks_are_known(
    tmp_path: Path, database: Database, asks: bool
) -> None:
    """Whoever enters it first does not know yet what its sinks have settled."""
    async with spool_of(database, tmp_path) as spool:
        await spool.attach("hook", anything)
        for number in range(60):
            await spool.append("shots", [some_reading(number)])
    full = spool_of(database, tmp_path)
    full._capacity.max_bytes = 1
    async with full:
        if asks:
            with pytest.raises(StorageFull):
                await full.check_writable()
        await asyncio.sleep(0.3)  # a look at the size comes at once
        await full.attach("hook", anything)
        assert (await full.backlog("hook")).events == 60
        claimed = await full.claim("hook", 1000)
        assert len(claimed.events) == 60


class Ahead(Clock):
    """A clock that is ahead."""

    def __init__(self, by: timedelta) -> None:
        self._by = by
        super().__init__()

    def now(self) -> datetime:
        return super().now() + self._by


async def test_a_daemon_whose_clock_is_far_ahead_deletes_nothing_that_is_not_old(
    tmp_path: Path, database: Database
) -> None:
    """To it, all that the others keep is old."""
    async with spool_of(database, tmp_path) as spool:
        await spool.attach("hook", anything)
        await spool.append("shots", [some_reading(1)])
        batch = await spool.claim("hook", 10)
        await spool.settle(batch, [Dead(reason="refused")])
    async with spool_of(database, tmp_path, Ahead(timedelta(days=400))) as spool:
        await spool.attach("hook", anything)
        with pytest.raises(StorageFull, match=r"this machine's clock is 9600\.0 h ahead of the database's"):
            await _prune_for(PATIENCE, spool)
        assert len(await spool.dead(10)) == 1


async def _prune_for(seconds: float, spool: PostgresSpool) -> None:
    """Prune again and again: a spool deletes nothing until it has the duty."""
    async with asyncio.timeout(seconds):
        while True:
            await spool.prune()
            await asyncio.sleep(0.02)
