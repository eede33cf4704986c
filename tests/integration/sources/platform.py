"""The daemon beside the sandbox in one loop, for sources that follow channels."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from poller.core.model import Event
from poller.daemon.daemon import Daemon
from poller.daemon.signals import Stop
from poller.sandbox import Customer, Options, Sandbox
from poller.settings import load
from poller.testing.history import newest_events
from tests.patience import PATIENCE

Scene = Callable[[Sandbox], Awaitable[None]]


def configured(
    folder: Path, box: Sandbox, sources: Mapping[str, Any], *, spool: str = "sqlite", **account: Any
) -> Path:
    """A configuration of these sources, all of account `main`; every event goes to a file of its own sink."""
    customer = Customer()
    main = {
        "endpoint": box.endpoints["api"],
        "app_id": customer.app_id,
        "key": customer.key,
        "rate": "10000/s",
        **account,
    }
    config = {
        "accounts": {"main": main},
        "sources": {name: {"account": "main", **settings} for name, settings in sources.items()},
        "spool": {"type": spool, **({"path": str(folder / "spool.db")} if spool == "sqlite" else {})},
        "journal": {"path": str(folder / "journal"), "size": "16MiB"},
        "sinks": {"console": {"type": "stdout"}},
    }
    file = folder / "poller.yaml"
    file.write_text(json.dumps(config))
    return file


@asynccontextmanager
async def running(config: Path) -> AsyncIterator[Daemon]:
    """A daemon that polls until the block is left, and is then stopped in an orderly way."""
    stop = Stop()
    stop.listen_in_loop()
    async with Daemon(load(config)) as daemon:
        life = asyncio.create_task(daemon.run(stop))
        try:
            yield daemon
        finally:
            stop.now()
            stop.now()
            await life


async def events_of(daemon: Daemon, kind: str) -> list[Event]:
    """The events of that kind, oldest first."""
    return [event for event in reversed(await newest_events(daemon.spool, 100_000)) if event.kind == kind]


async def until_events(daemon: Daemon, kind: str, count: int) -> list[Event]:
    """Wait until so many events of that kind are in the spool."""
    async with asyncio.timeout(PATIENCE):
        while len(found := await events_of(daemon, kind)) < count:
            await asyncio.sleep(0.01)
    return found


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


def play(folder: Path, scene: Scene, **options: Any) -> None:
    """Run a scene with a sandbox."""

    async def whole() -> None:
        async with asyncio.timeout(120), Sandbox(Options(directory=folder / "box", **options)) as box:
            await scene(box)

    asyncio.run(whole())
