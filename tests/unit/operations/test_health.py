"""How each part is, judged once, from real couriers, intakes and spools on a manual clock."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec
import pytest

from poller.core.errors import Gone, PartlyFailed, PlaceGone, StorageFull, TryLater
from poller.core.spool import Away, Member, SpoolAdmin
from poller.operations.health import (
    FAILING_FOR,
    SILENT_FOR,
    Condition,
    examine,
    sink_condition,
    source_condition,
)
from poller.pipeline.courier import Courier
from poller.pipeline.intake import Intake
from poller.pipeline.journal import Journal
from poller.pipeline.losses import Losses
from poller.pipeline.push_intake import PushIntake
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.testing import START, ManualClock, anything, some_reading
from tests.fakes import Answer, ScriptedSink, ScriptedSource, SharedMemory, memory_spool, opened
from tests.patience import patiently
from tests.unit.pipeline.test_courier import terms

AGE_LIMIT = 900.0


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What is examined; only what a test gives."""

    spool: SpoolAdmin
    clock: Clock
    intakes: list[Intake] = []
    push_intakes: list[PushIntake] = []
    couriers: list[Courier] = []
    losses: Losses | None = None
    journal: Journal | None = None
    sink_age_limit: float = AGE_LIMIT


def sink_after(
    errors: list[Exception | None], scenario: Callable[[Courier, ManualClock], object]
) -> Condition:
    """The condition of a sink whose attempts ended so, after the story."""
    said = list(errors)

    async def run_scenario() -> Condition:
        clock = ManualClock()
        async with memory_spool(clock) as spool:
            await spool.attach("sink", anything)
            sink = ScriptedSink(says=lambda batch: said.pop(0))
            courier = Courier(sink, spool, terms(), metrics=Metrics(), clock=clock)
            for _ in errors:
                await spool.append("source", [some_reading(len(sink.batches))])
                await courier.carry(await spool.claim("sink", 1))
            scenario(courier, clock)
            return sink_condition(courier, await spool.backlog("sink"), clock, AGE_LIMIT)

    return asyncio.run(patiently(run_scenario()))


@pytest.mark.parametrize("error", [TryLater("HTTP 500"), KeyError("a bug"), TimeoutError(), PartlyFailed({})])
def test_a_sink_that_fails_is_failing_at_once_and_a_reason_after_a_minute(error: Exception) -> None:
    if isinstance(error, PartlyFailed):  # all of the batch failed, event by event
        error = PartlyFailed({event.id: TryLater("refused") for event in some_reading(0).events})
    now = sink_after([error], lambda courier, clock: None)
    assert (now.state, now.reason) == ("failing", None)
    assert now.why
    later = sink_after([error], lambda courier, clock: clock.pass_time(FAILING_FOR + 1))
    assert later.reason == f"sink sink: failing for {FAILING_FOR + 1:.0f} s: {later.why}"


def test_a_sink_that_delivers_again_is_well() -> None:
    found = sink_after([TryLater("HTTP 500"), None], lambda courier, clock: clock.pass_time(FAILING_FOR + 1))
    assert found == Condition(state="serving")


def test_a_picture_that_is_not_uploaded_yet_is_no_failure() -> None:
    error = PartlyFailed({event.id: TryLater("not yet", after=1.0) for event in some_reading(0).events})
    found = sink_after([error], lambda courier, clock: clock.pass_time(FAILING_FOR + 1))
    assert found.state == "serving"
    assert found.reason is None


@pytest.mark.parametrize(
    ("errors", "state", "reason"),
    [
        (
            [TryLater("HTTP 500")] * 5,
            "paused",
            "sink sink: paused: probed after 5 failures in a row: HTTP 500",
        ),
        ([Gone("HTTP 410")], "disabled", "sink sink: disabled: HTTP 410"),
        ([PlaceGone("pictures is no folder")], "failing", "sink sink: its folder: pictures is no folder"),
    ],
)
def test_a_sink_that_paused_is_disabled_or_lost_its_folder_is_a_reason_at_once(
    errors: list[Exception | None], state: str, reason: str
) -> None:
    found = sink_after(errors, lambda courier, clock: None)
    assert (found.state, found.reason, found.note) == (state, reason, None)


