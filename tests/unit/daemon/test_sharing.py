"""One of several daemons that share a spool: it hears the operators of the others, and sees them come and go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from poller.core.errors import Fenced, Gone, StorageFull
from poller.core.model import Batch
from poller.core.spool import Member
from poller.core.tracing import NO_TRACING
from poller.daemon import sharing
from poller.daemon.components import Component, Components
from poller.daemon.sharing import Sharing
from poller.pipeline import courier
from poller.pipeline.courier import Courier, SinkState
from poller.pipeline.journal import Journal
from poller.pipeline.losses import Losses
from poller.pipeline.storage_watch import StorageWatch
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.testing import START, anything, some_reading
from tests.fakes import JOURNAL_SIZE, ScriptedSink, SharedMemory
from tests.patience import patiently
from tests.unit.pipeline.test_courier import terms, until

OTHER = Member(number=2, name="there, process 7", since=START, expires=2.0)


class Shown:
    """One daemon's part of it, with one sink."""

    def __init__(self, spool: SharedMemory, journal: Journal, sink: ScriptedSink) -> None:
        clock, self.metrics = Clock(), Metrics()
        self.components = Components(
            spool,
            journal,
            metrics=self.metrics,
            clock=clock,
            losses=Losses(clock),
            watch=StorageWatch(clock),
            tracing=NO_TRACING,
        )
        self.spool = spool
        self.courier = Courier(sink, spool, terms(), metrics=self.metrics, clock=clock)
        self.sharing = Sharing(spool, self.components, self.metrics)

    def members(self) -> float | None:
        return self.metrics.registry.get_sample_value("poller_spool_members")

    async def another_operator(self, *, pauses: bool) -> None:
        """What an operator asked of another daemon."""
        await self.spool.pause("sink", pauses)
        await until(lambda: not self.spool.changed.is_set())
        await asyncio.sleep(0.01)


@asynccontextmanager
async def shown(folder: Path, sink: ScriptedSink, shared: SharedMemory | None = None) -> AsyncIterator[Shown]:
    async with (
        shared or SharedMemory() as spool,
        Journal(folder / "journal", JOURNAL_SIZE) as journal,
        asyncio.TaskGroup() as group,
    ):
        await spool.attach("sink", anything)
        found = Shown(spool, journal, sink)
        found.components.sinks["sink"] = (await Component.enter(sink)).with_part(found.courier)
        await found.sharing.open()
        tasks = [
            group.create_task(work)
            for work in (found.sharing.follow(), found.sharing.guard(), found.courier.run())
        ]
        yield found
        for task in tasks:
            task.cancel()


def test_a_sink_that_was_paused_or_resumed_at_another_daemon_is_paused_or_resumed_here(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        sink = ScriptedSink()
        async with shown(tmp_path, sink) as found:
            await found.another_operator(pauses=True)
            assert found.courier.held
            await found.spool.append("source", [some_reading(1)])
            await asyncio.sleep(0.05)
            assert sink.batches == []
            await found.another_operator(pauses=False)
            await until(lambda: len(sink.delivered) == 1)

    asyncio.run(patiently(scenario()))


class AwayOnce(SharedMemory):
    """It does not answer the next question once `breaks` is set, as when one connection breaks."""

    breaks = False

    async def members(self) -> list[Member]:
        if self.breaks:
            self.breaks = False
            raise StorageFull("spool: the connection to the database broke")
        return await super().members()


def test_a_pause_at_another_daemon_holds_here_although_a_connection_broke_just_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "LOOK_AGAIN", 0.01)

    async def scenario() -> None:
        spool = AwayOnce()
        async with shown(tmp_path, ScriptedSink(), spool) as found:
            spool.breaks = True
            await found.another_operator(pauses=True)
            await until(lambda: found.courier.held)

    asyncio.run(patiently(scenario()))


def test_a_sink_that_is_disabled_here_is_served_again_when_it_is_resumed_at_another_daemon(
    tmp_path: Path,
) -> None:
    def says(batch: Batch) -> Exception | None:
        return Gone("HTTP 410") if len(sink.batches) == 1 else None

    sink = ScriptedSink(says=says)

    async def scenario() -> None:
        async with shown(tmp_path, sink) as found:
            await found.spool.append("source", [some_reading(1)])
            await until(lambda: found.courier.status.state is SinkState.DISABLED)
            found.spool.changed.set()
            await asyncio.sleep(0.05)
            assert found.courier.status.state is SinkState.DISABLED, "nobody has resumed it"
            await found.another_operator(pauses=False)
            await until(lambda: len(sink.delivered) == 1)

    asyncio.run(patiently(scenario()))


def test_what_is_held_of_a_disabled_sink_goes_to_other_daemons_as_soon_as_the_database_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "RELEASE_AGAIN", 0.01)

    async def scenario() -> None:
        async with shown(tmp_path, ScriptedSink(says=lambda batch: Gone("HTTP 410"))) as found:
            await found.another_operator(pauses=True)
            await found.another_operator(pauses=False)
            assert found.spool.released == [], "a pause is one at all daemons"
            found.spool.refusals = 2
            await found.spool.append("source", [some_reading(1)])
            await until(lambda: found.spool.released == ["sink"])
            assert found.spool.refusals == 0

    asyncio.run(patiently(scenario()))


def test_daemons_that_come_and_go_are_reported_and_counted_and_commands_are_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shown(tmp_path, ScriptedSink()) as found:
            assert found.members() == 1
            found.spool.others = [OTHER, msgspec.structs.replace(OTHER, number=3, visits=True)]
            found.spool.changed.set()
            await until(lambda: found.members() == 2)
            found.spool.others = []
            found.spool.changed.set()
            await until(lambda: found.members() == 1)

    with capture_logs() as log:
        asyncio.run(patiently(scenario()))
    assert [(line["event"], line["number"], line["daemon"]) for line in log if "number" in line] == [
        ("daemon_joined", 2, "there, process 7"),
        ("daemon_gone", 2, "there, process 7"),
    ]


def test_deliveries_are_cancelled_when_the_lease_is_not_proven_any_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        sink = ScriptedSink()
        sink.hold = asyncio.Event()
        async with shown(tmp_path, sink) as found:
            for _ in range(2):
                sink.begun.clear()
                await found.spool.append("source", [some_reading(len(sink.batches))])
                await sink.begun.wait()
                found.spool.proven.clear()
                await until(lambda: sink.in_flight == 0)
                found.spool.proven.set()
            sink.hold.set()
            await until(lambda: len(sink.delivered) == 2)

    with capture_logs() as log:
        asyncio.run(patiently(scenario()))
    about = [line["event"] for line in log if line["event"].startswith("lease_")]
    assert about == ["lease_not_proven", "lease_proven_again"] * 2


def test_a_daemon_whose_session_has_ended_ends_with_the_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shown(tmp_path, ScriptedSink()) as found:
            found.spool.broken.set_result(Fenced("the session of this daemon has ended"))
            await asyncio.sleep(1)
            pytest.fail("it goes on")

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(patiently(scenario()))
    (inner,) = raised.value.exceptions
    assert isinstance(inner, ExceptionGroup)
    assert [str(error) for error in inner.exceptions] == ["the session of this daemon has ended"]
