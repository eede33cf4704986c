"""The table of the sql sink: what check says of it, how it comes back, and whether a commit reaches the disk."""

import pytest

from poller.core.errors import TryLater
from poller.sinks.sql import Sql
from poller.testing import some_batch, some_event
from tests.servers.databases import Database, database, started
from tests.servers.processes import until
from tests.servers.sql_sinks import (
    MISSING,
    POSTGRESQL,
    TABLE,
    drop_table,
    make_table,
    server,
    sink_to,
    stored_ids,
)

__all__ = ["database", "server", "started"]  # the fixtures


async def test_check_prints_the_statement_that_makes_the_table(server: Database) -> None:
    await drop_table(server)
    batch = some_batch(some_event(1))
    async with sink_to(server) as sink:
        (told,) = await sink.check()
        first, _, statement = told.partition("\n")
        assert first == f"there is no table {TABLE}; this statement makes it:"
        with pytest.raises(TryLater, match=MISSING):
            await sink.deliver(batch)
        await server.ask(statement.rstrip(";"))
        if server.engine == "postgresql":
            assert await sink.check() == [f"cannot store a row in {TABLE}: the user lacks a permission"]
            await server.ask(f"GRANT SELECT, INSERT, UPDATE ON {TABLE} TO poller")
        assert await sink.check() == []
        assert await stored_ids(server) == set(), "check leaves nothing"
        await sink.deliver(batch)
        assert await sink.check() == []
    assert await stored_ids(server) == {some_event(1).id}


async def test_a_table_that_is_dropped_and_made_again_is_used_at_once(server: Database) -> None:
    async with sink_to(server) as sink:
        await sink.deliver(some_batch(some_event(1)))
        await make_table(server)
        await sink.deliver(some_batch(some_event(2)))
        await drop_table(server)
        with pytest.raises(TryLater, match=MISSING):
            await sink.deliver(some_batch(some_event(3)))
        await make_table(server)
        await server.ask(f"ALTER TABLE {TABLE} ADD COLUMN note varchar(10)")
        await sink.deliver(some_batch(some_event(3)))
        await server.ask(f"ALTER TABLE {TABLE} DROP COLUMN kind")
        with pytest.raises(TryLater, match="the table lacks a column"):
            await sink.deliver(some_batch(some_event(4)))
        assert await sink.check() == [f"cannot store a row in {TABLE}: the table lacks a column"]
    assert await stored_ids(server) == {some_event(3).id}


async def test_a_table_of_another_schema_is_found(server: Database) -> None:
    make = "CREATE SCHEMA" if server.engine == "postgresql" else "CREATE DATABASE"
    drop = (
        "DROP SCHEMA IF EXISTS other CASCADE"
        if server.engine == "postgresql"
        else "DROP DATABASE IF EXISTS other"
    )
    await server.ask(drop)
    await server.ask(f"{make} other")
    grant = "SCHEMA other TO" if server.engine == "postgresql" else "other.* TO"
    user = "poller" if server.engine == "postgresql" else "poller@'127.0.0.1'"
    await server.ask(f"GRANT ALL ON {grant} {user}")
    async with sink_to(server, table="other.Order") as sink:
        (told,) = await sink.check()
        await server.ask(told.partition("\n")[2].rstrip(";"))
        if server.engine == "postgresql":
            await server.ask('ALTER TABLE other."Order" OWNER TO poller')
        assert await sink.check() == []
        await sink.deliver(some_batch(some_event(1)))
    await server.ask(drop)


async def test_check_names_what_does_not_survive_a_crash(server: Database) -> None:
    async with sink_to(server) as sink:
        if server.engine == "postgresql":
            await server.ask(f"ALTER TABLE {TABLE} SET UNLOGGED")
            assert await sink.check() == [
                f"the table {TABLE} does not survive a crash: ALTER TABLE … SET LOGGED"
            ]
            await make_table(server)
            await server.ask("ALTER SYSTEM SET fsync = off")
            await server.ask("SELECT pg_reload_conf()")
            told = ["the server does not sync what it commits: set fsync = on"]
            await until(lambda: _says(sink, told), "for the server to read its settings")
            await server.ask("ALTER SYSTEM RESET fsync")
            await server.ask("SELECT pg_reload_conf()")
        else:
            await server.ask(f"ALTER TABLE {TABLE} ENGINE = MyISAM")
            assert await sink.check() == [
                f"the table {TABLE} is of MyISAM, which has no transactions: use InnoDB"
            ]
            assert await stored_ids(server) == set()
            await make_table(server)
            await server.ask("SET GLOBAL innodb_flush_log_at_trx_commit = 2")
            told = ["the server does not sync what it commits: set innodb_flush_log_at_trx_commit = 1"]
            assert await sink.check() == told
            await server.ask("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        await until(lambda: _says(sink, []), "for the server to read its settings")


async def _says(sink: Sql, told: list[str]) -> bool:
    return list(await sink.check()) == told


@POSTGRESQL
async def test_commits_wait_for_the_disk_although_the_user_has_it_otherwise(server: Database) -> None:
    await server.ask("ALTER ROLE poller SET synchronous_commit = off")
    await server.ask(
        f"ALTER TABLE {TABLE} ADD COLUMN waits text DEFAULT current_setting('synchronous_commit')"
    )
    async with sink_to(server) as sink:
        await sink.deliver(some_batch(some_event(1)))
        await server.ask("ALTER ROLE poller SET synchronous_commit = remote_apply")
    async with sink_to(server) as sink:
        await sink.deliver(some_batch(some_event(2)))
    await server.ask("ALTER ROLE poller RESET synchronous_commit")
    found = await server.ask(f"SELECT id, waits FROM {TABLE}")
    assert set(found) == {(some_event(1).id, "on"), (some_event(2).id, "remote_apply")}


@POSTGRESQL
async def test_a_read_only_database_is_tried_again_later(server: Database) -> None:
    await server.ask("ALTER ROLE poller SET default_transaction_read_only = on")
    async with sink_to(server) as sink:
        with pytest.raises(TryLater, match="the database is read-only"):
            await sink.deliver(some_batch(some_event(1)))
        assert await sink.check() == [f"cannot store a row in {TABLE}: the database is read-only"]
    await server.ask("ALTER ROLE poller RESET default_transaction_read_only")
