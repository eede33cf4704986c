"""What the SQLite spool does beyond the contract: pruning, catching up, refusing files, a disk that fails."""

import asyncio
import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from poller.core.errors import StorageError, StorageFull
from poller.core.history import Stage
from poller.core.model import Dead, Done, Event, Retry
from poller.spools import ordered_sink_queue as ordered
from poller.spools import table_spool
from poller.spools.retention import PRUNE_STEP
from poller.spools.sqlite import SqliteSpool, queries
from poller.spools.sqlite.schema import VERSION
from poller.spools.sqlite.writer import Writer
from poller.spools.waiting import Waiting
from poller.testing import ManualClock, anything, some_event, some_reading
from poller.testing.corrections import announced
from poller.testing.factories import claims_nothing
from poller.testing.history import newest_events
from tests.fakes import sqlite_spool
from tests.patience import PATIENCE, patiently

DAY = 86400.0
Scenario = Callable[[SqliteSpool, ManualClock], Awaitable[None]]


def tell(folder: Path, scenario: Scenario, *, retain: float = DAY, clock: ManualClock | None = None) -> None:
    clock = clock or ManualClock()

    async def run_scenario() -> None:
        async with sqlite_spool(folder, clock, retain) as spool:
            await spool.attach("a", anything)
            await scenario(spool, clock)

    asyncio.run(patiently(run_scenario()))


async def deliver_all(spool: SqliteSpool, sink: str = "a") -> list[str]:
    ids: list[str] = []
    while (await spool.backlog(sink)).events:
        batch = await spool.claim(sink, 100)
        ids += [event.id for event in batch.events]
        await spool.settle(batch, [Done()] * len(batch.events))
    return ids


def rows(folder: Path, table: str) -> int:
    with sqlite3.connect(folder / "spool.db") as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_settled_pages_are_pruned_after_retain_in_bounded_steps(tmp_path: Path) -> None:
    pages = 2 * PRUNE_STEP + 5

    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        for number in range(pages):
            await spool.append("source", [some_reading(number)])
        await deliver_all(spool)
        clock.pass_time(1000 * DAY)  # some_event's times are far behind the manual clock's by then
        steps = 1
        while (await spool.prune()).more:
            steps += 1
        assert steps == 3
        assert await newest_events(spool, 10) == []

    tell(tmp_path, scenario)
    assert rows(tmp_path, "page") == 0


