"""The courier of one of several daemons that share a spool."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from poller.core.errors import TryLater
from poller.core.model import Batch
from poller.pipeline.courier import Courier
from poller.runtime.metrics import Metrics
from poller.testing import ManualClock, anything, some_event, some_reading
from tests.fakes import ScriptedSink, SharedMemory
from tests.patience import patiently
from tests.unit.pipeline.test_courier import deliveries, running, terms, until

Scenario = Callable[[Courier, SharedMemory], Awaitable[None]]


def tell(sink: ScriptedSink, scenario: Scenario, **changes: object) -> Metrics:
    metrics = Metrics()

    async def run_scenario() -> None:
        clock = ManualClock()
        async with SharedMemory(clock) as spool:
            await spool.attach(sink.name, anything)
            await spool.append("source", [some_reading(0, 1, 2)])
            await scenario(Courier(sink, spool, terms(**changes), metrics=metrics, clock=clock), spool)

    asyncio.run(patiently(run_scenario()))
    return metrics


def test_what_is_delivered_is_cancelled_when_the_lease_is_not_proven_and_comes_again_as_it_was() -> None:
    sink = ScriptedSink()
    sink.hold = asyncio.Event()

    async def scenario(courier: Courier, spool: SharedMemory) -> None:
        async with running(courier):
            await sink.begun.wait()
            sink.begun.clear()
            spool.proven.clear()
            courier.interrupt()
            await until(lambda: sink.in_flight == 0)
            await asyncio.sleep(0.05)
            assert not sink.begun.is_set(), "nothing is delivered while another daemon may deliver it"
            assert (await spool.backlog("sink")).events == 3
            assert sink.hold is not None
            sink.hold.set()
            spool.proven.set()
            await until(lambda: len(sink.delivered) == 3)
        assert courier.last_error is None, "the sink has not failed"

    metrics = tell(sink, scenario)
    assert [(batch.id, batch.attempt) for batch in sink.batches] == [(sink.batches[0].id, 1)] * 2
    assert (deliveries(metrics, "retry"), deliveries(metrics, "done")) == (0, 3)


def test_a_batch_that_was_claimed_before_the_lease_ended_is_not_delivered() -> None:
    sink = ScriptedSink()

    async def scenario(courier: Courier, spool: SharedMemory) -> None:
        batch = await spool.claim("sink", 10)
        spool.proven.clear()
        carrying = asyncio.ensure_future(courier.carry(batch))
        await asyncio.sleep(0.05)
        assert not carrying.done()
        assert sink.batches == []
        spool.proven.set()
        assert await carrying == 0
        assert (await spool.claim("sink", 10)).id == batch.id

    tell(sink, scenario)


def test_a_delivery_that_takes_too_long_is_still_a_failure() -> None:
    sink = ScriptedSink()
    sink.hold = asyncio.Event()

    async def scenario(courier: Courier, spool: SharedMemory) -> None:
        await courier.step()
        assert courier.last_error is not None

    assert deliveries(tell(sink, scenario, timeout=0.01), "retry") == 3


def test_a_lease_that_ends_while_nothing_is_delivered_interrupts_nothing_later() -> None:
    def says(batch: Batch) -> Exception | None:
        return TryLater("later") if batch.attempt == 1 else None

    sink = ScriptedSink(says=says)

    async def scenario(courier: Courier, spool: SharedMemory) -> None:
        courier.interrupt()
        await courier.step()
        assert courier.last_error is not None
        assert courier.last_error[1] == "later"

    tell(sink, scenario)


@pytest.mark.parametrize(("members", "at_once"), [(1, 6), (3, 2)])
def test_the_rate_of_a_sink_is_divided_by_the_daemons(members: int, at_once: int) -> None:
    sink = ScriptedSink()

    async def scenario(courier: Courier, spool: SharedMemory) -> None:
        await spool.append("source", [some_reading(*range(3, 10))])
        spool.count = members
        async with running(courier):
            await until(lambda: len(sink.delivered) >= at_once)
            await asyncio.sleep(0.3)
            assert sink.delivered == [some_event(n).id for n in range(at_once)]
            spool.count = 1
            await until(lambda: len(sink.delivered) >= 6)

    tell(sink, scenario, rate=(6, 3600.0), max_events=1)
