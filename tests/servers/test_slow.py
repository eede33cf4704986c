"""Memory while a server takes nothing: neither a sink nor its library piles up what is tried again and again."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from poller.core.errors import PartlyFailed, SinkError
from poller.core.model import Batch, Event
from poller.core.ports import Sink
from poller.testing import some_batch, some_event
from tests.bench.sink_loops import sink_class, terms
from tests.bench.sink_places import PLACES, Place
from tests.patience import PATIENCE

EVENTS, SIZE = 100, 50_000
"""Of a batch. Two batches are in hand."""
ORDINARY, FULL = 100 * 2**20, 160 * 2**20
"""Bytes that are given to the sink in all, in every run and with `--soak`: far more than its memory may grow."""
BOUND = 60 * 2**20
"""Bytes that its memory may grow: the two batches, each a few times over."""


@pytest.fixture(params=["amqp", "kafka", "mariadb", "nats", "postgresql", "redis"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with PLACES[request.param]() as one:
        one.clear()
        yield one


def large(number: int) -> Event:
    event = some_event(number, stream="x" * 16)
    told = msgspec.json.decode(event.encoded)
    told["data"]["message"]["filler"] = "x" * SIZE
    return msgspec.structs.replace(event, encoded=msgspec.json.encode(told))


def resident() -> int:
    """Bytes of this process's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def try_often(sink: Sink, batch: Batch, timeout: float, offered: int) -> None:
    """Deliver as a courier does, which cancels at the end of the time."""
    for _ in range(offered // (2 * EVENTS * SIZE)):
        with pytest.raises((TimeoutError, SinkError, PartlyFailed)):
            async with asyncio.timeout(timeout):
                await sink.deliver(batch)


async def until_delivered(sink: Sink, batch: Batch) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await sink.deliver(batch)
                return
            except (SinkError, PartlyFailed):
                await asyncio.sleep(0.1)


async def test_memory_stays_bounded_while_a_server_hangs(place: Place, soak: bool) -> None:
    settings = {**place.settings, "timeout": "3s" if place.settings["type"] == "kafka" else "500ms"}
    batches = [some_batch(*map(large, range(first, first + EVENTS))) for first in (0, EVENTS)]
    assert place.server is not None
    async with sink_class(settings["type"])("bus", given := terms(settings), {}) as sink:
        for batch in batches:
            await until_delivered(sink, batch)
        before = resident()
        with place.server.frozen():
            async with asyncio.timeout(2 * PATIENCE):  # a sink that holds a cancelled delivery hangs here
                offered = FULL if soak else ORDINARY
                await asyncio.gather(*[try_often(sink, batch, given.timeout, offered) for batch in batches])
            grown = resident() - before
        assert grown < BOUND, f"{grown / 2**20:.0f} MiB"
        for batch in batches:
            await until_delivered(sink, batch)
