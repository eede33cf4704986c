"""A pusher made for these tests, which can do it in every way, also wrongly; and a stage that keeps what arrives."""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any, Self
from urllib.parse import urlsplit

import uvloop

from poller.sandbox.rtmp.ingest import RtmpServer, serve_rtmp
from poller.sandbox.rtmp.publish_handler import PublishRefused, PublishRequest
from tests.patience import PATIENCE

Piece = tuple[int, int, bytes]
"""Kind, timestamp, body of a media message."""

SESSION_SILENCE = 5.0


# --- AMF0 and chunks, written a second time ---


def amf(*values: object) -> bytes:
    """The values as AMF0."""
    return b"".join(map(_amf, values))


def _amf(value: object) -> bytes:
    if value is None:
        return b"\x05"
    if isinstance(value, bool):
        return b"\x01" + bytes([value])
    if isinstance(value, int | float):
        return b"\x00" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"\x02" + _short(value)
    assert isinstance(value, Mapping)
    return b"\x03" + b"".join(_short(key) + _amf(one) for key, one in value.items()) + b"\0\0\x09"


def _short(text: str) -> bytes:
    return struct.pack(">H", len(text.encode())) + text.encode()


def unamf(data: bytes) -> list[Any]:
    """What the ingest's replies hold: numbers, texts, flags, nulls and objects."""
    values = []
    while data:
        value, data = _unamf(data)
        values.append(value)
    return values


def _unamf(data: bytes) -> tuple[Any, bytes]:
    kind, data = data[0], data[1:]
    if kind == 0:
        return struct.unpack(">d", data[:8])[0], data[8:]
    if kind == 1:
        return data[0] != 0, data[1:]
    if kind == 2:
        return _untext(data)
    if kind == 3:
        found = {}
        while data[:3] != b"\0\0\x09":
            name, data = _untext(data)
            found[name], data = _unamf(data)
        return found, data[3:]
    assert kind == 5, kind
    return None, data


def _untext(data: bytes) -> tuple[str, bytes]:
    size = int.from_bytes(data[:2], "big")
    return data[2 : 2 + size].decode(), data[2 + size :]


class Writer:
    """Messages as chunks.

    short:  headers leave out what the chunk stream's last one said, as real pushers do
    repeat: a continuation repeats the extended timestamp, as ffmpeg does and older librtmp does not
    """

    def __init__(self, size: int = 128, *, short: bool = True, repeat: bool = True) -> None:
        self.size = size
        self.short = short
        self.repeat = repeat
        self._last: dict[int, tuple[int, int, int, int, int]] = {}

    def chunks(self, channel: int, kind: int, timestamp: int, body: bytes, stream: int = 1) -> list[bytes]:
        """The message's chunks, one by one."""
        header, extended = self._header(channel, kind, timestamp, len(body), stream)
        again = self._basic(3, channel) + (extended if self.repeat else b"")
        parts = [body[at : at + self.size] for at in range(0, len(body), self.size)] or [b""]
        return [header + parts[0], *(again + part for part in parts[1:])]

    def message(self, channel: int, kind: int, timestamp: int, body: bytes, stream: int = 1) -> bytes:
        return b"".join(self.chunks(channel, kind, timestamp, body, stream))

    def _header(
        self, channel: int, kind: int, timestamp: int, length: int, stream: int
    ) -> tuple[bytes, bytes]:
        form, delta = 0, timestamp
        if self.short and channel in self._last:
            before, step, *same = self._last[channel]
            if stream == same[2]:
                form, delta = 1, (timestamp - before) % (1 << 32)
                if same[:2] == [kind, length]:
                    form = 3 if delta == step else 2
        self._last[channel] = (timestamp, delta, kind, length, stream)
        extended = struct.pack(">I", delta) if delta >= 0xFFFFFF else b""
        whole = min(delta, 0xFFFFFF).to_bytes(3, "big") + length.to_bytes(3, "big") + bytes([kind])
        whole += stream.to_bytes(4, "little")
        return self._basic(form, channel) + whole[: (11, 7, 3, 0)[form]] + extended, extended

    @staticmethod
    def _basic(form: int, channel: int) -> bytes:
        if channel < 64:
            return bytes([form << 6 | channel])
        if channel < 320:
            return bytes([form << 6, channel - 64])
        return bytes([form << 6 | 1]) + (channel - 64).to_bytes(2, "little")


