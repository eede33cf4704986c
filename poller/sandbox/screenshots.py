"""Screenshots: every live push is photographed at every multiple of the interval of the absolute clock."""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

from poller.sandbox.cos.store import Pictures
from poller.sandbox.live import LivePush
from poller.sandbox.media.cutting import NoPicture, Picture, cut
from poller.sandbox.media.footage import Footage
from poller.sandbox.names import Shot, path_of
from poller.sandbox.options import Naming
from poller.sandbox.query.answers import Said
from poller.sandbox.query.queues import Platform

LOOK = 1.0
"""Seconds between two looks at the clock, at most."""
log = logging.getLogger("poller.sandbox")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When pictures are taken, how wide they are and how they are named. `interval` is in seconds."""

    interval: float
    width: int
    naming: Naming

    def look(self, now: float, last: int) -> tuple[int, bool]:
        """The number of the newest tick to go on from, and whether its pictures are to be taken now.

        Ticks that were missed are gone. A clock that was set back by more than an interval is followed.
        """
        number = math.floor(now / self.interval)
        if number < last - 1:
            return number, False
        return max(number, last), number > last

    def tick(self, number: int) -> float:
        """The moment of a tick: a multiple of the interval, as an epoch."""
        return number * self.interval

    def shot(self, stream_id: str, push: int, tick: float, height: int) -> Shot:
        """The facts about a picture, with times in whole seconds."""
        at = math.floor(tick + 0.001)  # a multiple of a fraction may fall a little short of its second
        # Below a second (which only tests use) the task start is moved, so that no two names are the same; the
        # moment of a shot is told by push and offset.
        part = round((tick - at) / self.interval) if self.interval < 1 else 0
        return Shot(stream_id=stream_id, push=push, task=push + part, at=at, width=self.width, height=height)


class Screenshots:
    """Takes the pictures; one thread decodes for all pushes, in the order of the ticks."""

    def __init__(
        self,
        platform: Platform,
        pictures: Pictures,
        rules: Rules,
        pushes: Callable[[], list[LivePush]],
        *,
        pictured: Callable[[LivePush, Shot, str, int], Callable[[], None]] = lambda *picture: lambda: None,
        group: asyncio.TaskGroup,
        worker: Executor,
    ) -> None:
        """`pictured` gets a picture's path and size. Its result is called when the picture can be fetched."""
        self.failed = 0
        self.skipped = 0
        self.worst = 0.0
        """The longest that a picture was cut after its tick, in seconds."""
        self._platform = platform
        self._pictures = pictures
        self._rules = rules
        self._pushes = pushes
        self._pictured = pictured
        self._group = group
        self._worker = worker
        self._last = math.floor(time.time() / rules.interval)
        self._busy: set[LivePush] = set()

    @property
    def interval(self) -> float:
        """Seconds between two pictures of a stream."""
        return self._rules.interval

    @interval.setter
    def interval(self, seconds: float) -> None:
        self._rules = replace(self._rules, interval=seconds)
        self._last = math.floor(time.time() / seconds)

    async def run(self) -> None:
        while True:
            await self.step()

    async def step(self) -> None:
        """Begins a picture of every push if a tick has come, else waits for one, a second at most."""
        self._last, due = self._rules.look(time.time(), self._last)
        if due:
            for push in self._pushes():
                self._begin(push, self._rules.tick(self._last))
        else:
            left = self._rules.tick(self._last + 1) - time.time()
            await asyncio.sleep(min(max(0.0, left), LOOK))  # in parts, because the clock may be set meanwhile

    def state(self) -> dict[str, object]:
        return {"failed": self.failed, "skipped": self.skipped, "worst": round(self.worst, 3)}

    def _begin(self, push: LivePush, tick: float) -> None:
        footage = push.latest.footage()
        if footage is None:
            return
        if push in self._busy:  # its last picture is not cut yet: the machine is too slow for this
            self.skipped += 1
            return
        self._busy.add(push)
        self._group.create_task(self._take(push, tick, footage))

    async def _take(self, push: LivePush, tick: float, footage: Footage) -> None:
        work = partial(cut, footage, self._rules.width)
        try:
            picture = await asyncio.get_running_loop().run_in_executor(self._worker, work)
            self._publish(push, tick, picture)
        except (NoPicture, OSError, sqlite3.OperationalError) as error:
            self.failed += 1
            if not push.troubled:
                push.troubled = True
                log.warning("no picture of %s: %s", push.stream_id, error)
        else:
            push.troubled = False
        finally:
            self._busy.discard(push)

    def _publish(self, push: LivePush, tick: float, picture: Picture) -> None:
        """Begins the upload and enqueues the message. The picture can be fetched when the upload has ended."""
        self.worst = max(self.worst, time.time() - tick)
        shot = self._rules.shot(push.stream_id, push.push, tick, picture.height)
        path = path_of(shot, self._rules.naming)
        spent = time.time() - tick
        # The upload is on record first: a message that is out has its picture, whatever happens next.
        arrived = self._pictured(push, shot, path, len(picture.jpeg))
        self._pictures.upload(push.customer.host_label, path, picture.jpeg, spent=spent, arrived=arrived)
        queue = self._platform.queue(push.customer.app_id)
        queue.enqueue([Said(stream_id=push.stream_id, path=path, create_time=shot.at)])
        push.pictures += 1
        self._platform.wakeup.ring()
