"""Ids stay known for 30 days and no longer: before, during and after they are merged, over kills and failures."""

import asyncio
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from poller.core.errors import StorageError, StorageFull
from poller.core.model import Event, ParsedPage, PollOutcome
from poller.spools.sqlite import SqliteSpool, seen
from poller.spools.sqlite.examine import examine
from poller.testing import ManualClock, anything, some_event, some_reading, some_recording
from tests.fakes import sqlite_spool
from tests.patience import patiently

DAY = 86400.0
PAGE = 7


@pytest.fixture
def small_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge every 20 ids, five at a time."""
    monkeypatch.setattr(seen, "MERGE_AT", 20)
    monkeypatch.setattr(seen, "MERGE_STEP", 5)
    monkeypatch.setattr(seen, "IN_STATEMENT", 1)


def tell(
    folder: Path, scenario: Callable[[SqliteSpool], Awaitable[None]], clock: ManualClock | None = None
) -> None:
    async def run_scenario() -> None:
        async with sqlite_spool(folder, clock or ManualClock(), 0.0) as spool:
            await spool.attach("a", anything)
            await scenario(spool)

    asyncio.run(patiently(run_scenario()))


def merged(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT value FROM meta WHERE name='merged'").fetchone()
    return int(row[0]) if row else 0


def keys(db: sqlite3.Connection, until: float) -> set[int]:
    rows = db.execute("SELECT keys FROM seen_page WHERE n <= ?", (until,))
    return {key for (packed,) in rows for (key,) in struct.iter_unpack(">q", packed)}


def pages(count: int) -> Iterator[list[int]]:
    return (list(range(start, start + PAGE)) for start in range(0, count * PAGE, PAGE))


# ---------------------------------------------------------------- kills


class Snapshots:
    """What `kill -9` would leave at statements that the writer begins, and how many events were acknowledged.

    One statement in `every` counts.
    """

    def __init__(self, spool_file: Path, folder: Path, every: int) -> None:
        self._file = spool_file
        self._folder = folder
        self._every = every
        self._statements = 0
        self.acknowledged = 0
        self.taken: list[tuple[Path, int]] = []
        self.merging = 0

    def take(self, statement: str) -> None:
        self.merging += statement.startswith("INSERT OR IGNORE INTO seen ")
        self._statements += 1
        if self._statements % self._every == 0:
            self._copy()

    def _copy(self) -> None:
        place = self._folder / str(len(self.taken))
        place.mkdir(parents=True)
        for end in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{self._file}{end}", place / f"spool.db{end}")
        self.taken.append((place, self.acknowledged))


@pytest.mark.usefixtures("small_merges")
def test_ids_stay_known_wherever_a_merge_is_cut_short_by_a_kill(tmp_path: Path, soak: bool) -> None:
    count = 10
    shots = Snapshots(tmp_path / "spool.db", tmp_path / "shots", 1 if soak else 3)

    async def filling(spool: SqliteSpool) -> None:
        spool._writer.connection.set_trace_callback(shots.take)
        for numbers in pages(count):
            await spool.append("source", [some_reading(*numbers)])
            shots.acknowledged += PAGE
        spool._writer.connection.set_trace_callback(None)

    tell(tmp_path, filling)
    assert shots.merging >= 40
    assert len(shots.taken) > 50

    def again(acknowledged: int) -> Callable[[SqliteSpool], Awaitable[None]]:
        async def scenario(spool: SqliteSpool) -> None:
            assert (await spool.append("source", [some_reading(*range(acknowledged))])).total() == 0
            for numbers in pages(count):
                await spool.append("source", [some_reading(*numbers)])
            assert (await spool.backlog("a")).events == count * PAGE

        return scenario

    for place, acknowledged in shots.taken:
        tell(place, again(acknowledged))
        assert examine(place / "spool.db").findings == ()


def test_ids_stay_known_when_the_process_is_killed(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import asyncio, os, signal, sys
        from pathlib import Path
        from poller.spools.sqlite import seen
        from poller.testing import ManualClock, anything, some_reading
        from tests.fakes import sqlite_spool
        seen.MERGE_AT, seen.MERGE_STEP = 20, 5
        async def main():
            async with sqlite_spool(Path(sys.argv[1]), ManualClock(), 0.0) as spool:
                await spool.attach("a", anything)
                for start in range(0, 700, 7):
                    await spool.append("source", [some_reading(*range(start, start + 7))])
                os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
    """)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(tmp_path / "spool.db")) as db:
        assert 0 < merged(db) < 100, "some are merged, some are not"

    async def scenario(spool: SqliteSpool) -> None:
        assert (await spool.append("source", [some_reading(*range(710))])).total() == 10

    tell(tmp_path, scenario)


