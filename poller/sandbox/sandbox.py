"""The platform in a box: puts the parts together, starts them, stops them in order."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import uvloop

from poller.sandbox.bell import Bell
from poller.sandbox.channels import Channels
from poller.sandbox.clock import Clock
from poller.sandbox.control import ControlPort
from poller.sandbox.cos.server import PictureServer
from poller.sandbox.cos.store import Pictures
from poller.sandbox.database import Database
from poller.sandbox.faults import API_FAULTS, COS_FAULTS, UPLOAD_FAULTS, Faults
from poller.sandbox.listening import Answering, listening
from poller.sandbox.media.clip import clip
from poller.sandbox.media.cutting import plain_jpeg
from poller.sandbox.media.recordings import Recordings
from poller.sandbox.options import BadOption, Options, split_address
from poller.sandbox.oracle import Oracle, RemovedLog
from poller.sandbox.query.interface import PATH, QueryInterface
from poller.sandbox.query.queues import Platform
from poller.sandbox.query.synthetic import Load, Synthetic
from poller.sandbox.streams import Screenshots, Streams


class Sandbox:
    """A running platform. Enter it to open its ports; `endpoints` then says where each part listens."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.endpoints: dict[str, str | None] = {}
        self.oracle = Oracle(options.directory)
        self.clock = Clock(options.clock_offset)
        self.faults = {
            "api": Faults(API_FAULTS, options.faults, random.Random(f"{options.seed} api")),
            "cos": Faults(COS_FAULTS, options.cos_faults, random.Random(f"{options.seed} cos")),
            "upload": Faults(UPLOAD_FAULTS, options.upload_faults, random.Random(f"{options.seed} upload")),
        }
        self.database = Database(options.directory)
        self.channels = Channels(self.database)
        self.recordings = Recordings(self.database, options.directory / "vod")
        self._log = RemovedLog(options.directory)
        self.platform = Platform(
            options.customers, self._log, self.clock, options.answers, options.queue_limit
        )
        self.pictures = Pictures(
            options.directory / "cos",
            options.upload_delay,
            self.faults["upload"],
            random.Random(f"{options.seed} delay"),
            self.platform.bell,
        )
        self._synthetic = Synthetic(self.platform, self.pictures, options.naming, plain_jpeg)
        self._stack = AsyncExitStack()
        self.streams: Streams
        self.picture_server: PictureServer

    async def __aenter__(self) -> Self:
        options = self.options
        options.directory.mkdir(parents=True, exist_ok=True)
        async with AsyncExitStack() as stack:
            stack.enter_context(self.database)
            self.channels.resume()
            stack.enter_context(self._log)
            self.platform.resume(self.oracle)
            stack.enter_context(self.pictures)
            self.streams = await self._open_streams(stack)
            await self._listen(stack)
            for number in range(1, options.streams + 1):
                await self.streams.start(options.stream_name.format(n=number))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, asyncio.CancelledError):
            # The cancellation may be the task group's own, because a stream died; it must see it.
            await self._stack.__aexit__(kind, error, trace)
        else:
            await self._stack.aclose()  # or the group would wrap the user's own exception

    @property
    def bell(self) -> Bell:
        """Wakes whoever waits for a change: `await sandbox.bell.until(lambda: …)`."""
        return self.platform.bell

    def enqueue(self, load: Load) -> int:
        """Enqueues made-up messages; returns the number of the last."""
        return self._synthetic.enqueue(load)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Returns as soon as `reached()` is true."""
        await self.bell.until(reached)

    def state(self) -> dict[str, object]:
        """All counts, as the control port shows them."""
        pictures = self.pictures
        counts = {"stored": pictures.stored, "on_the_way": pictures.on_the_way, "lost": pictures.lost}
        return self.platform.state() | {
            "pictures": counts | {"requests": self.picture_server.requests},
            "faults": {target: dict(faults.fired) for target, faults in self.faults.items()},
            "streams": self.streams.state(),
            "clock_offset": self.clock.offset,
        }

    async def _open_streams(self, stack: AsyncExitStack) -> Streams:
        options = self.options
        worker = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="pictures"))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        rules = Screenshots(interval=options.interval, width=options.width, naming=options.naming)
        streams = Streams(
            self.platform, self.pictures, rules, group=group, worker=worker, source=self._source
        )
        stack.callback(streams.stop_all)  # the group waits for its tasks, so they end first
        return streams

    def _source(self, number: int) -> Path:
        """What the stream of that number shows."""
        videos = self.options.videos
        if videos:
            return videos[(number - 1) % len(videos)]
        return clip(self.options.directory / "clips" / f"{number}.mp4", number)

    async def _listen(self, stack: AsyncExitStack) -> None:
        options = self.options
        host, _ = split_address(options.listen)
        free = f"[{host}]:0" if ":" in host else f"{host}:0"
        api = QueryInterface(
            self.platform,
            self.faults["api"],
            id_params=options.id_params,
            rate_limit=options.rate_limit,
            rng=random.Random(f"{options.seed} answers"),
        )
        self.picture_server = PictureServer(
            self.pictures,
            self.faults["cos"],
            self.clock,
            options.customers,
            random.Random(f"{options.seed} pictures"),
        )

        async def opened(address: str | None, answer: Answering) -> str:
            return await stack.enter_async_context(listening(address or free, answer))

        self.endpoints = {
            "api": await opened(options.listen, api.answer) + PATH,
            "cos": await opened(options.cos_listen, self.picture_server.answer),
            "vod": None,
            "rtmp": None,
            "control": await opened(options.control_listen, ControlPort(self).answer),
        }


async def serve(options: Options, stop: asyncio.Event) -> None:
    """Runs a sandbox until told to stop; one JSON line on stdout says when it is up, and where."""
    async with Sandbox(options) as sandbox:
        announcement = {**sandbox.endpoints, "directory": str(options.directory)}
        print(json.dumps(announcement), flush=True)  # noqa: T201 - the announced contract
        await stop.wait()


def main(options: Options) -> int:
    """Runs a sandbox as a program until SIGTERM or SIGINT; returns the exit code."""

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(options, stop)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(until_signalled())
    except (BadOption, OSError) as error:
        print(f"sandbox: {error}", file=sys.stderr)  # noqa: T201 - a program's last word
        return 2 if isinstance(error, BadOption) else 1
    return 0
