"""The running audit over real spools: what it finds becomes a row and an event, once, whatever happens in between."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from poller.core.errors import StorageFull
from poller.core.history import Gap
from poller.core.model import Done, Event, ParsedPage, PollOutcome
from poller.core.selection import ALL_EVENTS, Selection
from poller.core.spool import SpoolAdmin
from poller.pipeline import audit
from poller.pipeline.audit import COMMIT_EVERY, REPORT_WITHIN, SOURCE, STEP, Audit
from poller.runtime.metrics import Metrics
from poller.settings import AccountSettings, AuditSettings
from poller.spools.memory import MemorySpool
from poller.spools.sqlite import SqliteSpool
from poller.testing import ManualClock, anything
from poller.testing.history import newest_events
from tests.patience import PATIENCE, patiently
from tests.unit.pipeline.on_grid import PUSH, by_arrival, picture, pictures, summed

KEY = "k" * 32


def account(*, enabled: bool = True) -> AccountSettings:
    return AccountSettings.model_validate({"app_id": 1, "key": KEY, "audit": AuditSettings(enabled=enabled)})


class World:
    """A spool, a clock that follows what is received, and one audit after the other."""

    def __init__(self, spool: SpoolAdmin, clock: ManualClock) -> None:
        self.spool = spool
        self.clock = clock
        self.metrics = Metrics()
        self.accounts = {"main": account()}
        self.audit: Audit

    async def begin(self) -> None:
        """An audit that knows what was committed, and commits at once."""
        self.audit = Audit(self.spool, lambda: self.accounts, clock=self.clock, metrics=self.metrics)
        await self.audit.begin()
        await self.audit.step()

    async def receive(self, events: Sequence[Event], each: int = 100) -> None:
        for start in range(0, len(events), each):
            some = tuple(events[start : start + each])
            self.until(some[-1].received_at.timestamp())
            await self.spool.append(
                "shots", [ParsedPage(events=some, rejects=(), outcome=PollOutcome.PARTIAL)]
            )

    def until(self, epoch: float) -> None:
        self.clock.jump(epoch - self.clock.now().timestamp())

    async def look(self, steps: int = 50) -> None:
        """Steps until it has looked at everything and committed."""
        for _ in range(steps):
            self.clock.pass_time(REPORT_WITHIN)
            await self.audit.step()

    async def gaps(self) -> list[Gap]:
        return list(await self.spool.gaps(ALL_EVENTS, 999))

    async def events(self) -> list[Event]:
        return [event for event in await newest_events(self.spool, 100_000) if event.kind == "gap"]


@asynccontextmanager
async def world(folder: Path, engine: str) -> AsyncIterator[World]:
    clock = ManualClock()
    spool: SpoolAdmin
    if engine == "memory":
        spool = MemorySpool("spool", MemorySpool.Settings(type="memory"), {}, clock)
    else:
        spool = SqliteSpool("spool", SqliteSpool.Settings(type="sqlite", path=folder / "spool.db"), {}, clock)
    async with spool:
        await spool.attach("a", anything)
        yield World(spool, clock)


def told(folder: Path, engine: str, story: Callable[[World], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with world(folder, engine) as one:
            await one.begin()
            await story(one)

    asyncio.run(patiently(scenario()))


ENGINES = pytest.mark.parametrize("engine", ["memory", "sqlite"])


def without(*gone: int, last: int = 300, stream: str = "room") -> list[Event]:
    return pictures(*(offset for offset in range(0, last, 10) if offset not in gone), stream=stream)


@ENGINES
def test_a_gap_is_a_row_an_event_for_every_sink_and_a_count(tmp_path: Path, engine: str) -> None:
    async def story(one: World) -> None:
        await one.receive(without(50, 60))
        await one.look()
        (gap,), (event,) = await one.gaps(), await one.events()
        assert summed([gap]) == [(50, 2)]
        assert (event.id, event.stream_id, event.fields["missing"]) == (gap.id, "room", 2)
        batch = await one.spool.claim("a", 100)
        assert event in batch.events
        samples = one.metrics.registry.get_sample_value
        assert samples("poller_gap_pictures_total", {"account": "main"}) == 2
        assert samples("poller_events_total", {"kind": "gap"}) == 1

    told(tmp_path, engine, story)


@ENGINES
def test_it_begins_at_the_end_of_the_log(tmp_path: Path, engine: str) -> None:
    async def scenario() -> None:
        async with world(tmp_path, engine) as one:
            await one.receive(without(50))
            await one.begin()
            await one.look()
            assert await one.gaps() == []

    asyncio.run(patiently(scenario()))


@ENGINES
def test_pictures_that_come_later_fill_the_gap_without_another_event(tmp_path: Path, engine: str) -> None:
    async def story(one: World) -> None:
        await one.receive(without(50, 60))
        await one.look()
        await one.receive([picture(60, delay=3_000)])
        await one.look()
        (gap,) = await one.gaps()
        assert (gap.missing, gap.filled) == (2, 1)
        assert len(await one.events()) == 1

    told(tmp_path, engine, story)


@ENGINES
@pytest.mark.parametrize("seed", range(4))
def test_an_audit_that_is_cut_off_anywhere_finds_every_gap_once(
    tmp_path: Path, engine: str, seed: int
) -> None:
    dice = random.Random(seed)
    streams = {f"live_{n}": sorted(dice.sample(range(50, 1_000, 50), 8)) for n in range(12)}
    events = by_arrival(
        event for stream, gone in streams.items() for event in without(*gone, last=1_100, stream=stream)
    )

    async def story(one: World) -> None:
        for start in range(0, len(events), 90):
            await one.receive(events[start : start + 90])
            for _ in range(dice.randint(0, 3)):
                one.clock.pass_time(dice.choice([0.1, REPORT_WITHIN]))
                await one.audit.step()
            if dice.random() < 0.5:
                await one.begin()
        await one.look()
        one.until(PUSH + 9_000)
        await one.look()
        found = await one.gaps()
        assert {stream: summed(gap for gap in found if gap.stream_id == stream) for stream in streams} == {
            stream: [(offset, 1) for offset in gone] for stream, gone in streams.items()
        }
        told = [event.id for event in await one.events()]
        assert sorted(told) == sorted(gap.id for gap in found)

    asyncio.run(patiently(_with_world(tmp_path, engine, story)))


@ENGINES
@pytest.mark.parametrize("seed", range(4))
def test_an_audit_that_is_cut_off_in_a_round_counts_nothing_twice(
    tmp_path: Path, engine: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each gap of two pictures, one comes late: what is looked at again must not fill the gap once more."""
    monkeypatch.setattr(audit, "PORTION", 2)
    dice = random.Random(seed)
    streams = {f"live_{n}": sorted(dice.sample(range(50, 1_000, 70), 5)) for n in range(9)}
    events = by_arrival(
        event
        for stream, gone in streams.items()
        for event in [
            *without(*gone, *(offset + 10 for offset in gone), last=1_100, stream=stream),
            *(picture(offset, stream=stream, delay=200) for offset in gone),
        ]
    )
    cut_short = 0

    async def story(one: World) -> None:
        nonlocal cut_short
        for start in range(0, len(events), 30):
            await one.receive(events[start : start + 30])
            for _ in range(dice.randint(0, 3)):
                one.clock.pass_time(dice.choice([0.1, REPORT_WITHIN, COMMIT_EVERY]))
                await one.audit.step()
            if dice.random() < 0.5:
                kept = dict(await one.spool.memory(SOURCE))
                await one.begin()
                cut_short += len(set(_uptos(kept))) > 1
        await one.look()
        one.until(PUSH + 9_000)
        await one.look()
        assert {
            stream: [
                (gap.first_missing_offset, gap.missing, gap.filled)
                for gap in sorted(await one.gaps(), key=began)
                if gap.stream_id == stream
            ]
            for stream in streams
        } == {stream: [(offset, 2, 1) for offset in gone] for stream, gone in streams.items()}

    asyncio.run(patiently(_with_world(tmp_path, engine, story)))
    assert cut_short > 3


