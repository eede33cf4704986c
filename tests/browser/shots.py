"""Pictures of streams with any name, taken when a test wants, with something to see in them."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Final

from av.filter import Graph
from av.video.frame import VideoFrame

from poller.sandbox.media.cutting import jpeg
from poller.sandbox.names import Shot, path_of
from poller.sandbox.query.messages import Said
from tests.scenario.environment import Environment

WIDTH: Final = 480
HEIGHT: Final = 270
CADENCE: Final = 4
LEISURE: Final = 60
"""A cadence by which no stream is late before its test has ended."""
KINDS: Final = ("linear", "radial", "circular", "spiral")


@cache
def scene(seed: int) -> bytes:
    """A colourful picture, another one for each seed."""
    graph = Graph()
    source = graph.add("gradients", f"s={WIDTH}x{HEIGHT}:n=5:r=1:seed={seed + 1}:type={KINDS[seed % 4]}")
    pixels, end = graph.add("format", "yuv420p"), graph.add("buffersink")
    source.link_to(pixels)
    pixels.link_to(end)
    graph.configure()
    frame = graph.pull()
    assert isinstance(frame, VideoFrame)
    return jpeg(frame, WIDTH, HEIGHT)


class Shots:
    """Puts pictures of streams into the platform's queue."""

    def __init__(self, town: Environment) -> None:
        self._town = town
        self._push = int(time.time()) - 3600
        self._seeds: dict[str, int] = {}
        self._taken: dict[str, int] = {}
        self.pictures = 0
        """How many were put there."""

    def take(self, stream: str, *, ago: float = 0.0, stored: bool = True) -> None:
        """One picture, taken so many seconds ago; `stored`: it can be fetched."""
        self._take_at(stream, time.time() - ago, stored)

    def begin(self, streams: Sequence[str], cadence: int = CADENCE) -> None:
        """Three pictures of each stream, from which its cadence is known."""
        for stream in streams:
            self.take_all(stream, [turn * cadence for turn in (2, 1, 0)])

    def take_all(self, stream: str, ages: Sequence[float]) -> None:
        """Pictures of these ages, oldest first, however long it takes to take them."""
        now = (
            int(time.time()) + 0.5
        )  # in the midst of a second, of which the time of a picture is the beginning
        for ago in ages:
            self._take_at(stream, now - ago, stored=True)

    @contextmanager
    def going_on(self, streams: set[str], cadence: int = CADENCE) -> Iterator[None]:
        """Pictures of the streams that are in the set at the time, until left.

        By their own times they are even, however late a crowded machine puts them there.
        """

        async def go_on() -> None:
            while True:
                await asyncio.sleep(cadence)
                for stream in sorted(streams):
                    self._take(stream, self._taken.get(stream, int(time.time()) - cadence) + cadence, True)

        task = self._town.ask(lambda: asyncio.ensure_future(go_on()))
        try:
            yield
        finally:
            self._town.ask(task.cancel)

    def _take_at(self, stream: str, moment: float, stored: bool) -> None:
        self._town.ask(lambda: self._take(stream, moment, stored))

    def _take(self, stream: str, moment: float, stored: bool) -> None:
        sandbox = self._town.sandbox
        at = max(int(moment), self._taken.get(stream, 0) + 1)
        self._taken[stream] = at
        self.pictures += 1
        shot = Shot(stream_id=stream, push=self._push, task=self._push, at=at, width=WIDTH, height=HEIGHT)
        said = Said(stream_id=stream, path=path_of(shot, sandbox.options.naming), create_time=at)
        if stored:
            seed = self._seeds[stream] = self._seeds.get(stream, 7 * len(self._seeds)) + 1
            host = sandbox.options.customers[0].host_label
            sandbox.pictures.put_many(host, [said.path], scene(seed % 40))
        sandbox.platform.queue().enqueue([said])
        sandbox.wakeup.ring()
