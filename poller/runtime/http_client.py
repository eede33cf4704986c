"""An HTTP/1.1 client that knows whether a request left this machine, and keeps every byte of the answer.

Invariants
    A request is sent once, over one connection. Redirects are not followed, bodies are not decompressed, and
    proxies of the environment are ignored. A `Connection` returns the bytes that arrived before it was lost
    or reset.
"""

import asyncio
import base64
import errno
import select
import socket
import ssl
from collections.abc import Iterable
from typing import Final, cast

import msgspec
from aiohappyeyeballs import start_connection
from yarl import URL

from poller.core.errors import PollerError
from poller.runtime.http_answer import AnswerReader
from poller.runtime.outbound import AddressGuard, AddressRefused
from poller.runtime.resolver import Resolver

EYEBALLS: Final = 0.25
"""Seconds until the next address is tried beside one that has not answered (RFC 8305)."""
READ_AHEAD: Final = 256 * 1024


class Unreachable(PollerError):
    """No connection was made: nothing of the request left this machine. Its text holds no URL."""


# ---------------------------------------------------------------- connections


class Connection(asyncio.Protocol):
    """A connection to a server, directly or through a proxy. Its owner must close it."""

    def __init__(self) -> None:
        self.closed = False
        self.error: Exception | None = None
        """Why the connection was lost, where it did not simply end."""
        self._transport: asyncio.Transport | None = None
        self._below: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._pieces.append(bytes(data))
        self._size += len(data)
        if self._size > READ_AHEAD and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self.closed = True
        self._wake()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self.error = self.error or error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Speak TLS from now on; nothing that came before counts. Raises `OSError`."""
        assert self._transport is not None
        self._pieces.clear()
        self._below = self._below or self._transport
        loop = asyncio.get_running_loop()
        secured = await loop.start_tls(self._transport, self, context, server_hostname=host)
        if secured is None:
            raise ConnectionResetError(errno.ECONNRESET, "lost in the handshake")
        self._transport = secured

    def send(self, data: bytes) -> None:
        """Begin to send. `unsent` is 0 as soon as the kernel has all bytes."""
        assert self._transport is not None
        self._transport.write(data)

    @property
    def unsent(self) -> int:
        """The number of bytes that the kernel has not taken yet."""
        layers = (self._transport, self._below)
        return sum(layer.get_write_buffer_size() for layer in layers if layer is not None)

    @property
    def ended(self) -> bool:
        """Whether the other side has closed the connection in good order."""
        return self.closed and self.error is None

    @property
    def quiet(self) -> bool:
        """Whether the connection is open and has no unread bytes."""
        return not self.closed and not self._pieces

    @property
    def stirs(self) -> bool:
        """Whether the kernel has bytes or an end that the event loop has not reported yet."""
        raw = None if self._transport is None else self._transport.get_extra_info("socket")
        if raw is None:
            return False
        looking = select.poll()
        looking.register(raw.fileno(), select.POLLIN)
        return bool(looking.poll(0))

    async def receive(self, seconds: float | None = None) -> bytes:
        """Wait for bytes and return all since the last call; empty after the last byte. Raises `TimeoutError`."""
        if not self._pieces and not self.closed:
            self._waiter = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(seconds):
                await self._waiter
        if self._size > READ_AHEAD and self._transport is not None and not self.closed:
            self._transport.resume_reading()
        data, self._size = b"".join(self._pieces), 0
        self._pieces.clear()
        return data

    def close(self) -> None:
        """End the connection at once."""
        self.closed = True
        for layer in (self._transport, self._below):
            if layer is not None:
                layer.abort()


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The way to a server: TLS, proxy and guard. Without a guard every address is allowed.

    With a proxy the guard is not asked: the operator wrote the proxy, which may be private, and it resolves and guards.
    """

    resolver: Resolver
    tls: ssl.SSLContext
    guard: AddressGuard | None = None
    proxy: URL | None = None

    async def connect(self, url: URL) -> Connection:
        """A connection on which a request for this URL can be sent. Raises `Unreachable`; may be cancelled."""
        connection = Connection()
        try:
            await self._open(connection, self.proxy or url)
            if self.proxy is not None and url.scheme == "https":
                await _tunnel(connection, url, self.proxy)
                await connection.secure(self.tls, _host(url))
        except OSError as error:
            connection.close()
            why = reason(error)
        except BaseException:
            connection.close()
            raise
        else:
            return connection
        raise Unreachable(why)  # out here, so that no error that knows more is its context

    async def _open(self, connection: Connection, url: URL) -> None:
        loop = asyncio.get_running_loop()
        guard = None if self.proxy is not None else self.guard
        try:
            found = await self.resolver.resolve(_host(url), url.port or 80)
        except OSError:
            raise _NotResolved("name not resolved") from None
        if len(found) == 1 and found[0][0] == socket.AF_INET:
            # nothing to race: the event loop connects by itself, for a third of the CPU
            if guard is not None:
                guard.check(found[0])
            await loop.create_connection(lambda: connection, *found[0][4], family=socket.AF_INET)
        else:
            factory = None if guard is None else guard.socket_factory
            raw = await start_connection(
                found, happy_eyeballs_delay=EYEBALLS, interleave=1, loop=loop, socket_factory=factory
            )
            await loop.create_connection(lambda: connection, sock=raw)
        if url.scheme == "https":
            await connection.secure(self.tls, _host(url))