# ---------------------------------------------------------------- bursts


def test_a_burst_is_merged_after_it_or_while_too_many_ids_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_merges: None
) -> None:
    monkeypatch.setattr(seen, "BURST", PAGE - 1)
    monkeypatch.setattr(seen, "MERGE_ANYWAY", 60)

    async def scenario(spool: SqliteSpool) -> None:
        connection = spool._writer.connection
        numbers = pages(60)

        def in_memory() -> int:
            return len(spool._writer.seen._young)

        while in_memory() < 60:
            assert merged(connection) == 0
            await spool.append("source", [some_reading(*next(numbers))])
        most = 0
        for page in numbers:
            await spool.append("source", [some_reading(*page)])
            most = max(most, in_memory())
        assert merged(connection) > 0
        assert most <= 60 + 60, "a run is merged twice as fast as the burst goes on"
        for number in range(60 * PAGE, 60 * PAGE + 40):
            await spool.append("source", [some_reading(number)])
        assert in_memory() < 20 + 40
        assert (await spool.append("source", [some_reading(*range(61 * PAGE))])).total() == 0

    tell(tmp_path, scenario)


# ---------------------------------------------------------------- failures


@pytest.mark.usefixtures("small_merges")
def test_what_could_not_be_committed_is_not_known(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool) -> None:
        connection = spool._writer.connection
        for start in range(0, 20 * 3 * PAGE, 3 * PAGE):
            numbers = range(start, start + PAGE)
            used = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={used}")  # SQLite's own way to be full
            with pytest.raises(StorageFull):
                await spool.append("source", [some_reading(*numbers, *range(10_000, 10_040))])
            connection.execute("PRAGMA max_page_count=1073741823")
            for first in range(start, start + 3 * PAGE, PAGE):
                assert (
                    await spool.append("source", [some_reading(*range(first, first + PAGE))])
                ).total() == PAGE
        assert (await spool.append("source", [some_reading(*range(20 * 3 * PAGE))])).total() == 0

    tell(tmp_path, scenario)
    with closing(sqlite3.connect(tmp_path / "spool.db")) as db:
        assert merged(db) > 0, "a merge that failed is begun again"


