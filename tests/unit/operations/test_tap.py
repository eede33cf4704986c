"""A tap: a cursor over the log that misses nothing it does not tell of."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from poller.control import ControlError, EventRow, OperatorContext, Request, Verb, tap
from poller.core.model import ParsedPage, PollOutcome
from poller.core.selection import Selection
from poller.core.spool import SpoolAdmin
from poller.daemon.wiring import event_filter
from poller.operations.requests import read_event_line
from poller.runtime.metrics import Metrics
from poller.settings import Settings, load
from poller.spools import table_spool
from poller.spools.memory import KEPT_SETTLED, MemorySpool
from poller.testing import ManualClock, anything, some_change, some_event
from poller.testing.factories import done
from tests.fakes import sqlite_spool
from tests.patience import patiently

CONFIG = """
accounts: {main: {app_id: 1, key: abc, cos: {bucket: shots, app_id: 1}}}
sources: {shots: {type: screenshot_queue, account: main}}
spool: {type: memory}
sinks:
  rooms: {type: stdout, only: {streams: ["room*"]}}
  states: {type: stdout, only: {kinds: [channel]}}
"""

Scenario = Callable[[OperatorContext, SpoolAdmin, ManualClock], Awaitable[None]]


def run(folder: Path, engine: str, scenario: Scenario) -> None:
    (folder / "poller.yaml").write_text(CONFIG)
    settings = load(folder / "poller.yaml")

    async def run_scenario() -> None:
        clock = ManualClock()
        async with _spool(folder, engine, clock) as spool:
            await spool.attach("rooms", anything)
            await scenario(_context(settings, spool, clock), spool, clock)

    asyncio.run(patiently(run_scenario()))


def _spool(folder: Path, engine: str, clock: ManualClock) -> SpoolAdmin:
    if engine == "memory":
        return MemorySpool("spool", MemorySpool.Settings(type="memory"), {}, clock)
    return sqlite_spool(folder, clock, retain=0.0)


def _context(settings: Settings, spool: SpoolAdmin, clock: ManualClock) -> OperatorContext:
    return OperatorContext(
        settings=settings,
        spool=spool,
        clock=clock,
        metrics=Metrics(),
        source=lambda name: None,
        running=True,
        wants=lambda name: event_filter(settings.sinks[name].only),
    )


async def append(spool: SpoolAdmin, first: int, last: int, stream: str = "room") -> None:
    page = tuple(some_event(n, stream=stream) for n in range(first, last))
    await spool.append("shots", [ParsedPage(events=page, rejects=(), outcome=PollOutcome.FULL)])


async def settle_all(spool: SpoolAdmin) -> None:
    while (await spool.backlog("rooms")).events:
        batch = await spool.claim("rooms", 500)
        await spool.settle(batch, done(batch))


async def read(lines: AsyncGenerator[bytes, None], until: int) -> list[EventRow]:
    """The rows until an event of this number."""
    found: list[EventRow] = []
    async for some in lines:
        found += [row for line in some.splitlines() if (row := read_event_line(line).row) is not None]
        if found[-1].number >= until:
            break
    return found


def asked(**more: object) -> Request:
    return Request(verb=Verb.TAP, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["sqlite", "memory"])
def test_a_tap_begins_now_and_reports_every_event_once_in_order(tmp_path: Path, engine: str) -> None:
    async def scenario(context: OperatorContext, spool: SpoolAdmin, clock: ManualClock) -> None:
        await append(spool, 0, 10)
        async with aclosing(tap(context, asked())) as lines:
            assert (await anext(lines)) == b'{"row":{"head":11}}\n'
            for first in range(10, 3_010, 300):
                await append(spool, first, first + 300)
            found = await read(lines, 3_010)
        assert [row.number for row in found] == list(range(11, 3_011))
        assert [bytes(row.event) for row in found] == [some_event(n).encoded for n in range(10, 3_010)]

    run(tmp_path, engine, scenario)


@pytest.mark.parametrize("engine", ["sqlite", "memory"])
def test_a_tap_that_was_overtaken_by_pruning_says_how_many_it_missed_and_goes_on(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(context: OperatorContext, spool: SpoolAdmin, clock: ManualClock) -> None:
        async with aclosing(tap(context, asked())) as lines:
            await anext(lines)
            for first in range(0, 4_000, 250):
                await append(spool, first, first + 250)
            await settle_all(spool)
            clock.pass_time(100_000)
            while (await spool.prune()).more:
                pass
            await append(spool, 4_000, 4_010)
            found = await read(lines, 4_010)
        missed = sum(row.missed for row in found)
        assert found[0].missed == missed > 0
        assert [row.number for row in found[1:]] == list(range(missed + 1, 4_011))
        assert missed >= 4_000 - KEPT_SETTLED - 250

    monkeypatch.setattr(table_spool, "TAIL_BYTES", 1 << 16)  # else the newest events would still be in memory
    run(tmp_path, engine, scenario)


def test_a_tap_behind_what_is_in_memory_reads_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(context: OperatorContext, spool: SpoolAdmin, clock: ManualClock) -> None:
        async with aclosing(tap(context, asked())) as lines:
            await anext(lines)
            for first in range(0, 3_000, 100):
                await append(spool, first, first + 100)
            assert [row.number for row in await read(lines, 3_000)] == list(range(1, 3_001))

    monkeypatch.setattr(table_spool, "TAIL_BYTES", 1 << 16)
    run(tmp_path, "sqlite", scenario)


def test_a_tap_shows_what_a_sink_wants_of_some_streams_and_kinds(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SpoolAdmin, clock: ManualClock) -> None:
        async def numbers(**more: object) -> list[int]:
            async with aclosing(tap(context, asked(start=1, **more))) as lines:
                found = await read(lines, 5)
            return [row.number for row in found if row.number]

        await append(spool, 0, 2, stream="room")
        await append(spool, 2, 3, stream="hall")
        change = some_change(3, "live", stream="hall")
        await spool.append("shots", [ParsedPage(events=(change,), rejects=(), outcome=PollOutcome.FULL)])
        await append(spool, 4, 5, stream="room5")
        both = frozenset({"rooms", "states"})
        assert await numbers(sinks=frozenset({"rooms"})) == [1, 2, 5]
        assert await numbers(sinks=both) == [1, 2, 4, 5]
        assert await numbers(streams=frozenset({"room5"})) == [5]
        assert await numbers(sinks=both, streams=frozenset({"hall", "room5"})) == [4, 5]
        assert await numbers(selection=Selection(kinds=frozenset({"screenshot"}))) == [1, 2, 3, 5]
        with pytest.raises(ControlError, match="no sink nobody is configured"):
            tap(context, asked(sinks=frozenset({"nobody"})))

    run(tmp_path, "sqlite", scenario)


def test_a_quiet_tap_shows_that_it_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poller.operations.tap.STILL_THERE", 0.01)

    async def scenario(context: OperatorContext, spool: SpoolAdmin, clock: ManualClock) -> None:
        async with aclosing(tap(context, asked())) as lines:
            await anext(lines)
            assert await anext(lines) == await anext(lines) == b"\n"
            await append(spool, 0, 1)
            assert (await read(lines, 1))[-1].number == 1

    run(tmp_path, "sqlite", scenario)