class _NotResolved(OSError):
    pass


class _ProxyRefused(OSError):
    pass


async def _tunnel(connection: Connection, url: URL, proxy: URL) -> None:
    """Have the proxy connect to the server of an https URL."""
    authority = f"{url.host_subcomponent}:{url.port}"
    connection.send(
        _encode(f"CONNECT {authority} HTTP/1.1", [("Host", authority), *_credentials(proxy, "Proxy-")])
    )
    reader = AnswerReader(0)
    while not reader.began and not reader.full and (data := await connection.receive()):
        reader.feed(data)
    if not 200 <= (reader.status or 0) < 300 or not reader.began:
        raise _ProxyRefused(
            f"the proxy answered HTTP {reader.status}" if reader.status else "the proxy did not answer"
        )


def client_context(context: ssl.SSLContext | None, url: URL, proxy: URL | None = None) -> ssl.SSLContext:
    """The TLS context for HTTP/1.1: the one that was given, or the system's.

    Reading the system's authorities takes time and memory. Where neither URL is https, the context trusts nobody.
    """
    if context is None:
        secure = "https" in {url.scheme, proxy.scheme if proxy else ""}
        context = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    return context


# ---------------------------------------------------------------- requests


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request, which is encoded as a whole before anything is sent."""

    method: str
    url: URL
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None

    def encode(self, proxy: URL | None = None) -> bytes:
        """The bytes of the request, for the server or for a proxy that takes requests for http URLs."""
        through = proxy is not None and self.url.scheme == "http"
        target = self.url.raw_path_qs
        if through:
            target = f"http://{self._authority}{target}"
        headers = [("Host", self._authority), *self.headers]
        if not any(name.lower() == "authorization" for name, _ in self.headers):
            headers += _credentials(self.url)
        if through and proxy is not None:
            headers += _credentials(proxy, "Proxy-")
        if self.body is not None:
            headers.append(("Content-Length", str(len(self.body))))
        return _encode(f"{self.method} {target} HTTP/1.1", headers) + (self.body or b"")

    @property
    def _authority(self) -> str:
        return self.url.host_port_subcomponent or ""


def _encode(line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode()


def _credentials(url: URL, prefix: str = "") -> list[tuple[str, str]]:
    if url.user is None and url.password is None:
        return []
    pair = f"{url.user or ''}:{url.password or ''}".encode()
    return [(f"{prefix}Authorization", f"Basic {base64.b64encode(pair).decode()}")]


def _host(url: URL) -> str:
    return (url.raw_host or "").rstrip(".") if url.scheme == "https" else url.raw_host or ""


# ---------------------------------------------------------------- what went wrong


def reason(error: Exception) -> str:
    """The reason for a failed connection, in a few words without URL, query or header."""
    match error:
        case AddressRefused():
            return f"{error.address} is not a public address; allow_cidr can permit it"
        case ssl.SSLCertVerificationError():
            return f"TLS: {getattr(error, 'verify_message', '') or 'bad certificate'}"
        case ssl.SSLError():
            return f"TLS: {getattr(error, 'reason', None) or 'handshake failed'}"
        case TimeoutError():
            return "connecting took too long"
        case _NotResolved() | _ProxyRefused():
            return str(error)
    return f"cannot connect: {_number(error) or 'no address could be reached'}"


def loss(connection: Connection) -> str:
    """How a connection was lost before the answer came."""
    match connection.error:
        case None:
            return "connection closed without an answer"
        case ssl.SSLError():  # TLS 1.3 says it after the handshake
            return reason(connection.error)
    return f"connection lost: {_number(connection.error) or 'no reason given'}"


def _number(error: Exception) -> str | None:
    return errno.errorcode.get(getattr(error, "errno", None) or 0)
