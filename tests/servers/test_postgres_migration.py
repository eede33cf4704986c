"""Tables of another version: a new program migrates them, and an old one writes nothing into them."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncpg
import pytest

from poller.core.errors import Fenced, StorageError
from poller.core.spool import anything
from poller.spools.postgres.links import Address, StorageAway, connect, translated
from poller.spools.postgres.membership import Membership
from poller.spools.postgres.migration import migrate
from poller.testing.factories import some_reading
from tests.servers.databases import Database, database, started
from tests.servers.members import LEASE, Members, Thread, members_of
from tests.servers.postgres_spools import dsn_of, schema_of, spool_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

NEXT = {1: "ALTER TABLE dead ADD COLUMN more text NOT NULL DEFAULT ''; CREATE TABLE news (a text);"}


@pytest.fixture
def members(tmp_path: Path, database: Database) -> Iterator[Members]:
    with members_of(database, tmp_path) as found:
        yield found


def migrated(database: Database, folder: Path, steps: Mapping[int, str]) -> None:
    """What the first daemon of a newer program does."""

    async def scenario() -> None:
        link = await connect(Address("spool", dsn_of(database), schema_of(folder)))
        try:
            async with translated("spool"), link.transaction():
                await migrate(link, "spool", LEASE, steps)
        finally:
            await link.close()

    asyncio.run(scenario())


def joined(members: Members) -> Thread:
    member = members.join()
    member.do(lambda spool: spool.attach("s", anything))
    return member


def append(member: Thread, *numbers: int) -> int:
    count = member.do(lambda spool: spool.append("source", [some_reading(*numbers)]))
    return int(count.total())


def test_a_running_daemon_writes_nothing_into_tables_that_a_newer_one_has_migrated(
    tmp_path: Path, members: Members, database: Database
) -> None:
    old = joined(members)
    append(old, 1, 2, 3)
    old.claim("s", 2)
    migrated(database, tmp_path, NEXT)
    with pytest.raises(Fenced):
        append(old, 4)
    assert isinstance(old.do(lambda spool: spool.failed()), Fenced)
    schema = schema_of(tmp_path)
    assert database.ask_now(f"SELECT value FROM {schema}.meta WHERE name = 'version'") == [(b"2",)]
    assert database.ask_now(f"SELECT holder FROM {schema}.share") == [(0,)], "others may deliver what it held"
    assert database.ask_now(f"SELECT count(*) FROM {schema}.session") == [(0,)]


def test_an_old_program_does_not_start_with_migrated_tables(
    tmp_path: Path, members: Members, database: Database
) -> None:
    joined(members)
    migrated(database, tmp_path, NEXT)
    with pytest.raises(StorageError, match="schema 2, this program knows 1: use the version that wrote it"):
        members.join()
    assert database.ask_now(f"SELECT count(*) FROM {schema_of(tmp_path)}.session") == [(0,)]


def test_a_daemon_that_starts_while_the_tables_are_migrated_begins_no_session(
    tmp_path: Path, members: Members, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had found the tables of its own version just before."""
    joined(members)
    begin = Membership.begin

    async def begin_later(self: Membership, holder: str, *, visits: bool) -> None:
        await asyncio.to_thread(migrated, database, tmp_path, NEXT)
        await begin(self, holder, visits=visits)

    monkeypatch.setattr(Membership, "begin", begin_later)
    with pytest.raises(StorageError, match="schema 2"):
        members.join()
    assert database.ask_now(f"SELECT count(*) FROM {schema_of(tmp_path)}.session") == [(0,)]


def test_a_migration_that_fails_leaves_the_daemons_and_the_tables_as_they_were(
    tmp_path: Path, members: Members, database: Database
) -> None:
    old = joined(members)
    with pytest.raises(StorageError):
        migrated(database, tmp_path, NEXT | {2: "SELECT nothing FROM nowhere"})
    assert database.ask_now(f"SELECT to_regclass('{schema_of(tmp_path)}.news')") == [(None,)]
    assert append(old, 1) == 1


def test_a_migration_that_must_wait_for_long_gives_up_and_holds_nobody_up(
    tmp_path: Path, members: Members, database: Database
) -> None:
    """As while `pg_dump` reads a table."""
    old, schema = joined(members), schema_of(tmp_path)

    async def scenario() -> None:
        dump = await asyncpg.connect(dsn_of(database))
        try:
            async with dump.transaction():
                await dump.execute(f"LOCK TABLE {schema}.dead IN ACCESS SHARE MODE")
                with pytest.raises(StorageAway, match="lock timeout"):
                    await asyncio.to_thread(migrated, database, tmp_path, NEXT)
        finally:
            await dump.close()

    asyncio.run(scenario())
    assert append(old, 1) == 1


def test_a_command_migrates_nothing_and_ends_no_daemon(
    tmp_path: Path, members: Members, database: Database
) -> None:
    old, schema = joined(members), schema_of(tmp_path)
    database.ask_now(f"UPDATE {schema}.meta SET value = '0' WHERE name = 'version' RETURNING 1")
    command = spool_of(database, tmp_path)
    command.visits = True
    with pytest.raises(StorageError, match="schema 0, this program needs 1: start a daemon"):
        asyncio.run(command.__aenter__())
    assert append(old, 1) == 1
