"""A courier that serves an ordered sink: retries, refusals and several carriers at once."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from poller.core.errors import PartlyFailed, Rejected, TryLater
from poller.core.model import Batch, Event, ParsedPage, PollOutcome
from poller.daemon.daemon import Daemon
from poller.pipeline.courier import Courier, Terms
from poller.pipeline.retry import RetryPolicy
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.settings import load
from poller.testing import anything, some_event
from tests.fakes import ScriptedSink, sqlite_spool
from tests.patience import patiently

STREAMS = 7
EVENTS = 600


def event_of(number: int) -> Event:
    return some_event(number, stream=f"room{number % STREAMS}")


ALL = [event_of(number) for number in range(EVENTS)]


def courier_of(
    sink: ScriptedSink, spool: Any, metrics: Metrics, *, concurrency: int, max_events: int
) -> Courier:
    policy = RetryPolicy(give_up_after=3600.0, first_wait=0.002, longest_backoff=0.01)
    terms = Terms(
        policy=policy,
        timeout=5.0,
        concurrency=concurrency,
        max_events=max_events,
        max_wait=0.0,
        ordered=True,
    )
    return Courier(sink, spool, terms, metrics=metrics, clock=Clock())


def served(
    folder: Path, sink: ScriptedSink, *, events: int = EVENTS, concurrency: int, max_events: int
) -> Metrics:
    """Serve until nothing is owed."""
    metrics = Metrics()

    async def run_scenario() -> None:
        async with sqlite_spool(folder) as spool:
            await spool.attach(sink.name, anything, ordered=True)
            courier = courier_of(sink, spool, metrics, concurrency=concurrency, max_events=max_events)
            running = asyncio.ensure_future(courier.run())
            for start in range(0, events, 50):
                events_of_page = tuple(ALL[start : min(start + 50, events)])
                page = ParsedPage(events=events_of_page, rejects=(), outcome=PollOutcome.PARTIAL)
                await spool.append("source", [page])
            while (await spool.backlog(sink.name)).events:
                courier.settled.clear()
                await patiently(courier.settled.wait())
            courier.stop()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(patiently(run_scenario()))
    return metrics


def first_arrivals(sink: ScriptedSink) -> dict[str, list[int]]:
    """Each stream's events in the order in which they first arrived."""
    numbers = {event.id: number for number, event in enumerate(ALL)}
    found: dict[str, list[int]] = {}
    for id in dict.fromkeys(sink.delivered):
        found.setdefault(ALL[numbers[id]].stream_id, []).append(numbers[id])
    return found


def test_streams_arrive_in_order_from_a_sink_that_fails_at_random(tmp_path: Path) -> None:
    seed = random.Random(5)
    guilty = {ALL[n].id for n in (13, 14, 77, 300)}

    def says(batch: Batch) -> Exception | None:
        if guilty & {event.id for event in batch.events}:
            return Rejected("HTTP 422")
        return TryLater("HTTP 503") if seed.random() < 0.15 else None

    sink = ScriptedSink(says=says)
    served(tmp_path, sink, concurrency=4, max_events=10)
    arrived = first_arrivals(sink)
    assert arrived.keys() == {f"room{n}" for n in range(STREAMS)}
    for numbers in arrived.values():
        assert numbers == sorted(numbers)
    assert set(sink.delivered) == {event.id for event in ALL} - guilty
    assert any(batch.attempt > 1 for batch in sink.batches)


def test_other_streams_are_carried_while_one_is_stuck(tmp_path: Path) -> None:
    asked = 0

    def says(batch: Batch) -> Exception | None:
        nonlocal asked
        stuck = [event for event in batch.events if event.stream_id == "room3"]
        asked += bool(stuck)
        return PartlyFailed({event.id: TryLater("no") for event in stuck}) if stuck and asked < 5 else None

    sink = ScriptedSink(says=says)
    served(tmp_path, sink, concurrency=4, max_events=1)
    order = {id: place for place, id in enumerate(sink.delivered)}
    first = next(event.id for event in ALL if event.stream_id == "room3")
    others = sum(order[event.id] < order[first] for event in ALL if event.stream_id != "room3")
    assert others > 20
    for numbers in first_arrivals(sink).values():
        assert numbers == sorted(numbers)


def test_what_succeeded_behind_a_failure_of_its_stream_is_not_counted_as_done(tmp_path: Path) -> None:
    def says(batch: Batch) -> Exception | None:
        return PartlyFailed({ALL[0].id: TryLater("no", after=0.0)}) if len(sink.batches) == 1 else None

    sink = ScriptedSink(says=says)
    metrics = served(tmp_path, sink, events=STREAMS + 1, concurrency=1, max_events=100)
    behind = ALL[STREAMS].id
    assert [[e.id for e in batch.events] for batch in sink.batches][1] == [ALL[0].id, behind]
    labels = {"sink": "sink", "outcome": "done"}
    assert metrics.registry.get_sample_value("poller_deliveries_total", labels) == STREAMS + 1


def test_order_is_a_setting_of_each_sink(tmp_path: Path) -> None:
    account = {
        "endpoint": "http://127.0.0.1:9/x",
        "app_id": 1,
        "key": "a" * 32,
        "cos": {"bucket": "b", "app_id": 7},
    }
    sinks = {"ordered": {"type": "stdout", "order": "stream"}, "plain": {"type": "stdout"}}
    config = {
        "accounts": {"main": account},
        "sources": {"shots": {"type": "screenshot_queue", "account": "main"}},
        "spool": {"type": "memory"},
        "journal": {"path": "journal"},
        "sinks": {name: sink | {"batch": {"max_events": 1}} for name, sink in sinks.items()},
    }
    (tmp_path / "poller.yaml").write_text(json.dumps(config))

    async def run_scenario() -> None:
        async with Daemon(load(tmp_path / "poller.yaml")) as daemon:
            page = ParsedPage(events=(ALL[0], ALL[STREAMS]), rejects=(), outcome=PollOutcome.PARTIAL)
            await daemon.spool.append("shots", [page])
            for sink, second in (("plain", True), ("ordered", False)):
                await daemon.spool.claim(sink, 1)
                claim = asyncio.ensure_future(daemon.spool.claim(sink, 1))
                await asyncio.sleep(0.01)
                assert claim.done() == second
                claim.cancel()
            assert [courier._terms.ordered for courier in daemon.components.couriers] == [True, False]

    asyncio.run(patiently(run_scenario()))
