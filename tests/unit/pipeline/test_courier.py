"""The courier: from the spool to one sink."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from poller.core.errors import Gone, PartlyFailed, Rejected, TryLater
from poller.core.model import Batch
from poller.core.spool import SpoolAdmin
from poller.pipeline.courier import FAILURES_TO_PAUSE, Courier, SinkState, SinkStatus, Terms
from poller.pipeline.retry import RetryPolicy
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.testing import ManualClock, anything, some_event, some_reading
from tests.fakes import ScriptedSink, memory_spool
from tests.patience import PATIENCE, patiently

IDS = [some_event(n).id for n in range(200)]


def terms(**changes: Any) -> Terms:
    given: dict[str, Any] = {
        "policy": RetryPolicy(give_up_after=3 * 86400.0, jitter=lambda: 1.0),
        "timeout": 5.0,
        "concurrency": 1,
        "max_events": 100,
        "max_wait": 0.0,
    }
    return Terms(**(given | changes))


Scenario = Callable[[Courier, SpoolAdmin, ManualClock], Awaitable[None]]


def tell(sink: ScriptedSink, scenario: Scenario, *, events: int = 0, **changes: Any) -> Metrics:
    metrics = Metrics()

    async def run_scenario() -> None:
        clock = ManualClock()
        async with memory_spool(clock) as spool:
            await spool.attach(sink.name, anything)
            if events:
                await spool.append("source", [some_reading(*range(events))])
            await scenario(Courier(sink, spool, terms(**changes), metrics=metrics, clock=clock), spool, clock)

    asyncio.run(patiently(run_scenario()))
    return metrics


@asynccontextmanager
async def running(courier: Courier) -> AsyncIterator[None]:
    """Run a courier as long as the block; then it stops, and is not waited for longer than a moment."""
    run = asyncio.ensure_future(courier.run())
    try:
        yield
    finally:
        courier.stop()
        await asyncio.wait({run}, timeout=1)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.001)


def states(log: list[MutableMapping[str, Any]]) -> list[tuple[str, str | None]]:
    """The lines about the sink's state."""
    return [(line["event"], line.get("reason")) for line in log if line["event"].startswith("sink_")]


