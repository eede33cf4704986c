"""What the spool in memory does beyond the contract: when it is full, and what it forgets."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from poller.core.errors import StorageFull
from poller.core.model import Retry
from poller.spools.memory import KEPT_SETTLED, MemorySpool
from poller.testing import anything, some_event, some_reading
from poller.testing.factories import done
from poller.testing.history import newest_events
from tests.fakes import memory_spool
from tests.patience import patiently


def tell(scenario: Callable[[MemorySpool], Awaitable[None]], *, max_events: int) -> None:
    async def run_scenario() -> None:
        async with memory_spool(max_events=max_events) as spool:
            await scenario(spool)

    asyncio.run(patiently(run_scenario()))


def test_it_is_full_while_so_many_events_wait_and_no_longer() -> None:
    async def scenario(spool: MemorySpool) -> None:
        await spool.attach("a", anything)
        for start in range(0, 50, 5):
            await spool.append("source", [some_reading(*range(start, start + 4))])
            await spool.append("source", [some_reading(start + 4)])
            assert spool.fullness == {"max_events": 1.0}
            with pytest.raises(StorageFull, match="5 events wait"):
                await spool.check_writable()
            batch = await spool.claim("a", 1)
            await spool.settle(batch, done(batch))
            await spool.check_writable()
            batch = await spool.claim("a", 9)
            assert len(batch.events) == 4
            await spool.settle(batch, [Retry(after=3600, reason="no")] * 4)

    tell(scenario, max_events=5)


def test_the_slowest_sink_says_what_waits() -> None:
    async def scenario(spool: MemorySpool) -> None:
        await spool.attach("quick", anything)
        await spool.attach("slow", anything)
        await spool.append("source", [some_reading(*range(5))])
        batch = await spool.claim("quick", 9)
        await spool.settle(batch, done(batch))
        with pytest.raises(StorageFull):
            await spool.append("source", [some_reading(9)])
        await spool.detach("slow")
        assert (await spool.append("source", [some_reading(9)])).total() == 1

    tell(scenario, max_events=5)


def test_what_nobody_wants_does_not_fill_it() -> None:
    async def scenario(spool: MemorySpool) -> None:
        await spool.attach("picky", lambda event: False)
        claim = asyncio.ensure_future(spool.claim("picky", 9))
        for start in range(0, 3 * KEPT_SETTLED, 100):
            await spool.append("source", [some_reading(*range(start, start + 100))])
            await asyncio.sleep(0.001)
        claim.cancel()
        assert len(await newest_events(spool, 10 * KEPT_SETTLED)) < KEPT_SETTLED + 300

    tell(scenario, max_events=300)


def test_the_newest_thousand_that_are_settled_stay_for_a_look() -> None:
    async def scenario(spool: MemorySpool) -> None:
        await spool.attach("a", anything)
        for start in range(0, 3 * KEPT_SETTLED, 100):
            await spool.append("source", [some_reading(*range(start, start + 100))])
            batch = await spool.claim("a", 100)
            await spool.settle(batch, done(batch))
        recent = await newest_events(spool, 10 * KEPT_SETTLED)
        assert KEPT_SETTLED <= len(recent) <= KEPT_SETTLED + 200
        assert recent[0] == some_event(3 * KEPT_SETTLED - 1)

    tell(scenario, max_events=100)
