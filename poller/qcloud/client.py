"""The HTTP client for `common_access`: one call is at most one request on the wire, within its own deadlines.

The queue read is destructive, so nothing below may repeat a request (aiohttp does so by itself when a
connection dies), follow a redirect, decompress, or ask the environment for a proxy.
"""

import asyncio
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
from yarl import URL

from poller.errors import NotSent, PollerError
from poller.model import Page
from poller.qcloud.replies import is_complete

LARGEST_BODY = 4 * 1024 * 1024
_HEADERS = {
    "Accept-Encoding": "identity",
    "Cache-Control": "no-store",
    "User-Agent": "live-screenshot-poller",
}
_NOTHING_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
)


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds: until connected (name, TCP and TLS), between two signs of life, and for the whole call.

    Each is shorter than the next: a call that ends at `whole` counts as sent.
    """

    connect: float = 5.0
    progress: float = 30.0
    whole: float = 60.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it came. `status` is 0 when no headers came, `encoding` the Content-Encoding."""

    status: int
    encoding: str
    whole: bool
    body: bytes
    date: str | None

    def page(self, source: str, about: str = "") -> Page:
        """The same as a source's page, received now."""
        return Page(
            source=source,
            received_at=datetime.now(UTC),
            status=self.status,
            encoding=self.encoding,
            whole=self.whole,
            body=self.body,
            about=about,
        )


NO_ANSWER = Answer(status=0, encoding="", whole=False, body=b"", date=None)


class Unanswered(PollerError):
    """The connection died after the request may have been sent."""


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Turn what makes aiohttp repeat a GET into an error of our own, which does not.

    `ClientConnectorError` stays as it is: nothing was sent.
    """
    try:
        return await send(request)
    except _NOTHING_SENT:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        reason = type(error).__name__
    raise Unanswered(reason)


class Client:
    """Speaks with one endpoint. Never cancel `get`: it ends by its own deadlines."""

    def __init__(
        self,
        endpoint: str,
        *,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
    ) -> None:
        self._endpoint = URL(endpoint)
        self._tls = tls
        self._proxy = proxy
        self._deadlines = deadlines
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        limits = self._deadlines
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=True if self._tls is None else self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(
                total=limits.whole, connect=limits.connect, sock_read=limits.progress
            ),
            middlewares=(_once,),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, query: Mapping[str, str]) -> Answer:
        """Send one GET and return whatever came back, also when that is nothing.

        Raises `NotSent` when nothing left this machine. No error holds the URL: it is signed.
        """
        assert self._session is not None, "enter the client first"
        reason = ""
        try:
            response = await self._session.get(
                self._endpoint.update_query(query), allow_redirects=False, proxy=self._proxy
            )
        except _NOTHING_SENT as error:
            reason = _why(error)
        except (Unanswered, aiohttp.ClientError, TimeoutError, OSError):
            return NO_ANSWER
        if reason:  # raised out here so that aiohttp's error, which may know the URL, is not its context
            raise NotSent(f"cannot connect to {self._endpoint.host}: {reason}")
        try:
            return await _answer(response)
        finally:
            response.release()


async def _answer(response: aiohttp.ClientResponse) -> Answer:
    # Nothing may be awaited before the body: what has come of a cut one would be gone.
    body, whole = await _collect(response.content)
    if not whole:
        response.close()
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if whole and response.status == 200 and _ends_with_connection(response):
        whole = is_complete(body, encoding)
    return Answer(
        status=response.status,
        encoding=encoding[:32],
        whole=whole,
        body=body,
        date=response.headers.get("Date"),
    )


async def _collect(content: aiohttp.StreamReader) -> tuple[bytes, bool]:
    """Read all that comes, up to 4 MiB, and say whether its end came."""
    chunks: list[bytes] = []
    size = 0
    try:
        while chunk := await content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > LARGEST_BODY:
                return b"".join(chunks)[:LARGEST_BODY], False
    except (aiohttp.ClientError, TimeoutError, OSError):
        return b"".join(chunks), False
    return b"".join(chunks), True


def _ends_with_connection(response: aiohttp.ClientResponse) -> bool:
    # Without a length, a cut looks like the end.
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    return "Content-Length" not in response.headers and not chunked


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    if isinstance(error, asyncio.TimeoutError):
        return "no connection in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "the certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.strerror:
        return error.os_error.strerror
    return type(error).__name__
