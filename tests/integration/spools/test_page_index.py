"""The index of the log's pages: altered events are found and never delivered, and old files are indexed."""

import asyncio
import random
import re
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from poller.core.errors import StorageCorrupt, StorageError
from poller.core.model import Done, Event
from poller.core.selection import ALL_EVENTS, Numbered, Selection
from poller.core.spool import Salvaged
from poller.spools.sqlite import SqliteSpool, page_scan, queries
from poller.spools.sqlite.examine import examine, export
from poller.spools.sqlite.page_index import FILL_STEP
from poller.spools.sqlite.page_index import fill as fill_index
from poller.spools.sqlite.page_times import number_at
from poller.spools.sqlite.salvage import salvage
from poller.testing import START, ManualClock, anything, some_event, some_reading
from poller.testing.corrections import announced
from poller.testing.history import scan_all
from poller.testing.scans import fill, page_of, received, selections
from tests.fakes import sqlite_spool
from tests.integration.spools.test_migrations import FIXTURES, laid
from tests.patience import patiently

PAGES = 40
"""Pages of five events each; the one that is altered has the events 101 to 105."""
ALTERED = 101
Scenario = Callable[[SqliteSpool], Awaitable[None]]


def tell(folder: Path, scenario: Scenario, clock: ManualClock | None = None) -> SqliteSpool:
    async def run() -> SqliteSpool:
        async with sqlite_spool(folder, clock or ManualClock()) as spool:
            await scenario(spool)
            return spool

    return asyncio.run(patiently(run()))


async def pending(spool: SqliteSpool) -> None:
    """A sink to which all pages are owed."""
    await spool.attach("a", anything)
    for page in range(PAGES):
        await spool.append("shots", [some_reading(*range(page * 5, page * 5 + 5))])


def alter(folder: Path, number: int = ALTERED + 2) -> str:
    """Change one bit of an event's file name, in the bytes of the file; returns the altered name.

    The event reads back as before: the name is another one.
    """
    (name, *_) = re.findall(rb"room_[0-9_]+\.jpg", some_event(number).encoded)
    file = folder / "spool.db"
    content = file.read_bytes()
    at = content.index(b'"file_name":"' + name) + len(b'"file_name":"room')
    assert content[at : at + 1] == b"_"
    file.write_bytes(content[:at] + b"^" + content[at + 1 :])  # `_` and `^` differ in one bit
    return "room^" + str(name[5:], "ascii")


async def delivered(spool: SqliteSpool) -> list[Event]:
    """All that the sink gets before an error, settled."""
    await spool.attach("a", anything)
    got: list[Event] = []
    try:
        while (await spool.backlog("a")).events:
            batch = await patiently(spool.claim("a", 7))
            got += batch.events
            await spool.settle(batch, [Done()] * len(batch.events))
    except StorageCorrupt:
        pass
    return got


# ---------------------------------------------------------------- an altered event


def test_an_event_that_was_altered_in_a_stopped_file_is_never_delivered(tmp_path: Path) -> None:
    """Not before the file is moved aside, and not from what is salvaged."""
    tell(tmp_path, pending)
    altered = alter(tmp_path)
    got: list[Event] = []

    async def scenario(spool: SqliteSpool) -> None:
        assert spool.damage is None
        got.extend(await delivered(spool))
        assert (await spool.backlog("a")).events

    tell(tmp_path, scenario)
    (aside,) = tell(tmp_path, lambda spool: asyncio.sleep(0)).files_aside()

    async def after(spool: SqliteSpool) -> None:
        await spool.attach("a", anything)
        parts = list(spool.salvage(aside, ["a"]))
        (said,) = [line for part in parts for line in part.damage]
        assert said.startswith("page 101: its checksum is wrong")
        await spool.restore(parts)
        got.extend(await delivered(spool))

    tell(tmp_path, after)
    names = {str(event.fields["file_name"]) for event in got}
    assert altered not in names
    left_out = {some_event(n).id for n in range(ALTERED - 1, ALTERED + 4)}
    assert {event.id for event in got} == {some_event(n).id for n in range(PAGES * 5)} - left_out


def test_an_event_that_is_altered_under_a_running_spool_is_never_delivered(tmp_path: Path) -> None:
    tell(tmp_path, pending)

    async def scenario(spool: SqliteSpool) -> None:
        await spool.attach("a", anything)
        first = await spool.claim("a", 5)
        altered = alter(tmp_path)
        await spool.settle(first, [Done()] * 5)
        got = await delivered(spool)
        assert got == [some_event(n) for n in range(5, ALTERED - 1)], "all that lies before the altered page"
        assert altered not in {event.fields["file_name"] for event in got}
        with pytest.raises(StorageCorrupt):
            await patiently(spool.claim("a", 100))

    tell(tmp_path, scenario)
    assert tell(tmp_path, lambda spool: asyncio.sleep(0)).damage is not None


