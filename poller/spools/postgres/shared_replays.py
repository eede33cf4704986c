"""Replays where several daemons share the spool.

The daemon that leads a sink queues its replayed events (`duties.of_replays`). Orders come to any daemon. Each change is
written only if the replay is as its daemon knew it; else that daemon reads the replays again first.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from poller.core.history import Replay, ReplayState
from poller.core.model import Event, unchanged
from poller.core.replays import ReplayPlan
from poller.core.selection import Selection
from poller.spools.postgres.replays import Overtaken
from poller.spools.postgres.served_sinks import ServedSinks
from poller.spools.replays import MOST, PIECE, ReplayChange, SpoolReplays, unqueue
from poller.spools.sink_queue import SinkQueue

LOOK_AGAIN: Final = 0.5

Stored = list[tuple[Replay, frozenset[str]]]
Unsettled = tuple[int, frozenset[str]]
"""The number up to which a sink is served at all daemons, and the ids of the events that wait for it."""


class SharedReplays(SpoolReplays):
    """The replays of one daemon.

    `read` reads all replays, `next_number` gives the number of a new one, and `served` reads how far a sink is served.
    """

    sinks: ServedSinks

    def __init__(
        self,
        *arguments: Any,
        read: Callable[[], Awaitable[Stored]],
        next_number: Callable[[], Awaitable[int]],
        served: Callable[[str], Awaitable[Unsettled]],
        **more: Any,
    ) -> None:
        super().__init__(*arguments, **more)
        self._read = read
        self._take_number = next_number
        self._served = served
        self._waiting: dict[str, int] = {}
        """By sink, when it was last counted."""

    def known(self, number: int) -> Replay | None:
        """A replay as this daemon knows it."""
        return self._all.get(number)

    async def refresh(self) -> None:
        """Take over what other daemons have changed."""
        async with self._turn:
            await self._refresh()

    async def _refresh(self) -> None:
        before = {queue.sink: self._current(queue.sink) for queue in self._dispatcher.queues.values()}
        stored = await self._read()
        self._all.clear()
        self._left_out.clear()
        self.load(stored)
        for sink, was in before.items():
            if was is not None and self._is_cancelled(was):
                self._drop(sink)
            self.join(sink)  # at once: nothing of a replay that is seen paused is handed out
        await self.count()

    def _drop(self, sink: str) -> None:
        """Forget the replayed events that wait here."""
        for queue in self._dispatcher.queues.values():
            if queue.sink == sink:
                self._keep(queue.cancel_replay())

    async def count(self) -> None:
        """Count the replayed events that wait at all daemons."""
        self._waiting = {one.sink: await self._count_waiting(one.sink) for one in list(self._open())}

    def _is_cancelled(self, replay: Replay) -> bool:
        now = self._all.get(replay.number)
        return now is None or now.state is ReplayState.CANCELLED

    def _leads(self, sink: str) -> bool:
        return self.sinks.leads(sink)

    async def _next_number(self) -> int:
        return await self._take_number()

    async def plan(self, sink: str, chosen: Selection, below: int | None = None) -> ReplayPlan:
        """See `Replays.plan`."""
        first = 1 if chosen.since is None else await self._number_at(chosen.since)
        dead = await self._dead_ids(sink)
        position, pending = await self._served(sink)
        until = position if below is None else min(below, position)
        return ReplayPlan(
            sink=sink,
            chosen=chosen,
            at=min(first, until),
            until=until,
            wants=self.sinks.wants(sink),
            pending=pending,
            dead=dead,
        )

    async def change(self, number: int, state: ReplayState) -> Replay:
        """See `Replays.change`."""
        while True:
            await self.refresh()
            try:
                changed = await super().change(number, state)
            except Overtaken:
                continue
            if state is ReplayState.CANCELLED and self.sinks.is_divided(changed.sink):
                self._drop(changed.sink)
            return changed

    async def _cancel(self, replay: Replay, queue: SinkQueue) -> Replay:
        queue.replayed.held = True  # until `join`: nothing that was counted is handed out meanwhile
        try:
            in_hand = queue.replayed.events - queue.replayed.waiting
            replay = unqueue(replay, await self._count_waiting(replay.sink) - in_hand)
            await self._write(ReplayChange(replay=replay, drop=True))
            self._keep(queue.cancel_replay())
            self._note(replay)
        finally:
            self.join(replay.sink)
        return replay

    async def fill(self, sink: str, rebuild: Callable[[Event], Event] = unchanged) -> Replay | None:
        """See `Replays.fill`."""
        replay = self._current(sink)
        if replay is None or not self._leads(sink) or replay.state is not ReplayState.RUNNING:
            return None
        waiting = await self._count_waiting(sink)
        is_last = replay.at >= replay.until
        if (is_last and waiting) or (self.sinks.is_divided(sink) and waiting + PIECE > MOST):
            await asyncio.sleep(LOOK_AGAIN)  # other daemons have these events
            return None
        try:
            if self.sinks.is_divided(sink):
                return await self._fill_lanes(replay, rebuild)
            return await super().fill(sink, rebuild)
        except Overtaken:
            await self.refresh()
            return None

    async def _fill_lanes(self, replay: Replay, rebuild: Callable[[Event], Event]) -> Replay | None:
        """Queue a piece for whoever serves the lanes."""
        async with self._turn:
            if self._current(replay.sink) != replay:
                return None
            if replay.at >= replay.until:
                return await self._finish(replay)
            await self._queue_piece(replay, self.sinks.wants(replay.sink), rebuild)
        return None

    def _has_any_work(self) -> bool:
        return super()._has_any_work() or any(
            one.state is ReplayState.RUNNING
            and self._current(one.sink) == one
            and self.sinks.is_divided(one.sink)
            and self._leads(one.sink)
            for one in self._open()
        )

    def unsettled(self, replay: Replay) -> int | None:
        """See `Replays.unsettled`. A daemon that does not lead the sink tells what it has last counted."""
        if self._current(replay.sink) != replay or not replay.queued:
            return 0
        if replay.sink not in self.sinks:
            return None
        if replay.sink in self._dispatcher.queues and self._leads(replay.sink):
            return super().unsettled(replay)
        return min(self._waiting.get(replay.sink, 0), replay.queued)
