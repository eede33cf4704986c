"""Sends requests to one server over connections that are kept open between requests.

If a connection that was kept open dies with a request, the request is lost. Its caller may send it again.
"""

import asyncio
import math
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import msgspec
from yarl import URL

from poller.core.errors import PollerError
from poller.runtime.http_answer import AnswerReader
from poller.runtime.http_client import Connection, HttpRequest, Route, Unreachable, loss
from poller.runtime.http_head import AnswerHead
from poller.runtime.outbound import CONNECT_TIMEOUT

LARGEST_ANSWER: Final = 64 * 1024
"""Bytes of the body of an answer."""
REST_WITHIN: Final = 1.0
"""Seconds for the rest of an answer whose status is known."""
EXCERPT: Final = 300
KEPT_OPEN: Final = 15.0
"""Seconds that a connection is kept open without a request."""


class ConnectionLost(PollerError):
    """The connection was lost, or no HTTP came back, after the request may have been sent."""


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request, with the beginning of its body. `early`: the status came before the whole request was
    written."""

    status: int
    early: bool
    head: AnswerHead
    body: bytes

    @property
    def retry_after(self) -> str | None:
        """The header `Retry-After`."""
        return self.head.get("retry-after")


class Sender:
    """Sends requests to one server over at most `limit` connections, which stay open while answers are well formed.

    All URLs need the same scheme, host and port.
    """

    def __init__(self, route: Route, *, limit: int) -> None:
        self._route = route
        self._places = asyncio.Semaphore(limit)
        self._idle: list[tuple[float, Connection]] = []

    def close(self) -> None:
        """End the connections that are kept."""
        for _, connection in self._idle:
            connection.close()
        self._idle.clear()

    async def send(self, request: HttpRequest, *, until: float = math.inf) -> Answered:
        """Send a request once. Return when the status is known and the rest has arrived or takes too long.

        `until` is the loop's time at which the caller gives up: a status that is known is returned before.
        Raises `Unreachable` or `ConnectionLost`. May be cancelled. Not for HEAD, whose answers have no body.
        """
        async with self._places:
            connection = self._take_idle() or await self._connect(request.url)
            reader = AnswerReader(LARGEST_ANSWER)
            try:
                connection.send(request.encode(self._route.proxy))
                early = await _read_status(connection, reader)
                await _read_rest(connection, reader, until)
                answered = _answer(reader, early)
            finally:
                self._give_back(connection, reader)
            return answered

    async def _connect(self, url: URL) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await self._route.connect(url)
        except TimeoutError:
            raise Unreachable("connecting took too long") from None

    def _take_idle(self) -> Connection | None:
        while self._idle:
            since, connection = self._idle.pop()
            if connection.quiet and not connection.stirs and time.monotonic() - since < KEPT_OPEN:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: Connection, reader: AnswerReader) -> None:
        if reader.stays_open and connection.quiet and not connection.unsent:
            self._idle.append((time.monotonic(), connection))
        else:
            connection.close()


class Poster(Sender):
    """Posts to one URL."""

    def __init__(self, url: URL, route: Route, *, limit: int) -> None:
        super().__init__(route, limit=limit)
        self._url = url

    async def post(
        self, headers: Iterable[tuple[str, str]], body: bytes, *, until: float = math.inf
    ) -> Answered:
        """Send one POST once. See `send`."""
        request = HttpRequest(method="POST", url=self._url, headers=tuple(headers), body=body)
        return await self.send(request, until=until)


async def _read_status(connection: Connection, reader: AnswerReader) -> bool:
    """Read until the final status is known. Returns whether the status came before the request was written."""
    while reader.status is None and not reader.full:
        data = await connection.receive()
        if not data:
            raise ConnectionLost(loss(connection))
        reader.feed(data)
    return connection.unsent > 0


async def _read_rest(connection: Connection, reader: AnswerReader, until: float) -> None:
    """Read a short rest of the answer; only its excerpt and the reuse of the connection depend on it."""
    left = until - asyncio.get_running_loop().time()
    with suppress(TimeoutError):
        async with asyncio.timeout(min(REST_WITHIN, left / 2)):
            while not reader.ended and not reader.full and (data := await connection.receive()):
                reader.feed(data)


def _answer(reader: AnswerReader, early: bool) -> Answered:
    status = reader.status
    received = reader.received()
    if not status:
        raise ConnectionLost(f"not HTTP: {received.odd[0]}" if received.odd else "not HTTP")
    return Answered(status=status, early=early, head=received.head, body=received.body[:EXCERPT])
