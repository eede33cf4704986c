"""The sinks that this daemon serves: their queues, and what it takes from the database for them.

Invariants
    What a job takes reaches a queue, also when the claim that asked for it was cancelled. A queue that is left has
    written its changes first; then all that it held is free.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, Final

import msgspec
import structlog

from poller.core.errors import StorageError, StorageFull
from poller.core.model import Batch, Retry
from poller.core.spool import Wants
from poller.runtime.clock import Clock
from poller.spools.dispatcher import Dispatcher
from poller.spools.lane_claims import LaneClaims
from poller.spools.lanes import key_of, lane_of, wanted_in
from poller.spools.ordered_sink_queue import OrderedSinkQueue
from poller.spools.postgres import duties, serving, shares
from poller.spools.postgres.links import StorageAway
from poller.spools.postgres.membership import Membership
from poller.spools.postgres.modes import Mode
from poller.spools.postgres.transactions import Transactions
from poller.spools.share_queue import ShareQueue
from poller.spools.sink_queue import Changes, SinkQueue
from poller.spools.waiting import Waiting

log = structlog.get_logger("spool")

TRY_AGAIN: Final = 0.5


class Served(msgspec.Struct):
    """A sink that is attached. `admitted` is set while this daemon may serve it."""

    wants: Wants
    mode: Mode
    replays: int
    lanes: LaneClaims
    asked: bool = False
    """Whether there was a claim. A command attaches sinks too, and claims nothing."""
    admitted: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    waits_for: str = ""
    """Why it is not admitted: other daemons serve the sink in another way."""
    taken: set[str] = msgspec.field(default_factory=set)
    """The names of the queues that the database may have given to this daemon."""
    retries_now: bool = False
    """Whether retries that come with the next queues are due at once."""


class ServedSinks:
    """Serves sinks with the queues of a dispatcher.

    `keep` takes changes to be written, `flush` writes them, and `joined` is called with each sink that has a new queue.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        claims: Transactions,
        membership: Membership,
        clock: Clock,
        *,
        keep: Callable[..., None],
        flush: Callable[[], Awaitable[None]],
        joined: Callable[[str], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._claims = claims
        self._membership = membership
        self._clock = clock
        self._keep = keep
        self._flush = flush
        self._joined = joined
        self._served: dict[str, Served] = {}
        self._turn = asyncio.Lock()
        self._taking: dict[SinkQueue, asyncio.Lock] = {}
        self._closing: dict[str, str] = {}
        """The lanes that are given up once no batch of them is in hand, with their sinks."""
        self._advanced: dict[SinkQueue, Changes] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __contains__(self, sink: object) -> bool:
        """Whether a sink is attached."""
        return sink in self._served

    def wants(self, sink: str) -> Wants:
        """The filter of an attached sink. Raises `StorageFull` if the sink is not attached, as amid a reload."""
        if sink not in self._served:
            raise StorageFull(f"the sink {sink} is not attached now, as amid a reload: try again")
        return self._served[sink].wants

    def waits_for(self, sink: str) -> str:
        """See `Shared.waits_for`."""
        return self._served[sink].waits_for if sink in self._served else ""

    def is_divided(self, sink: str) -> bool:
        """Whether an attached sink has lanes."""
        return sink in self._served and self._served[sink].mode.lanes > 1

    def key_of(self, batch: Batch) -> str:
        """The name of the queue that gave a batch out."""
        if not self.is_divided(batch.sink):
            return batch.sink
        return self.queue_of(batch.sink, batch.events[0].stream)

    def queue_of(self, sink: str, stream: tuple[str, str] | None) -> str:
        """The name of the queue that has the events of a stream."""
        if not self.is_divided(sink):
            return sink
        return key_of(sink, lane_of(stream, self._served[sink].mode.lanes))

    # ------------------------------------------------------------ attaching

    async def attach(
        self, sink: str, wants: Wants, mode: Mode, *, start: datetime | None, replays: int
    ) -> None:
        """Make a sink known. It is served from the first claim on."""
        await self._leave(sink)
        async with self._turn:
            self._served[sink] = Served(wants, mode, replays, LaneClaims(self._dispatcher.claim))
            await self._claims.submit(
                lambda claims: serving.attach(claims.connection, claims.session, sink, mode, start)
            )

    async def claim(self, sink: str, limit: int, linger: float) -> Batch:
        """Claim a batch, as soon as this daemon may serve the sink."""
        served = self._served[sink]
        if not served.asked:
            served.asked = True
            if not (served.mode.ordered and served.mode.lanes == 1):
                self._membership.want(duties.of_replays(sink))
            await self._finish(self._insist(lambda: self.enter(sink)))
        while not (served.admitted.is_set() and self._membership.proven.is_set()):
            await served.admitted.wait()
            await self._membership.proven.wait()
        if served.mode.lanes > 1:
            return await served.lanes.claim(limit, linger)
        return await self._dispatcher.claim(sink, limit, linger)

    async def enter(self, sink: str) -> None:
        """Serve a sink that was asked for, as far as other daemons leave something to serve."""
        async with self._turn:
            served = self._served.get(sink)
            if served is None or not served.asked or (served.admitted.is_set() and served.mode.lanes == 1):
                return
            admitted = await self._claims.submit(
                lambda claims: serving.admit(claims.connection, claims.session, sink, served.mode)
            )
            self._note_wait(sink, served, admitted.after)
            if not admitted.sessions:
                return
            if served.mode.lanes == 1:
                if not await self._enter(sink, sink, served, None):
                    return
                served.admitted.set()
            else:
                served.admitted.set()
                await self._balance(sink, served, math.ceil(served.mode.lanes / admitted.sessions))
            served.retries_now = False

    @staticmethod
    def _note_wait(sink: str, served: Served, after: Sequence[int]) -> None:
        """Say once in the log that the sink waits until the daemons `after` serve it as this one does."""
        before, served.waits_for = served.waits_for, ""
        if after:
            who = (
                f"daemon {after[0]} has" if len(after) == 1 else f"daemons {', '.join(map(str, after))} have"
            )
            served.waits_for = f"waits until {who} {served.mode.setting}"
        if served.waits_for and not before:
            log.info("sink_waits", sink=sink, reason=served.waits_for)

    async def _close_lane(self, served: Served, key: str) -> None:
        """Claim from a lane no more. What was claimed for nobody is due at once: it would hold the position."""
        if (batch := await served.lanes.close(key)) is not None:
            again = Retry(after=0.0, reason="another daemon takes the lane over", counted=False)
            self._keep(self._dispatcher.settle(key, batch, [again] * len(batch.events)))

    async def _close_lanes(self, served: Served) -> None:
        for key in served.lanes.lanes:
            await self._close_lane(served, key)

    async def _balance(self, sink: str, served: Served, fair: int) -> None:
        """Take lanes that nobody serves, up to a fair part of them, and give up those beyond."""
        for key in served.lanes.lanes[fair:]:
            await self._close_lane(served, key)
            self._closing[key] = sink
        for lane, key in enumerate(served.mode.keys(sink)):
            if len(served.lanes.lanes) >= fair:
                break
            if key in served.lanes.lanes or key in self._closing:
                continue
            # a queue without a lane: it could not be left
            if key in self._dispatcher.queues or await self._enter(sink, key, served, lane):
                served.lanes.open(key)

    async def _enter(self, sink: str, key: str, served: Served, lane: int | None) -> bool:
        served.taken.add(key)
        if served.mode.ordered:
            await self._membership.keep(duties.of_sink(key))
        entered = await self._claims.submit(
            lambda claims: serving.enter(claims.connection, claims.session, key, served.mode)
        )
        if entered is not None:
            queue = self._dispatcher.queues[key] = self._queue(sink, served, entered, lane)
            if served.retries_now:
                queue.retry_now()
            self._joined(sink)
        return entered is not None

    def _queue(self, sink: str, served: Served, entered: serving.Entered, lane: int | None) -> SinkQueue:
        wants, clock = served.wants, self._clock
        waiting = [self._dispatcher.correct_waiting(one) for one in entered.waiting]
        if not served.mode.ordered:
            return ShareQueue(sink, wants, entered.position, waiting, clock, replays=served.replays)
        if lane is not None:
            wants = wanted_in(lane, served.mode.lanes, wants)
        return OrderedSinkQueue(
            sink,
            wants,
            entered.position,
            waiting,
            clock,
            since=entered.since or 0,
            dead_ahead=entered.ahead,
            replays=served.replays,
            lane=lane,
        )

    async def _leave(self, sink: str) -> None:
        """Give up the queues of a sink, and what they hold."""
        async with self._turn:
            if (served := self._served.get(sink)) is None:
                return
            await self._leave_queues(served)
            del self._served[sink]  # not before: where the database was away, leaving is repeated
        await self._membership.give_up(duties.of_replays(sink))

    async def _leave_queues(self, served: Served) -> None:
        served.admitted.clear()
        served.asked = False
        await self._close_lanes(served)
        for key in list(served.taken):
            await self._leave_queue(key, served)

    async def _leave_queue(self, key: str, served: Served) -> None:
        if (queue := self._dispatcher.queues.get(key)) is not None:
            self._keep(*self._dispatcher.forget(key))
            self._taking.pop(queue, None)
        await self._flush()
        await self._claims.submit(
            lambda claims: serving.leave(claims.connection, claims.session, key, served.mode)
        )
        self._closing.pop(key, None)
        served.taken.discard(key)

    async def detach(self, sink: str) -> None:
        """Know a sink no more, and hold nothing back for it."""
        await self._leave(sink)
        await self._claims.submit(lambda claims: serving.detach(claims.connection, claims.session, sink))

    async def release(self, sink: str) -> None:
        """Free what is held of a sink. The next claim serves it again."""
        async with self._turn:
            if (served := self._served.get(sink)) is not None:
                await self._leave_queues(served)
                await self._claims.submit(
                    lambda claims: serving.rest(claims.connection, claims.session, sink)
                )
        await self._membership.give_up(duties.of_replays(sink))

    def retry_now(self, sink: str) -> None:
        """Make all retries of a sink due, or those that come with its next queues if it has none here."""
        found = [queue for queue in self._dispatcher.queues.values() if queue.sink == sink]
        for queue in found:
            queue.retry_now()
        if not found and sink in self._served:
            self._served[sink].retries_now = True

    def leads(self, sink: str) -> bool:
        """Whether this daemon queues the replayed events of a sink."""
        in_order = isinstance(self._dispatcher.queues.get(sink), OrderedSinkQueue)
        return in_order or self._membership.holds(duties.of_replays(sink))

    # ------------------------------------------------------------ taking

    async def extend(self, queue: SinkQueue, limit: int) -> None:
        """Take a share for a batch of up to `limit` events."""
        await self._finish(self._insist(lambda: self._extend(queue, limit)))

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Take something. Goes on when who asks is cancelled: what was taken has to reach a queue."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        await asyncio.shield(task)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who was cancelled does not hear of it; the next one will

    async def _extend(self, queue: SinkQueue, limit: int) -> None:
        assert isinstance(queue, ShareQueue)
        await self._membership.proven.wait()
        async with self._taking.setdefault(queue, asyncio.Lock()):
            if not queue.wants_share(self._dispatcher.head, limit):
                return
            left = queue.end(0) - queue.next
            terms = shares.Wanted(
                sink=queue.sink, current=queue.current, left=left, most=max(shares.SHARE, limit)
            )
            if self._dispatcher.queues.get(queue.key) is not queue:
                return
            taken = await self._claims.submit(
                lambda claims: shares.take(claims.connection, claims.session, terms)
            )
            self._take_over(queue, taken, left)

    def _take_over(self, queue: ShareQueue, taken: shares.Taken, left: int) -> None:
        if self._dispatcher.queues.get(queue.key) is not queue:
            return  # it was left meanwhile: what was taken is free
        queue.cursor = taken.cursor
        if taken.share is None:
            queue.freed = queue.freed and left > 0
        elif queue.current is not None and taken.share.id == queue.current.id:
            queue.grow(taken.share.upto, taken.skip)
        else:
            queue.add(taken.share, taken.skip)
        self._keep(queue.advance())

    @staticmethod
    async def _insist(work: Callable[[], Awaitable[None]]) -> None:
        """Do something as soon as the database answers."""
        while True:
            try:
                return await work()
            except StorageAway:
                await asyncio.sleep(TRY_AGAIN)

    async def adopt(self, sinks: Iterable[str]) -> None:
        """Take waiting batches of these sinks that nobody holds."""
        await self._finish(self._adopt_all(sinks))

    async def _adopt_all(self, sinks: Iterable[str]) -> None:
        for sink in sinks:
            async with self._turn:
                if (queue := self._dispatcher.queues.get(sink)) is None:
                    continue
                room = None if isinstance(queue, OrderedSinkQueue) else queue.room_to_retry()
                for waiting in await self._claims.submit(partial(_adopt, sink, room)):
                    queue.adopt(self._dispatcher.correct_waiting(waiting))

    async def all_taken(self, sink: str) -> None:
        """Wait until what is being taken for a sink has reached its queue: until then nobody counts it."""
        async with self._turn:
            queue = self._dispatcher.queues.get(sink)
        if queue is not None and (taking := self._taking.get(queue)) is not None:
            async with taking:
                pass

    def look_for_freed(self, sinks: Iterable[str]) -> None:
        """Let the next claims look for shares that nobody holds."""
        for sink in sinks:
            if isinstance(queue := self._dispatcher.queues.get(sink), ShareQueue):
                queue.freed = True
                queue.wakeup.set()

    async def enter_more(self) -> None:
        """Serve what could not be served before, and see to a fair division of lanes."""
        for sink in list(self._served):
            await self.enter(sink)
        for key in list(self._closing):
            async with self._turn:
                if key in self._closing and self._is_idle(key):
                    await self._leave_queue(key, self._served[self._closing[key]])

    def _is_idle(self, key: str) -> bool:
        queue = self._dispatcher.queues.get(key)
        return queue is None or queue.idle

    def advances(self) -> list[Changes]:
        """How far each queue is served here, as far as that is new. A queue may pass events that its sink does not
        want, without a settlement."""
        found = {queue: queue.advance() for queue in self._dispatcher.queues.values()}
        news = [changes for queue, changes in found.items() if changes != self._advanced.get(queue)]
        self._advanced = found
        return news

    async def end(self) -> None:
        """Claim from no lane any more, and wait for what is being taken, at an orderly stop."""
        with suppress(StorageError):
            for served in self._served.values():
                await self._close_lanes(served)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=TRY_AGAIN)
        for task in self._tasks:
            task.cancel()


async def _adopt(sink: str, room: int | None, claims: Transactions) -> list[Waiting]:
    await claims.connection.execute("SELECT 1 FROM sink WHERE name = $1 FOR UPDATE", sink)
    return await serving.adopt(claims.connection, claims.session, sink, room)