def began(gap: Gap) -> datetime:
    return gap.from_at


def _uptos(kept: dict[str, bytes]) -> Iterator[int]:
    """The numbers below which the stored states include all events."""
    for name, state in kept.items():
        if name:
            yield msgspec.msgpack.decode(state)[-1]


async def _with_world(folder: Path, engine: str, story: Callable[[World], Awaitable[None]]) -> None:
    async with world(folder, engine) as one:
        await one.begin()
        await story(one)


def test_an_open_hole_is_found_after_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, "sqlite") as one:
            await one.begin()
            await one.receive(without(50, last=100))
            await one.look(2)
            assert await one.gaps() == []
        async with world(tmp_path, "sqlite") as one:
            one.until(PUSH + 200)
            await one.begin()
            await one.receive(without(50)[9:])
            await one.look()
            assert summed(await one.gaps()) == [(50, 1)]

    asyncio.run(patiently(scenario()))


@ENGINES
def test_an_account_without_audit_is_left_alone_and_its_pause_is_no_gap(tmp_path: Path, engine: str) -> None:
    async def story(one: World) -> None:
        events = without(150)
        await one.receive(events[:10])
        await one.look()
        one.accounts = {"main": account(enabled=False)}
        await one.receive(events[10:20])
        await one.look()
        assert dict(await one.spool.memory(SOURCE)) == {}
        one.accounts = {"main": account()}
        await one.receive(events[20:])
        await one.look()
        assert await one.gaps() == []
        await one.receive(pictures(*(n for n in range(300, 500, 10) if n != 400)))
        await one.look()
        assert summed(await one.gaps()) == [(400, 1)]

    told(tmp_path, engine, story)


