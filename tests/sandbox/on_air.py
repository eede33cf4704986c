"""Pushes to a whole sandbox, and what becomes of them."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import md5
from typing import Any
from urllib.parse import quote

import aiohttp

from poller.sandbox import Customer, Sandbox
from poller.sandbox.media.tags import Tag
from tests.patience import PATIENCE

from .api_client import ask, signed
from .rtmp_peer import Peer, opening

CUSTOMER = Customer()


@dataclass(frozen=True, kw_only=True)
class Said:
    """A message of the queue, and what its picture's name says. `at` is the tick."""

    stream_id: str
    name: str
    push: int
    at: int
    width: int
    height: int


@asynccontextmanager
async def on_air(
    sandbox: Sandbox, name: str, tags: Iterable[Tag] = (), *, query: str = ""
) -> AsyncIterator[Peer]:
    """A push of that name, with these messages sent; its connection is closed in the end."""
    peer = await Peer.publish(str(sandbox.endpoints["rtmp"]), quote(name, safe="") + query, chunk=65536)
    try:
        await peer.push(tags)
        yield peer
    finally:
        peer.socket.close()


async def refused(sandbox: Sandbox, name: str, *, query: str = "", tc_url: str = "rtmp://h/live") -> str:
    """What a push that is not let in is told."""
    peer = await Peer.greet(str(sandbox.endpoints["rtmp"]))
    peer.send(opening(quote(name, safe="") + query, tc_url=tc_url))
    reply = await peer.reply(lambda one: one.values[:1] == ["onStatus"])
    assert reply.values[3]["code"] == "NetStream.Publish.BadName", reply.values
    await peer.close()
    return str(reply.values[3]["description"])


def secret(key: str, stream_id: str, until: float) -> str:
    """The query that lets a push in until that epoch."""
    time = f"{int(until):X}"
    return f"?txSecret={md5(f'{key}{stream_id}{time}'.encode()).hexdigest()}&txTime={time}"


async def over(sandbox: Sandbox, stream_id: str, customer: Customer = CUSTOMER) -> None:
    """Waits for the end of a push."""
    await sandbox.until(lambda: sandbox.live.find(customer.app_id, stream_id) is None)


async def messages(
    sandbox: Sandbox, session: aiohttp.ClientSession, customer: Customer = CUSTOMER
) -> list[Said]:
    """Takes all messages off the customer's queue, in order; their names are of grammar A."""
    found: list[Any] = []
    while some := (await ask(sandbox, session, signed(customer)))["output"]["data"]:
        found += some
    return [said(one["stream_id"], one["pic_url"]) for one in found]


def said(stream_id: str, name: str) -> Said:
    """Read from the right, because the stream id may hold underscores."""
    match = re.fullmatch(r"(.+)_(\d+)_(\d+)_(\d+)_(\d+)_(\d+)\.jpg", name)
    assert match is not None, name
    assert match[1] == stream_id
    push, _, offset, width, height = map(int, match.groups()[1:])
    return Said(stream_id=stream_id, name=name, push=push, at=push + offset, width=width, height=height)


async def fetched(
    sandbox: Sandbox, session: aiohttp.ClientSession, name: str, customer: Customer = CUSTOMER
) -> tuple[int, bytes]:
    """Status and body of a picture, as its customer asks for it."""
    url = f"{sandbox.endpoints['cos']}/{customer.host_label}/{quote(name)}"
    async with session.get(url) as response:
        return response.status, await response.read()


async def until(true: Callable[[], bool], deadline: float = PATIENCE) -> None:
    """Polls what rings no bell."""
    async with asyncio.timeout(deadline):
        while not true():
            await asyncio.sleep(0.005)
