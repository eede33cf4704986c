"""Replays as every engine runs them. The engine writes each change (`ReplayChange`) in one transaction."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Final

import msgspec

from poller.core.history import Replay, ReplayState
from poller.core.model import Event, unchanged
from poller.core.replays import MOST_REPLAYED, OPEN, NoSuchReplay, ReplayPlan, Replays
from poller.core.selection import Numbered, Scan, Selection
from poller.core.spool import Wants
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.spools.dispatcher import Dispatcher
from poller.spools.sink_queue import Changes, SinkQueue
from poller.spools.waiting import Waiting, waits_for_replay

MOST = MOST_REPLAYED
PIECE = 250
"""The most events that one transaction queues."""
STEPS = 50
"""The most steps of a scan before the place is written."""
KEPT_FINISHED: Final = 100


class ReplayChange(msgspec.Struct, frozen=True, kw_only=True):
    """What to write in one transaction.

    replay:   the replay as it is now
    put:      events to queue
    left_out: the ids that are not sent, for a new replay
    drop:     whether all waiting events of the sink's replays are deleted
    """

    replay: Replay
    put: tuple[Waiting, ...] = ()
    left_out: frozenset[str] | None = None
    drop: bool = False


class SpoolReplays(Replays):
    """The replays of one spool. All changes are made one after the other.

    `scan` and `number_at` are those of the engine, `dead_ids` gives the ids of a sink's dead letters, `count_waiting`
    counts the replayed events that wait for a sink that is not attached, and `keep` takes changes of a queue to be
    written.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        clock: Clock,
        *,
        scan: Callable[[Selection, int | None, int], Awaitable[Scan]],
        number_at: Callable[[datetime], Awaitable[int]],
        dead_ids: Callable[[str], Awaitable[frozenset[str]]],
        count_waiting: Callable[[str], Awaitable[int]],
        write: Callable[[ReplayChange], Awaitable[None]],
        keep: Callable[[Changes], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._scan = scan
        self._number_at = number_at
        self._dead_ids = dead_ids
        self._count_waiting = count_waiting
        self._write = write
        self._keep = keep
        self._all: dict[int, Replay] = {}
        self._left_out: dict[int, frozenset[str]] = {}
        self._kept: Counter[int] = Counter()
        self._turn = asyncio.Lock()
        self._bell = asyncio.Event()

    # ------------------------------------------------------------ for the engine

    def load(self, stored: Iterable[tuple[Replay, frozenset[str]]]) -> None:
        """Take over the replays of an earlier process."""
        for replay, left_out in stored:
            self._all[replay.number] = replay
            if replay.state in OPEN:
                self._left_out[replay.number] = left_out

    @asynccontextmanager
    async def attaching(self, sink: str) -> AsyncIterator[None]:
        """While a sink is attached, no replay changes. Its new queue then goes on with the replay."""
        async with self._turn:
            yield
            self.join(sink)

    def floor(self) -> int:
        """The number from which on events are needed; the next number of the log if none is."""
        needed = [replay.at for replay in self._open() if replay.sink in self._dispatcher.queues]
        return min([*needed, *self._kept], default=self._dispatcher.head)

    def join(self, sink: str) -> None:
        """Let the queues of a sink, which may be new, go on with the replay."""
        replay = self._current(sink)
        for queue in self._dispatcher.queues.values():
            if queue.sink == sink:
                queue.replayed.settled = self._bell
                queue.replayed.held = replay is not None and replay.state is ReplayState.PAUSED
                queue.wakeup.set()
        self._bell.set()

    def _open(self) -> Iterator[Replay]:
        return (replay for replay in self._all.values() if replay.state in OPEN)

    def _current(self, sink: str) -> Replay | None:
        """The one replay of a sink that may have events queued."""
        return next((replay for replay in self._open() if replay.sink == sink), None)

    # ------------------------------------------------------------ ordering

    async def plan(self, sink: str, chosen: Selection, below: int | None = None) -> ReplayPlan:
        """See `Replays.plan`."""
        first = 1 if chosen.since is None else await self._number_at(chosen.since)
        dead = await self._dead_ids(sink)
        queue = self._dispatcher.queues[
            sink
        ]  # from here on without waiting: position and waiting events belong together
        until = queue.position if below is None else min(below, queue.position)
        return ReplayPlan(
            sink=sink,
            chosen=chosen,
            at=min(first, until),
            until=until,
            wants=queue.wants,
            pending=frozenset(event.id for event in queue.pending()),
            dead=dead,
        )

    @contextmanager
    def keep(self, planned: ReplayPlan) -> Iterator[None]:
        """See `Replays.keep`."""
        self._kept[planned.at] += 1
        try:
            yield
        finally:
            self._kept[planned.at] -= 1
            self._kept += Counter()  # without zeros

    async def order(self, planned: ReplayPlan, total: int, left_out: frozenset[str]) -> Replay:
        """See `Replays.order`."""
        async with self._turn:
            replay = Replay(
                number=await self._next_number(),
                sink=planned.sink,
                chosen=planned.chosen,
                at=planned.at,
                until=planned.until,
                asked_at=self._clock.now(),
                total=total,
                queued=0,
                state=ReplayState.RUNNING,
            )
            await self._write(ReplayChange(replay=replay, left_out=left_out))
            self._left_out[replay.number] = left_out
            self._note(replay)
        return replay

    async def _next_number(self) -> int:
        return max(self._all, default=0) + 1

    def _note(self, replay: Replay) -> None:
        """Take over a change that was written."""
        self._all[replay.number] = replay
        if replay.state not in OPEN:
            self._left_out.pop(replay.number, None)
            finished = [number for number, one in self._all.items() if one.state not in OPEN]
            for number in sorted(finished)[:-KEPT_FINISHED]:
                del self._all[number]
        self.join(replay.sink)

    async def change(self, number: int, state: ReplayState) -> Replay:
        """See `Replays.change`."""
        async with self._turn:
            replay = self._all.get(number)
            if replay is None or replay.state not in OPEN:
                raise NoSuchReplay(f"there is no open replay {number}")
            current = self._current(replay.sink) == replay
            replay = msgspec.structs.replace(replay, state=state)
            queue = self._dispatcher.queues.get(replay.sink)
            if state is ReplayState.CANCELLED and current and queue is not None:
                return await self._cancel(replay, queue)
            drop = state is ReplayState.CANCELLED and current
            if drop:
                replay = unqueue(replay, await self._count_waiting(replay.sink))
            await self._write(ReplayChange(replay=replay, drop=drop))
            self._note(replay)
        return replay

    async def _cancel(self, replay: Replay, queue: SinkQueue) -> Replay:
        """Drop what waits of a replay. It then counts as never queued, because the sink does not get it."""
        queue.replayed.held = True  # until `join`: nothing that was counted is handed out meanwhile
        try:
            replay = unqueue(replay, queue.replayed.waiting)
            await self._write(ReplayChange(replay=replay, drop=True))
            self._keep(queue.cancel_replay())
            self._note(replay)
        finally:
            self.join(replay.sink)
        return replay

    # ------------------------------------------------------------ queueing

    async def ready(self) -> None:
        """See `Replays.ready`."""
        while not self._has_any_work():
            self._bell.clear()
            await self._bell.wait()

    def _has_any_work(self) -> bool:
        return any(self._has_work(sink, queue) for sink, queue in self._dispatcher.queues.items())

    def _leads(self, sink: str) -> bool:
        """Whether this process queues the replayed events of a sink."""
        return True

    def _has_work(self, sink: str, queue: SinkQueue) -> bool:
        replay = self._current(sink)
        if not self._leads(sink) or replay is None or replay.state is not ReplayState.RUNNING:
            return False
        if replay.at < replay.until and replay.queued:
            return queue.replayed.events + PIECE <= MOST
        return queue.replayed.events == 0  # of an earlier replay, or the last ones of this

    async def fill(self, sink: str, rebuild: Callable[[Event], Event] = unchanged) -> Replay | None:
        """See `Replays.fill`."""
        async with self._turn:
            queue, replay = self._dispatcher.queues.get(sink), self._current(sink)
            if queue is None or replay is None or not self._has_work(sink, queue):
                return None
            if replay.at >= replay.until:
                return await self._finish(replay)
            for waiting in await self._queue_piece(replay, queue.wants, rebuild):
                queue.requeue(waiting)
            self.join(sink)
        return None

    async def _finish(self, replay: Replay) -> Replay:
        replay = msgspec.structs.replace(replay, state=ReplayState.DONE)
        await self._write(ReplayChange(replay=replay))
        self._note(replay)
        return replay

    async def _queue_piece(
        self, replay: Replay, wants: Wants, rebuild: Callable[[Event], Event]
    ) -> tuple[Waiting, ...]:
        """Write the next piece of a replay."""
        members, at = await self._piece(replay, wants)
        now = self._clock.now()
        put = tuple(waits_for_replay(number, rebuild(event), now) for number, event in members)
        replay = msgspec.structs.replace(replay, at=at, queued=replay.queued + len(put))
        await self._write(ReplayChange(replay=replay, put=put))
        reached("replay.queued")
        self._note(replay)
        return put

    async def _piece(self, replay: Replay, wants: Wants) -> tuple[list[Numbered], int]:
        """Some events to send, and the number of the next event to look at."""
        found: list[Numbered] = []
        start: int | None = replay.at
        left_out = self._left_out[replay.number]
        for _ in range(STEPS):
            step = await self._scan(replay.chosen, start, PIECE - len(found))
            found += [
                (number, event)
                for number, event in step.found
                if number < replay.until and wants(event) and event.id not in left_out
            ]
            start = step.following
            if start is None or start >= replay.until:
                return self._dispatcher.correct_members(found), replay.until
            if len(found) == PIECE:
                break
        return self._dispatcher.correct_members(found), start or replay.until

    # ------------------------------------------------------------ looking

    def all(self) -> list[Replay]:
        """See `Replays.all`."""
        return sorted(self._all.values(), key=lambda replay: replay.number)

    def unsettled(self, replay: Replay) -> int | None:
        """See `Replays.unsettled`."""
        if self._current(replay.sink) != replay or not replay.queued:
            return 0
        queue = self._dispatcher.queues.get(replay.sink)
        return None if queue is None else min(queue.replayed.events, replay.queued)


def unqueue(replay: Replay, count: int) -> Replay:
    """The replay without events that wait and are dropped."""
    return msgspec.structs.replace(replay, queued=replay.queued - min(count, replay.queued))
