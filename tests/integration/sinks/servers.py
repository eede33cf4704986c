"""Servers with which the sinks' tests speak, written on the bytes so that they can answer wrongly."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import msgspec

from poller.core.model import Batch, Event, batch_id, identity, new_event


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as it came; header names in lower case."""

    line: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]
"""Writes the answer; the connection lives on unless it closes it."""


@dataclass(kw_only=True)
class Server:
    """A listening server: where it is and what came."""

    port: int = 0
    connections: int = 0
    requests: list[Request] = field(default_factory=list)
    url: str = ""


@asynccontextmanager
async def serving(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server on a free port of 127.0.0.1 that answers each request with `answer`."""
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        tasks.add(cast("asyncio.Task[None]", asyncio.current_task()))
        try:
            while not writer.is_closing():
                request = await _read(reader)
                server.requests.append(request)
                await answer(request, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ssl.SSLError):
            pass  # also the cancelling below: asyncio's streams would print it
        finally:
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.port}/hook?token=in-the-query"
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(line=head[0], headers=headers, body=body)


def saying(status: int, *headers: str, body: bytes = b"") -> Answer:
    """Answers every request with this status, these header lines and this body."""
    lines = [f"HTTP/1.1 {status} Whatever", *headers, f"Content-Length: {len(body)}", "", ""]

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(lines).encode() + body)

    return answer


def event(number: int) -> Event:
    """A screenshot; the same number is the same event."""
    return new_event(
        id=identity("screenshot", "main", f"room_{number}.jpg"),
        kind="screenshot",
        account="main",
        stream_id=f"房间_{number}",
        occurred_at=None,
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
        url=f"http://shots.example/room_{number}.jpg",
        fields={"file_name": f"room_{number}.jpg", "width": 300, "height": 169},
        message=msgspec.Raw(b'{"stream_id":"room"}'),
    )


def batch(count: int = 1, *, first: int = 0) -> Batch:
    """A batch of events numbered from `first`."""
    events = [event(number) for number in range(first, first + count)]
    return Batch(
        id=batch_id([each.id for each in events]),
        sink="hook",
        events=tuple(events),
    )