@ENGINES
def test_states_without_a_place_are_forgotten(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first round was cut off: what came until the next audit begins is not looked at, and is no gap."""
    monkeypatch.setattr(audit, "PORTION", 1)

    async def story(one: World) -> None:
        one.accounts = {"main": account(enabled=False)}
        await one.look()
        one.accounts = {"main": account()}
        events = by_arrival([*without(), *without(stream="hall")])
        await one.receive(events[:20])
        one.clock.pass_time(COMMIT_EVERY)
        await one.audit.step()
        assert set(await one.spool.memory(SOURCE)) == {"main/hall"}
        await one.receive(events[20:40])
        await one.begin()
        await one.receive(events[40:])
        await one.look()
        assert await one.gaps() == []

    told(tmp_path, engine, story)


@ENGINES
def test_all_states_go_when_the_audit_is_switched_off_in_a_round(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PORTION", 1)

    async def story(one: World) -> None:
        await one.receive(by_arrival([*without(), *without(stream="hall")]))
        one.clock.pass_time(COMMIT_EVERY)
        await one.audit.step()
        one.accounts = {"main": account(enabled=False)}
        for _ in range(9):
            one.clock.pass_time(COMMIT_EVERY)
            await one.audit.step()
        assert dict(await one.spool.memory(SOURCE)) == {}

    told(tmp_path, engine, story)


def test_events_that_were_pruned_before_it_looked_are_no_gap(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path, "sqlite") as one:
            await one.begin()
            await one.receive(without(last=200))
            await one.look()
            await one.receive(pictures(*range(200, 400, 10)), each=20)
            batch = await one.spool.claim("a", 1_000)
            await one.spool.settle(batch, [Done()] * len(batch.events))
            one.clock.pass_time(2 * 86_400)
            while (await one.spool.prune()).more:
                pass
            await one.spool.detach("a")
            await one.receive(pictures(*range(400, 600, 10)))
            await one.look()
            assert await one.gaps() == []

    asyncio.run(patiently(scenario()))


@ENGINES
def test_it_reads_a_long_log_in_short_steps_and_commits_its_place(tmp_path: Path, engine: str) -> None:
    async def story(one: World) -> None:
        events = pictures(*range(0, 30_000, 10))
        await one.receive(events)
        one.clock.pass_time(COMMIT_EVERY)
        assert await one.audit.step() < 5.0
        first = int((await one.spool.memory(SOURCE))[""])
        assert 1 < first <= STEP + 1
        one.clock.pass_time(COMMIT_EVERY)
        await one.look(12)
        one.clock.pass_time(COMMIT_EVERY)
        await one.look(1)
        assert int((await one.spool.memory(SOURCE))[""]) == one.spool.head == len(events) + 1

    told(tmp_path, engine, story)


@ENGINES
def test_the_running_audit_wakes_for_events_and_ends_when_it_is_cancelled(
    tmp_path: Path, engine: str
) -> None:
    async def scenario() -> None:
        async with world(tmp_path, engine) as one:
            audit = Audit(one.spool, lambda: one.accounts, clock=one.clock, metrics=one.metrics)
            running = asyncio.ensure_future(audit.run())
            await asyncio.sleep(0.1)
            await one.receive(without(50))
            while not await one.gaps():
                one.clock.pass_time(COMMIT_EVERY)
                await asyncio.sleep(0.05)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert Selection(kinds=frozenset({"gap"})).selects((await one.events())[0])

    asyncio.run(patiently(scenario()))


@pytest.mark.parametrize("goes_on", [True, False], ids=["ends", "hangs"])
def test_a_commit_is_waited_for_by_who_is_cancelled_but_not_for_long(
    tmp_path: Path, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next audit, which may run at another daemon, begins with what is committed."""
    monkeypatch.setattr(audit, "LAST_COMMIT", PATIENCE if goes_on else 0.1)

    async def scenario() -> None:
        async with world(tmp_path, "memory") as one:
            begun, ends = asyncio.Event(), asyncio.Event()
            commit = one.spool.note_gaps

            async def slowly(*given: Any) -> Counter[str]:
                begun.set()
                await ends.wait()
                return await commit(*given)

            monkeypatch.setattr(one.spool, "note_gaps", slowly)
            running = asyncio.ensure_future(
                Audit(one.spool, lambda: one.accounts, clock=one.clock, metrics=one.metrics).run()
            )
            await begun.wait()
            running.cancel()
            if goes_on:
                await asyncio.wait([running], timeout=0.05)
                assert not running.done()
                ends.set()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert ("" in await one.spool.memory(SOURCE)) == goes_on

    asyncio.run(patiently(scenario()))


@ENGINES
def test_the_count_of_an_audited_account_is_0_from_the_start(tmp_path: Path, engine: str) -> None:
    async def story(one: World) -> None:
        samples = one.metrics.registry.get_sample_value
        assert samples("poller_gap_pictures_total", {"account": "main"}) == 0

    told(tmp_path, engine, story)


def test_a_full_spool_loses_no_gap(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        spool = MemorySpool("spool", MemorySpool.Settings(type="memory", max_events=30), {}, clock)
        async with spool:
            await spool.attach("a", anything)
            one = World(spool, clock)
            await one.begin()
            await one.receive(without(50, 60))
            await one.receive(pictures(300, 310, 320))
            with pytest.raises(StorageFull):
                await one.look()
            batch = await spool.claim("a", 1_000)
            await spool.settle(batch, [Done()] * len(batch.events))
            await one.look()
            assert summed(await one.gaps()) == [(50, 2)]
            assert len(await one.events()) == 1

    asyncio.run(patiently(scenario()))