def test_the_operators_pause_is_a_note_and_no_reason() -> None:
    for errors in ([], [TryLater("HTTP 500")] * 5, [PlaceGone("gone")]):
        found = sink_after(list(errors), lambda courier, clock: courier.hold())
        assert (found.state, found.why, found.reason) == ("paused", "by the operator", None)
        assert found.note == "sink sink: paused: by the operator"


def test_a_sink_that_gets_its_events_too_late_is_a_reason() -> None:
    async def run_scenario() -> Condition:
        clock = ManualClock()
        async with memory_spool(clock) as spool:
            await spool.attach("sink", anything)
            await spool.append("source", [some_reading(1)])
            clock.pass_time(AGE_LIMIT + 100)
            courier = Courier(ScriptedSink(), spool, terms(), metrics=Metrics(), clock=clock)
            return sink_condition(courier, await spool.backlog("sink"), clock, AGE_LIMIT)

    found = asyncio.run(run_scenario())
    assert found.state == "serving"
    assert str(found.reason).startswith("sink sink: its oldest event waits for 9")


# ---------------------------------------------------------------- sources


def source_after(
    tmp_path: Path,
    script: list[Answer],
    scenario: Callable[[ManualClock], object],
    *,
    destructive: bool = True,
) -> tuple[Condition, Losses]:
    async def run_scenario() -> tuple[Condition, Losses]:
        clock = ManualClock()
        losses = Losses(clock)
        async with AsyncExitStack() as stack:
            spool, journal = await opened(stack, tmp_path, memory_spool(clock))
            source = ScriptedSource(script)
            source.destructive = destructive
            intake = Intake(source, spool, journal, metrics=Metrics(), clock=clock, losses=losses)
            for _ in script:
                await intake.step()
            scenario(clock)
            return source_condition(intake, clock), losses

    return asyncio.run(patiently(run_scenario()))


FAILED: Answer = {"outcome": "failed"}
EMPTY: Answer = {"outcome": "empty"}


@pytest.mark.parametrize("destructive", [True, False])
def test_a_source_that_fails_is_failing_at_once_and_a_reason_after_a_minute(
    tmp_path: Path, destructive: bool
) -> None:
    script: list[Answer] = [EMPTY, FAILED, {"not_sent": True}]
    (now, _) = source_after(tmp_path / "a", script, lambda clock: None, destructive=destructive)
    assert (now.state, now.reason) == ("failing", None)
    assert "failed: refused" in now.why
    (later, _) = source_after(
        tmp_path / "b", script, lambda clock: clock.pass_time(FAILING_FOR + 1), destructive=destructive
    )
    assert later.reason == "source shots: failing for 61 s: failed: refused"
    (well, _) = source_after(
        tmp_path / "c",
        [*script, EMPTY],
        lambda clock: clock.pass_time(FAILING_FOR + 1),
        destructive=destructive,
    )
    assert well == Condition(state="polling")


def test_a_queue_that_never_answered_and_one_that_went_silent_are_reasons(tmp_path: Path) -> None:
    (never, _) = source_after(tmp_path / "a", [], lambda clock: None)
    assert never.reason == "source shots: no good answer yet"
    (silent, _) = source_after(tmp_path / "b", [EMPTY], lambda clock: clock.pass_time(SILENT_FOR + 1))
    assert silent.reason == "source shots: no good answer for 181 s"
    (other, _) = source_after(
        tmp_path / "c", [EMPTY], lambda clock: clock.pass_time(SILENT_FOR + 1), destructive=False
    )
    assert other.reason is None


# ---------------------------------------------------------------- what may be lost


def test_what_this_process_may_have_lost_is_counted_with_when_it_last_was(tmp_path: Path) -> None:
    _, losses = source_after(tmp_path, [{"silent": True}, {"silent": True}], lambda clock: None)
    (loss,) = losses.all()
    assert (loss.where, loss.count, loss.damaged) == ("source shots", 2, False)
    _, losses = source_after(tmp_path / "b", [{"silent": True}], lambda clock: None, destructive=False)
    assert losses.all() == []  # it is asked again


async def test_a_reload_in_the_midst_of_the_examination_does_not_end_it() -> None:
    """One sink is removed while it waits for the spool, and one is added."""
    clock = ManualClock()
    async with memory_spool(clock) as spool:
        couriers = [
            Courier(ScriptedSink(name), spool, terms(), metrics=Metrics(), clock=clock)
            for name in ("old", "new")
        ]

        class Changing(list[Courier]):
            """Other couriers whenever they are looked at."""

            def __iter__(self) -> Iterator[Courier]:
                return iter([self.pop(0)])

        found = await examine(Judged(spool=spool, clock=clock, couriers=Changing(couriers)))
        assert list(found.sinks) == ["old"]


