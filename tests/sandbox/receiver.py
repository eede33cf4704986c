"""A receiver of notifications, made for tests: it keeps what comes, and answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import md5
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from poller.sandbox import Customer, Options, Sandbox, era
from poller.sandbox.options import Year
from tests.patience import PATIENCE

from .on_air import until

KEY = "a callback key"


@dataclass(frozen=True, kw_only=True)
class Got:
    """One request, and how it was answered."""

    wire: bytes
    headers: Mapping[str, str]
    status: int

    @property
    def body(self) -> dict[str, Any]:
        found = json.loads(self.wire)
        assert isinstance(found, dict)
        return found

    @property
    def about(self) -> dict[str, Any]:
        """The body without what proves it."""
        return {name: value for name, value in self.body.items() if name not in ("t", "sign")}

    def is_signed(self, key: str = KEY) -> bool:
        """Whether `sign` fits, worked out a second time."""
        t = self.body.get("t")
        return bool(self.body.get("sign") == md5(f"{key}{t}".encode()).hexdigest())


Response = Callable[[dict[str, Any]], Awaitable[int]]


async def yes(body: dict[str, Any]) -> int:
    return 200


async def no(body: dict[str, Any]) -> int:
    return 500


async def never(body: dict[str, Any]) -> int:
    await asyncio.Event().wait()
    return 200


@dataclass
class Receiver:
    """What came, in order of arrival."""

    url: str = ""
    answer: Response = yes
    got: list[Got] = field(default_factory=list)
    begun: int = 0
    """Requests that came, answered or not."""
    strays: int = 0
    """Redirects that were followed."""

    async def take(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/elsewhere":
            self.strays += 1
            return web.json_response({"code": 0})
        assert (request.method, request.path) == ("POST", "/secret-path")
        wire = await request.read()
        self.begun += 1
        status = await self.answer(json.loads(wire))
        self.got.append(Got(wire=wire, headers=request.headers, status=status))
        headers = {"Location": "/elsewhere"} if status == 302 else {}
        return web.json_response({"code": 0}, status=status, headers=headers)

    def of(self, event_type: object) -> list[Got]:
        return [one for one in self.got if one.body.get("event_type") == event_type]

    async def until(self, count: int, event_type: object = None) -> list[Got]:
        """All, or all of a type, once they are so many."""

        def found() -> list[Got]:
            return self.got if event_type is None else self.of(event_type)

        await until(lambda: len(found()) >= count)
        return found()


@asynccontextmanager
async def receiving(answer: Response = yes) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer=answer)
    server = web.Server(receiver.take, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/secret-path"
        yield receiver
    finally:
        await runner.cleanup()


Scene = Callable[..., Awaitable[None]]


def run_scene(
    directory: Path,
    scene: Scene,
    *customers: Customer,
    answer: Response = yes,
    key: str | None = KEY,
    **options: Any,
) -> None:
    """Runs a scene with a sandbox and a receiver for each customer, by default for one with a key."""
    customers = customers or (Customer(callback_key=key),)
    defaults: dict[str, Any] = {"upload_delay": (0.0, 0.0), "interval": 1e6, "callback_pace": 0.0}

    async def whole() -> None:
        async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
            receivers = [await stack.enter_async_context(receiving(answer)) for _ in customers]
            sandbox = Sandbox(
                Options(
                    directory=directory,
                    customers=tuple(
                        replace(customer, callback_url=receiver.url)
                        for customer, receiver in zip(customers, receivers, strict=True)
                    ),
                    **(defaults | options),
                )
            )
            async with sandbox:
                await scene(sandbox, *receivers)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


def in_year(year: Year) -> dict[str, Any]:
    """The options of a platform of that year."""
    answers, naming = era(year)
    return {"answers": answers, "naming": naming}


def counts(sandbox: Sandbox) -> dict[str, int]:
    """What became of all notifications."""
    state: Any = sandbox.state()["callbacks"]
    return {name: value for name, value in state.items() if name != "customers"}


async def settled(sandbox: Sandbox) -> dict[str, int]:
    """The counts, once nothing waits."""
    await sandbox.until(lambda: counts(sandbox)["waiting"] == 0)
    return counts(sandbox)
