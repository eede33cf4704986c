"""Streams that the sandbox pushes to itself over RTMP, each by a program of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Final
from urllib.parse import quote

from poller.sandbox.live import Live, LivePush
from poller.sandbox.media.showing import check
from poller.sandbox.options import BadOption, Customer
from poller.sandbox.wakeup import Wakeup

UP_WITHIN: Final = 60.0
"""Seconds; twenty programs that start at once keep a small machine busy for a while."""
GONE_WITHIN: Final = 5.0
log = logging.getLogger("poller.sandbox")


class Pushers:
    """Starts and ends such streams. `source` gives the file of the stream of that number; it may block."""

    def __init__(self, live: Live, wakeup: Wakeup, *, url: str, source: Callable[[int], Path]) -> None:
        self._live = live
        self._wakeup = wakeup
        self._url = url
        self._source = source
        self._processes: dict[tuple[int, str], Process] = {}
        self._pushes: dict[tuple[int, str], LivePush] = {}
        self._starting: set[tuple[int, str]] = set()
        self._started = 0

    async def start(self, stream_id: str, customer: Customer, *, file: Path | None = None) -> None:
        """Returns once the stream is live. Without a file it shows the next of the sandbox's own.

        Raises BadOption: it is live already, the file cannot be pushed, the push was not let in.
        """
        name = (customer.app_id, stream_id)
        if name in self._starting or self._live.find(*name) is not None:
            raise BadOption(f"{stream_id!r} is live already")
        self._starting.add(name)
        try:
            self._started += 1
            path = await asyncio.to_thread(self._check_file, file, self._started)
            if name in self._processes:  # was dropped, and may not have noticed yet
                _kill(self._processes.pop(name))
            await self._push(name, path, push_url(self._url, stream_id, customer))
        finally:
            self._starting.discard(name)

    async def stop(self, stream_id: str, customer: Customer) -> None:
        """Ends such a push in good order. Returns when it is no longer live."""
        name = (customer.app_id, stream_id)
        push = self._pushes.get(name)
        await _end(self._take(stream_id, customer))
        await self._wakeup.until(lambda: push is None or self._live.find(*name) is not push)

    def unplug(self, stream_id: str, customer: Customer) -> None:
        """Kills the pusher, so that its push ends without notice."""
        _kill(self._take(stream_id, customer))

    async def stop_all(self) -> None:
        processes = list(self._processes.values())
        self._processes.clear()
        self._pushes.clear()
        await asyncio.gather(*map(_end, processes))

    def _check_file(self, file: Path | None, number: int) -> Path:
        path = file or self._source(number)
        check(path)
        return path

    async def _push(self, name: tuple[int, str], path: Path, url: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "poller.sandbox.push", str(path), stdin=PIPE, stdout=DEVNULL
        )
        self._processes[name] = process
        assert process.stdin is not None
        process.stdin.write(url.encode() + b"\n")
        process.stdin.close()
        push = None
        try:
            push = await self._wait_until_live(name, process)
        finally:
            if push is None:
                self._processes.pop(name, None)
                _kill(process)
        if push is None:
            raise BadOption(f"{name[1]!r} did not become live")
        self._pushes[name] = push

    async def _wait_until_live(self, name: tuple[int, str], process: Process) -> LivePush | None:
        """Waits for the push to be live. Returns None if its program ends before, or time is over."""
        live = asyncio.ensure_future(self._wakeup.until(lambda: self._live.find(*name) is not None))
        ended = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait({live, ended}, timeout=UP_WITHIN, return_when=asyncio.FIRST_COMPLETED)
            return self._live.find(*name) if live.done() else None
        finally:
            live.cancel()
            ended.cancel()

    def _take(self, stream_id: str, customer: Customer) -> Process:
        name = (customer.app_id, stream_id)
        process = self._processes.pop(name, None)
        self._pushes.pop(name, None)
        if process is None:
            raise BadOption(f"{stream_id!r} is not pushed by the sandbox")
        return process


def push_url(base: str, stream_id: str, customer: Customer) -> str:
    """Where to push a customer's stream, with the push secret if there is one. `base` ends in the app."""
    url = f"{base}/{quote(stream_id, safe='')}?bizid={customer.biz_id}"
    if customer.push_key is None:
        return url
    until = f"{int(time.time()) + 365 * 86400:X}"
    secret = md5(f"{customer.push_key}{stream_id}{until}".encode(), usedforsecurity=False).hexdigest()
    return f"{url}&txSecret={secret}&txTime={until}"


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(GONE_WITHIN):
                await process.wait()
        except TimeoutError:
            log.warning("a pusher does not end and is killed")
            _kill(process)
    await process.wait()


def _kill(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