def control(kind: int, body: bytes) -> bytes:
    """A protocol control message with a full header."""
    return Writer(1 << 20, short=False).message(2, kind, 0, body, 0)


def resize(size: int) -> bytes:
    return control(1, struct.pack(">I", size))


def tag(kind: int, timestamp: int, body: bytes) -> bytes:
    """A message inside an aggregate."""
    moment = (timestamp & 0xFFFFFF).to_bytes(3, "big") + bytes([timestamp >> 24])
    return (
        bytes([kind])
        + len(body).to_bytes(3, "big")
        + moment
        + b"\0\0\0"
        + body
        + struct.pack(">I", len(body) + 11)
    )


def handshake() -> bytes:
    """All that a pusher says before its first message."""
    return b"\x03" + bytes(1536) + bytes(1536)


def opening(
    name: str, *, app: str = "live", tc_url: str = "rtmp://h/live", size: int = 128, chunk: int = 128
) -> bytes:
    """All that a pusher says from `connect` to `publish`; `chunk` is the size it then sets."""
    writer = Writer(size)
    return b"".join(
        (
            writer.message(3, 20, 0, amf("connect", 1, {"app": app, "tcUrl": tc_url}), 0),
            writer.message(3, 20, 0, amf("createStream", 2, None), 0),
            writer.message(4, 20, 0, amf("publish", 3, None, name, "live"), 1),
            resize(chunk),
        )
    )


