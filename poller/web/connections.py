"""Connections of the pages' listener: kept alive, bounded in number, and cut when their client is too slow.

Deadlines
    A request, head and body, must be complete ten seconds after its first byte. An answer must move: a client that
    takes less than 16 KiB of a waiting answer within ten seconds is cut. An idle connection is closed after 75 seconds.

Crowding
    At the bound on connections a newcomer takes the place of the connection that has been idle longest, else of the one
    whose request has been incomplete longest, else of the one whose client has not read its answer for longest. If all
    are being answered, the newcomer gets a 503.

`poller.runtime.http_server` is for machines and has one request a connection; this one has many, so that only the log
of refused connections is shared.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, LineTooLong

from poller.runtime.http_server import LARGEST_HEAD, LINGER, CrowdLog
from poller.web.backend import json_answer
from poller.web.errors import INTERNAL, report
from poller.web.headers import SECURITY, raw_refusal

STUCK_FOR: Final = 1.0
"""Seconds without progress after which an answer may be given up for a newcomer."""
_REASONS: Final = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}
_TEXTS: Final = {400: "This is no HTTP request.", 405: "This address does not take that method."}


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Limits: seconds for a request, for a write and of idleness, bytes that a write must move, and connections."""

    request: float = 10.0
    write: float = 10.0
    least: int = 16 * 1024
    idle: float = 75.0
    most: int = 256


class Runner(web.AppRunner):
    """Runs an application on our own kind of server."""

    def __init__(self, app: web.Application, bounds: Bounds, *, grace: float) -> None:
        super().__init__(app, access_log=None, handle_signals=False, shutdown_timeout=grace)
        self._bounds = bounds
        self.crowd_log = CrowdLog("")

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made, self._bounds, self)

    async def cleanup(self) -> None:
        """Stop listening and close all connections."""
        await super().cleanup()
        self.crowd_log.close()


class _Server(web.Server):
    def __init__(self, made: web.Server, bounds: Bounds, runner: Runner) -> None:
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            access_log=None,
            keepalive_timeout=bounds.idle,
            max_line_size=LARGEST_HEAD,
            max_field_size=LARGEST_HEAD,
            auto_decompress=False,
            lingering_time=LINGER,
        )
        self.bounds = bounds
        self._runner = runner
        self._present: dict[Connection, None] = {}
        self._leaving: set[Connection] = set()

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)

    async def shutdown(self, timeout: float | None = None) -> None:
        await super().shutdown(timeout)
        for connection in list(self._leaving):
            connection.abort()

    def admit(self, newcomer: "Connection") -> bool:
        """Make room for a connection. Returns false if there is none."""
        if len(self._present) >= self.bounds.most:
            ranked = [(rank, one) for one in self._present if (rank := one.rank()) is not None]
            if not ranked:
                self._runner.crowd_log.note()
                return False
            (kind, _), leaver = min(ranked, key=lambda found: found[0])
            if kind > 0:  # who is idle loses nothing
                self._runner.crowd_log.note()
            leaver.give_way()
        self._present[newcomer] = None
        return True

    def release(self, connection: "Connection") -> None:
        """Stop counting a connection."""
        self._present.pop(connection, None)

    def may_linger(self, connection: "Connection") -> bool:
        """Whether a connection that was turned away may still read its answer."""
        if len(self._leaving) >= self.bounds.most:
            return False
        self._leaving.add(connection)
        return True

    def forget(self, connection: "Connection") -> None:
        """Forget a connection that is closed."""
        self.release(connection)
        self._leaving.discard(connection)


