"""What the download sink's tests share: a JPEG, events, a server that answers as told, a sink."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import msgspec
import pytest

from poller.core.model import Batch, Event, batch_id, identity, new_event
from poller.runtime.syncfs import why_unsupported
from poller.sinks.download import Download, DownloadSettings

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(hours=2)


# ---------------------------------------------------------------- pictures and events


@cache
def jpeg(width: int = 320, height: int = 176, seed: int = 0) -> bytes:
    """A real baseline JPEG, as a video encoder makes it."""
    frame = av.VideoFrame(width, height, "yuvj420p")
    for plane in frame.planes:
        plane.update(random.Random(seed).randbytes(plane.buffer_size // 64) * 64)
    output = BytesIO()
    with av.open(output, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return output.getvalue()


def shot(
    name: str = "cam1_1471850187_1471850187_10_320_176.jpg",
    url: str | None = None,
    *,
    key: str | None = None,
    stream: str = "cam1",
    account: str = "main",
    at: datetime = LONG_AGO,
    received: datetime | None = None,
) -> Event:
    """A screenshot whose name fixes it, unless another key is given."""
    event = new_event(
        id=identity("screenshot", account, name if key is None else key),
        kind="screenshot",
        account=account,
        stream_id="",
        occurred_at=at,
        received_at=received or at,
        url=None,
        fields={},
        message=msgspec.Raw(b"{}"),
    )
    # Put in afterwards, because halves of characters have no public form.
    return msgspec.structs.replace(event, url=url, stream_id=stream)


def batch(*events: Event) -> Batch:
    """One batch of these events."""
    return Batch(
        id=batch_id([event.id for event in events]),
        sink="archive",
        events=events,
    )


# ---------------------------------------------------------------- a server


Answer = Callable[[str], bytes | Awaitable[bytes]]
"""From a request's path to the bytes that are sent before the connection is closed."""


@dataclass(kw_only=True)
class Server:
    """Where it listens, and every request's head as it came."""

    port: int = 0
    heads: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        """A URL on this server."""
        return f"http://127.0.0.1:{self.port}/{path}"


@asynccontextmanager
async def serving(answer: Answer, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    """A server that answers each request by the bytes for its path, then closes."""
    server = Server()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            server.heads.append(head)
            said = answer(head.split(" ")[1])
            writer.write(said if isinstance(said, bytes) else await said)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(connected, host, 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


def ok(body: bytes, *headers: str, length: int | None = -1, status: str = "200 OK") -> bytes:
    """An answer; `length` None leaves the Content-Length out, so that only the close ends the body."""
    lines = [f"HTTP/1.1 {status}", "Connection: close", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


# ---------------------------------------------------------------- a sink


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """The part of an account that the sink looks at."""

    picture_hosts: frozenset[str] = frozenset({"127.0.0.1"})


def download(directory: Path, *, accounts: Sequence[str] = ("main",), **settings: Any) -> Download:
    """A sink that may fetch from this machine."""
    made = DownloadSettings.model_validate(
        {"type": "download", "directory": directory, "allow_cidr": ["127.0.0.0/8"], **settings}
    )
    return Download("archive", made, {name: Hosts() for name in accounts})


def delivered(directory: Path, answer: Answer, *names: str, **settings: Any) -> Exception | None:
    """What became of one batch of old shots with these names, fetched from a server that answers so."""

    async def main() -> Exception | None:
        async with serving(answer) as server, download(directory, **settings) as sink:
            events = [shot(name, server.url(name)) for name in names or ("cam1_1_1_1_320_176.jpg",)]
            return await attempt(sink, *events)

    return asyncio.run(main())


async def attempt(sink: Download, *events: Event) -> Exception | None:
    """Deliver once; what it raised, or None."""
    try:
        await sink.deliver(batch(*events))
    except Exception as error:
        return error
    return None


def needs_syncfs(folder: Path) -> None:
    """Skip at home, fail in CI, where `sync: filesystem` is refused."""
    if why := why_unsupported(folder):
        if os.environ.get("CI") == "true":
            pytest.fail(f"sync: filesystem {why}, and CI=true allows no skipping")
        pytest.skip(f"SYNC: FILESYSTEM NOT TESTED: it {why}")


def files(directory: Path) -> dict[str, bytes]:
    """Every file below the directory, by relative path."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in _walk(directory)}


def _walk(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink())
