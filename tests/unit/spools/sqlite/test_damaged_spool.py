"""A damaged spool file is moved aside, whole, a new one begins, and nothing of it is deleted."""

import asyncio
import re
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from poller.core.errors import StorageCorrupt, StorageError
from poller.core.model import Done
from poller.spools.sqlite import SqliteSpool
from poller.spools.sqlite.corrupt_file import condemn
from poller.testing import ManualClock, anything, some_event, some_reading
from poller.testing.history import newest_events
from tests.fakes import sqlite_spool
from tests.patience import patiently

STAMP = "20260102T030405Z"
PAGE = 8192
Scenario = Callable[[SqliteSpool], Awaitable[None]]


def tell(folder: Path, scenario: Scenario) -> SqliteSpool:
    async def run_scenario() -> SqliteSpool:
        async with sqlite_spool(folder, ManualClock()) as spool:
            await spool.attach("a", anything)
            await scenario(spool)
            return spool

    return asyncio.run(patiently(run_scenario()))


async def append(spool: SqliteSpool) -> None:
    assert (await spool.append("source", [some_reading(*range(50))])).total() == 50


async def nothing(spool: SqliteSpool) -> None:
    assert await newest_events(spool, 1) == []


def aside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("spool.db.corrupt-*"))


def root_of(file: Path, table: str) -> int:
    with sqlite3.connect(file) as db:
        found = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    db.close()
    return int(found[0])


def overwrite(file: Path, page: int, content: bytes = b"\xa5" * PAGE) -> None:
    with file.open("r+b") as stream:
        stream.seek((page - 1) * PAGE)
        stream.write(content)


@pytest.mark.parametrize("content", [b"these are not the bytes of a database" * 100, b"\xff" * 20_000])
def test_what_is_no_database_is_moved_aside_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spool.db").write_bytes(content)
    spool = tell(tmp_path, append)
    assert aside(tmp_path) == [f"spool.db.corrupt-{STAMP}"]
    assert (tmp_path / aside(tmp_path)[0]).read_bytes() == content
    assert spool.damage is not None
    assert spool.damage.file == tmp_path / aside(tmp_path)[0]
    assert "not a database" in spool.damage.reason
    assert spool.files_aside() == [spool.damage.file]
    assert tell(tmp_path, lambda spool: asyncio.sleep(0)).damage is None


def test_a_second_file_in_the_same_second_gets_a_name_of_its_own(tmp_path: Path) -> None:
    for content in (b"first" * 1000, b"second" * 1000, b"third" * 1000):
        (tmp_path / "spool.db").write_bytes(content)
        tell(tmp_path, nothing)
    names = [f"spool.db.corrupt-{STAMP}{end}" for end in ("", ".2", ".3")]
    assert aside(tmp_path) == names
    assert [(tmp_path / name).read_bytes()[:5] for name in names] == [b"first", b"secon", b"third"]


def test_its_wal_goes_along(tmp_path: Path) -> None:
    """What was committed last is there alone."""
    copy = tmp_path / "copy"
    copy.mkdir()

    async def crash(spool: SqliteSpool) -> None:
        await append(spool)
        for end in ("", "-wal"):
            shutil.copy(tmp_path / f"spool.db{end}", copy / f"spool.db{end}")

    tell(tmp_path, crash)
    condemn(copy / "spool.db", ManualClock().now(), "malformed")
    tell(copy, nothing)
    name = f"spool.db.corrupt-{STAMP}"
    assert [one for one in aside(copy) if not one.endswith("-shm")] == [name, f"{name}-wal"]
    with sqlite3.connect(copy / name) as db:
        assert db.execute("SELECT last FROM page").fetchall() == [(50,)]