def test_an_altered_event_that_the_start_reads_moves_the_file_aside(tmp_path: Path) -> None:
    """The catalogue of streams is read from the newest pages."""
    tell(tmp_path, pending)
    alter(tmp_path, PAGES * 5 - 2)
    with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as db:
        db.execute("UPDATE meta SET value = '150' WHERE name = 'catalogue'")
    spool = tell(tmp_path, lambda spool: asyncio.sleep(0))
    assert spool.damage is not None
    assert "page 196: its checksum is wrong" in spool.damage.reason


def test_whoever_looks_does_not_see_an_altered_page_and_the_log_says_so(tmp_path: Path) -> None:
    tell(tmp_path, pending)
    alter(tmp_path)
    others = [n for n in range(1, PAGES * 5 + 1) if not ALTERED <= n < ALTERED + 5]

    async def scenario(spool: SqliteSpool) -> None:
        for look in (scan_all(spool), scan_all(spool, newest_first=True)):
            with capture_logs() as logs:
                assert sorted(number for number, _ in await look) == others
            assert {(line["event"], line["reason"]) for line in logs} == {
                ("stored_row_unreadable", "page 101: its checksum is wrong")
            }

    tell(tmp_path, scenario)


def test_check_names_an_altered_page_and_an_export_leaves_it_out(tmp_path: Path) -> None:
    tell(tmp_path, pending)
    altered = alter(tmp_path)
    assert examine(tmp_path / "spool.db").findings == ("page 101: its checksum is wrong",)
    lines: list[bytes] = []
    with pytest.raises(StorageError, match="checksums of 1 pages are wrong"):
        lines.extend(export(tmp_path / "spool.db", frozenset(), None))
    assert len(lines) == PAGES * 5 - 5
    assert altered.encode() not in b"".join(lines)


def test_without_its_first_page_a_file_still_has_its_checksums(tmp_path: Path) -> None:
    tell(tmp_path, pending)
    altered = alter(tmp_path)
    with (tmp_path / "spool.db").open("r+b") as file:
        file.write(b"\xa5" * 8192)
    events = [event for part in salvage(tmp_path / "spool.db", []) for event in part.events]
    assert len(events) == PAGES * 5 - 5
    assert altered not in {event.fields["file_name"] for event in events}


def test_without_its_first_page_a_migrated_file_gives_all_its_events(tmp_path: Path) -> None:
    """Its younger tables do not lie where those of a new file lie."""
    laid(tmp_path, FIXTURES[0])
    tell(tmp_path, lambda spool: asyncio.sleep(0))
    with (tmp_path / "spool.db").open("r+b") as file:
        file.write(b"\xa5" * 8192)
    assert sum(len(part.events) for part in salvage(tmp_path / "spool.db", [])) >= 300


def test_a_corrected_event_has_a_right_checksum(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool) -> None:
        await spool.attach("a", anything)
        await spool.append("pushed", [announced(1, 2)])
        await spool.append("polled", [some_reading(1)])

    tell(tmp_path, scenario)
    assert examine(tmp_path / "spool.db").findings == ()


# ---------------------------------------------------------------- what the index is for


def test_a_scan_reads_only_pages_that_may_hold_what_is_selected(tmp_path: Path) -> None:
    """All other pages are unreadable, and nobody notices."""

    async def scenario(spool: SqliteSpool) -> None:
        await pending(spool)
        await spool.append("shots", [some_reading(900, 901, stream="hall")])
        await spool.append("shots", [some_reading(950)])

    tell(tmp_path, scenario)
    hall = PAGES * 5 + 1
    with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as db:
        db.execute("UPDATE page SET events = x'00' WHERE first <> ?", (hall,))
        db.execute("UPDATE meta SET value = ? WHERE name = 'catalogue'", (hall + 10,))
    one = some_event(900, stream="hall")

    async def after(spool: SqliteSpool) -> None:
        for chosen in (
            Selection(stream="hall"),
            Selection(stream="hall", taken_since=START),
            Selection(ids=frozenset({one.id})),
            Selection(taken_since=one.occurred_at, taken_until=one.occurred_at + timedelta(seconds=30)),
            Selection(since=one.received_at, until=one.received_at + timedelta(seconds=30)),
        ):
            for newest_first in (False, True):
                with capture_logs() as logs:
                    found = await scan_all(spool, chosen, newest_first=newest_first)
                assert (hall, one) in found
                assert logs == [], chosen

    tell(tmp_path, after)