class Connection(web.RequestHandler):
    """One connection of a viewer."""

    _wire: asyncio.Transport
    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _payload: Any = None
    _size = 0
    _begun: float | None = None
    _stuck: float | None = None
    _left = 0
    _idle_since = 0.0
    _away = False

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.when_lost: set[Callable[[], None]] = set()
        """Called when the connection is lost. Only an event stream adds a call."""

    @property
    def _server(self) -> _Server:
        return cast(_Server, self._manager)

    # ------------------------------------------------------------ the beginning and the end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)  # uvloop's transports are no subclass of it
        self._idle_since = self._loop.time()
        self._wire.set_write_buffer_limits(
            high=0
        )  # so that whatever a client does not read counts as waiting
        _set_options(transport.get_extra_info("socket"), self._server.bounds.write)
        if self._server.admit(self):
            super().connection_made(transport)
        else:
            self._turn_away(503)

    def connection_lost(self, exc: BaseException | None) -> None:
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        for call in list(self.when_lost):
            call()
        if self._manager is not None:
            self._server.forget(self)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open for the answer if the request is complete; the end of an event stream ends it."""
        if self._begun is not None or not self._answering or self.when_lost:
            return False
        self.close()
        return True

    def abort(self) -> None:
        """Close the connection at once."""
        self._wire.abort()

    def give_way(self) -> None:
        """End for a newcomer."""
        self._server.release(self)
        if self._answering:
            self.abort()
        elif self._begun is not None:
            self._turn_away(503)
        else:
            self._away = True
            self._wire.close()

    def _turn_away(self, status: int) -> None:
        """Answer although no request is complete, and ignore further bytes."""
        server, self._away = self._server, True
        server.release(self)
        if self._timer is not None:
            self._timer.cancel()
        self._wire.write(raw_refusal(status, _REASONS[status]))
        if server.may_linger(self):
            self._wire.write_eof()
            self._timer = self._loop.call_later(LINGER, self.abort)
        else:
            self.abort()

    # ------------------------------------------------------------ requests

    @property
    def _answering(self) -> bool:
        """Whether the library has a request in hand: it waits for none."""
        return self._request_count > 0 and (self._waiter is None or self._waiter.done())

    def rank(self) -> tuple[int, float] | None:
        """The lowest rank ends first when a newcomer needs a place; None is never ended."""
        now = self._loop.time()
        if self._begun is not None:
            return 1, self._begun
        if self._answering:
            stuck = self._stuck is not None and now - self._stuck >= STUCK_FOR
            return (2, self._stuck or 0.0) if stuck else None
        return 0, self._idle_since

    def data_received(self, data: bytes) -> None:
        if self._away:
            return
        count, open_body = self._request_count, self._payload is not None and not self._payload.is_eof()
        super().data_received(data)
        if self._request_count != count:
            self._payload, self._size = self._messages[-1][1], 0
        elif not open_body and data:
            self._payload, self._size = None, self._size + len(data)
        if self._payload is not None and self._payload.is_eof():
            self._note_complete()
        elif data:
            self._note_incomplete()

    def _note_complete(self) -> None:
        self._begun, self._idle_since = None, self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note_incomplete(self) -> None:
        if self._size > LARGEST_HEAD and not self._answering:
            self._turn_away(431)
        elif self._begun is None:
            self._begun = self._loop.time()
            self._timer = self._loop.call_later(self._server.bounds.request, self._give_up)

    def _give_up(self) -> None:
        """End a request that is not complete in time."""
        if self._answering:
            self.abort()
        else:
            self._turn_away(408)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what did not reach the application. Nothing is logged about a stranger's bad request."""
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            raise ConnectionError("nobody reads the answer")
        if status == 500:
            report(exc, request.path)
        elif isinstance(exc, LineTooLong):
            status = 431
        elif isinstance(exc, BadHttpMethod) and self._request_count == 1:
            status = 405
        response = json_answer({"error": _TEXTS.get(status, INTERNAL)}, status)
        response.headers.update(SECURITY)
        response.force_close()
        return response

    # ------------------------------------------------------------ answers

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck, self._left = self._loop.time(), self._wire.get_write_buffer_size()
        self._write_timer = self._loop.call_later(self._server.bounds.write, self._check_write)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck = None
        if self._write_timer is not None:
            self._write_timer.cancel()

    def _check_write(self) -> None:
        left, bounds = self._wire.get_write_buffer_size(), self._server.bounds
        if self._left - left < bounds.least:
            self.abort()
            return
        self._left = left
        self._write_timer = self._loop.call_later(bounds.write, self._check_write)


def _set_options(wire: Any, seconds: float) -> None:
    """Let the kernel hold little of an answer that is not read, and give up a client that has vanished."""
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 64 * 1024)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
