"""The spool's water marks: when it takes no more, what it gives back by itself, and when it takes again."""

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from poller.core.errors import StorageFull
from poller.core.model import Done, ParsedPage, PollOutcome, Retry
from poller.spools.sqlite import SqliteSpool
from poller.spools.sqlite.watermarks import Levels, Marks, fullness, measured, reason
from poller.testing import ManualClock, anything, some_event
from poller.testing.history import newest_events
from tests.patience import patiently
from tests.scenario.environment import needs_root

MIB = 2**20
MOST = 64 * MIB
BIG = "http://shots.example.com/" + "x" * 100_000
"""The URL of an event of a tenth of a MiB."""


@pytest.mark.parametrize(
    ("used", "room", "full", "says"),
    [
        (100, 100, False, None),
        (101, 100, False, "max_bytes"),
        (101, 100, True, "max_bytes"),
        (91, 100, False, None),
        (91, 100, True, "max_bytes"),
        (90, 100, True, None),
        (0, 50, False, None),
        (0, 49, False, "min_free"),
        (0, 54, True, "min_free"),
        (0, 54, False, None),
        (0, 55, True, None),
    ],
)
def test_the_marks(used: int, room: int, full: bool, says: str | None) -> None:
    """In MiB: `max_bytes` 100 and 90, `min_free` 50 and 55."""
    found = reason(Levels(used=used * MIB, room=room * MIB), 100 * MIB, 50 * MIB, full)
    assert (found is None) if says is None else (found is not None and f"{says} is" in found)


@pytest.mark.parametrize(
    ("room", "says"), [(1, "nearly full: 1 MiB"), (0, "full: 0 MiB"), (-1, "full: 0 MiB")]
)
def test_a_disk_without_room_is_full(room: int, says: str) -> None:
    """In MiB. The room is less than none where what is reserved does not fit any more."""
    found = reason(Levels(used=0, room=room * MIB), 100 * MIB, 50 * MIB, full=False)
    assert found is not None
    assert found.startswith(f"the disk is {says} left")


@pytest.mark.parametrize(
    ("used", "room", "of_bytes", "of_room"),
    [(0, 1000, 0, 0.05), (50, 100, 0.5, 0.5), (100, 50, 1, 1), (120, 0, 1.2, 10)],
)
def test_the_fullness_is_1_where_polling_pauses(
    used: int, room: int, of_bytes: float, of_room: float
) -> None:
    """In MiB: `max_bytes` 100, `min_free` 50."""
    found = fullness(Levels(used=used * MIB, room=room * MIB), 100 * MIB, 50 * MIB)
    assert found == {"max_bytes": pytest.approx(of_bytes), "min_free": pytest.approx(of_room)}


def test_without_min_free_the_disk_is_used_to_its_end() -> None:
    assert reason(Levels(used=0, room=0), MIB, 0, False) is None
    assert reason(Levels(used=0, room=0), MIB, 0, True) is None


