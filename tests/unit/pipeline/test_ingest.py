"""What a commit is measured by: how old its pictures are, and when the newest event came."""

import asyncio
from collections.abc import Awaitable, Callable

from poller.core.model import Event, ParsedPage, PollOutcome
from poller.pipeline.ingest import Ingest
from poller.runtime.metrics import Metrics
from poller.spools.memory import MemorySpool
from poller.testing import ManualClock, anything, some_change, some_event
from tests.fakes import ScriptedSource, memory_spool

Scenario = Callable[[Ingest, MemorySpool, ManualClock], Awaitable[None]]


def tell(scenario: Scenario) -> Metrics:
    metrics = Metrics()

    async def run_scenario() -> None:
        clock = ManualClock()
        async with memory_spool() as spool:
            await spool.attach("sink", anything)
            await scenario(Ingest(ScriptedSource(), spool, metrics, clock=clock), spool, clock)

    asyncio.run(run_scenario())
    return metrics


def page(*events: Event) -> ParsedPage:
    return ParsedPage(events=events, rejects=(), outcome=PollOutcome.FULL)


def lag(metrics: Metrics, what: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(
        f"poller_picture_lag_seconds_{what}", {"account": "main", **labels}
    )


def test_each_picture_is_measured_up_to_its_commit_and_other_events_are_not() -> None:
    async def scenario(ingest: Ingest, spool: MemorySpool, clock: ManualClock) -> None:
        clock.pass_time(40.0)
        await ingest.write([page(some_event(1), some_change(1, "live")), page(some_event(2), some_event(3))])

    metrics = tell(scenario)
    assert lag(metrics, "count") == 3
    assert lag(metrics, "sum") == 30.0 + 20.0 + 10.0
    assert [lag(metrics, "bucket", le=le) for le in ("5.0", "10.0", "20.0", "30.0", "60.0")] == [
        0,
        1,
        2,
        3,
        3,
    ]


def test_a_page_that_is_read_again_after_a_crash_is_not_measured_twice() -> None:
    async def scenario(ingest: Ingest, spool: MemorySpool, clock: ManualClock) -> None:
        await ingest.write([page(some_event(0))])
        clock.pass_time(3_000.0)
        await ingest.write([page(some_event(0))])

    metrics = tell(scenario)
    assert (lag(metrics, "count"), lag(metrics, "sum")) == (1, 0.0)


def test_the_newest_event_of_a_source_has_its_time() -> None:
    async def scenario(ingest: Ingest, spool: MemorySpool, clock: ManualClock) -> None:
        await ingest.write([page(some_event(1), some_event(2)), page()])

    newest = tell(scenario).registry.get_sample_value(
        "poller_last_event_timestamp_seconds", {"source": "shots"}
    )
    assert newest == some_event(2).received_at.timestamp()