@pytest.mark.parametrize("indexed", [True, False])
def test_no_question_about_the_log_sorts_pages(tmp_path: Path, indexed: bool) -> None:
    """A sort would read all pages before the first one is looked at."""
    tell(tmp_path, pending)
    if not indexed:
        without_index(tmp_path)
    asked: list[str] = []
    with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as db:
        db.set_trace_callback(asked.append)
        for newest_first in (False, True):
            assert page_scan.scan(Selection(stream="room"), None, 1_000, newest_first, db).found
        number_at(START, 1, db)
        assert queries.origin(5, db) is not None
        fill_index(db)
        db.set_trace_callback(None)
        questions = [line for line in asked if line.startswith("SELECT")]
        plans = {line: str(db.execute(f"EXPLAIN QUERY PLAN {line}").fetchall()) for line in questions}
    assert len(plans) > 8
    assert [line for line, plan in plans.items() if "TEMP B-TREE" in plan] == []


def test_a_step_ends_when_its_time_is_up_and_names_where_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_scan, "STEP", 0.0)

    async def scenario(spool: SqliteSpool) -> None:
        await spool.append("shots", [page_of(some_event(n)) for n in range(1_000)])
        nobody = Selection(stream="nobody")
        step = await spool.scan(nobody, None, 10)
        assert (step.found, step.following) == ((), page_scan.WINDOW + 1)
        down = await spool.scan(nobody, None, 10, newest_first=True)
        assert (down.found, down.following) == ((), 1_000 - page_scan.WINDOW)
        assert await scan_all(spool, nobody) == []
        for newest_first in (False, True):
            found = await scan_all(spool, newest_first=newest_first)
            assert sorted(number for number, _ in found) == [*range(1, 1_001)]

    tell(tmp_path, scenario)


def test_restored_events_share_a_page_only_if_they_came_together(tmp_path: Path) -> None:
    async def scenario(spool: SqliteSpool) -> None:
        await spool.attach("a", anything)
        times = [3.0, 3, 3, 1, 1, 3]
        events = tuple(received(some_event(n), at) for n, at in enumerate(times))
        assert await spool.restore([Salvaged(events=events)]) == 6
        assert len((await patiently(spool.claim("a", 9))).events) == 6
        origin = await spool.origin(2)
        assert origin is not None
        assert (origin.source, origin.events) == ("", 3)
        assert (await spool.origin(4)).received_at == START + timedelta(seconds=1)  # type: ignore[union-attr]

    tell(tmp_path, scenario)


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "spool.db")) as db:
        return db.execute(query).fetchall()


def test_pruning_deletes_the_index_of_the_pages_it_deletes(tmp_path: Path) -> None:
    clock = ManualClock()

    async def scenario(spool: SqliteSpool) -> None:
        await spool.attach("a", anything)
        for n, at in enumerate((50, 10, 60, 20, 70, 30)):  # each second page is late
            await spool.append("shots", [page_of(received(some_event(n), at))])
        await delivered(spool)

    tell(tmp_path, scenario, clock)
    assert len(rows(tmp_path, "SELECT * FROM meta WHERE name GLOB 'late *'")) == 3
    with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as db:
        db.execute("UPDATE page SET received_at = received_at + 30 * 86400 WHERE first > 4")

    async def prune(spool: SqliteSpool) -> None:
        await spool.attach("a", anything)
        clock.pass_time(20 * 86400)
        while (await spool.prune()).more:
            pass

    tell(tmp_path, prune, clock)
    assert (
        rows(tmp_path, "SELECT first FROM page")
        == rows(tmp_path, "SELECT first FROM page_index")
        == [(5,), (6,)]
    )
    assert rows(tmp_path, "SELECT name FROM meta WHERE name GLOB 'late *'") == [(f"late {6:020}",)]


# ---------------------------------------------------------------- files of schema 1


def without_index(folder: Path, condition: str = "1") -> None:
    """Leave a file as one of schema 1 that was just migrated."""
    with closing(sqlite3.connect(folder / "spool.db", isolation_level=None)) as db:
        db.execute(f"DELETE FROM page_index WHERE {condition}")
        db.execute("DELETE FROM meta WHERE name = 'unindexed' OR name GLOB 'late *'")


