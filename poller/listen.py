"""Ports that others connect to: aiohttp's server under deadlines, which it does not have itself.

One request a connection, ten seconds for all of it, a bound on how many there are at once: a client that
drips its headers or never reads its answer is cut, and costs nothing until then.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, cast

from aiohttp import web

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

DEADLINE = 10.0
MOST_CONNECTIONS = 64


class Listener:
    """An HTTP server on one address; `port` tells where it listens once entered."""

    def __init__(self, host: str, port: int, answer: Answer, *, deadline: float = DEADLINE) -> None:
        self.host = host
        self.port = port
        self._server = _Server(answer, deadline)
        self._listening: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(self._server, self.host, self.port, backlog=128)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        assert self._listening is not None
        self._listening.close()
        await self._server.shutdown(timeout=1.0)


class _Server(web.Server):
    def __init__(self, answer: Answer, deadline: float) -> None:
        super().__init__(
            answer, access_log=None, keepalive_timeout=0, max_line_size=4096, max_field_size=4096
        )
        self.deadline = deadline

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class _Connection(web.RequestHandler):
    _cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        abort = cast(asyncio.Transport, transport).abort  # uvloop's transports are no subclass of it
        server: Any = self._manager
        if len(server.connections) >= MOST_CONNECTIONS:
            abort()
        super().connection_made(transport)
        self._cut = asyncio.get_running_loop().call_later(server.deadline, abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._cut is not None:
            self._cut.cancel()
        super().connection_lost(exc)