def pieces(count: int, *, frame: int = 3000, start: int = 0) -> list[Piece]:
    """A made-up stream: script data, then video every 40 ms with audio in between."""
    made: list[Piece] = [(18, start, amf("onMetaData", {"width": 640}))]
    for number in range(count):
        at = (start + 40 * number) % (1 << 32)
        seed = number.to_bytes(4, "big")
        made.append((9, at, (b"\x27\x01\0\0\0" + seed + md5(seed).digest() * (frame // 16))[:frame]))
        made.append((8, (at + 20) % (1 << 32), b"\xaf\x01" + md5(b"a" + seed).digest() * (1 + number % 20)))
    return made


# --- the pusher ---


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A message from the ingest, and the form of its header."""

    form: int
    kind: int
    stream: int
    body: bytes

    @property
    def values(self) -> list[Any]:
        return unamf(self.body) if self.kind == 20 else []


class Peer:
    """A raw connection to an ingest."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.socket = writer
        self.replies: list[Reply] = []
        self.chunks = Writer()
        self._size = 128

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Connected, and nothing said. The caller holds on to it: what is forgotten is closed."""
        parts = urlsplit(url)
        assert parts.hostname
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    @classmethod
    async def greet(cls, url: str) -> Self:
        """Connected, with the handshake behind it."""
        peer = await cls.connect(url)
        peer.send(handshake())
        await peer.greeted()
        return peer

    @classmethod
    async def publish(cls, url: str, name: str, *, chunk: int = 128, **options: Any) -> Self:
        """Connected, and let in."""
        peer = await cls.greet(url)
        peer.send(opening(name, chunk=chunk, **options))
        await peer.status("NetStream.Publish.Start")
        peer.chunks = Writer(chunk)
        return peer

    def send(self, data: bytes) -> None:
        self.socket.write(data)

    async def greeted(self) -> bytes:
        """The ingest's side of the handshake."""
        return await self.reader.readexactly(1 + 2 * 1536)

    async def push(self, stream: Iterable[Piece]) -> None:
        """Sends media, each kind on a chunk stream of its own, and waits while the socket is full."""
        for kind, timestamp, body in stream:
            self.send(self.chunks.message(kind, kind, timestamp, body))
            await self.socket.drain()

    async def call(self, name: str, transaction: float, *values: object, stream: int = 0) -> Reply:
        """Calls, and waits for the answer to that transaction."""
        self.send(Writer(self.chunks.size).message(3, 20, 0, amf(name, transaction, *values), stream))
        return await self.reply(lambda reply: reply.values[1:2] == [transaction])

    async def status(self, code: str) -> Reply:
        """Waits for an `onStatus` with that code."""
        return await self.reply(
            lambda reply: reply.values[:1] == ["onStatus"] and reply.values[3]["code"] == code
        )

    async def reply(self, wanted: Callable[[Reply], bool]) -> Reply:
        """The first reply, old or new, that is like that."""
        for reply in self.replies:
            if wanted(reply):
                return reply
        while True:
            reply = await self._read()
            self.replies.append(reply)
            if wanted(reply):
                return reply

    async def ended(self) -> bool:
        """Waits until the ingest has closed; whether that was in an orderly way."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            return False
        return True

    async def close(self) -> None:
        """Ends the connection in an orderly way: closing with replies unread would be a reset."""
        self.socket.write_eof()
        await self.ended()
        self.socket.close()

    def reset(self) -> None:
        """Ends the connection by a reset."""
        own = self.socket.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.transport.abort()

    async def _read(self) -> Reply:
        """One message; the ingest interleaves nothing and sends full headers."""
        (first,) = await self.reader.readexactly(1)
        header = await self.reader.readexactly(11)
        length = int.from_bytes(header[3:6], "big")
        body = await self.reader.readexactly(min(length, self._size))
        while len(body) < length:
            assert await self.reader.readexactly(1) == bytes([first | 0xC0])
            body += await self.reader.readexactly(min(length - len(body), self._size))
        if header[6] == 1:
            self._size = int.from_bytes(body, "big")
        return Reply(form=first >> 6, kind=header[6], stream=int.from_bytes(header[7:], "little"), body=body)


# --- the platform behind the ingest ---


@dataclass
class Take:
    """A push as it arrived."""

    request: PublishRequest
    close: Callable[[], None]
    pieces: list[Piece] = field(default_factory=list)
    why: list[str] = field(default_factory=list)
    """Why it ended; more than one would be a mistake."""

    def tag(self, kind: int, timestamp: int, body: bytes) -> None:
        assert not self.why, "a tag behind the end"
        assert type(body) is bytes
        self.pieces.append((kind, timestamp, body))

    def end(self, why: str) -> None:
        self.why.append(why)


class Takes:
    """Lets in every name that is not live, but `forbidden`."""

    def __init__(self) -> None:
        self.takes: list[Take] = []

    def publish(self, request: PublishRequest, close: Callable[[], None]) -> Take:
        if request.stream == "forbidden":
            raise PublishRefused("this name is not for you")
        if any(take.request.stream == request.stream and not take.why for take in self.takes):
            raise PublishRefused("this stream is live already")
        self.takes.append(Take(request, close))
        return self.takes[-1]

    def of(self, stream: str) -> Take:
        """The newest push of that name."""
        return [take for take in self.takes if take.request.stream == stream][-1]

    async def end_of(self, stream: str) -> str:
        """Waits for the end of that push; why it was."""
        await until(
            lambda: any(take.request.stream == stream for take in self.takes) and bool(self.of(stream).why)
        )
        (why,) = self.of(stream).why
        return why


async def until(true: Callable[[], bool], deadline: float = PATIENCE) -> None:
    """Polls."""
    async with asyncio.timeout(deadline):
        while not true():
            await asyncio.sleep(0.005)


Scene = Callable[[RtmpServer, Takes], Awaitable[None]]


@asynccontextmanager
async def stage(silence: float, **options: Any) -> AsyncIterator[tuple[RtmpServer, Takes]]:
    """An ingest with its stage. Nothing may reach the loop's exception handler."""
    leaked: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: leaked.append(context))
    takes = Takes()
    async with serve_rtmp("127.0.0.1:0", takes, silence=silence, **options) as ingest:
        yield ingest, takes
    assert not ingest.connections
    assert all(len(take.why) == 1 for take in takes.takes)
    assert not leaked


def play(
    scene: Scene,
    *,
    silence: float = SESSION_SILENCE,
    deadline: float = PATIENCE,
    loop: str = "uvloop",
    **options: Any,
) -> None:
    """Runs a scene with an ingest."""

    async def whole() -> None:
        async with asyncio.timeout(deadline), stage(silence, **options) as (ingest, takes):
            await scene(ingest, takes)

    factory = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}[loop]
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(whole())


def scene(silence: float = SESSION_SILENCE, **options: Any) -> Callable[[Scene], Callable[[], None]]:
    """A test that is a scene."""

    def decorate(body: Scene) -> Callable[[], None]:
        def test() -> None:
            play(body, silence=silence, **options)

        functools.update_wrapper(test, body)
        del test.__wrapped__  # type: ignore[attr-defined]  # pytest would ask for the scene's arguments
        return test

    return decorate
