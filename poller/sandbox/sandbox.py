"""The platform in a box: puts the parts together, starts them, stops them in order."""

from __future__ import annotations

import asyncio
import json
import logging
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

from poller.sandbox.callbacks.callbacks import Callbacks
from poller.sandbox.channels import Channels
from poller.sandbox.clock import Clock
from poller.sandbox.control import ControlPort
from poller.sandbox.cos.server import PictureServer
from poller.sandbox.cos.store import Pictures
from poller.sandbox.database import Database
from poller.sandbox.faults import (
    API_FAULTS,
    CALLBACK_FAULTS,
    COS_FAULTS,
    QUERY_FAULTS,
    UPLOAD_FAULTS,
    Faults,
)
from poller.sandbox.listening import Answering, serve_http
from poller.sandbox.live import Live
from poller.sandbox.media import recorder
from poller.sandbox.media.clip import clip
from poller.sandbox.media.cutting import plain_jpeg
from poller.sandbox.media.recordings import Recording, Recordings
from poller.sandbox.options import BadOption, Options, split_address
from poller.sandbox.oracle import Oracle, RemovedLog
from poller.sandbox.pushers import Pushers
from poller.sandbox.query.interface import PATH, QueryInterface
from poller.sandbox.query.queues import Platform
from poller.sandbox.query.synthetic import Load, Synthetic
from poller.sandbox.retention import Retention
from poller.sandbox.rtmp.ingest import RtmpServer, serve_rtmp
from poller.sandbox.screenshots import Rules, Screenshots
from poller.sandbox.vod import RecordingServer
from poller.sandbox.wakeup import Wakeup