def test_damage_met_while_running_ends_the_work_and_the_next_start_moves_the_file(tmp_path: Path) -> None:
    tell(tmp_path, append)
    overwrite(tmp_path / "spool.db", root_of(tmp_path / "spool.db", "seen"))

    async def scenario(spool: SqliteSpool) -> None:
        assert len((await spool.claim("a", 50)).events) == 50  # opening does not read all of a file
        for _ in range(2):
            with pytest.raises(StorageCorrupt, match="malformed"):
                await spool.append("source", [some_reading(100)])
        with pytest.raises(StorageCorrupt):
            await spool.check_writable()
        assert aside(tmp_path) == []

    tell(tmp_path, scenario)
    spool = tell(tmp_path, append)
    assert aside(tmp_path) == [f"spool.db.corrupt-{STAMP}"]
    assert spool.damage is not None
    assert "malformed" in spool.damage.reason
    assert tell(tmp_path, lambda spool: asyncio.sleep(0)).damage is None


def test_nothing_is_settled_on_a_damaged_file(tmp_path: Path) -> None:
    tell(tmp_path, append)
    overwrite(tmp_path / "spool.db", root_of(tmp_path / "spool.db", "seen"))

    async def scenario(spool: SqliteSpool) -> None:
        batch = await spool.claim("a", 50)
        with pytest.raises(StorageCorrupt):
            await spool.append("source", [some_reading(100)])
        with pytest.raises(StorageCorrupt):
            await spool.settle(batch, [Done()] * 50)

    tell(tmp_path, scenario)


def test_an_event_that_does_not_read_back_is_damage_and_no_crash_loop(tmp_path: Path) -> None:
    """SQLite has no checksums: a flipped bit in an event shows when it is read."""
    tell(tmp_path, append)
    with sqlite3.connect(tmp_path / "spool.db") as db:
        ((blob,),) = db.execute("SELECT events FROM page").fetchall()
        db.execute("UPDATE page SET events = ?", (blob.replace(b'"time":"', b'"time:"', 1),))
    db.close()

    async def scenario(spool: SqliteSpool) -> None:
        with pytest.raises(StorageCorrupt):
            await spool.claim("a", 10)

    try:
        tell(tmp_path, scenario)
    except StorageError:
        pytest.fail("it starts")
    tell(tmp_path, append)
    assert len(aside(tmp_path)) == 1


def test_a_move_that_was_cut_short_goes_on_under_the_same_name(tmp_path: Path) -> None:
    """The WAL went, the file did not: they belong together."""
    name = "spool.db.corrupt-20250101T000000Z"
    (tmp_path / "spool.db.damaged").write_text(f"{name}\nspool: malformed\n")
    (tmp_path / f"{name}-wal").write_bytes(b"its wal")
    (tmp_path / "spool.db").write_bytes(b"the file")
    spool = tell(tmp_path, append)
    assert aside(tmp_path) == [name, f"{name}-wal"]
    assert (tmp_path / name).read_bytes() == b"the file"
    assert spool.damage is not None
    assert spool.damage.reason == "spool: malformed"


def test_a_mark_without_a_name_is_no_obstacle(tmp_path: Path) -> None:
    """Power went before the mark was whole."""
    (tmp_path / "spool.db.damaged").write_bytes(b"")
    (tmp_path / "spool.db").write_bytes(b"the file")
    tell(tmp_path, append)
    assert aside(tmp_path) == [f"spool.db.corrupt-{STAMP}"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("PRAGMA application_id=7", "another program"),
        ("PRAGMA user_version=99", "use the version that wrote"),
    ],
)
def test_a_file_of_another_program_or_a_later_schema_is_neither_moved_nor_touched(
    tmp_path: Path, change: str, why: str
) -> None:
    tell(tmp_path, append)
    db = sqlite3.connect(tmp_path / "spool.db")
    db.execute("PRAGMA journal_mode=DELETE")
    db.execute(change)
    db.commit()
    db.close()
    before = (tmp_path / "spool.db").read_bytes()
    with pytest.raises(StorageError, match=why):
        tell(tmp_path, nothing)
    assert (tmp_path / "spool.db").read_bytes() == before
    assert aside(tmp_path) == []
    assert not re.findall("damaged", " ".join(path.name for path in tmp_path.iterdir()))


def test_events_of_a_new_file_are_numbered_and_delivered(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"x" * 5000)

    async def scenario(spool: SqliteSpool) -> None:
        await append(spool)
        assert (await spool.claim("a", 1)).events == (some_event(0),)

    tell(tmp_path, scenario)