def test_there_is_more_to_prune_while_pages_are_many_though_no_id_is_old(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        for number in range(PRUNE_STEP + 1):
            await spool.append("source", [some_reading(number)])
        await deliver_all(spool)
        clock.pass_time(2 * DAY)
        assert (await spool.prune()).more
        assert not (await spool.prune()).more
        assert await newest_events(spool, 10) == []

    tell(tmp_path, scenario)


def test_settled_pages_stay_for_retain(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("source", [some_reading(1, 2)])
        await deliver_all(spool)
        clock.pass_time(DAY / 2)
        assert not (await spool.prune()).more
        assert await newest_events(spool, 10) == [some_event(2), some_event(1)]

    tell(tmp_path, scenario)


def test_ids_are_remembered_for_thirty_days_whatever_is_retained(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("source", [some_reading(1, 2)])
        await deliver_all(spool)
        clock.pass_time(29 * DAY)
        while (await spool.prune()).more:
            pass
        assert await newest_events(spool, 10) == []
        assert (await spool.append("source", [some_reading(1, 2)])).total() == 0
        clock.pass_time(2 * DAY)
        while (await spool.prune()).more:
            pass
        assert (await spool.append("source", [some_reading(1, 2)])).total() == 2
        assert len(await deliver_all(spool)) == 2

    tell(tmp_path, scenario, retain=0.0)
    assert rows(tmp_path, "seen_page") == 1


def test_numbers_go_on_after_everything_was_pruned_and_the_file_reopened(tmp_path: Path) -> None:
    """A position must never point behind events that are yet to come."""
    clock = ManualClock()

    async def empty(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("source", [some_reading(*range(50))])
        await deliver_all(spool)
        clock.pass_time(DAY)
        while (await spool.prune()).more:
            pass

    async def again(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("source", [some_reading(100)])
        assert await deliver_all(spool) == [some_event(100).id]

    tell(tmp_path, empty, retain=0.0, clock=clock)
    assert rows(tmp_path, "page") == 0
    tell(tmp_path, again, retain=0.0, clock=clock)


@pytest.mark.parametrize("each", [1, 20])
def test_a_sink_that_fell_behind_reads_the_file_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: int
) -> None:
    """Whether its batches are larger or smaller than what is read at a time."""
    monkeypatch.setattr(table_spool, "TAIL_BYTES", 1000 * each)

    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        for start in range(0, 50 * each, each):
            await spool.append("source", [some_reading(*range(start, start + each))])
        first = await spool.claim("a", 7)
        await spool.settle(first, [Done()] * 7)
        rest = await deliver_all(spool)
        assert [e.id for e in first.events] + rest == [some_event(n).id for n in range(50 * each)]

    tell(tmp_path, scenario)


def test_carriers_that_catch_up_at_once_get_every_event_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_spool, "TAIL_BYTES", 5_000)

    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        for start in range(0, 600, 10):
            await spool.append("source", [some_reading(*range(start, start + 10))])
        got: list[str] = []

        async def carrier(limit: int) -> None:
            while True:
                batch = await spool.claim("a", limit)
                got.extend(event.id for event in batch.events)
                await asyncio.sleep(0)
                await spool.settle(batch, [Done()] * len(batch.events))

        carriers = [asyncio.ensure_future(carrier(limit)) for limit in (1, 3, 7, 50)]
        while (await spool.backlog("a")).events:
            await asyncio.sleep(0.01)
        for task in carriers:
            task.cancel()
        await asyncio.gather(*carriers, return_exceptions=True)
        assert sorted(got) == sorted(some_event(n).id for n in range(600))

    tell(tmp_path, scenario)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "spool.db") as db:
        db.execute("CREATE TABLE theirs (a)")
    with pytest.raises(StorageError, match="another program"):
        tell(tmp_path, lambda spool, clock: asyncio.sleep(0))


def test_a_file_of_a_later_schema_is_refused(tmp_path: Path) -> None:
    tell(tmp_path, lambda spool, clock: asyncio.sleep(0))
    with sqlite3.connect(tmp_path / "spool.db") as db:
        db.execute(f"PRAGMA user_version={VERSION + 1}")
    with pytest.raises(StorageError, match="use the version that wrote it"):
        tell(tmp_path, lambda spool, clock: asyncio.sleep(0))


def test_the_file_is_read_by_its_owner_alone_and_survives_as_plain_lines(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("source", [some_reading(1, 2)])

    tell(tmp_path, scenario)
    assert (tmp_path / "spool.db").stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(tmp_path / "spool.db") as db:
        (blob,) = db.execute("SELECT events FROM page").fetchone()
        (sync,) = db.execute("PRAGMA journal_mode").fetchone()
    assert blob.split(b"\n") == [some_event(1).encoded, some_event(2).encoded]
    assert sync == "wal"


def test_every_commit_is_synced(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        assert spool._writer.connection.execute("PRAGMA synchronous").fetchone() == (2,)

    tell(tmp_path, scenario)


def _tried(statement: str, reader: sqlite3.Connection) -> list[object]:
    return reader.execute(statement).fetchall()


def test_the_connection_that_reads_can_neither_write_nor_checkpoint(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("source", [some_reading(1)])
        assert len(await newest_events(spool, 9)) == 1
        for statement in ("DELETE FROM page", "PRAGMA wal_checkpoint(TRUNCATE)"):
            with pytest.raises(StorageError):
                await spool._reader.read(partial(_tried, statement))
        assert len(await newest_events(spool, 9)) == 1

    tell(tmp_path, scenario)


def test_while_the_disk_is_full_deliveries_are_settled_and_written_later(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("source", [some_reading(*range(10))])
        connection = spool._writer.connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")  # SQLite's own way to be full
        with pytest.raises(StorageFull, match=r"spool\.db: database or disk is full"):
            await spool.append("source", [some_reading(*range(100, 3000))])
        batch = await spool.claim("a", 4)
        await spool.settle(batch, [Done()] * 3 + [Retry(after=0, reason="no")])
        again = await spool.claim("a", 4)
        assert again.events == (some_event(3),)
        await spool.settle(again, [Done()])
        assert (await spool.backlog("a")).events == 6
        connection.execute("PRAGMA max_page_count=1073741823")
        assert (await spool.append("source", [some_reading(*range(100, 3000))])).total() == 2900

    tell(tmp_path, scenario)

    async def reopened(spool: SqliteSpool, clock: ManualClock) -> None:
        assert (await spool.backlog("a")).events == 6 + 2900

    tell(tmp_path, reopened)


def test_a_kill_while_a_stream_waits_repeats_nothing_that_others_got(tmp_path: Path) -> None:
    """What is parked behind the retry is on disk, so that it does not keep the position back."""
    clock = ManualClock()

    async def killed() -> None:
        async with sqlite_spool(tmp_path, clock) as spool:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2), some_reading(3, stream="hall")])
            await spool.settle(await spool.claim("a", 1), [Retry(after=10, reason="no")])
            hall = await spool.claim("a", 9)
            assert hall.events == (some_event(3, stream="hall"),)
            await spool.settle(hall, [Done()])
            await spool.dead(1)  # a commit, with what was settled
            (tmp_path / "left").mkdir()
            for file in tmp_path.glob("spool.db*"):
                shutil.copy(file, tmp_path / "left")

    async def after() -> None:
        async with sqlite_spool(tmp_path / "left", clock) as spool:
            await spool.attach("a", anything, ordered=True)
            assert (await spool.backlog("a")).events == 2
            clock.pass_time(10)
            for number in (1, 2):
                batch = await spool.claim("a", 1)
                assert batch.events == (some_event(number),)
                await spool.settle(batch, [Done()])
            assert (await spool.backlog("a")).events == 0

    asyncio.run(killed())
    asyncio.run(patiently(after()))


def test_a_stream_that_was_seen_lately_is_known_after_pruning(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("source", [some_reading(1)])
        clock.pass_time(29 * DAY)
        while (await spool.prune()).more:
            pass
        assert [stream.stream_id for stream in spool.streams()] == ["room"]
        clock.pass_time(2 * DAY)
        while (await spool.prune()).more:
            pass
        assert spool.streams() == []

    tell(tmp_path, scenario)


@pytest.mark.parametrize("good", [1, 5])
def test_one_bad_append_does_not_spoil_another_in_the_same_commit(tmp_path: Path, good: int) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        appends = [spool.append("source", [some_reading(n)]) for n in range(good)]
        bad = spool._write(lambda writer: writer.connection.execute("SELECT ?", (2**70,)))
        results = await asyncio.gather(*appends[:3], bad, *appends[3:], return_exceptions=True)
        assert [r.total() for r in results if isinstance(r, Counter)] == [1] * good
        (error,) = [r for r in results if isinstance(r, StorageError)]
        assert "spool.db: " in str(error)
        assert len(await deliver_all(spool)) == good

    tell(tmp_path, scenario)


def test_a_memory_about_what_is_gone_for_long_is_forgotten(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("source", [some_reading(memory=b"a"), some_reading(memory=b"b", about="old")])
        await spool.append("source", [some_reading(memory=b"c", about="changing")])
        clock.pass_time(50 * DAY)
        await spool.append("source", [some_reading(memory=b"d", about="changing")])
        clock.pass_time(11 * DAY)
        await spool.prune()
        assert await spool.memory("source") == {"": b"a", "changing": b"d"}

    tell(tmp_path, scenario)


def test_a_sink_that_was_away_while_all_it_had_not_got_was_pruned_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_spool, "TAIL_BYTES", 100)
    monkeypatch.setattr(table_spool, "TAIL_OF_A_STREAM", 0)

    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        for number in (1, 2):
            await spool.append("source", [some_reading(number)])
        await spool.detach("a")
        clock.pass_time(2 * DAY)
        while (await spool.prune()).more:
            pass
        assert await newest_events(spool, 9) == []
        await spool.attach("a", anything)
        claim = asyncio.ensure_future(spool.claim("a", 9))
        await newest_events(spool, 9)  # so that it has looked into the file before
        await spool.append("source", [some_reading(3)])
        assert (await claim).events == (some_event(3),)

    tell(tmp_path, scenario)


def test_what_an_ordered_sink_remembers_of_streams_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "KEPT_LINES", 10)

    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.attach("a", anything, ordered=True)
        for number in range(1000):
            await spool.append("source", [some_reading(number, stream=f"room{number}")])
        queue = spool._dispatcher.queues["a"]
        assert isinstance(queue, ordered.OrderedSinkQueue)
        most = delivered = 0
        while (await spool.backlog("a")).events:
            batch = await spool.claim("a", 5)
            delivered += len(batch.events)
            await spool.settle(batch, [Done()] * len(batch.events))
            most = max(most, len(queue._lines))
        assert delivered == 1000
        assert 50 <= most <= 150, "those read ahead, and as many again"

    tell(tmp_path, scenario)


def test_letters_of_new_streams_hold_them_all_however_few_streams_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "KEPT_LINES", 1)

    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        rooms = ["hall", "room", "yard"]
        await spool.attach("a", anything, ordered=True)
        await spool.append("source", [some_reading(n, stream=room) for n, room in enumerate(rooms)])
        await spool.settle(await spool.claim("a", 3), [Dead(reason="bad")] * 3)
        await spool.attach("a", anything, ordered=True)
        numbers = [letter.number for letter in await spool.dead(3)]
        assert await spool.retry_dead("a", numbers, 3) == 3
        letters = await spool.claim("a", 3)
        await spool.append("source", [some_reading(n, stream=room) for n, room in enumerate(rooms, 3)])
        assert await claims_nothing(spool, "a"), "all three streams are in hand"
        await spool.settle(letters, [Done()] * 3)
        assert len((await spool.claim("a", 3)).events) == 3

    tell(tmp_path, scenario)


def test_an_event_stays_provisional_until_its_correction_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct = Writer.correct
    failures = iter([True])

    def fails_once(writer: Writer, known: Sequence[tuple[int, Event]]) -> dict[str, list[Waiting]]:
        found = correct(writer, known)
        if next(failures, False):
            raise StorageFull("no room")
        return found

    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("pushed", [announced(1)])
        await spool.settle(await spool.claim("a", 1), [Dead(reason="refused")])
        monkeypatch.setattr(Writer, "correct", fails_once)
        with pytest.raises(StorageFull):
            await spool.append("polled", [some_reading(1)])
        assert len(await spool.dead(9)) == 1, "all of it was undone"
        await spool.append("polled", [some_reading(1)])
        async with asyncio.timeout(PATIENCE):
            assert (await spool.claim("a", 1)).events == (some_event(1),)

    tell(tmp_path, scenario)


@pytest.mark.parametrize("wants", [anything, lambda event: event.kind == "screenshot"])
def test_a_correction_reaches_what_was_read_from_the_file_before(
    tmp_path: Path, wants: Callable[[Event], bool]
) -> None:
    async def announces(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("pushed", [announced(*range(1, 6)), announced(*range(6, 9))])

    async def delivers(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.attach("a", wants)
        first = await spool.claim("a", 2)
        assert list(first.events) == list(announced(1, 2).events)
        await spool.append("polled", [some_reading(2, 4, 5, 7)])
        rest = [event for _ in range(3) for event in (await spool.claim("a", 2)).events]
        assert rest == [
            *announced(3).events,
            *map(some_event, (4, 5)),
            *announced(6).events,
            some_event(7),
            *announced(8).events,
        ]
        await spool.settle(first, [Dead(reason="gone"), Dead(reason="gone")])
        assert (await spool.claim("a", 9)).events == (some_event(2),)

    tell(tmp_path, announces)
    tell(tmp_path, delivers)


def test_a_backlog_of_small_pages_is_claimed_in_whole_batches(tmp_path: Path) -> None:
    """Each batch takes up where the last one ended, within a page and over what is read at once."""

    async def takes(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("source", [some_reading(*range(n, n + 3)) for n in range(1, 31, 3)])

    async def delivers(spool: SqliteSpool, clock: ManualClock) -> None:
        claimed = [await spool.claim("a", limit) for limit in (2, 5, 7, 9, 1)]
        assert [event for batch in claimed for event in batch.events] == [some_event(n) for n in range(1, 25)]
        assert [len(batch.events) for batch in claimed] == [2, 5, 7, 9, 1]
        assert len({batch.id for batch in claimed}) == 5
        again = claimed[2]
        await spool.settle(again, [Retry(after=0.0, reason="no")] * 7)
        retried = await spool.claim("a", 100)
        assert list(retried.events) == list(again.events)
        assert retried.attempt == 2
        assert (await spool.backlog("a")).events == 30

    tell(tmp_path, takes)
    tell(tmp_path, delivers)


def test_a_backlog_of_tiny_pages_is_claimed_in_full_batches(tmp_path: Path) -> None:
    async def takes(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("source", [some_reading(n) for n in range(1, 301)])

    async def delivers(spool: SqliteSpool, clock: ManualClock) -> None:
        batches = [await spool.claim("a", 100) for _ in range(3)]
        assert [len(batch.events) for batch in batches] == [100, 100, 100]

    tell(tmp_path, takes)
    tell(tmp_path, delivers)


def test_asking_for_the_oldest_waiting_event_costs_no_more_behind_a_long_log(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        for start in range(0, 400, 100):
            await spool.append("source", [some_reading(number) for number in range(start, start + 100)])
        assert await spool._reader.read(partial(_steps, 2)) >= await spool._reader.read(partial(_steps, 399))
        received = [
            await spool._reader.read(partial(queries.received_at, number)) for number in (1, 2, 399, 401)
        ]
        assert received == [*(some_event(number).received_at for number in (0, 1, 398)), None]

    tell(tmp_path, scenario)


def _steps(number: int, reader: sqlite3.Connection) -> int:
    """How much SQLite works for it, in its own instructions."""
    steps: list[None] = []
    reader.set_progress_handler(lambda: steps.append(None), 1)
    try:
        assert queries.received_at(number, reader) is not None
    finally:
        reader.set_progress_handler(None, 1)
    return len(steps)


def test_what_was_delivered_is_answered_while_the_disk_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_spool, "WRITTEN_WITHIN", 0.1)

    async def scenario(spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(1, 2)])
        await spool.settle(await spool.claim("a", 1), [Done()])
        assert len(await spool.deliveries(1, some_event(1).id)) == 1
        await spool.settle(await spool.claim("a", 1), [Done()])
        goes_on = threading.Event()
        hanging = spool._writes.submit(lambda writer: goes_on.wait(PATIENCE))
        try:
            assert len(await spool.deliveries(1, some_event(1).id)) == 1
            assert {tally.owner: tally.count for tally in await spool.tallies()} == {"a": 1, "shots": 2}
            (standing,) = await spool.progress(2, some_event(2).id, some_event(2))
            assert standing.stage is Stage.SETTLED
        finally:
            goes_on.set()
        await hanging
        assert {tally.owner: tally.count for tally in await spool.tallies()} == {"a": 2, "shots": 2}

    tell(tmp_path, scenario)


def test_recorded_deliveries_take_less_than_a_byte_an_event(tmp_path: Path) -> None:
    """Where a sink takes one batch of 100 after the other, each with a commit of its own."""
    events = 40_000

    async def scenario() -> None:
        async with sqlite_spool(tmp_path) as spool:
            await spool.attach("archive", anything)
            for start in range(0, events, 1_000):
                await spool.append("shots", [some_reading(*range(start, start + 1_000))])
                for _ in range(10):
                    await spool.settle(await spool.claim("archive", 100), [Done()] * 100)
                    await spool.tallies()  # a commit

    asyncio.run(scenario())
    with closing(sqlite3.connect(tmp_path / "spool.db")) as file:
        rows, recorded = file.execute("SELECT count(*), sum(last - first + 1) FROM delivered").fetchone()
        (used,) = file.execute("SELECT sum(pgsize) FROM dbstat WHERE name LIKE 'delivered%'").fetchone()
    assert (rows, recorded) == (events // 100, events)
    assert used / events < 1
