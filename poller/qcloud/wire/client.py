"""The HTTP client for `common_access`: a call sends at most one request, within its own deadlines.

Reading the queue is destructive, so each call has its own connection. If a connection that was kept open died
with a request, the client could not know whether the platform had read the request. All bytes of an answer
are kept, however odd its head is.
"""

import asyncio
import re
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import msgspec
from yarl import URL

from poller.core.errors import NotSent
from poller.core.model import RawPage
from poller.qcloud.wire.replies import is_complete
from poller.runtime.http_answer import AnswerReader, Received
from poller.runtime.http_client import Connection, HttpRequest, Route, Unreachable, client_context
from poller.runtime.http_head import Delimiter
from poller.runtime.outbound import AddressGuard
from poller.runtime.resolver import Resolver

LARGEST_BODY = 4 * 1024 * 1024
LINGER = 1.0
"""Seconds of silence after which an answer that seems complete, or that only its framing ends, counts as ended."""
_HEADERS = (
    ("Accept", "*/*"),
    ("Accept-Encoding", "identity"),
    ("Cache-Control", "no-store"),
    ("Connection", "close"),
    ("User-Agent", "live-screenshot-poller"),
)
_JSON_END = re.compile(rb"[}\])];?\s*\Z")


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """Limits in seconds: for connecting (name, TCP and TLS), for silence, and for the whole call.

    Each is shorter than the next: a call that ends at `whole` counts as sent.
    """

    connect: float = 5.0
    progress: float = 30.0
    whole: float = 60.0


class HttpReply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it came. `status` is 0 if no readable status came. `encoding` is the Content-Encoding.

    `odd` lists what is wrong or very unusual in the answer's head and framing.
    """

    status: int
    encoding: str
    whole: bool
    body: bytes
    date: str | None
    odd: str = ""
    age: str | None = None

    def page(self, source: str, about: str = "") -> RawPage:
        """This answer as a raw page that is received now."""
        return RawPage(
            source=source,
            received_at=datetime.now(UTC),
            status=self.status,
            encoding=self.encoding,
            whole=self.whole,
            body=self.body,
            about=about,
            odd=self.odd,
        )


class Client:
    """Sends calls to one endpoint. Never cancel `get`: it ends by its own deadlines."""

    def __init__(
        self,
        endpoint: str,
        *,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        guard: AddressGuard | None = None,
        deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
        complete: Callable[[bytes, str], bool] = is_complete,
    ) -> None:
        """`complete` says of a body and its Content-Encoding whether nothing is missing."""
        self._complete = complete
        self._endpoint = URL(endpoint)
        self._tls = tls
        self._proxy = None if proxy is None else URL(proxy)
        self._guard = guard
        self._deadlines = deadlines
        self._route: Route | None = None

    async def __aenter__(self) -> Self:
        self._route = Route(
            resolver=Resolver(),
            tls=client_context(self._tls, self._endpoint, self._proxy),
            guard=self._guard,
            proxy=self._proxy,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._route = None

    async def get(self, query: Mapping[str, str]) -> HttpReply:
        """Send one GET and return all bytes that came back, even if there are none.

        Raises `NotSent` when nothing left this machine. No error holds the URL: it is signed.
        """
        return await self.send(self._endpoint.update_query(query))

    async def send(self, url: URL, headers: tuple[tuple[str, str], ...] = ()) -> HttpReply:
        """The same as `get`, for a URL of the endpoint whose query is encoded already, with further headers."""
        assert self._route is not None, "enter the client first"
        end = asyncio.get_running_loop().time() + self._deadlines.whole
        request = HttpRequest(method="GET", url=url, headers=(*_HEADERS, *headers))
        connection = await self._connect(self._route, request.url)
        try:
            connection.send(request.encode(self._proxy))
            received = await self._collect(connection, end)
            return _judge(received, closed=connection.ended, complete=self._complete)
        finally:
            connection.close()

    async def _connect(self, route: Route, url: URL) -> Connection:
        try:
            async with asyncio.timeout(self._deadlines.connect):
                connection = await route.connect(url)
        except TimeoutError:
            why = "no connection in time"
        except Unreachable as error:
            why = str(error)
        else:
            if connection.quiet:
                return connection
            connection.close()
            why = "the connection ended before the request"
        raise NotSent(f"cannot connect to {self._endpoint.host}: {why.removeprefix('cannot connect: ')}")

    async def _collect(self, connection: Connection, end: float) -> Received:
        """Read until the end of the answer, the end of the connection, or a deadline."""
        reader, loop = AnswerReader(LARGEST_BODY), asyncio.get_running_loop()
        while not reader.full and loop.time() < end:
            complete = _seems_complete(reader, self._complete)
            if complete and reader.ended:
                break
            wait = LINGER if complete or reader.ended else self._deadlines.progress
            try:
                data = await connection.receive(min(wait, end - loop.time()))
            except TimeoutError:
                break
            if not data:
                break
            reader.feed(data)
        return reader.received()


def _seems_complete(reader: AnswerReader, complete: Callable[[bytes, str], bool]) -> bool:
    """Whether the body so far is complete. More may follow if the answer has no length or a wrong one."""
    if not reader.ended and not _JSON_END.search(reader.body, max(0, len(reader.body) - 16)):
        return False
    return complete(bytes(reader.body), reader.encoding)


def _judge(received: Received, *, closed: bool, complete: Callable[[bytes, str], bool]) -> HttpReply:
    """Decide whether an answer came whole. `closed`: the server ended the connection in good order."""
    encoding = (received.head.get("content-encoding") or received.coding).strip().lower()
    status, body = received.head.status, received.body
    if received.cut or received.by is Delimiter.CONFLICT:
        whole = False
    elif received.framed or (closed and status not in (0, 200)):
        whole = True
    else:
        # Without a length that can be trusted, a cut looks like the end.
        whole = complete(body, encoding)
    return HttpReply(
        status=status,
        encoding=encoding[:32],
        whole=whole,
        body=body,
        date=received.head.get("date"),
        age=received.head.get("age"),
        odd=", ".join(received.odd)[:200],
    )
