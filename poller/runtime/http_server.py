"""An HTTP server: aiohttp's server, with the deadlines and bounds that aiohttp lacks.

Requests
    A connection has one request. By default the whole connection may take ten seconds, the sender may be silent for
    five seconds within its request, and the head may have 32 KiB. A client that sends its head slowly or never
    reads its answer is cut. Bodies are passed on as they were sent, without decompression.

Connections
    Connections are bounded, in total and for each address. At a bound, the connection that has waited longest
    without a complete request is closed with a 503. So a client that sends its request at once is served,
    however many connections others hold open. The owner of the listener gets a report of every connection that
    is refused before its request is complete.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self, cast

import msgspec
import structlog
from aiohttp import EMPTY_PAYLOAD, web
from aiohttp.http_exceptions import BadHttpMethod, LineTooLong

from poller.runtime.addresses import address, caller_key

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

DEADLINE = 10.0
IDLE = 5.0
"""Seconds without a byte after which a request that is not whole is given up."""
MOST_CONNECTIONS = 64
LARGEST_HEAD: Final = 32 * 1024
"""Bytes of a request's line and headers: proxies add client certificates, tokens and traces to a sender's own."""
MOST_HEADERS: Final = 4096
LINGER = 1.0
"""Seconds for the rest of a request that was answered early: a reset at once would destroy the answer."""
REPORT_EVERY = 60.0
_TOO_LARGE: Final = "a head of more than 32 KiB"
_TLS: Final = b"\x16"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_TURNED_AWAY: Final = {
    status: f"HTTP/1.1 {status} {text}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    for status, text in ((431, "Request Header Fields Too Large"), (503, "Service Unavailable"))
}


log = structlog.get_logger("listen")


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that ended without a request. `crowded`: the only reason was the bound on connections.

    `reason` has no text from the connection. `peer` is the address of the other side.
    """

    reason: str
    peer: str | None
    crowded: bool = False


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a listener: seconds for a whole connection and for silence, and the number of connections.

    `each` limits the connections of one address (IPv6: one /64); None sets no such limit. `exempt` addresses have none.
    """

    deadline: float
    idle: float
    most: int
    each: int | None
    exempt: Callable[[str | None], bool]


class Listener:
    """An HTTP server on one address; `port` tells where it listens once entered.

    At the end a request in flight gets `grace` seconds. `refused` is called for each connection that is refused before
    its request is complete.
    """

    def __init__(
        self,
        host: str,
        port: int,
        answer: Handler,
        *,
        deadline: float = DEADLINE,
        most: int = MOST_CONNECTIONS,
        grace: float = 1.0,
        each: int | None = None,
        exempt: Callable[[str | None], bool] = lambda peer: False,
        refused: Callable[[Refusal], None] = lambda refusal: None,
    ) -> None:
        self.host = host
        self.port = port
        self._answer = answer
        self._bounds = Bounds(deadline=deadline, idle=IDLE, most=most, each=each, exempt=exempt)
        self._grace = grace
        self._refused = refused
        self._server: _Server | None = None
        self._listening: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = _Server(self._answer, self._bounds, self._refused)
        self._listening = await loop.create_server(self._server, self.host, self.port, backlog=128)
        self.port = self._listening.sockets[0].getsockname()[1]
        self._server.crowd_log = CrowdLog(f"{self.host}:{self.port}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop listening, cut connections without a whole request, and wait until the others are answered."""
        assert self._listening is not None
        assert self._server is not None
        self._listening.close()
        self._server.pre_shutdown()
        await self._server.shutdown(timeout=self._grace)


def proceed(request: web.BaseRequest) -> None:
    """Let a sender that waits for `100 Continue` send its body."""
    expected = request.headers.get("Expect", "").strip().lower()
    if expected == "100-continue" and request.version >= (1, 1) and request.transport is not None:
        request.transport.write(_CONTINUE)


class CrowdLog:
    """One line a minute about connections that were turned away, however many."""

    def __init__(self, at: str) -> None:
        self._at = at
        self._count = 0
        self._next: asyncio.TimerHandle | None = None

    def note(self) -> None:
        self._count += 1
        if self._next is None:
            self._report()

    def _report(self) -> None:
        self._next = None
        if self._count:
            log.warning("connections_refused", at=self._at, count=self._count)
            self._count = 0
            self._next = asyncio.get_running_loop().call_later(REPORT_EVERY, self._report)

    def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._report()
        if self._next is not None:
            self._next.cancel()


