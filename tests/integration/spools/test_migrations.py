"""Spool files of every released schema open with today's code; a migration is done whole or not at all."""

import asyncio
import gzip
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from poller.core.selection import Selection
from poller.spools.sqlite import SqliteSpool
from poller.spools.sqlite.migrations import Step, migrate
from poller.spools.sqlite.schema import SCHEMA, STEPS, VERSION
from poller.testing import ManualClock, anything, some_event, some_reading
from poller.testing.history import scan_all
from tests.patience import patiently

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("schema-?.db.gz"))
LARGE = Path(__file__).parent / "fixtures" / "schema-1-large.db.gz"
"""Made by the last code of schema 1: 10,000 events in 20 streams, dead letters and waiting batches."""


def laid(folder: Path, fixture: Path) -> Path:
    file = folder / "spool.db"
    file.write_bytes(gzip.decompress(fixture.read_bytes()))
    return file


def tables(file: Path) -> dict[str, str]:
    with closing(sqlite3.connect(file)) as db:
        return dict(db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def version(file: Path) -> int:
    with closing(sqlite3.connect(file)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_there_is_a_fixture_for_every_schema_and_a_step_from_all_but_the_last() -> None:
    assert [path.name for path in FIXTURES] == [f"schema-{n}.db.gz" for n in range(1, VERSION + 1)]
    assert sorted(STEPS) == list(range(1, VERSION))


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.name)
def test_a_file_of_an_earlier_schema_opens_with_all_that_is_in_it(tmp_path: Path, fixture: Path) -> None:
    file = laid(tmp_path, fixture)
    assert fixture.name == f"schema-{version(file)}.db.gz"

    async def scenario() -> None:
        clock = ManualClock()
        clock.pass_time(60)
        settings = SqliteSpool.Settings(type="sqlite", path=file, min_free=0)
        async with SqliteSpool("spool", settings, {}, clock) as spool:
            for sink in ("archive", "hook"):
                await spool.attach(sink, anything)
            assert (await spool.backlog("archive")).events == 300 - 40 - 5
            assert (await spool.backlog("hook")).events == 300
            again = await spool.claim("archive", 100)
            assert (again.attempt, again.events) == (2, tuple(some_event(n) for n in range(40, 50)))
            assert (await spool.claim("archive", 1)).events == (some_event(55),)
            assert [letter.event for letter in await spool.dead(9)] == [
                some_event(n) for n in range(54, 49, -1)
            ]
            assert [kept.reject.body for kept in await spool.quarantined(9)] == [b"\xff{"]
            assert await spool.memory("shots") == {"": b"so far"}
            assert (await spool.append("shots", [some_reading(*range(300))])).total() == 0
            (stream,) = spool.streams()
            assert stream.last_screenshot == some_event(299).occurred_at

    asyncio.run(patiently(scenario()))
    assert version(file) == VERSION


def test_a_large_file_of_schema_1_opens_and_answers(tmp_path: Path) -> None:
    file = laid(tmp_path, LARGE)

    async def scenario() -> None:
        clock = ManualClock()
        clock.pass_time(60)
        settings = SqliteSpool.Settings(type="sqlite", path=file, min_free=0)
        async with SqliteSpool("spool", settings, {}, clock) as spool:
            for sink in ("archive", "hook"):
                await spool.attach(sink, anything)
            archive, hook = await spool.backlog("archive"), await spool.backlog("hook")
            assert (archive.events, archive.retrying, archive.dead) == (10_002 - 8_000 - 10 - 8, 102, 11)
            assert (hook.events, hook.dead) == (10_002, 0)
            assert len(await scan_all(spool)) == 10_002
            chosen = Selection(stream="room-3", kinds=frozenset({"screenshot"}))
            of_room = [n for start in range(300, 10_000, 2_000) for n in range(start, start + 100)]
            found = [event for _, event in await scan_all(spool, chosen)]
            assert found == [some_event(n, stream="room-3") for n in of_room]
            assert await scan_all(spool, Selection(ids=frozenset({found[9].id}))) == [(310, found[9])]
            assert {stream.stream_id for stream in spool.streams()} >= {f"room-{n}" for n in range(20)}

    asyncio.run(patiently(scenario()))
    assert version(file) == VERSION


def test_the_last_fixture_has_todays_tables(tmp_path: Path) -> None:
    """Whoever changes a released schema raises VERSION, adds a step to STEPS, and runs make_fixture."""
    new = tmp_path / "new.db"
    with closing(sqlite3.connect(new)) as db:
        db.executescript(SCHEMA)
    assert tables(laid(tmp_path, FIXTURES[-1])) == tables(new), (
        "tests/integration/spools/make_fixture.py says what to do"
    )


# ---------------------------------------------------------------- the mechanism, on steps of the test's own


def add_column(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE dead ADD COLUMN seen INTEGER NOT NULL DEFAULT 0")


def add_table(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE more (a) ")
    db.execute("INSERT INTO more SELECT events FROM page")


def breaks(db: sqlite3.Connection) -> None:
    add_table(db)
    db.execute("SELECT nothing FROM nowhere")


def migrated(file: Path, steps: Mapping[int, Step], start: int = 1) -> int:
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        return migrate(db, start, steps)


def test_steps_are_taken_one_after_the_other(tmp_path: Path) -> None:
    file = laid(tmp_path, FIXTURES[0])
    assert migrated(file, {1: add_column, 2: add_table}) == 3
    assert version(file) == 3
    assert "seen INTEGER" in tables(file)["dead"]
    assert "more" in tables(file)
    assert migrated(file, {1: add_column, 2: add_table}, start=3) == 3


def test_a_step_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = laid(tmp_path, FIXTURES[0])
    before = tables(file)
    with pytest.raises(sqlite3.OperationalError):
        migrated(file, {1: add_column, 2: breaks})
    assert (version(file), tables(file)) == (1, before)


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    file = laid(tmp_path, FIXTURES[0])
    before = tables(file)
    program = textwrap.dedent("""
        import os, signal, sqlite3, sys
        from poller.spools.sqlite.migrations import migrate
        from tests.integration.spools.test_migrations import add_column, add_table
        def killed(db):
            add_table(db)
            db.execute("PRAGMA cache_spill=1"); db.execute("INSERT INTO more VALUES (randomblob(50000000))")
            os.kill(os.getpid(), signal.SIGKILL)
        db = sqlite3.connect(sys.argv[1], isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        migrate(db, 1, {1: add_column, 2: killed})
    """)
    done = subprocess.run([sys.executable, "-c", program, str(file)], check=False, timeout=60)
    assert done.returncode == -9
    assert (tmp_path / "spool.db-wal").stat().st_size > 1_000_000, "it was killed half-way"
    assert (version(file), tables(file)) == (1, before)