@pytest.mark.parametrize("condition", ["1", "first < 100", "0"])
def test_a_file_without_an_index_answers_the_same_before_during_and_after_it_is_indexed(
    tmp_path: Path, condition: str
) -> None:
    stored: list[Numbered] = []

    async def before(spool: SqliteSpool) -> None:
        stored.extend(await fill(spool))

    tell(tmp_path, before)
    without_index(tmp_path, condition)

    async def after(spool: SqliteSpool) -> None:
        more, steps = True, 0
        while more:
            for chosen in [*selections(stored)[::7], ALL_EVENTS]:
                expected = [member for member in stored if chosen.selects(member[1])]
                assert await scan_all(spool, chosen, limit=5) == expected
                assert await scan_all(spool, chosen, newest_first=True) == expected[::-1]
            more = (await spool.prune()).more
            steps += 1
        assert steps > len(rows(tmp_path, "SELECT 1 FROM page")) // FILL_STEP

    tell(tmp_path, after)
    assert examine(tmp_path / "spool.db").findings == ()
    assert rows(tmp_path, "SELECT value FROM meta WHERE name = 'unindexed'") == [("0",)]


def test_a_file_of_schema_1_is_indexed_and_checked_from_then_on(tmp_path: Path) -> None:
    laid(tmp_path, FIXTURES[0])

    async def scenario(spool: SqliteSpool) -> None:
        stored = await scan_all(spool)
        assert len(stored) == 300
        while (await spool.prune()).more:
            pass
        assert await scan_all(spool) == stored

    tell(tmp_path, scenario)
    assert examine(tmp_path / "spool.db").findings == ()
    with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as db:
        ((blob,),) = db.execute("SELECT events FROM page WHERE first = 51").fetchall()
        db.execute("UPDATE page SET events = ? WHERE first = 51", (blob.replace(b"room_17", b"room_16", 1),))
    assert examine(tmp_path / "spool.db").findings == ("page 51: its checksum is wrong",)


def test_an_old_page_that_cannot_be_read_does_not_stop_the_others_from_being_indexed(tmp_path: Path) -> None:
    tell(tmp_path, pending)
    without_index(tmp_path)
    with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as db:
        db.execute("UPDATE page SET events = x'00' WHERE first = 101")

    async def scenario(spool: SqliteSpool) -> None:
        with capture_logs() as logs:
            while (await spool.prune()).more:
                pass
        assert [line["event"] for line in logs] == ["stored_row_unreadable"]
        assert len(await scan_all(spool)) == PAGES * 5 - 5

    tell(tmp_path, scenario)
    assert len(rows(tmp_path, "SELECT 1 FROM page_index")) == PAGES - 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("indexed", [True, False])
def test_moments_are_found_in_a_long_log_whose_clock_was_set(
    tmp_path: Path, seed: int, indexed: bool
) -> None:
    """Also after a restart, and in a file whose index was made afterwards."""
    rng = random.Random(seed)
    at, times = 0.0, list[float]()
    for _ in range(400):
        at += rng.choice([0.0, 0.1, 1.0, 5.0]) + (rng.random() < 0.02) * rng.choice([-500.0, -50.0, 900.0])
        times.append(at + rng.uniform(-0.9, 0.0))

    def append(some: list[float], first: int) -> Scenario:
        async def scenario(spool: SqliteSpool) -> None:
            pages = [page_of(received(some_event(n), at)) for n, at in enumerate(some, first)]
            await spool.append("shots", pages)

        return scenario

    tell(tmp_path, append(times[:200], 0))
    tell(tmp_path, append(times[200:], 200))
    if not indexed:
        without_index(tmp_path)

    async def ask(spool: SqliteSpool) -> None:
        while (await spool.prune()).more:
            pass
        moments = [START + timedelta(seconds=seconds) for seconds in times]
        for moment in [*rng.sample(moments, 60), START - timedelta(days=9), START + timedelta(days=9)]:
            earlier = [n for n, at in enumerate(moments, 1) if at < moment]
            assert await spool.number_at(moment) == (earlier or [0])[-1] + 1

    tell(tmp_path, ask)


def test_an_id_of_another_form_is_stored_and_found(tmp_path: Path) -> None:
    """A source that is not ours may have such ids."""

    async def scenario(spool: SqliteSpool) -> None:
        odd = msgspec.structs.replace(some_event(1), id="abc")
        odd = msgspec.structs.replace(odd, encoded=odd.encoded.replace(some_event(1).id.encode(), b"abc"))
        await spool.append("shots", [page_of(some_event(0), odd)])
        assert await scan_all(spool, Selection(ids=frozenset({"abc"}))) == [(2, odd)]
        assert await scan_all(spool, Selection(ids=frozenset({some_event(0).id}))) == [(1, some_event(0))]

    tell(tmp_path, scenario)
