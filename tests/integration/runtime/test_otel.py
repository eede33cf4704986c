"""Spans as a collector gets them: their links are bounded, and each page comes once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from poller.core.errors import PartlyFailed, StorageFull, TryLater
from poller.core.model import Batch, Dead, Done, Event, Outcome, ParsedPage, Retry
from poller.core.spool import SpoolAdmin
from poller.pipeline.ingest import Ingest
from poller.runtime.metrics import Metrics
from poller.runtime.otel import MOST_LINKS, MOST_PAGES, OtlpTracing
from poller.testing import some_event, some_reading
from poller.testing.factories import START, some_batch
from tests.fakes import sqlite_spool
from tests.scenario.collector import Collector, attributes, collector

AGAIN: Final = Retry(after=1.0, reason="HTTP 503: http://example.com/?sign=secret")


def traced(scenario: Callable[[OtlpTracing], Awaitable[None]]) -> Collector:
    """What the collector has once everything is flushed."""

    async def run_scenario(kept: Collector) -> None:
        async with OtlpTracing(kept.url) as tracing:
            await scenario(tracing)

    with collector() as kept:
        asyncio.run(run_scenario(kept))
    return kept


def page(number: int) -> ParsedPage:
    """A page with one event, received at a time of its own."""
    return replace(some_reading(number), asked_at=START + timedelta(seconds=number))


def test_a_batch_is_linked_to_so_many_pages_at_most() -> None:
    events = [some_event(number) for number in range(MOST_LINKS + 50)]

    async def scenario(tracing: OtlpTracing) -> None:
        for number in range(len(events)):
            tracing.begin_page("shots", "main", page(number)).end()
        tracing.begin_batch(some_batch(*events)).end()

    (batch,) = traced(scenario).named("deliver sink")
    assert len({link.span_id for link in batch.links}) == MOST_LINKS


def test_pages_are_forgotten_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10000")

    async def scenario(tracing: OtlpTracing) -> None:
        for number in range(MOST_PAGES + 1):
            tracing.begin_page("shots", "main", page(number)).end()
        for number in (0, 1, MOST_PAGES):
            tracing.begin_batch(some_batch(some_event(number))).end()

    batches = traced(scenario).named("deliver sink")
    assert [len(batch.links) for batch in batches] == [0, 1, 1]


def test_a_page_lasts_from_its_poll_to_its_commit_and_comes_once_although_the_spool_was_full(
    tmp_path: Path,
) -> None:
    async def scenario(tracing: OtlpTracing) -> None:
        async with sqlite_spool(tmp_path) as spool:
            ingest = Ingest(Shots(), Full(spool), Metrics(), tracing=tracing)  # type: ignore[arg-type]
            with pytest.raises(StorageFull):
                await ingest.write([page(1)])
            await ingest.write([page(1)])

    (span,) = traced(scenario).spans
    assert span.name == "take shots"
    assert span.start_time_unix_nano == int(page(1).asked_at.timestamp() * 1e9)  # type: ignore[union-attr]


class Shots:
    name, account = "shots", "main"


class Full:
    """A spool that has room the second time."""

    def __init__(self, spool: SpoolAdmin) -> None:
        self._spool = spool
        self._full = True

    async def append(self, source: str, readings: Sequence[ParsedPage]) -> object:
        if self._full:
            self._full = False
            raise StorageFull("the disk is full")
        return await self._spool.append(source, readings)


@pytest.mark.parametrize(
    ("outcomes", "error", "expected"),
    [
        ((Done(), Done()), None, {"poller.outcome": "done"}),
        (
            (AGAIN, AGAIN),
            TryLater("HTTP 503: http://example.com/?sign=secret"),
            {"poller.outcome": "retry", "error.type": "TryLater"},
        ),
        ((Dead(reason="secret"),), TimeoutError(), {"poller.outcome": "dead", "error.type": "TimeoutError"}),
        (
            (Done(), AGAIN, AGAIN, Dead(reason="secret")),
            PartlyFailed({"a" * 32: TryLater("secret")}),
            {
                "poller.outcome": "mixed",
                "poller.done": 1,
                "poller.retry": 2,
                "poller.dead": 1,
                "error.type": "TryLater",
            },
        ),
        ((), None, {"poller.outcome": "cancelled"}),
    ],
)
def test_an_outcome_is_told_without_the_text_of_an_error(
    outcomes: Sequence[Outcome], error: Exception | None, expected: dict[str, object]
) -> None:
    events: Sequence[Event] = [some_event(number) for number in range(max(1, len(outcomes)))]
    batch: Batch = some_batch(*events, attempt=3)

    async def scenario(tracing: OtlpTracing) -> None:
        span = tracing.begin_batch(batch)
        if outcomes:
            span.settle(outcomes, error)
        span.end()

    kept = traced(scenario)
    shared = {
        "poller.sink": "sink",
        "poller.account": "main",
        "poller.events": len(events),
        "poller.attempt": 3,
        "poller.batch": batch.id,
    }
    assert attributes(kept.spans[0].attributes) == shared | expected
    assert b"secret" not in kept.bodies