def test_the_levels_are_measured_once_a_second_after_four_mib_and_in_every_turn_while_full(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spool.db"
    marks = Marks(path, MOST, 0)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE some (thing)")
        assert marks.due(0.0)
        assert marks.full is None
        marks.look(connection, 100.0)
        assert marks.full is None
        marks.written += 4 * MIB - 1
        assert not marks.due(100.9)
        assert marks.due(101.0)
        marks.written += 1
        assert marks.due(100.9)
        marks.look(connection, 200.0)
        assert not marks.due(200.0)
        marks.full = "full"
        assert marks.due(200.0)


def test_what_is_used_is_what_pages_hold_and_the_wal_and_what_is_free_is_room(tmp_path: Path) -> None:
    path, wal = tmp_path / "spool.db", tmp_path / "spool.db-wal"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE some (thing)")
        connection.execute("INSERT INTO some VALUES (zeroblob(8000000))")
        before = measured(connection, path, wal)
        assert 8_000_000 < before.used <= 8_100_000
        connection.execute("DELETE FROM some")
        emptied = measured(connection, path, wal)
        assert emptied.used < 100_000
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("INSERT INTO some VALUES (zeroblob(4000000))")
        written = measured(connection, path, wal)
        assert 8_000_000 < written.used <= 8_200_000  # four in the pages, and four in the WAL
        marks = Marks(path, 8_000_000, 0)
        marks.look(connection, 0.0)
        assert marks.full is not None


Scenario = Callable[[SqliteSpool, ManualClock], Awaitable[None]]


def tell(folder: Path, scenario: Scenario, *, max_bytes: int = MOST, min_free: int = 0) -> None:
    clock = ManualClock()
    settings = SqliteSpool.Settings(
        type="sqlite", path=folder / "spool.db", max_bytes=max_bytes, min_free=min_free
    )

    async def found() -> None:
        async with SqliteSpool("spool", settings, {}, clock) as spool:
            for sink in ("quick", "slow"):
                await spool.attach(sink, anything)
            await scenario(spool, clock)

    asyncio.run(patiently(found()))


async def append(spool: SqliteSpool, clock: ManualClock, number: int, seconds: float = 1.0) -> None:
    clock.pass_time(seconds)
    events = tuple(some_event(20 * number + n, url=BIG) for n in range(20))
    await spool.append("source", [ParsedPage(events=events, rejects=(), outcome=PollOutcome.FULL)])


async def fill(spool: SqliteSpool, clock: ManualClock, start: int = 0, seconds: float = 1.0) -> int:
    """Append until it is refused; returns how many appends were taken."""
    for number in range(start, start + 100):
        try:
            await append(spool, clock, number, seconds)
        except StorageFull:
            with pytest.raises(StorageFull, match=r"spool.db: full: \d+ MiB in use, max_bytes is 64 MiB"):
                await spool.check_writable()
            return number - start
    pytest.fail("never full")


def test_a_spool_tells_its_fullness_once_it_has_written(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.check_writable()
        empty = spool.fullness["max_bytes"]
        assert 0 < empty < 0.1
        assert spool.fullness["min_free"] == 0
        assert await fill(spool, clock) > 0
        assert spool.fullness["max_bytes"] > 1

    tell(tmp_path, scenario)


async def deliver(spool: SqliteSpool, sink: str, count: int = 100_000) -> list[str]:
    """Deliver up to so many events, and let that be written."""
    ids: list[str] = []
    queue = spool._dispatcher.queues[sink]
    while len(ids) < count and (queue.next < spool._dispatcher.head or queue.seconds_to_retry() == 0):
        batch = await spool.claim(sink, min(20, count - len(ids)))
        ids += [event.id for event in batch.events]
        await spool.settle(batch, [Done()] * len(batch.events))
    await spool.dead(1)
    return ids


def test_above_max_bytes_nothing_is_taken_until_the_slowest_sink_has_brought_it_under_the_low_mark(
    tmp_path: Path,
) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        taken = await fill(spool, clock)
        assert 25 <= taken <= 35  # 2 MiB each
        assert (tmp_path / "spool.db").stat().st_size < MOST + 6 * MIB
        assert (tmp_path / "spool.db-wal").stat().st_size < MIB, "its space is given back first"
        with pytest.raises(StorageFull):
            await spool.check_writable()
        await deliver(spool, "quick")
        with pytest.raises(StorageFull):
            await spool.check_writable()
        await deliver(spool, "slow", 20)  # 2 MiB: under max_bytes, above the low mark
        with pytest.raises(StorageFull):
            await append(spool, clock, 1000)
        await deliver(spool, "slow", 120)
        await spool.check_writable()
        await append(spool, clock, 1000)
        left = await deliver(spool, "slow")
        assert left == [some_event(n).id for n in (*range(140, taken * 20), *range(20_000, 20_020))]

    tell(tmp_path, scenario)


def test_what_is_settled_is_pruned_early_rather_than_polling_paused(tmp_path: Path) -> None:
    """`retain` is what stays when there is room; sinks that keep up never make polling pause."""

    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        for number in range(80):
            await append(spool, clock, number)
            for sink in ("quick", "slow"):
                await deliver(spool, sink)
        kept = await newest_events(spool, 10_000)
        assert kept[0].id == some_event(1599).id
        assert 20 * 20 < len(kept) < 35 * 20
        assert (tmp_path / "spool.db").stat().st_size < MOST + 6 * MIB

    tell(tmp_path, scenario)


def test_early_pruning_never_takes_what_waits_for_a_retry_or_is_in_hand(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await append(spool, clock, 0)
        batch = await spool.claim("slow", 20)
        await spool.settle(batch, [Retry(after=3600, reason="no")] * 20)
        await append(spool, clock, 1)
        in_hand = await spool.claim("slow", 10)
        await deliver(spool, "quick")
        await fill(spool, clock, 2)
        await deliver(spool, "slow")
        await deliver(spool, "quick")
        with pytest.raises(StorageFull):  # all of it lies behind the batch in hand
            await spool.check_writable()
        await spool.settle(in_hand, [Done()] * 10)
        await spool.dead(1)
        await spool.check_writable()
        clock.pass_time(3600)
        assert await deliver(spool, "slow") == [some_event(n).id for n in range(20)]

    tell(tmp_path, scenario)


def test_a_detached_sink_holds_back_no_early_pruning(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await fill(spool, clock)
        await deliver(spool, "quick")
        with pytest.raises(StorageFull):
            await spool.check_writable()
        await spool.detach("slow")
        await spool.check_writable()

    tell(tmp_path, scenario)


def test_a_burst_that_fills_it_within_a_second_is_noticed(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        assert 25 <= await fill(spool, clock, seconds=0.0) <= 37

    tell(tmp_path, scenario)


def test_while_it_is_full_settlements_are_written(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await fill(spool, clock)
        await deliver(spool, "quick", 100)
        full = [asyncio.ensure_future(append(spool, clock, 500)) for _ in range(3)]
        batch = await spool.claim("quick", 20)
        await spool.settle(batch, [Done()] * 20)
        await spool.dead(1)
        results = await asyncio.gather(*full, return_exceptions=True)
        assert {type(result) for result in results} == {StorageFull}
        position = spool._writer.connection.execute("SELECT position FROM sink WHERE name = 'quick'")
        assert position.fetchone() == (121,)

    tell(tmp_path, scenario)


def test_a_disk_with_less_than_min_free_is_refused_before_the_first_poll(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        with pytest.raises(StorageFull, match="min_free is"):
            await spool.check_writable()

    tell(tmp_path, scenario, min_free=16 * 2**40)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB in memory."""
    needs_root("mounts a small tmpfs")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def checkpoint(spool: SqliteSpool) -> None:
    """Leave nothing in the WAL, so that what the disk has left is known."""
    spool._writer.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.root
def test_a_disk_that_others_fill_is_noticed_and_so_is_room_on_it(small_disk: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        for number in range(10):
            await append(spool, clock, number)
        ballast = small_disk / "ballast"
        checkpoint(spool)
        free = os.statvfs(small_disk).f_bavail * 4096
        ballast.write_bytes(bytes(free - 7 * MIB))
        with pytest.raises(StorageFull, match=r"nearly full: \d MiB left, min_free is 8 MiB"):
            await append(spool, clock, 10)
        os.truncate(ballast, free - 8 * MIB - 16384)
        clock.pass_time(1.0)
        with pytest.raises(StorageFull):  # above the high mark, not yet above the low one
            await append(spool, clock, 10)
        os.truncate(ballast, free - 12 * MIB)
        await append(spool, clock, 10)

    tell(small_disk, scenario, min_free=8 * MIB)


@pytest.mark.root
def test_pages_of_the_file_that_are_free_are_room(small_disk: Path) -> None:
    """An SQLite file never shrinks: what its sinks have settled must be enough to go on."""

    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        for number in range(15):
            await append(spool, clock, number)
        checkpoint(spool)
        free = os.statvfs(small_disk).f_bavail * 4096
        (small_disk / "ballast").write_bytes(bytes(free - 7 * MIB))
        with pytest.raises(StorageFull):
            await append(spool, clock, 20)
        for sink in ("quick", "slow"):
            await deliver(spool, sink)
        for number in range(20, 24):
            await append(spool, clock, number)

    tell(small_disk, scenario, min_free=16 * MIB)


@pytest.mark.root
def test_what_the_wal_has_yet_to_move_into_the_file_is_no_room(small_disk: Path) -> None:
    path, wal = small_disk / "spool.db", small_disk / "spool.db-wal"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("CREATE TABLE some (thing)")
        connection.execute("INSERT INTO some VALUES (zeroblob(4000000))")
        left = os.statvfs(small_disk).f_bavail * 4096
        assert left - 4_100_000 < measured(connection, path, wal).room < left - 4_000_000
