"""What every sink promises."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from poller.core.event_lines import EventLines
from poller.core.model import Batch, Event
from poller.core.ports import Sink
from poller.testing.factories import some_batch, some_event


@dataclass(frozen=True, kw_only=True)
class SinkWorld:
    """A sink, entered, and the world on its other side.

    arrived: returns the ids of the events that have safely arrived, in order, twins included
    breaks:  makes the other side fail (may be a coroutine function)
    mends:   makes it work again (may be a coroutine function)
    event:   makes the events that this world can take
    """

    sink: Sink
    arrived: Callable[[], Sequence[str]]
    breaks: Callable[[], Any]
    mends: Callable[[], Any]
    event: Callable[[int], Event] = some_event


async def _called(action: Callable[[], Any]) -> None:
    result = action()
    if asyncio.iscoroutine(result):
        await result


class SinkContract:
    """What every sink promises. `world` builds one, enters it, and leaves it again."""

    batch_of = 5
    """How many events to try at once; 1 for a sink that takes them one by one."""

    def world(self, folder: Path) -> AbstractAsyncContextManager[SinkWorld] | AsyncIterator[SinkWorld]:
        """Decorate yours with `contextlib.asynccontextmanager`."""
        raise NotImplementedError

    def _run(self, folder: Path, scenario: Callable[[SinkWorld], Awaitable[None]]) -> None:
        async def run_scenario() -> None:
            world: Any = self.world(folder)
            async with world as entered:
                await scenario(entered)

        asyncio.run(asyncio.wait_for(run_scenario(), 60))

    def _batch(self, world: SinkWorld, start: int = 0) -> Batch:
        return some_batch(*(world.event(start + n) for n in range(self.batch_of)), sink=world.sink.name)

    def test_a_delivered_batch_has_arrived(self, tmp_path: Path) -> None:
        """When `deliver` returns, all of it is safe on the other side."""

        async def scenario(world: SinkWorld) -> None:
            batch = self._batch(world)
            await world.sink.deliver(batch)
            assert sorted(world.arrived()) == sorted(event.id for event in batch.events)

        self._run(tmp_path, scenario)

    def test_a_batch_whose_events_are_not_decoded_yet_has_arrived(self, tmp_path: Path) -> None:
        """The events of a backlog come so: they are a sequence, but no tuple."""

        async def scenario(world: SinkWorld) -> None:
            batch = self._batch(world)
            lines = EventLines([event.encoded for event in batch.events])
            await world.sink.deliver(msgspec.structs.replace(batch, events=lines))
            assert sorted(world.arrived()) == sorted(event.id for event in batch.events)

        self._run(tmp_path, scenario)

    def test_the_same_event_twice_does_no_harm(self, tmp_path: Path) -> None:
        """At least once means that twins come."""

        async def scenario(world: SinkWorld) -> None:
            batch = self._batch(world)
            await world.sink.deliver(batch)
            await world.sink.deliver(batch)
            assert {event.id for event in batch.events} == set(world.arrived())

        self._run(tmp_path, scenario)

    def test_a_broken_world_makes_it_raise_and_it_works_when_repaired(self, tmp_path: Path) -> None:
        """It never returns for what did not arrive, and does not need a restart."""

        async def scenario(world: SinkWorld) -> None:
            await _called(world.breaks)
            batch = self._batch(world)
            with pytest.raises(Exception) as raised:  # noqa: PT011 - any exception means "again"
                async with asyncio.timeout(20):
                    await world.sink.deliver(batch)
            assert not isinstance(raised.value, TimeoutError)
            await _called(world.mends)
            await world.sink.deliver(batch)
            assert {event.id for event in batch.events} <= set(world.arrived())

        self._run(tmp_path, scenario)

    def test_a_cancelled_delivery_leaves_the_sink_usable(self, tmp_path: Path) -> None:
        """The courier cancels what takes too long."""

        async def scenario(world: SinkWorld) -> None:
            cancelled = asyncio.ensure_future(world.sink.deliver(self._batch(world)))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            batch = self._batch(world, start=100)
            await world.sink.deliver(batch)
            assert {event.id for event in batch.events} <= set(world.arrived())

        self._run(tmp_path, scenario)

    def test_batches_may_be_carried_at_once(self, tmp_path: Path) -> None:
        """`concurrency` batches, and none is lost."""

        async def scenario(world: SinkWorld) -> None:
            batches = [self._batch(world, start=10 * n) for n in range(4)]
            await asyncio.gather(*(world.sink.deliver(batch) for batch in batches))
            assert {e.id for batch in batches for e in batch.events} <= set(world.arrived())

        self._run(tmp_path, scenario)
