"""A webhook that counts: how many events came, how many of them again, and when each one came first.

    python -m tests.bench.shared_hook STREAMS [DELAY]

Each delivery is answered after DELAY seconds, at once if none are given.
The events are those that the sandbox makes up for so many streams, which take turns: the number of an event follows
from its picture's name. `GET /count` gives the counts as JSON (`Counts`). `GET /times` gives, as doubles, when the
event of each number came, in seconds of the machine's monotonic clock; 0 for one that did not come.
"""

import asyncio
import json
import signal
import sys
import time
import urllib.request
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import cast

import msgspec
import uvloop

from tests.bench import rig

STEP = 10
"""Seconds between two pictures of a stream, as the sandbox makes them up."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many events came, and how many different ones."""

    events: int
    different: int


class _Data(msgspec.Struct):
    file_name: str


class _Event(msgspec.Struct):
    data: _Data


class Arrivals:
    """When each event came first. Numbers count from 0."""

    def __init__(self, streams: int) -> None:
        self._streams = streams
        self._decoder = msgspec.json.Decoder(list[_Event])
        self.times = array("d")
        self.events = self.different = 0

    def take(self, body: bytes) -> None:
        """Note the events of a delivery."""
        now = time.monotonic()
        for event in self._decoder.decode(body):
            number = self._number(event.data.file_name)
            if number >= len(self.times):
                self.times.frombytes(bytes(8 * (number + 100_000 - len(self.times))))
            self.events += 1
            if not self.times[number]:
                self.different += 1
                self.times[number] = now

    def _number(self, name: str) -> int:
        """The number of a picture named `load_1234_STREAM_PUSH_TASK_OFFSET_WIDTH_HEIGHT.jpg`."""
        parts = name.split("_")
        return (int(parts[5]) // STEP - 1) * self._streams + int(parts[2]) - 1

    def counts(self) -> bytes:
        """The counts, as JSON."""
        return json.dumps(asdict(Counts(events=self.events, different=self.different))).encode()


class _Hook(asyncio.Protocol):
    """Answers requests one after the other; reads of a head the method, the path and the length."""

    def __init__(self, arrivals: Arrivals, delay: float) -> None:
        self._arrivals = arrivals
        self._delay = delay
        self._held = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # of uvloop, which has its own classes

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._held[:end]).lower()
            size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if len(self._held) < end + 4 + size:
                return
            body = bytes(self._held[end + 4 : end + 4 + size])
            del self._held[: end + 4 + size]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if not head.startswith(b"post"):
            self._write(self._arrivals.counts() if b"/count" in head else self._arrivals.times.tobytes())
            return
        self._arrivals.take(body)
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._write)
        else:
            self._write()

    def _write(self, found: bytes = b"") -> None:
        if self._transport.is_closing():  # the daemon was killed meanwhile
            return
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(found) + found)


async def _serve(streams: int, delay: float) -> None:
    loop, arrivals = asyncio.get_running_loop(), Arrivals(streams)
    server = await loop.create_server(lambda: _Hook(arrivals, delay), "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


# ---------------------------------------------------------------- from outside


@dataclass(frozen=True)
class CountingHook:
    """A webhook that runs, at a port."""

    port: int

    @property
    def url(self) -> str:
        """Where events are sent."""
        return f"http://127.0.0.1:{self.port}/hook"

    def counts(self) -> Counts:
        """What has come until now."""
        return Counts(**json.loads(self._get("count")))

    def times(self) -> "array[float]":
        """When each event came."""
        return array("d", self._get("times"))

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}") as answer:
            return cast(bytes, answer.read())


@contextmanager
def counting_hook(streams: int, delay: float = 0.0) -> Iterator[CountingHook]:
    """A webhook as a process, for the events of so many streams."""
    command = [sys.executable, "-m", "tests.bench.shared_hook", str(streams), str(delay)]
    with rig.process(command) as where:
        yield CountingHook(where["port"])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
