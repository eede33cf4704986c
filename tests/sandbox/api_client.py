"""A client made for these tests: it signs, asks, and can read an answer byte by byte."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from poller.sandbox import Customer, Load, Options, Sandbox
from tests.patience import PATIENCE

Play = Callable[[Sandbox, aiohttp.ClientSession], Awaitable[None]]


def play(directory: Path, scene: Play, **options: Any) -> None:
    """Runs a scene with a sandbox and an HTTP session."""

    async def whole() -> None:
        options.setdefault("upload_delay", (0.0, 0.0))
        async with (
            asyncio.timeout(PATIENCE),
            Sandbox(Options(directory=directory, **options)) as sandbox,
            aiohttp.ClientSession() as session,
        ):
            await scene(sandbox, session)

    asyncio.run(whole())


def signed(customer: Customer | None = None, /, **changes: str | None) -> str:
    """The query string of a Live_Queue_Get of 100; a change of None leaves a parameter out."""
    customer = customer or Customer()
    t = changes.get("t") or str(int(time.time()) + 60)
    query: dict[str, str | None] = {
        "cmd": str(customer.app_id),
        "interface": "Live_Queue_Get",
        "Param.n.bid": "100",
        "Param.n.count": "100",
        "t": t,
        "sign": md5(f"{customer.key}{t}".encode()).hexdigest(),
    }
    query |= {name.replace("__", "."): value for name, value in changes.items()}
    return "&".join(f"{name}={quote(value)}" for name, value in query.items() if value is not None)


def listing(customer: Customer | None = None, /, **changes: str | None) -> str:
    """The query string of a Live_Tape_GetFilelist for channel `show`, with defaults for the rest."""
    return _about("Live_Tape_GetFilelist", customer, changes)


def asking_status(customer: Customer | None = None, /, **changes: str | None) -> str:
    """The query string of a Live_Channel_GetStatus for channel `show`."""
    return _about("Live_Channel_GetStatus", customer, changes)


def _about(interface: str, customer: Customer | None, changes: dict[str, str | None]) -> str:
    no_queue = {"Param__n__bid": None, "Param__n__count": None}
    asked = {"interface": interface, "Param__s__channel_id": "show", **no_queue, **changes}
    return signed(customer, **asked) if customer else signed(**asked)


def record(
    sandbox: Sandbox,
    customer: Customer,
    count: int,
    *,
    stream_id: str = "show",
    start: float = 1471850187.0,
    step: float = 60.0,
) -> list[str]:
    """Files so many small segments of 30 s, one after the other; returns their vids."""
    vids = []
    for number in range(count):
        begun = start + number * step
        vid = sandbox.recordings.begin(customer, stream_id, begun)
        sandbox.recordings.part(vid).write_bytes(b"FLV" + bytes(number % 50))
        sandbox.recordings.end(vid, begun + 30)
        vids.append(vid)
    return vids


async def ask(sandbox: Sandbox, session: aiohttp.ClientSession, query: str | None = None) -> Any:
    """The answer to a query, decoded."""
    return json.loads(await ask_bytes(sandbox, session, query))


async def ask_bytes(sandbox: Sandbox, session: aiohttp.ClientSession, query: str | None = None) -> bytes:
    async with session.get(f"{sandbox.endpoints['api']}?{query or signed()}") as response:
        return await response.read()


async def raw(url: str, query: str = "") -> tuple[bytes, bytes, BaseException | None]:
    """Head, body as sent, and how the connection ended (None: in an orderly way)."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    target = f"{parts.path}?{query}" if query else parts.path
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
    got, ended = b"", None
    try:
        while piece := await reader.read(65536):
            got += piece
    except ConnectionError as error:
        ended = error
    writer.close()
    head, _, body = got.partition(b"\r\n\r\n")
    return head, body, ended


async def tell(sandbox: Sandbox, session: aiohttp.ClientSession, verb: str, **wish: Any) -> Any:
    """A POST to the control port."""
    async with session.post(f"{sandbox.endpoints['control']}/{verb}", json=wish) as response:
        said = await response.json()
        assert response.status == 200, said
        return said


def loaded(sandbox: Sandbox, count: int = 3) -> None:
    sandbox.enqueue(Load(count=count))