def paused(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("poller_sink_paused", {"sink": "sink"})


def deliveries(metrics: Metrics, outcome: str) -> float:
    labels = {"sink": "sink", "outcome": outcome}
    return metrics.registry.get_sample_value("poller_deliveries_total", labels) or 0.0


def test_a_batch_is_carried_and_settled() -> None:
    sink = ScriptedSink()

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        assert await courier.step() == 3
        assert (await spool.backlog("sink")).events == 0

    metrics = tell(sink, scenario, events=3)
    assert sink.delivered == IDS[:3]
    assert deliveries(metrics, "done") == 3


def test_a_batch_that_is_not_full_waits_for_more() -> None:
    sink = ScriptedSink()

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        step = asyncio.ensure_future(courier.step())
        await asyncio.sleep(0.01)
        assert not sink.batches
        await spool.append("source", [some_reading(2)])
        assert await step == 3

    tell(sink, scenario, events=2, max_events=3, max_wait=20.0)
    assert [len(batch.events) for batch in sink.batches] == [3]


def test_any_exception_means_again_with_the_same_batch() -> None:
    sink = ScriptedSink(says=lambda batch: KeyError("oops") if batch.attempt < 3 else None)

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        for _ in range(3):
            await courier.step()
            clock.pass_time(10)
        assert (await spool.backlog("sink")).events == 0

    metrics = tell(sink, scenario, events=4)
    assert len({batch.id for batch in sink.batches}) == 1
    assert [batch.attempt for batch in sink.batches] == [1, 2, 3]
    assert (deliveries(metrics, "retry"), deliveries(metrics, "done")) == (8, 4)


def test_a_refused_batch_is_split_until_only_the_guilty_event_dies() -> None:
    guilty = {IDS[13], IDS[77]}
    sink = ScriptedSink(says=lambda b: Rejected("HTTP 422") if guilty & {e.id for e in b.events} else None)

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        while (await spool.backlog("sink")).events:
            await courier.step()
        assert {letter.event.id for letter in await spool.dead(10)} == guilty
        said = {attempt.reason for letter in await spool.dead(10) for attempt in letter.history}
        assert said == {"HTTP 422"}

    metrics = tell(sink, scenario, events=100)
    assert sorted(sink.delivered) == sorted(set(IDS[:100]) - guilty)
    assert deliveries(metrics, "dead") == 2


def test_of_a_partial_failure_only_the_failed_come_again() -> None:
    def says(batch: Batch) -> Exception | None:
        if len(sink.batches) > 1:
            return None
        return PartlyFailed({IDS[1]: TryLater("not yet", after=2.0), IDS[2]: Rejected("gone")})

    sink = ScriptedSink(says=says)

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        await courier.step()
        assert (await spool.backlog("sink")).retrying == 1
        clock.pass_time(2)
        await courier.step()
        assert [letter.event.id for letter in await spool.dead(10)] == [IDS[2]]
        assert (await spool.backlog("sink")).events == 0

    tell(sink, scenario, events=4)
    assert [e.id for e in sink.batches[1].events] == [IDS[1]]


def test_one_picture_that_asks_for_an_hour_does_not_keep_the_others_waiting() -> None:
    """Thirty-one that are not there yet come again in a second; the waits that were asked for count as no attempt."""
    hour, second = TryLater("HTTP 503", after=3600.0), TryLater("HTTP 404: not there yet", after=1.0)

    def says(batch: Batch) -> Exception | None:
        if len(sink.batches) > 1:
            return None
        return PartlyFailed({event.id: hour if event.id == IDS[5] else second for event in batch.events})

    sink = ScriptedSink(says=says)

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        await courier.step()
        clock.pass_time(1)
        await courier.step()
        assert sorted(sink.delivered) == sorted(id for id in IDS[:32] if id != IDS[5])
        clock.pass_time(3599)
        await courier.step()
        assert sorted(sink.delivered) == sorted(IDS[:32])

    tell(sink, scenario, events=32)
    assert [batch.attempt for batch in sink.batches] == [1, 1, 1]


def test_the_halves_of_a_refused_batch_do_not_wait_for_the_refusals() -> None:
    """A good event of a batch with a bad one has failed no time when the receiver fails for the first time."""
    sink = ScriptedSink(
        says=lambda b: Rejected("HTTP 422") if IDS[0] in {e.id for e in b.events} else TryLater("HTTP 500")
    )

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        while len(await spool.dead(9)) < 1:
            await courier.step()

    tell(sink, scenario, events=64)
    assert {batch.attempt for batch in sink.batches} == {1}


def test_a_batch_past_its_age_is_split_and_each_event_gets_a_last_chance() -> None:
    """One message that kills the receiver must not take ninety-nine along."""
    sink = ScriptedSink(says=lambda b: TryLater("HTTP 500") if IDS[2] in {e.id for e in b.events} else None)

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        await courier.step()
        clock.pass_time(3 * 86400.0 + 1)
        while (await spool.backlog("sink")).events:
            await courier.step()
            clock.pass_time(61)
        (letter,) = await spool.dead(10)
        assert letter.event.id == IDS[2]
        assert "given up" in letter.reason

    tell(sink, scenario, events=8)
    assert sorted(sink.delivered) == sorted(set(IDS[:8]) - {IDS[2]})


def test_a_day_of_outage_kills_nothing() -> None:
    down = True
    sink = ScriptedSink(says=lambda batch: TryLater("refused") if down else None)

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        nonlocal down
        for _ in range(200):
            clock.pass_time(432)
            await courier.step()
        assert courier.paused
        assert (await spool.backlog("sink")).events == 150
        assert (await spool.backlog("sink")).retrying <= 20 * (FAILURES_TO_PAUSE + 1)
        down = False
        while (await spool.backlog("sink")).events:
            clock.pass_time(301)
            await courier.step()
        assert not courier.paused
        assert await spool.dead(1) == []

    tell(sink, scenario, events=150, max_events=1)
    assert sorted(sink.delivered) == sorted(IDS[:150])


def test_a_sink_that_keeps_failing_is_probed_by_one_carrier_only() -> None:
    sink = ScriptedSink(says=lambda batch: TryLater("refused"))

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        for _ in range(FAILURES_TO_PAUSE):
            await courier.step()
        assert courier.paused
        sink.begun.clear()
        running = asyncio.ensure_future(courier.run())
        clock.pass_time(3600)
        sink.hold = asyncio.Event()
        sink.most_in_flight = 0
        await sink.begun.wait()
        await asyncio.sleep(0.05)
        assert sink.most_in_flight == 1
        courier.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    metrics = tell(sink, scenario, events=50, max_events=1, concurrency=4)
    assert metrics.registry.get_sample_value("poller_sink_paused", {"sink": "sink"}) == 1


def test_only_failures_in_a_row_pause_a_sink() -> None:
    answers = [False] * 4 + [True] + [False] * 4 + [False] * 5
    sink = ScriptedSink(says=lambda batch: None if answers[len(sink.batches) - 1] else TryLater("HTTP 500"))

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        for number in range(len(answers) - 1):
            if number == 9:
                courier.resume()  # counts from the beginning, too
            await courier.step()
            assert not courier.paused, f"after {number + 1} answers"
        await courier.step()
        assert courier.paused

    tell(sink, scenario, events=len(answers), max_events=1)


def test_a_paused_sink_is_probed_less_and_less_often_up_to_a_minute() -> None:
    sink = ScriptedSink(says=lambda batch: TryLater("HTTP 500"))

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        for _ in range(FAILURES_TO_PAUSE):
            await courier.step()
        waits = [courier._not_before - clock.monotonic()]
        for _ in range(8):
            clock.pass_time(waits[-1])
            await courier.step()
            waits.append(courier._not_before - clock.monotonic())
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert courier.status.why == "probed after 5 failures in a row: HTTP 500"

    tell(sink, scenario, events=50, max_events=1)


def test_what_became_of_each_attempt_is_reported_and_counted() -> None:
    answers: list[Exception | None] = [
        PartlyFailed({IDS[0]: Rejected("HTTP 422"), IDS[1]: Rejected("HTTP 422")}),
        TryLater("HTTP 500", after=0.0),
        PartlyFailed({IDS[3]: TryLater("not there yet", after=0.0)}),
        Rejected("HTTP 400"),
    ]
    sink = ScriptedSink(says=lambda batch: answers[len(sink.batches) - 1])

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        for _ in answers:
            await courier.step()
        assert courier.dead == 3

    with capture_logs() as log:
        metrics = tell(sink, scenario, events=4, max_events=3)
    dead = {"event": "dead_letter", "log_level": "error", "sink": "sink"}
    after = {"sink": "sink", "retry_in": 0.0}
    said = [{name: value for name, value in line.items() if name != "batch"} for line in log]
    assert said == [
        {**dead, "event_id": IDS[0], "reason": "HTTP 422", "attempt": 1},
        {**dead, "event_id": IDS[1], "reason": "HTTP 422", "attempt": 1},
        {"event": "delivered", "log_level": "debug", "sink": "sink", "events": 1, "attempt": 1},
        {**after, "event": "delivery_failed", "log_level": "warning", "attempt": 1, "done": 0, "again": 1}
        | {"reason": "HTTP 500"},
        {**after, "event": "delivery_postponed", "log_level": "debug", "attempt": 1, "done": 0, "again": 1}
        | {"reason": "not there yet"},
        {**dead, "event_id": IDS[3], "reason": "HTTP 400", "attempt": 1},
        {"event": "delivered", "log_level": "debug", "sink": "sink", "events": 0, "attempt": 1},
    ]
    logged = [line["batch"] for line in log if "batch" in line]
    assert logged == [batch.id for batch in sink.batches]

    def count(outcome: str) -> float | None:
        labels = {"sink": "sink", "outcome": outcome}
        return metrics.registry.get_sample_value("poller_deliveries_total", labels)

    assert [count(word) for word in ("done", "postponed", "retry", "dead")] == [1, 1, 1, 3]


def test_what_failed_in_part_for_no_given_time_waits_longer_each_time() -> None:
    sink = ScriptedSink(says=lambda batch: PartlyFailed({batch.events[0].id: TryLater("HTTP 500")}))

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        for wait in (1.0, 2.0, 4.0):
            await courier.step()
            again = asyncio.ensure_future(spool.claim("sink", 9))
            clock.pass_time(wait - 0.5)
            await asyncio.sleep(0.02)
            assert not again.done()
            again.cancel()
            clock.pass_time(0.5)

    tell(sink, scenario, events=1)


def test_what_a_retry_after_asks_for_holds_for_the_whole_sink() -> None:
    sink = ScriptedSink(
        says=lambda batch: TryLater("HTTP 429", after=30.0) if len(sink.batches) == 1 else None
    )

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        await courier.step()
        waiting = asyncio.ensure_future(courier.step())
        await asyncio.sleep(0.05)
        assert len(sink.batches) == 1
        waiting.cancel()
        clock.pass_time(30)
        await courier.step()

    tell(sink, scenario, events=2, max_events=1)
    assert len(sink.batches) == 2


def test_gone_disables_the_sink_and_keeps_its_deliveries() -> None:
    sink = ScriptedSink(says=lambda batch: Gone("HTTP 410"))

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        async with running(courier):
            await until(lambda: courier.disabled is not None)
            assert courier.status == SinkStatus(state=SinkState.DISABLED, why="HTTP 410")
            assert courier.last_error is not None
            assert courier.last_error[1] == "HTTP 410"
            await spool.append("source", [some_reading(5)])
            await asyncio.sleep(0.05)
            backlog = await spool.backlog("sink")
            assert (backlog.events, backlog.dead) == (6, 0)

    with capture_logs() as log:
        metrics = tell(sink, scenario, events=5)
    assert len(sink.batches) == 1
    assert states(log) == [("sink_disabled", "HTTP 410")]
    assert paused(metrics) == 1


def test_resume_ends_a_disabled_state_and_what_was_in_hand_is_carried() -> None:
    sink = ScriptedSink(says=lambda batch: Gone("HTTP 410") if len(sink.batches) == 1 else None)

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        async with running(courier):
            await until(lambda: courier.disabled is not None)
            courier.resume()
            await until(lambda: len(sink.delivered) == 5)
            assert courier.status.state is SinkState.SERVING

    with capture_logs() as log:
        metrics = tell(sink, scenario, events=5)
    assert [word for word, _ in states(log)] == ["sink_disabled", "sink_resumed"]
    assert paused(metrics) == 0


def test_a_pause_by_the_operator_finishes_what_is_in_hand_and_claims_no_more() -> None:
    sink = ScriptedSink()
    sink.hold = release = asyncio.Event()

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        async with running(courier):
            await until(lambda: sink.in_flight == 3)
            courier.hold()
            courier.hold()
            sink.hold = None
            release.set()
            await until(lambda: len(sink.delivered) == 3)
            await spool.append("source", [some_reading(*range(100, 110))])
            await asyncio.sleep(0.05)
            assert len(sink.delivered) == 3
            assert (await spool.backlog("sink")).events == 17
            courier.resume()
            await until(lambda: len(sink.delivered) == 20)
            assert sink.most_in_flight == 3, "all carriers work again"

    with capture_logs() as log:
        metrics = tell(sink, scenario, events=10, max_events=1, concurrency=3)
    assert states(log) == [("sink_paused", "by the operator"), ("sink_resumed", None)]
    assert len(set(sink.delivered)) == 20
    assert paused(metrics) == 0


def test_all_carriers_come_back_when_one_was_busy_through_pause_and_resume() -> None:
    sink = ScriptedSink()
    sink.hold = asyncio.Event()

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        async with running(courier):
            assert sink.hold is not None
            await spool.append("source", [some_reading(0)])
            await until(lambda: sink.in_flight == 1)
            courier.hold()
            courier.resume()
            sink.hold.set()
            sink.hold = asyncio.Event()
            await spool.append("source", [some_reading(*range(1, 10))])
            await until(lambda: sink.in_flight == 3)
            sink.hold.set()
            sink.hold = None

    tell(sink, scenario, max_events=1, concurrency=3)


def test_a_pause_does_not_drop_a_batch_that_waits_for_the_rate() -> None:
    sink = ScriptedSink()

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        async with running(courier):
            await until(lambda: len(sink.delivered) == 1)  # the second one is claimed, and waits a second
            courier.hold()
            await until(lambda: len(sink.delivered) == 2)
            assert (await spool.backlog("sink")).events == 3

    tell(sink, scenario, events=5, max_events=1, rate=(1, 0.5))


def test_resume_ends_a_sinks_own_pause_at_once() -> None:
    down = True
    sink = ScriptedSink(says=lambda batch: TryLater("HTTP 500") if down else None)

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        nonlocal down
        for _ in range(FAILURES_TO_PAUSE):
            await courier.step()
        why = "probed after 5 failures in a row: HTTP 500"
        assert courier.status == SinkStatus(state=SinkState.PAUSED, why=why)
        assert courier.last_error == (clock.now(), "HTTP 500")
        async with running(courier):
            await asyncio.sleep(0)
            down = False
            courier.resume()
            await until(lambda: bool(sink.delivered))

    with capture_logs() as log:
        metrics = tell(sink, scenario, events=50, max_events=1)
    assert [word for word, _ in states(log)] == ["sink_paused", "sink_resumed"]
    assert paused(metrics) == 0


def test_each_change_of_a_sinks_state_is_one_line_in_the_log() -> None:
    down = True
    sink = ScriptedSink(says=lambda batch: TryLater("HTTP 503") if down else None)

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        nonlocal down
        for _ in range(2):
            down = True
            for _ in range(FAILURES_TO_PAUSE + 3):
                await courier.step()
                clock.pass_time(61)
            down = False
            for _ in range(3):
                await courier.step()
                clock.pass_time(61)

    with capture_logs() as log:
        tell(sink, scenario, events=100, max_events=1)
    assert [word for word, _ in states(log)] == ["sink_paused", "sink_resumed"] * 2


def test_a_delivery_that_takes_too_long_comes_again() -> None:
    sink = ScriptedSink()

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        sink.hold = asyncio.Event()
        await courier.step()
        sink.hold = None
        clock.pass_time(10)
        await courier.step()

    metrics = tell(sink, scenario, events=1, timeout=0.05)
    assert sink.delivered == IDS[:1]
    assert deliveries(metrics, "retry") == 1


def test_batches_are_carried_at_once_up_to_the_concurrency() -> None:
    sink = ScriptedSink()

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        sink.hold = asyncio.Event()
        running = asyncio.ensure_future(courier.run())
        while sink.in_flight < 4:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert sink.in_flight == 4
        sink.hold.set()
        while (await spool.backlog("sink")).events:
            await courier.settled.wait()
            courier.settled.clear()
        courier.stop()
        await running

    tell(sink, scenario, events=12, concurrency=4, max_events=1)
    assert sorted(sink.delivered) == sorted(IDS[:12])


def test_stopping_lets_a_delivery_finish_and_claims_no_more() -> None:
    sink = ScriptedSink()

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        sink.hold = asyncio.Event()
        running = asyncio.ensure_future(courier.run())
        await sink.begun.wait()
        courier.stop()
        await asyncio.sleep(0.02)
        assert not running.done()
        sink.hold.set()
        await running
        assert (await spool.backlog("sink")).events == 2

    tell(sink, scenario, events=3, max_events=1)
    assert sink.delivered == IDS[:1]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_the_rate_bounds_attempts_in_any_period(concurrency: int) -> None:
    sink = ScriptedSink()
    started: list[float] = []
    """Seconds from the courier's start: a busy machine makes an attempt late, never early."""

    async def scenario(courier: Courier, spool: SpoolAdmin, clock: ManualClock) -> None:
        real = Clock()
        begun = real.monotonic()

        def says(batch: Batch) -> None:
            started.append(real.monotonic() - begun)

        sink.says = says
        running = asyncio.ensure_future(courier.run())
        while (await spool.backlog("sink")).events:
            await courier.settled.wait()
            courier.settled.clear()
        courier.stop()
        await running

    tell(sink, scenario, events=9, max_events=1, rate=(3, 0.3), concurrency=concurrency)
    assert len(started) == 9
    assert all(at >= 0.29 * (number // 3) for number, at in enumerate(started)), started


def test_a_sink_that_fails_changes_nothing_for_another(tmp_path: Path) -> None:
    bad, good = ScriptedSink("bad", lambda batch: TryLater("refused")), ScriptedSink("good")

    async def scenario() -> None:
        async with memory_spool() as spool:
            couriers = [Courier(s, spool, terms(), metrics=Metrics(), clock=Clock()) for s in (bad, good)]
            for sink in (bad, good):
                await spool.attach(sink.name, anything)
            running = [asyncio.ensure_future(courier.run()) for courier in couriers]
            for number in range(0, 200, 10):
                await spool.append("source", [some_reading(*range(number, number + 10))])
                await couriers[1].settled.wait()
                couriers[1].settled.clear()
            while (await spool.backlog("good")).events:
                await asyncio.sleep(0.001)
            assert (await spool.backlog("bad")).events == 200
            for courier in couriers:
                courier.stop()
            await asyncio.gather(*running)

    asyncio.run(patiently(scenario()))
    assert good.delivered == IDS