class Sandbox:
    """A running platform. Enter it to open its ports; `endpoints` then says where each part listens."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.endpoints: dict[str, str | None] = {}
        self.oracle = Oracle(options.directory)
        self.clock = Clock(options.clock_offset)
        self.faults = {
            "api": Faults(API_FAULTS, options.faults, random.Random(f"{options.seed} api")),
            "query": Faults(QUERY_FAULTS, options.query_faults, random.Random(f"{options.seed} query")),
            "cos": Faults(COS_FAULTS, options.cos_faults, random.Random(f"{options.seed} cos")),
            "upload": Faults(UPLOAD_FAULTS, options.upload_faults, random.Random(f"{options.seed} upload")),
            "callback": Faults(
                CALLBACK_FAULTS, options.callback_faults, random.Random(f"{options.seed} callback")
            ),
        }
        self.database = Database(options.directory)
        self.channels = Channels(self.database)
        self._log = RemovedLog(options.directory)
        self.platform = Platform(
            options.customers,
            self.database,
            self._log,
            self.clock,
            form=options.answers,
            limit=options.queue_limit,
        )
        self.callbacks = Callbacks(
            options,
            clock=self.clock,
            wakeup=self.platform.wakeup,
            faults=self.faults["callback"],
            year=lambda: self.platform.form.callbacks,
        )
        self.recordings = Recordings(self.database, options.directory / "vod", self._report_recording)
        self.pictures = Pictures(
            self.database,
            options.directory / "cos",
            delay=options.upload_delay,
            faults=self.faults["upload"],
            rng=random.Random(f"{options.seed} delay"),
            wakeup=self.platform.wakeup,
        )
        self._synthetic = Synthetic(self.platform, self.pictures, options.naming, plain_jpeg)
        self.live = Live(
            options.customers,
            self.channels,
            self.recordings,
            self.platform.wakeup,
            segment=options.segment,
            exact=options.exact,
            began=self.callbacks.report_push_begin,
            ended=self.callbacks.report_push_end,
        )
        self._stack = AsyncExitStack()
        self.screenshots: Screenshots
        self.pushers: Pushers
        self.ingest: RtmpServer
        self.picture_server: PictureServer

    async def __aenter__(self) -> Self:
        stack = AsyncExitStack()
        try:
            await self._open(stack)
        except BaseException:
            await stack.aclose()  # it does not see the exception, which its task group would wrap
            raise
        self._stack = stack
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, asyncio.CancelledError):
            # The cancellation may be the task group's own, because a part of it failed; it must see it.
            await self._stack.__aexit__(kind, error, trace)
        else:
            await self._stack.aclose()  # or the group would wrap the user's own exception

    @property
    def wakeup(self) -> Wakeup:
        """Wakes whoever waits for a change: `await sandbox.wakeup.until(lambda: …)`."""
        return self.platform.wakeup

    def enqueue(self, load: Load) -> int:
        """Enqueues made-up messages; returns the number of the last."""
        return self._synthetic.enqueue(load)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Returns as soon as `reached()` is true."""
        await self.wakeup.until(reached)

    def state(self) -> dict[str, object]:
        """All counts, as the control port shows them."""
        pictures = self.pictures
        counts = {"stored": pictures.stored, "on_the_way": pictures.on_the_way, "lost": pictures.lost}
        return self.platform.state() | {
            "pictures": counts | {"requests": self.picture_server.requests},
            "faults": {target: dict(faults.fired) for target, faults in self.faults.items()},
            "streams": [push.state() for push in self.live.pushes],
            "screenshots": self.screenshots.state(),
            "ingest": {name: getattr(self.ingest, name) for name in ("connections", "refused", "broken")},
            "callbacks": self.callbacks.state(),
            "clock_offset": self.clock.offset,
        }

    async def _open(self, stack: AsyncExitStack) -> None:
        self.options.directory.mkdir(parents=True, exist_ok=True)
        stack.enter_context(self.database)
        await stack.enter_async_context(self.callbacks)
        self.channels.resume()
        recorder.resume(self.recordings)
        stack.enter_context(self._log)
        stack.enter_context(self.platform)
        stack.enter_context(self.pictures)
        self.screenshots = await self._photograph(stack)
        await self._listen(stack)
        await self._push(stack)

    async def _photograph(self, stack: AsyncExitStack) -> Screenshots:
        options = self.options
        worker = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="pictures"))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        screenshots = Screenshots(
            self.platform,
            self.pictures,
            Rules(interval=options.interval, width=options.width, naming=options.naming),
            lambda: self.live.pushes,
            pictured=self.callbacks.report_screenshot,
            group=group,
            worker=worker,
        )
        retention = Retention(
            options.retain,
            (
                self.pictures.forget,
                self.channels.forget,
                self._log.forget,
                self.callbacks.forget,
                self._forget,
            ),
        )
        for task in (group.create_task(screenshots.run()), group.create_task(retention.run())):
            # The group waits for what it has begun: pictures being cut still come.
            stack.callback(task.cancel)
        return screenshots

    def _report_recording(self, recording: Recording) -> None:
        push = self.live.find(recording.app_id, recording.stream_id)
        self.callbacks.report_recording(recording, push)

    def _forget(self, before: float) -> None:
        recorder.forget(self.recordings, before)

    async def _push(self, stack: AsyncExitStack) -> None:
        """Pushes the sandbox's own streams, over RTMP as any other pusher does."""
        options = self.options
        self.pushers = Pushers(self.live, self.wakeup, url=self.ingest.url, source=self._source)
        stack.push_async_callback(self.pushers.stop_all)
        names = [options.stream_name.format(n=number) for number in range(1, options.streams + 1)]
        await asyncio.gather(*(self.pushers.start(name, options.customers[0]) for name in names))

    def _source(self, number: int) -> Path:
        """The video file of the stream with that number."""
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
            self.channels,
            self.recordings,
            self.faults,
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

        self.recording_server = RecordingServer(self.recordings, self.clock, options.customers)
        self.ingest = await stack.enter_async_context(
            serve_rtmp(options.rtmp_listen or free, self.live, silence=options.silence)
        )

        async def open_server(address: str | None, answer: Answering) -> str:
            return await stack.enter_async_context(serve_http(address or free, answer))

        self.endpoints = {
            "api": await open_server(options.listen, api.answer) + PATH,
            "cos": await open_server(options.cos_listen, self.picture_server.answer),
            "vod": await open_server(options.vod_listen, self.recording_server.answer),
            "rtmp": self.ingest.url,
            "control": await open_server(options.control_listen or "127.0.0.1:0", ControlPort(self).answer),
        }


async def serve(options: Options, stop: asyncio.Event) -> None:
    """Runs a sandbox until a signal. One JSON line on stdout gives its addresses when all ports are open."""
    async with Sandbox(options) as sandbox:
        announcement = {**sandbox.endpoints, "directory": str(options.directory)}
        print(json.dumps(announcement), flush=True)  # noqa: T201 - the announced contract
        await stop.wait()


def main(options: Options) -> int:
    """Runs a sandbox as a program until SIGTERM or SIGINT; returns the exit code. Its log goes to stderr."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")

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
