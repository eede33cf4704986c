"""The intake of a source that one of several daemons polls."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from poller.core.errors import StorageError
from poller.core.model import ParsedPage, PollOutcome, RawPage
from poller.pipeline import intake as intakes
from poller.pipeline.intake import Intake
from poller.pipeline.journal import Journal
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.testing import START, anything
from tests.fakes import JOURNAL_SIZE, ScriptedSource, SharedMemory
from tests.patience import patiently
from tests.unit.pipeline.test_courier import until

Scenario = Callable[[Intake, SharedMemory, Journal], Awaitable[None]]


def tell(
    source: ScriptedSource, folder: Path, scenario: Scenario, heartbeat: Callable[[], None] = lambda: None
) -> None:
    async def run_scenario() -> None:
        async with AsyncExitStack() as stack:
            spool = await stack.enter_async_context(SharedMemory())
            journal = await stack.enter_async_context(Journal(folder / "journal", JOURNAL_SIZE))
            await spool.attach("sink", anything)
            intake = Intake(
                source,
                spool,
                journal,
                metrics=Metrics(),
                clock=Clock(),
                heartbeat=heartbeat,
                duty=partial(spool.duty, "source:shots"),
            )
            await scenario(intake, spool, journal)

    asyncio.run(patiently(run_scenario()))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intakes, "STANDS_BY_AFTER", 0.01)
    monkeypatch.setattr(intakes, "HEARTBEAT", 0.01)


def test_nothing_is_polled_before_the_duty_is_free_and_heartbeats_go_on(tmp_path: Path) -> None:
    source, beats = ScriptedSource([{"events": [1]}]), [0]

    def beat() -> None:
        beats[0] += 1

    async def scenario(intake: Intake, spool: SharedMemory, journal: Journal) -> None:
        spool.free.clear()
        polling = asyncio.ensure_future(intake.run())
        await until(lambda: intake.stands_by)
        before = beats[0]
        await until(lambda: beats[0] > before + 3)
        assert source.fetches == 0
        spool.free.set()
        await source.exhausted.wait()
        assert not intake.stands_by
        assert spool.duties == ["source:shots"]
        intake.stop()
        await polling
        assert spool.duties == []
        assert spool.head == 2

    tell(source, tmp_path, scenario, beat)


def test_pages_in_the_journal_are_appended_while_another_daemon_polls(tmp_path: Path) -> None:
    source = ScriptedSource()

    async def scenario(intake: Intake, spool: SharedMemory, journal: Journal) -> None:
        spool.free.clear()
        await journal.room()
        body = b'{"events": [7, 8]}'
        page = RawPage(source="shots", received_at=START, status=200, encoding="", whole=True, body=body)
        number = await journal.keep(page)
        polling = asyncio.ensure_future(intake.run([(number, page)]))
        await until(lambda: spool.head == 3)
        await until(lambda: journal.bytes_held == 0)
        assert source.fetches == 0
        intake.stop()
        await polling

    tell(source, tmp_path, scenario)


def test_a_source_that_stands_by_stops_at_once(tmp_path: Path) -> None:
    source = ScriptedSource()

    async def scenario(intake: Intake, spool: SharedMemory, journal: Journal) -> None:
        spool.free.clear()
        polling = asyncio.ensure_future(intake.run())
        await until(lambda: intake.stands_by)
        intake.stop()
        await polling
        spool.free.set()
        await asyncio.sleep(0.01)
        assert spool.duties == []
        assert source.fetches == 0

    tell(source, tmp_path, scenario)


def test_the_duty_is_held_until_the_poll_in_flight_is_answered(tmp_path: Path) -> None:
    source = ScriptedSource([{"events": [1]}])
    source.hold = asyncio.Event()

    async def scenario(intake: Intake, spool: SharedMemory, journal: Journal) -> None:
        polling = asyncio.ensure_future(intake.run())
        await source.begun.wait()
        intake.stop()
        await asyncio.sleep(0.05)
        assert spool.duties == ["source:shots"]
        assert source.hold is not None
        source.hold.set()
        await polling
        assert spool.duties == []
        assert spool.head == 2, "its answer is committed"

    tell(source, tmp_path, scenario)


def test_the_memory_is_that_of_the_daemon_that_polled_before(tmp_path: Path) -> None:
    source = ScriptedSource([{"remember": True, "outcome": "empty"}])

    async def scenario(intake: Intake, spool: SharedMemory, journal: Journal) -> None:
        spool.free.clear()
        polling = asyncio.ensure_future(intake.run())
        await until(lambda: intake.stands_by)
        theirs = ParsedPage(events=(), rejects=(), outcome=PollOutcome.EMPTY, memory=b"theirs")
        await spool.append("shots", [theirs])
        spool.free.set()
        await source.exhausted.wait()
        intake.stop()
        await polling
        assert await spool.memory("shots") == {"": b"theirs."}

    tell(source, tmp_path, scenario)


def test_a_spool_that_fails_while_the_source_stands_by_ends_the_intake(tmp_path: Path) -> None:
    source = ScriptedSource()

    async def scenario(intake: Intake, spool: SharedMemory, journal: Journal) -> None:
        class Failing:
            async def __aenter__(self) -> None:
                raise StorageError("gone")

            async def __aexit__(self, *what: object) -> None: ...

        intake._duty = Failing
        with pytest.raises(ExceptionGroup) as raised:
            await intake.run()
        assert [str(error) for error in raised.value.exceptions] == ["gone"]

    tell(source, tmp_path, scenario)
