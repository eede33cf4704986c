"""Ports that others connect to: aiohttp's server under deadlines, which it does not have itself.

One request a connection, ten seconds for all of it, a bound on how many there are at once: a client that
drips its headers or never reads its answer is cut, and costs nothing until then. Bodies come as they were sent,
never unpacked.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, cast

import structlog
from aiohttp import web

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

DEADLINE = 10.0
MOST_CONNECTIONS = 64
LINGER = 1.0
"""Seconds for the rest of a body that was answered unread: a reset at once would take the answer along."""


log = structlog.get_logger("listen")


class Listener:
    """An HTTP server on one address; `port` tells where it listens once entered.

    `most` connections are open at once, more are cut; at the end a request in flight gets `grace` seconds.
    """

    def __init__(
        self,
        host: str,
        port: int,
        answer: Answer,
        *,
        deadline: float = DEADLINE,
        most: int = MOST_CONNECTIONS,
        grace: float = 1.0,
    ) -> None:
        self.host = host
        self.port = port
        self._answer = answer
        self._deadline = deadline
        self._most = most
        self._grace = grace
        self._server: _Server | None = None
        self._listening: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = _Server(self._answer, self._deadline, self._most)
        self._listening = await loop.create_server(self._server, self.host, self.port, backlog=128)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Listen no more, cut who has not sent a whole request, and wait until the others are answered."""
        assert self._listening is not None
        assert self._server is not None
        self._listening.close()
        self._server.pre_shutdown()
        await self._server.shutdown(timeout=self._grace)


class _Server(web.Server):
    def __init__(self, answer: Answer, deadline: float, most: int) -> None:
        super().__init__(
            answer,
            access_log=None,
            keepalive_timeout=0,
            max_line_size=4096,
            max_field_size=4096,
            auto_decompress=False,
            lingering_time=LINGER,
        )
        self.deadline = deadline
        self.most = most

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class _Connection(web.RequestHandler):
    _cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        abort = cast(asyncio.Transport, transport).abort  # uvloop's transports are no subclass of it
        server: Any = self._manager
        if len(server.connections) >= server.most:
            abort()
        super().connection_made(transport)
        self._cut = asyncio.get_running_loop().call_later(server.deadline, abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._cut is not None:
            self._cut.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer without a word; the library would log what strangers sent as if it were our mistake."""
        if status == 500:
            log.error("answer_failed", error=type(exc).__name__, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer is on its way already")
        response = web.Response(status=status)
        response.force_close()
        return response
