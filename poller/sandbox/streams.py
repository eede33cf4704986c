"""Live streams: each is photographed at every multiple of the interval of the absolute clock."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from poller.sandbox.cos.store import Pictures
from poller.sandbox.media.cutting import Video, look_at, picture
from poller.sandbox.names import Shot, path_of
from poller.sandbox.options import BadOption, Naming
from poller.sandbox.query.answers import Said
from poller.sandbox.query.queues import Platform


@dataclass(frozen=True, kw_only=True)
class Screenshots:
    """The rules of taking pictures. `interval` is in seconds."""

    interval: float
    width: int
    naming: Naming

    def next_tick(self, now: float) -> float:
        """The first multiple of the interval that lies after now."""
        return (math.floor(now / self.interval) + 1) * self.interval

    def shot(self, stream_id: str, push: int, tick: float, video: Video) -> Shot:
        # Names tell whole seconds only. Below that interval (which only tests use) the task start is
        # moved, because the moment of a shot is told by push and offset and must stay right.
        part = int((tick - int(tick)) / self.interval + 0.5) if self.interval < 1 else 0
        return Shot(
            stream_id=stream_id,
            push=push,
            task=push + part,
            at=int(tick),
            width=self.width,
            height=video.shot_height(self.width),
        )


class LiveStream:
    """One stream from its push on."""

    def __init__(self, stream_id: str, app_id: int, video: Video, rules: Screenshots, take: Take) -> None:
        self.stream_id = stream_id
        self.app_id = app_id
        self.video = video
        self.push = int(time.time())
        self.pictures = 0
        self._rules = rules
        self._take = take
        self._last = time.time()

    async def run(self) -> None:
        while True:
            await self.step()

    async def step(self) -> None:
        """Waits for the next tick and takes one picture; ticks missed meanwhile are gone."""
        tick = self._rules.next_tick(max(self._last, time.time()))
        while (left := tick - time.time()) > 0:
            await asyncio.sleep(left)
        self._last = tick
        self.pictures += 1
        await self._take(self, tick)


Take = Callable[[LiveStream, float], Awaitable[None]]


class Streams:
    """All live streams of the sandbox; one thread decodes for them."""

    def __init__(
        self,
        platform: Platform,
        pictures: Pictures,
        rules: Screenshots,
        *,
        group: asyncio.TaskGroup,
        worker: Executor,
        source: Callable[[int], Path],
    ) -> None:
        self._platform = platform
        self._pictures = pictures
        self._rules = rules
        self._group = group
        self._worker = worker
        self._source = source
        self._live: dict[str, tuple[LiveStream, asyncio.Task[None]]] = {}
        self._started = 0

    async def start(self, stream_id: str, *, app_id: int | None = None, file: Path | None = None) -> None:
        """Begins a push. Without a file the stream shows the next of the sandbox's own."""
        customer = self._platform.queue(app_id).customer
        if stream_id in self._live:
            raise BadOption(f"{stream_id!r} is live already")
        self._started += 1
        number = self._started
        loop = asyncio.get_running_loop()
        video = await loop.run_in_executor(self._worker, self._video, file, number)
        if stream_id in self._live:
            raise BadOption(f"{stream_id!r} is live already")
        stream = LiveStream(stream_id, customer.app_id, video, self._rules, self._take)
        self._live[stream_id] = (stream, self._group.create_task(stream.run()))

    def stop(self, stream_id: str) -> None:
        """Ends a push; pictures already taken are still uploaded."""
        if stream_id not in self._live:
            raise BadOption(f"{stream_id!r} is not live")
        _, task = self._live.pop(stream_id)
        task.cancel()

    def stop_all(self) -> None:
        for stream_id in list(self._live):
            self.stop(stream_id)

    def state(self) -> list[dict[str, object]]:
        """What is live."""
        return [
            {"stream_id": one.stream_id, "customer": one.app_id, "push": one.push, "pictures": one.pictures}
            for one, _ in self._live.values()
        ]

    def _video(self, file: Path | None, number: int) -> Video:
        return look_at(file or self._source(number))

    async def _take(self, stream: LiveStream, tick: float) -> None:
        """The message is out at the shot; the picture follows when it is cut and uploaded."""
        shot = self._rules.shot(stream.stream_id, stream.push, tick, stream.video)
        path = path_of(shot, self._rules.naming)
        queue = self._platform.queue(stream.app_id)
        queue.enqueue([Said(stream_id=stream.stream_id, path=path, create_time=int(tick))])
        self._platform.bell.ring()
        bucket = queue.customer.host_label
        # Once the message is out its picture must come, even if the stream is stopped meanwhile.
        await asyncio.shield(self._group.create_task(self._cut(stream, tick, bucket, path)))

    async def _cut(self, stream: LiveStream, tick: float, bucket: str, path: str) -> None:
        cut = partial(picture, stream.video, tick - stream.push, self._rules.width)
        jpeg = await asyncio.get_running_loop().run_in_executor(self._worker, cut)
        self._pictures.upload(bucket, path, jpeg, spent=time.time() - tick)
