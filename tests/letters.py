"""A courier of the program carries events to a sink until nothing is left."""

import asyncio
from collections.abc import Sequence

from poller.core.model import Event, ParsedPage, PollOutcome
from poller.core.ports import Sink
from poller.pipeline.courier import Courier, Terms
from poller.pipeline.retry import RetryPolicy
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.testing import anything
from tests.fakes import memory_spool
from tests.servers.processes import until


async def dead_letters(sink: Sink, events: Sequence[Event]) -> dict[str, str]:
    """Let a courier carry the events to the end; the reason of each dead letter by its event's id."""
    policy = RetryPolicy(give_up_after=60.0, jitter=lambda: 1.0)
    terms = Terms(policy=policy, timeout=10.0, concurrency=1, max_events=100, max_wait=0.0)
    clock = Clock()
    async with memory_spool(clock) as spool:
        await spool.attach(sink.name, anything)
        page = ParsedPage(events=tuple(events), rejects=(), outcome=PollOutcome.PARTIAL)
        await spool.append("source", [page])
        courier = Courier(sink, spool, terms, metrics=Metrics(), clock=clock)
        run = asyncio.ensure_future(courier.run())

        async def is_through() -> bool:
            return not (await spool.backlog(sink.name)).events

        await until(is_through, "for the courier")
        courier.stop()
        await run
        return {letter.event.id: letter.reason for letter in await spool.dead(100)}
