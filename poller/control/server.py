"""The server of the control socket.

Invariants
    Only users who may open the file can send a request (mode 0600). A connection carries one request. Its size, its
    time and the number of connections are limited. A tap has no time limit: its reader may stop reading and only delays
    itself. The number of taps is limited, so that connections are left for other requests.

Life cycle
    Entering creates the socket and removes a stale one. On leaving, taps end at once, and any other request in progress
    ends after its current step; then the socket is removed.
"""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from poller.control.place import reachable
from poller.core.errors import PollerError
from poller.operations.requests import (
    LARGEST_REQUEST,
    NOT_A_REQUEST,
    ReplyLine,
    Request,
    Row,
    Verb,
    encode,
    read_request,
)
from poller.runtime.durable_files import Identity, identity_of

log = structlog.get_logger("control")

READ_WITHIN = 5.0
WRITE_WITHIN = 10.0
MOST_CONNECTIONS = 16
MOST_TAPS = 8
STOPPING = "the daemon is stopping; what was done is done"

RequestHandler = Callable[[Request], AsyncGenerator[Row | None, None]]
"""Yields rows; None means that the work is still going on. The work between two yields is never cancelled."""
TapHandler = Callable[[Request], AsyncGenerator[bytes, None]]
"""Yields whole lines of an answer without end, some at a time. May be cancelled at any time."""


class ControlServer:
    """Listens at a path. The caller must hold the lock of the socket's file, so that an old socket is stale.

    Some file systems allow no sockets. This is logged, and the daemon runs without one.
    """

    def __init__(self, path: Path, answer: RequestHandler, tap: TapHandler) -> None:
        self.path = path
        self._answer = answer
        self._tap = tap
        self._server: asyncio.Server | None = None
        self._reading: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.Task[None]] = set()
        self._taps: set[asyncio.Task[None]] = set()
        self._closing = False
        self._made: Identity | None = None

    async def __aenter__(self) -> Self:
        try:
            listening = self._bound()
        except OSError as error:
            log.error("control_failed", path=str(self.path), reason=error.strerror)
            return self
        self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=LARGEST_REQUEST)
        return self

    def _bound(self) -> socket.socket:
        self.path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with reachable(self.path) as address:
                listening.bind(address)
            self._made = identity_of(self.path)
            os.chmod(self.path, 0o600)  # nobody can connect before `listen`
            listening.listen(MOST_CONNECTIONS)
            listening.setblocking(False)
        except OSError:
            listening.close()
            raise
        return listening

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._closing = True
        if self._server is None:
            return
        self._server.close()
        for task in self._reading | self._taps:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)
        self._remove()

    def _remove(self) -> None:
        """Remove the socket, unless another daemon's socket is at the path now: the folder may have been replaced."""
        with suppress(OSError):
            if identity_of(self.path) == self._made:
                self.path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._closing or len(self._open) >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await self._talk(task, reader, writer)
        except (OSError, TimeoutError):
            writer.transport.abort()  # the client is gone, or does not read
        finally:
            self._open.discard(task)
            writer.close()

    async def _talk(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reading.add(task)
        try:
            async with asyncio.timeout(READ_WITHIN):
                request = read_request(await reader.readline())
        except NOT_A_REQUEST as error:
            await _say(writer, ReplyLine(error=f"not a request of this version: {error}"))
            return
        finally:
            self._reading.discard(task)
        await _say(writer, None)  # at once: the client knows that this daemon is not frozen
        if request.verb is Verb.TAP:
            await self._report(request, reader, writer)
        else:
            await self._reply(request, writer)

    async def _reply(self, request: Request, writer: asyncio.StreamWriter) -> None:
        try:
            async with aclosing(self._answer(request)) as rows:
                async for row in rows:
                    await _say(writer, None if row is None else ReplyLine(row=row))
                    if self._closing:
                        await _say(writer, ReplyLine(error=STOPPING))
                        return
        except PollerError as error:
            await _say(writer, ReplyLine(error=str(error)))
        else:
            await _say(writer, ReplyLine(end=True))

    async def _report(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a tap until its client goes away or the server closes."""
        if len(self._taps) >= MOST_TAPS:
            await _say(writer, ReplyLine(error=f"{MOST_TAPS} taps are open already"))
            return
        pouring = asyncio.ensure_future(self._pour(request, writer))
        self._taps.add(pouring)
        gone = asyncio.ensure_future(reader.read(1))  # a client sends nothing after its request
        try:
            await asyncio.wait({pouring, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            pouring.cancel()
            await asyncio.wait({pouring, gone})
            self._taps.discard(pouring)
        if not gone.cancelled():
            gone.exception()  # however it ended, the client is gone
        failure = None if pouring.cancelled() else pouring.exception()
        if writer.is_closing():
            return
        if self._closing:
            writer.write(_line(ReplyLine(error=STOPPING)))  # nobody waits for a reader that does not read
        elif failure is not None:
            raise failure

    async def _pour(self, request: Request, writer: asyncio.StreamWriter) -> None:
        try:
            async with aclosing(self._tap(request)) as lines:
                async for some in lines:
                    writer.write(some)
                    await writer.drain()
        except PollerError as error:
            await _say(writer, ReplyLine(error=str(error)))


async def _say(writer: asyncio.StreamWriter, line: ReplyLine | None) -> None:
    writer.write(b"\n" if line is None else _line(line))
    async with asyncio.timeout(WRITE_WITHIN):
        await writer.drain()


def _line(line: ReplyLine) -> bytes:
    return encode(line) + b"\n"