@pytest.mark.usefixtures("small_merges")
def test_a_merge_that_fails_keeps_nothing_from_being_written(tmp_path: Path) -> None:
    """The next transaction goes without it."""

    async def scenario(spool: SqliteSpool) -> None:
        connection, failures = spool._writer.connection, 0
        connection.execute(
            "CREATE TEMP TRIGGER no BEFORE INSERT ON seen BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        for numbers in pages(20):
            reading = some_reading(*numbers)
            try:
                assert (await spool.append("source", [reading])).total() == PAGE
            except StorageError:
                failures += 1
                assert (await spool.append("source", [reading])).total() == PAGE
        assert failures > 5
        connection.execute("DROP TRIGGER no")
        await spool.append("source", [some_reading(10_000)])
        assert (await spool.append("source", [some_reading(*range(20 * PAGE))])).total() == 0

    tell(tmp_path, scenario)


# ---------------------------------------------------------------- thirty days


class Ledger:
    """What should be known: for each id, when it was remembered."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    def new(self, event: Event, now: float) -> bool:
        unknown = [id for id in event.ids if id not in self.at]
        self.at.update(dict.fromkeys(unknown, now))
        return len(unknown) == len(event.ids)

    def prune(self, now: float) -> None:
        self.at = {id: at for id, at in self.at.items() if at >= now - 30 * DAY}


def some_page(rng: random.Random) -> ParsedPage:
    """Events, many of which were there before; some are recordings, which have two ids."""
    events = [some_event(rng.randrange(400)) for _ in range(rng.randrange(1, 12))]
    if rng.random() < 0.4:
        events.append(some_recording(rng.choice([None, f"f{rng.randrange(30)}"]), f"v{rng.randrange(30)}"))
    return ParsedPage(events=tuple(events), rejects=(), outcome=PollOutcome.FULL)


@pytest.mark.usefixtures("small_merges")
@pytest.mark.parametrize("seed", range(4))
def test_exactly_the_ids_of_thirty_days_are_known(tmp_path: Path, soak: bool, seed: int) -> None:
    """Over merges, pruning at any moment, and new starts."""
    rng, clock, ledger = random.Random(seed), ManualClock(), Ledger()
    merges = set()

    async def scenario(spool: SqliteSpool) -> None:
        for _ in range(rng.randrange(60)):
            now = clock.now().timestamp()
            match rng.randrange(8):
                case 0:
                    clock.pass_time(rng.choice([1, 10, 40]) * DAY)
                case 1:
                    while (await spool.prune()).more:
                        pass
                    ledger.prune(now)
                case _:
                    page = some_page(rng)
                    expected = sum([ledger.new(event, now) for event in page.events])
                    assert (await spool.append("source", [page])).total() == expected
            merges.add(spool._writer.seen._merged)

    for _ in range(100 if soak else 15):
        tell(tmp_path, scenario, clock)
        with closing(sqlite3.connect(tmp_path / "spool.db")) as db:
            table = {key for (key,) in db.execute("SELECT key FROM seen")}
            assert keys(db, merged(db)) <= table <= keys(db, float("inf")), "nothing is known for ever"
            assert len(keys(db, float("inf"))) == len(ledger.at)
    assert len(merges) > 5


@pytest.mark.usefixtures("small_merges")
def test_ids_are_known_after_all_others_were_forgotten(tmp_path: Path) -> None:
    """The numbers of rows that are gone are not used again: they count as merged."""
    clock = ManualClock()

    async def forget(spool: SqliteSpool) -> None:
        for numbers in pages(10):
            await spool.append("source", [some_reading(*numbers)])
        clock.pass_time(31 * DAY)
        while (await spool.prune()).more:
            pass

    async def two(spool: SqliteSpool) -> None:
        await spool.append("source", [some_reading(1, 2)])

    async def again(spool: SqliteSpool) -> None:
        assert (await spool.append("source", [some_reading(1, 2)])).total() == 0

    for scenario in (forget, two, again):
        tell(tmp_path, scenario, clock)


def test_a_row_of_keys_that_is_cut_is_reported_and_keeps_nothing_from_starting(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool) -> None:
        await spool.append("source", [some_reading(1, 2)])

    async def again(spool: SqliteSpool) -> None:
        assert (await spool.append("source", [some_reading(1, 2)])).total() == 1

    tell(tmp_path, scenario)
    with closing(sqlite3.connect(tmp_path / "spool.db")) as db:
        db.execute("UPDATE seen_page SET keys = substr(keys, 1, 13)")
        db.commit()
    found = examine(tmp_path / "spool.db")
    assert found.findings == ("seen_page 1: its last key is cut",)
    assert "1 ids remembered" in found.summary
    tell(tmp_path, again)


# ---------------------------------------------------------------- what is only provisional


def test_what_is_provisional_is_remembered_as_long_as_its_id(tmp_path: Path) -> None:
    clock = ManualClock()

    def provisional() -> int:
        with closing(sqlite3.connect(tmp_path / "spool.db")) as db:
            query = "SELECT count(*) FROM meta WHERE name LIKE 'provisional %'"
            return int(db.execute(query).fetchone()[0])

    async def scenario(spool: SqliteSpool) -> None:
        events = tuple(some_event(number) for number in range(5))
        pushed = ParsedPage(events=events, rejects=(), outcome=PollOutcome.PARTIAL, provisional=True)
        await spool.append("pushed", [pushed])
        await spool.append("polled", [some_reading(0, 1, 7)])
        assert provisional() == 3
        clock.pass_time(31 * DAY)
        await spool.prune()
        assert provisional() == 0

    tell(tmp_path, scenario, clock)