async def test_a_loss_is_a_note_and_damage_stays_a_reason() -> None:
    clock = ManualClock()
    losses = Losses(clock)
    losses.add("source shots", "a poll without a whole answer: no answer")
    async with memory_spool(clock) as spool:
        found = await examine(Judged(spool=spool, clock=clock, losses=losses))
        assert found.reasons == []
        (note,) = found.notes
        assert note.startswith("source shots: 1 may be lost, last at 20")
        losses.add("journal", "a damaged frame", count=2, damaged=True)
        losses.add("journal", "another", damaged=False)
        found = await examine(Judged(spool=spool, clock=clock, losses=losses))
        assert found.reasons == ["journal: damaged, 3 may be lost: another"]
        assert found.reasons_for_pushes == []
        assert len(found.notes) == 1


# ---------------------------------------------------------------- a spool that several daemons share


def test_a_source_that_another_daemon_polls_is_no_reason_and_says_which_polls(tmp_path: Path) -> None:
    async def run_scenario() -> None:
        async with AsyncExitStack() as stack:
            spool = SharedMemory()
            own, journal = await opened(stack, tmp_path, spool)
            duty = partial(spool.duty, "source:shots")
            clock = Clock()
            intake = Intake(ScriptedSource(), own, journal, metrics=Metrics(), clock=clock, duty=duty)
            spool.free.clear()
            polls = Member(number=7, name="there", since=START, expires=2.0, duties=("source:shots",))
            spool.others = [polls]
            polling = asyncio.ensure_future(intake.run())
            while not intake.stands_by:
                await asyncio.sleep(0.01)
            health = await examine(Judged(spool=spool, clock=clock, intakes=[intake]))
            assert health.reasons == []
            assert health.sources["shots"] == Condition(state="stands by", why="polled by daemon 7 (there)")
            assert [member.number for member in health.members] == [1, 7]
            spool.others = []
            health = await examine(Judged(spool=spool, clock=clock, intakes=[intake]))
            assert health.sources["shots"].why == "another daemon polls it"
            intake.stop()
            await polling

    asyncio.run(patiently(run_scenario()))


def test_a_reason_names_the_spool_once() -> None:
    class AwaySpool(SharedMemory):
        async def check_writable(self) -> None:
            raise StorageFull("spool: cannot connect to the database: db1:5432: Connection refused")

    async def run_scenario() -> None:
        async with AwaySpool() as spool:
            health = await examine(Judged(spool=spool, clock=Clock()))
            why = "cannot connect to the database: db1:5432: Connection refused"
            assert (health.reasons, health.spool.why) == ([f"spool: {why}"], why)

    asyncio.run(patiently(run_scenario()))


def test_a_lease_that_is_not_proven_is_a_reason_for_all_and_for_pushes() -> None:
    async def run_scenario() -> None:
        async with SharedMemory() as spool:
            judged = Judged(spool=spool, clock=Clock())
            assert (await examine(judged)).reasons == []
            spool.proven.clear()
            health = await examine(judged)
            assert health.reasons == [
                "spool: the lease of this daemon is not proven, so nothing is delivered"
            ]
            assert health.reasons_for_pushes == health.reasons

    asyncio.run(patiently(run_scenario()))


def test_an_outage_of_the_database_is_a_reason_with_its_beginning_and_the_spool_is_not_asked() -> None:
    async def run_scenario() -> None:
        async with SharedMemory() as spool:
            spool.outage = Away(since=START, why="connection refused")
            health = await examine(Judged(spool=spool, clock=Clock()))
            away = f"spool: the database is away since {START:%Y-%m-%dT%H:%M:%SZ}: connection refused"
            assert health.reasons == health.reasons_for_pushes == [away]
            assert (health.counted, health.backlogs, health.members) == (False, {}, ())
            spool.proven.clear()
            (reason,) = (await examine(Judged(spool=spool, clock=Clock()))).reasons
            assert reason == f"{away}; the lease of this daemon is not proven, so nothing is delivered"

    asyncio.run(patiently(run_scenario()))