class _Server(web.Server):
    def __init__(self, answer: Handler, bounds: Bounds, refused: Callable[[Refusal], None]) -> None:
        super().__init__(
            _close_after(answer),
            access_log=None,
            keepalive_timeout=0,
            max_line_size=LARGEST_HEAD,
            max_field_size=LARGEST_HEAD,
            max_headers=MOST_HEADERS,
            auto_decompress=False,
            lingering_time=LINGER,
        )
        self.bounds = bounds
        self.crowd_log = CrowdLog("")
        self._refused = refused
        self._present: dict[_Connection, None] = {}
        self._per_caller: Counter[str] = Counter()
        self._leaving: set[_Connection] = set()
        self._closed = False

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)

    def pre_shutdown(self) -> None:
        self._closed = True
        super().pre_shutdown()

    async def shutdown(self, timeout: float | None = None) -> None:
        await super().shutdown(timeout)
        for connection in list(self._leaving):
            connection.abort()
        self.crowd_log.close()

    def refuse(self, refusal: Refusal) -> None:
        if self._closed:  # we end it, nobody else
            return
        self._refused(refusal)
        if refusal.crowded:
            self.crowd_log.note()

    def admit(self, newcomer: "_Connection") -> "_Connection | None":
        """Admit a connection. Returns the connection that has to be closed for it, which may be the new one."""
        bounds, home = self.bounds, newcomer.caller_key
        if bounds.each is not None and home is not None and self._per_caller[home] >= bounds.each:
            leaver = self._longest(newcomer, home)
        elif len(self._present) >= bounds.most:
            leaver = self._longest(newcomer, None)
        else:
            leaver = None
        self._present[newcomer] = None
        if home is not None:
            self._per_caller[home] += 1
        return leaver

    def _longest(self, newcomer: "_Connection", home: str | None) -> "_Connection":
        there = (one for one in self._present if home is None or one.caller_key == home)
        return next((one for one in there if not one.whole), newcomer)

    def release(self, connection: "_Connection") -> None:
        """Stop counting a connection."""
        if connection in self._present:
            del self._present[connection]
            if (home := connection.caller_key) is not None:
                self._per_caller[home] -= 1
                if not self._per_caller[home]:
                    del self._per_caller[home]

    def may_linger(self, connection: "_Connection") -> bool:
        """Whether a connection that was turned away may still read its answer."""
        if len(self._leaving) >= self.bounds.most:
            return False
        self._leaving.add(connection)
        return True

    def forget(self, connection: "_Connection") -> None:
        """Forget a connection that is closed."""
        self.release(connection)
        self._leaving.discard(connection)


def _close_after(answer: Handler) -> Handler:
    async def answer_and_close(request: web.BaseRequest) -> web.StreamResponse:
        response = await answer(request)
        response.force_close()  # what was sent behind a request is no request: nobody would answer it
        return response

    return answer_and_close


class _Connection(web.RequestHandler):
    caller_key: str | None = None
    """The key by which the connection is counted; None if it is not counted by address."""
    _wire: asyncio.Transport
    _timer: asyncio.TimerHandle | None = None
    _payload: Any = None
    _first = b""
    _size = 0
    _heard = 0.0
    _end = 0.0
    _peer: str | None = None
    _away = False

    @property
    def _server(self) -> _Server:
        return cast(_Server, self._manager)

    @property
    def whole(self) -> bool:
        """Whether the request is complete."""
        return self._payload is not None and bool(self._payload.is_eof())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)  # uvloop's transports are no subclass of it
        peer, bounds = transport.get_extra_info("peername"), self._server.bounds
        self._peer = str(peer[0]) if isinstance(peer, tuple) and peer else None
        if not bounds.exempt(self._peer):
            self.caller_key = caller_key(address(self._peer))
        self._heard = self._loop.time()
        self._end = self._heard + bounds.deadline
        leaver = self._server.admit(self)
        if leaver is not None:
            leaver.turn_away(503, "too many connections", crowded=True)
        if leaver is not self:
            super().connection_made(transport)
            self._look()

    def turn_away(self, status: int, reason: str, *, crowded: bool = False) -> None:
        """Answer although no request is complete, and ignore further bytes."""
        server, self._away = self._server, True
        server.release(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._payload is None:  # else whoever reads the body reports that it was cut
            server.refuse(Refusal(reason=reason, peer=self._peer, crowded=crowded))
        self._wire.write(_TURNED_AWAY[status])
        if server.may_linger(self):
            self._wire.write_eof()
            self._timer = self._loop.call_later(LINGER, self.abort)
        else:
            self._wire.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._wire.abort()

    def _look(self) -> None:
        """Cut the connection at its deadline, or after a long silence within its request."""
        now, whole = self._loop.time(), self.whole
        until = self._end if whole else min(self._end, self._heard + self._server.bounds.idle)
        if now < until:
            self._timer = self._loop.call_at(until, self._look)
            return
        if self._payload is None:
            self._refuse("no whole head in time")
        self.abort()

    def _refuse(self, reason: str) -> None:
        self._payload = EMPTY_PAYLOAD  # it is reported once
        self._server.refuse(Refusal(reason=reason, peer=self._peer))

    def data_received(self, data: bytes) -> None:
        if self._away:
            return
        self._heard = self._loop.time()
        self._first = self._first or data[:1]
        if self._payload is None:
            self._size += len(data)
        super().data_received(data)
        if self._payload is None and self._messages:
            self._payload = self._messages[0][1]
        elif self._payload is None and self._size > LARGEST_HEAD:
            self.turn_away(431, _TOO_LARGE)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open for the answer if the request is complete."""
        return self.whole

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._manager is not None:
            if self._payload is None and self._first and not self._away:
                self._refuse("ended before its head did")
            self._server.forget(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer without logging. The library would log a stranger's bad request as an error of ours."""
        if status == 500:
            log.error("answer_failed", error=type(exc).__name__, exc_info=exc)
        elif status == 400:
            flaw = self._flaw(exc)
            self._refuse(flaw)
            status = 431 if flaw == _TOO_LARGE else status
        if request.writer.output_size > 0:
            raise ConnectionError("the answer is on its way already")
        response = web.Response(status=status)
        response.force_close()
        return response

    def _flaw(self, exc: BaseException | None) -> str:
        if self._first == _TLS:
            return "TLS, which is for a proxy in front"
        if isinstance(exc, LineTooLong) or self._size > LARGEST_HEAD:
            return _TOO_LARGE
        return "a strange method" if isinstance(exc, BadHttpMethod) else "no HTTP request"
