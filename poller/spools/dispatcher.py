"""Claiming and settling as every engine of ours does it; an engine adds where the log is kept."""

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

from poller.core.model import Batch, Event, Outcome
from poller.spools.sink_queue import Changes, Member, SinkQueue, members_corrected
from poller.spools.tail import Chunk, Tail

KEPT_CORRECTIONS = 1_000


class Engine(Protocol):
    """What an engine keeps: the log beyond memory, and changes."""

    async def load(self, start: int) -> list[Member]:
        """Some members from `start` on, in order; empty only when the log holds none of them."""
        ...

    def write(self, changes: Changes) -> None:
        """Make changes durable soon; never raises."""
        ...


class Dispatcher:
    """The desks of all attached sinks over one log. `head` is the number the next event will get."""

    def __init__(self, engine: Engine, tail: Tail) -> None:
        self.head = 1
        self.tail = tail
        self.queues: dict[str, SinkQueue] = {}
        self._engine = engine
        self._loaded: dict[str, list[Member]] = {}
        self._corrected: dict[str, Event] = {}
        """The latest corrections: the engine may just be reading what they correct."""

    def publish(self, chunk: Chunk) -> None:
        """Hand fresh events, already durable, to the couriers."""
        self.tail.push(chunk)
        self.head = max(self.head, chunk.end)
        for queue in self.queues.values():
            queue.wakeup.set()

    def correct(self, known: Sequence[Member]) -> None:
        """Correct events by what is known of them now, wherever they are still to be delivered.

        Those in hand that fail are tried again, also where their URL was right: they may have been announced too early.
        """
        by = {event.id: event for _, event in known}
        for queue in self.queues.values():
            queue.correct_in_hand(by)
        differing = [(number, event) for number, event in known if not self.tail.agrees(number, event)]
        if not differing:
            return
        by = {event.id: event for _, event in differing}
        for number, event in differing:
            self.tail.correct(number, event)
            self._corrected[event.id] = event
        for id in list(self._corrected)[:-KEPT_CORRECTIONS]:
            del self._corrected[id]
        self._loaded = {sink: members_corrected(loaded, by) for sink, loaded in self._loaded.items()}
        for queue in self.queues.values():
            queue.correct(by)

    def release(self, sink: str) -> None:
        """Write what an attached sink leaves, before it is attached anew or detached."""
        if (queue := self.queues.get(sink)) is not None:
            self._engine.write(queue.close())
        self._loaded.pop(sink, None)

    def forget(self, sink: str) -> None:
        """The sink is not attached any more."""
        self.release(sink)
        del self.queues[sink]

    def floor(self) -> int:
        """The number below which every attached sink has settled everything."""
        return min((queue.position for queue in self.queues.values()), default=self.head)

    async def claim(self, sink: str, limit: int, linger: float) -> Batch:
        """See `Spool.claim`."""
        queue = self.queues[sink]
        waited = False
        while True:
            queue.wakeup.clear()
            if (batch := queue.take_retry()) is not None:
                return batch
            fresh = queue.next < self.head and queue.may_take_fresh()
            if not fresh and not queue.ready:
                await _rung(queue, queue.seconds_to_retry())
            elif linger > 0 and not waited and self._at_hand(queue) < limit:
                waited = await self._fill(queue, limit, linger)
            else:
                more = fresh and queue.ready < limit
                log = await self._members(queue, queue.ahead(limit)) if more else []
                if (batch := queue.take_fresh(log, limit)) is not None:
                    return batch

    def _at_hand(self, queue: SinkQueue) -> int:
        return queue.ready + self.head - queue.next

    def close(self) -> None:
        """Write what an orderly stop should not forget."""
        for queue in self.queues.values():
            self._engine.write(queue.close())

    async def _fill(self, queue: SinkQueue, limit: int, linger: float) -> bool:
        try:
            async with asyncio.timeout(linger):
                while self._at_hand(queue) < limit:
                    queue.wakeup.clear()
                    await queue.wakeup.wait()
        except TimeoutError:
            pass
        return True

    async def _members(self, queue: SinkQueue, limit: int) -> list[Member]:
        start = queue.next
        if (members := self.tail.members(start, limit)) is not None:
            self._loaded.pop(queue.sink, None)
            return members
        loaded = self._loaded.pop(queue.sink, [])
        if not loaded or not loaded[0][0] <= start <= loaded[-1][0]:
            loaded = members_corrected(await self._engine.load(start), self._corrected)
            if queue.next != start:  # another claim took them while we read
                self._loaded[queue.sink] = loaded
                return []
            if not loaded:  # pruned while this sink was away
                queue.next = self.head
                return []
        self._loaded[queue.sink] = loaded  # also the last of it, which may not be taken whole
        place = bisect_left(loaded, start, key=_number)
        return loaded[place : place + limit]

    async def settle(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """See `Spool.settle`."""
        self._engine.write(self.queues[batch.sink].settle(batch, outcomes))

    async def split(self, batch: Batch) -> tuple[Batch, ...]:
        """See `Spool.split`."""
        halves, changes = self.queues[batch.sink].split(batch)
        self._engine.write(changes)
        return halves


async def _rung(queue: SinkQueue, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await queue.wakeup.wait()
    except TimeoutError:
        pass


def _number(member: Member) -> int:
    return member[0]
