"""Claiming and settling as every engine does it: which events a sink gets next, and what a settlement changes.

A dispatcher writes nothing. Whatever an engine has to make durable is returned as `Changes`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from poller.core.model import Batch, Event, Outcome
from poller.core.selection import Numbered
from poller.spools.sink_queue import Changes, SinkQueue
from poller.spools.tail import Chunk, Tail, cut
from poller.spools.waiting import Waiting, correct_batch, correct_chunks, correct_members

KEPT_CORRECTIONS = 1_000


Load = Callable[[int], Awaitable[list[Chunk]]]
"""Some events of the log from this number on, in order; empty only when the log holds none of them."""


Extend = Callable[[SinkQueue, int], Awaitable[None]]
"""Take a share for a batch of up to this number of events, if there is one. Returns in either case."""


async def no_shares(queue: SinkQueue, limit: int) -> None:
    """What `Extend` is where queues take all of the log."""


class Dispatcher:
    """The queues of all attached sinks over one log. `head` is the number that the next event gets.

    `load` reads events that are not in memory any more. `extend` takes a share for a queue that wants one.
    """

    def __init__(self, load: Load, tail: Tail, extend: Extend = no_shares) -> None:
        self.head = 1
        self.tail = tail
        self.queues: dict[str, SinkQueue] = {}
        self.proven = asyncio.Event()
        """While it is not set, nothing is handed out. An engine with a lease puts its own here."""
        self.proven.set()
        self._load = load
        self._extend = extend
        self._loaded: dict[str, list[Chunk]] = {}
        self._grown = asyncio.Event()
        self._corrected: dict[str, Event] = {}
        """The latest corrections: `load` may just be reading what they correct."""

    def publish(self, chunk: Chunk) -> None:
        """Hand fresh events to the couriers. The events are durable already."""
        self.tail.push(chunk)
        self.head = max(self.head, chunk.end)
        self._grown.set()
        self._grown = asyncio.Event()
        for queue in self.queues.values():
            queue.wakeup.set()

    async def wait_beyond(self, number: int) -> None:
        """See `SpoolHistory.wait_beyond`."""
        while self.head <= number:
            await self._grown.wait()

    def correct(self, known: Sequence[Numbered]) -> None:
        """Correct events wherever they are still to be delivered.

        A corrected event that is in hand and fails is tried again, even if its URL was right: it may have
        been announced too early.
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
        self._loaded = {sink: correct_chunks(loaded, by) for sink, loaded in self._loaded.items()}
        for queue in self.queues.values():
            queue.correct(by)

    def correct_members(self, members: list[Numbered]) -> list[Numbered]:
        """Members that were just read, with corrections that came in meanwhile."""
        return correct_members(members, self._corrected)

    def correct_waiting(self, waiting: Waiting) -> Waiting:
        """A waiting batch that was just read, with corrections that came in meanwhile."""
        return correct_batch(waiting, self._corrected)

    def release(self, sink: str) -> list[Changes]:
        """What to write before a sink is attached again with other settings; its queue holds its events until then."""
        self._loaded.pop(sink, None)
        return [queue.close()] if (queue := self.queues.get(sink)) is not None else []

    def forget(self, sink: str) -> list[Changes]:
        """Detach a sink."""
        changes = self.release(sink)
        del self.queues[sink]
        return changes

    def floor(self) -> int:
        """The number below which every attached sink has settled everything."""
        return min((queue.position for queue in self.queues.values()), default=self.head)

    async def claim(self, sink: str, limit: int, linger: float) -> Batch:
        """See `Spool.claim`."""
        queue = self.queues[sink]
        waited = False
        while True:
            queue.wakeup.clear()
            await self.proven.wait()
            if (batch := queue.take_retry()) is not None:
                return batch
            fresh = self._has_fresh(queue, limit)
            if not fresh and not queue.ready:
                if (batch := queue.take_replayed(limit)) is not None:
                    return batch
                await _rung(queue, queue.seconds_to_claim())
            elif linger > 0 and not waited and queue.at_hand(self.head) < limit:
                waited = await self._fill(queue, limit, linger)
            else:
                log = await self._fresh(queue, limit) if fresh and queue.ready < limit else []
                if self.proven.is_set() and (batch := queue.take_fresh(log, limit)) is not None:
                    return batch

    def _has_fresh(self, queue: SinkQueue, limit: int) -> bool:
        known = queue.next < queue.end(self.head) or queue.wants_share(self.head, limit)
        return known and queue.may_take_fresh()

    async def _fresh(self, queue: SinkQueue, limit: int) -> list[Chunk]:
        """Some of the log that the queue has not taken; empty if there is nothing for it now."""
        if queue.wants_share(self.head, limit):
            await self._extend(queue, limit)
        return await self._stretch(queue, queue.ahead(limit)) if queue.next < queue.end(self.head) else []

    def close(self) -> list[Changes]:
        """Close all queues, at an orderly stop."""
        return [queue.close() for queue in self.queues.values()]

    async def _fill(self, queue: SinkQueue, limit: int, linger: float) -> bool:
        try:
            async with asyncio.timeout(linger):
                while queue.at_hand(self.head) < limit:
                    queue.wakeup.clear()
                    await queue.wakeup.wait()
        except TimeoutError:
            pass
        return True

    async def _stretch(self, queue: SinkQueue, limit: int) -> list[Chunk]:
        start = queue.next
        if (stretch := self.tail.stretch(start, limit)) is not None:
            self._loaded.pop(queue.key, None)
            return stretch
        loaded = self._loaded.pop(queue.key, [])
        if not loaded or not loaded[0].first <= start < loaded[-1].end:
            loaded = correct_chunks(await self._load(start), self._corrected)
            if queue.next != start:  # another claim took them while we read
                self._loaded[queue.key] = loaded
                return []
            if not loaded:  # pruned while this sink was away
                queue.skip_to_end(self.head)
                return []
        self._loaded[queue.key] = loaded  # kept to its last event: the queue may not take all
        return cut(loaded, start, limit)

    def settle(self, key: str, batch: Batch, outcomes: Sequence[Outcome]) -> Changes:
        """See `Spool.settle`. `key` names the queue that gave the batch out."""
        return self.queues[key].settle(batch, outcomes)

    def split(self, key: str, batch: Batch) -> tuple[tuple[Batch, ...], Changes]:
        """See `Spool.split`."""
        return self.queues[key].split(batch)


async def _rung(queue: SinkQueue, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await queue.wakeup.wait()
    except TimeoutError:
        pass
