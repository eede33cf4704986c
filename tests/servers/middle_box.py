"""A middle box, such as a router or a load balancer, before a real server: it cuts connections, or loses their packets.

Each story delivers through the box as a courier does, and returns when every event was confirmed. The test then looks
into the server.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import pytest

from poller.core.errors import PartlyFailed, TryLater
from poller.core.model import Event
from poller.core.ports import Sink
from poller.testing import some_batch, some_event
from tests.patience import PATIENCE

WITHIN: Final = 4.0
"""Seconds for one delivery, after which it is cancelled."""
ATTEMPTS: Final = 3
"""How many more deliveries may fail once the fault is over, before somebody would have to restart the daemon."""
MIDST: Final = 10_000
"""Bytes from the sink that pass before the fault: less than a batch of a hundred events."""
RESET: Final = struct.pack("ii", 1, 0)
"""Lets a socket send RST when it is closed."""


class MiddleBox:
    """Passes connections on to a server on this machine.

    silent:   new connections are accepted, and nothing is said to them
    accepted: how many connections came
    fired:    how many connections were cut or lost
    passed:   all bytes that came from the sink, of all connections
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.silent = False
        self.accepted = 0
        self.fired = 0
        self.passed = bytearray()
        self._target = target
        self._left: int | None = None
        self._cuts = False
        self._lost: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut_after(self, size: int) -> None:
        """Reset a connection once so many bytes have come from the sink."""
        self._left, self._cuts = size, True

    def lose_after(self, size: int) -> None:
        """Once so many bytes have come from the sink, let all packets of the connections there are vanish, for ever."""
        self._left, self._cuts = size, False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on. Called for each one that is accepted."""
        self.accepted += 1
        self._open.add(writer)
        if self.silent:
            self._lost.add(writer)
            return
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open.add(forth)
        for way in (self._pass(reader, writer, forth, True), self._pass(back, writer, forth, False)):
            task = asyncio.ensure_future(way)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        server: asyncio.StreamWriter,
        forth: bool,
    ) -> None:
        to = server if forth else client
        with suppress(OSError):
            while data := await reader.read(65_536):
                if forth and self._left is not None and client not in self._lost:
                    data = self._count(data)
                if client not in self._lost:
                    if forth:
                        self.passed += data
                    to.write(data)
                    await to.drain()
                if forth and self._left == 0:
                    self._strike(client, server)
        if client not in self._lost:
            to.close()

    def _count(self, data: bytes) -> bytes:
        assert self._left is not None
        passed = data[: self._left]
        self._left -= len(passed)
        return passed

    def _strike(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._left = None
        self.fired += 1
        if not self._cuts:
            self._lost |= self._open
            return
        for one in (client, server):
            one.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            one.transport.abort()

    async def close(self) -> None:
        """End all connections."""
        for one in self._open:
            one.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def middle_box(target: int, port: int = 0) -> AsyncIterator[MiddleBox]:
    """A box before the server on a port, itself on another one, or on a given one."""
    box = MiddleBox(target)
    server = await asyncio.start_server(box.serve, "127.0.0.1", port)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        await box.close()


# ---------------------------------------------------------------- stories


async def carry(
    sink: Sink, events: Sequence[Event], attempts: int = ATTEMPTS, *, within: float = WITHIN
) -> int:
    """Deliver as the courier does, what failed again, until nothing has failed; returns how many deliveries failed."""
    left = {event.id: event for event in events}
    for failed in range(attempts + 1):
        try:
            async with asyncio.timeout(within):
                await sink.deliver(some_batch(*left.values()))
            return failed
        except PartlyFailed as partly:
            left = {id: left[id] for id in partly.failures}
        except (TryLater, TimeoutError):
            await asyncio.sleep(0.05)
    pytest.fail(f"{len(left)} events are not delivered after {attempts + 1} attempts")


def _hundred(event: Callable[[int], Event], turn: int) -> list[Event]:
    return [event(100 * turn + number) for number in range(100)]


async def with_a_cut(sink: Sink, box: MiddleBox, event: Callable[[int], Event] = some_event) -> list[Event]:
    """A batch goes well, the next one is cut in its midst, a third one follows; returns all events."""
    batches = [_hundred(event, turn) for turn in range(3)]
    await sink.deliver(some_batch(*batches[0]))
    box.cut_after(MIDST)
    await carry(sink, batches[1], within=PATIENCE)
    await sink.deliver(some_batch(*batches[2]))
    assert box.fired == 1
    return [one for batch in batches for one in batch]


async def with_a_loss(sink: Sink, box: MiddleBox, event: Callable[[int], Event] = some_event) -> list[Event]:
    """A batch goes well, and the connection of the next one is dead from its midst on, although nobody says so."""
    batches = [_hundred(event, turn) for turn in range(3)]
    await sink.deliver(some_batch(*batches[0]))
    box.lose_after(MIDST)
    failed = await carry(sink, batches[1])
    assert (box.fired, failed > 0) == (1, True)
    await sink.deliver(some_batch(*batches[2]))
    return [one for batch in batches for one in batch]


async def with_silence(sink: Sink, box: MiddleBox, event: Callable[[int], Event] = some_event) -> list[Event]:
    """A server accepts the connection and says nothing; then it is well."""
    batch = _hundred(event, 0)
    box.silent = True
    with pytest.raises((TryLater, TimeoutError, PartlyFailed)):
        async with asyncio.timeout(1):
            await sink.deliver(some_batch(*batch))
    box.silent = False
    await carry(sink, batch)
    return batch


Story = Callable[..., Awaitable[list[Event]]]
STORIES: Final[tuple[Story, ...]] = (with_a_cut, with_a_loss, with_silence)
EACH_STORY: Final = pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
