"""What pages that are open cost the daemon.

    python -m tests.bench.web [--events 40000] [--streams 5000] [--rounds 5] [--seconds 10] [--part PART]

`drain`: the queue is filled and emptied, once without viewers and once with ten that follow `/api/live`, in turns. All
streams get pictures, so that every message holds as much as it can. Reported are the daemon's CPU an event, the events
a second, and the median ratios. The promise is 1.05 or less of the CPU.
`rate`: the same at 500 pictures a second, as the daemon's share of a core.
`looks`: one look of the hub in this process, with no change, with 125 (500 a second) and with a change of all streams:
the comparison alone, and with the message.
`state`: the whole state of all streams, plain and compressed: its size, and the CPU to encode it.

On a machine with fewer cores than processes the events a second also show the CPU of the viewers' own process.
"""

import argparse
import asyncio
import json
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop

from poller.core.catalogue import Catalogue, Stream
from poller.operations.operator_context import OperatorContext
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.settings import Settings
from poller.spools.memory import MemorySpool
from poller.testing import START, some_event
from poller.web.hub import Hub
from poller.web.streams import Roster
from tests.bench import figures, rig
from tests.bench.figures import Figure
from tests.bench.idle import cpu_of
from tests.bench.rig import Platform
from tests.bench.tap import backlog, until
from tests.feed import feeding

VIEWERS: Final = 10
WAYS: Final = (0, VIEWERS)
SIZES: Final = (5_000, 100_000)
REPEAT: Final = 20


# ---------------------------------------------------------------- viewers


@contextmanager
def viewers(count: int, url: str) -> Iterator[None]:
    """So many pages that follow the changes, in one process of their own."""
    if not count:
        yield
        return
    with rig.process([sys.executable, "-m", "tests.bench.web", "--follow", url, "--viewers", str(count)]):
        yield


def follow(url: str, count: int) -> None:
    """Read and drop what comes, until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    parts, ready = urlsplit(url), selectors.DefaultSelector()
    for _ in range(count):
        one = socket.create_connection((parts.hostname, parts.port))
        one.sendall(b"GET /api/live HTTP/1.1\r\nHost: %s\r\n\r\n" % parts.netloc.encode())
        assert b"200" in one.recv(65536)
        ready.register(one, selectors.EVENT_READ)
    print("{}", flush=True)
    while True:
        for key, _ in ready.select():
            assert isinstance(key.fileobj, socket.socket)
            assert key.fileobj.recv(1 << 20), "the daemon ended the stream"


# ---------------------------------------------------------------- at drain speed


def drain(options: argparse.Namespace) -> list[Figure]:
    found: dict[int, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with (
        rig.scratch(options.directory) as own,
        rig.platform(own / "platform") as queue,
        rig.receiver() as hook,
    ):
        config = rig.configuration(own, queue.api, {"hook": rig.webhook(hook, 4)})
        settings = json.loads(config.read_text()) | {"web": {"listen": "127.0.0.1:0"}}
        config.write_text(json.dumps(settings))
        with daemon(config) as (process, url):
            drained(queue, config, process, options)  # all streams are known
            for number in range(options.rounds):
                for way in WAYS[:: 1 if number % 2 else -1]:
                    with viewers(way, url):
                        found[way].append(drained(queue, config, process, options))
                    print(number, way, *(round(value, 2) for value in found[way][-1]), file=sys.stderr)
    report(found, "us/event", "events/s")
    return [
        _beside_none(f"CPU an event of a drain of {options.streams:,} streams", "µs", found, at_most=1.05)
    ]


def drained(queue: Platform, config: Path, process: int, options: argparse.Namespace) -> tuple[float, float]:
    """CPU an event in microseconds, and events a second."""
    queue.enqueue(options.events, streams=options.streams)
    spent, begun = cpu_of(process), time.monotonic()
    until(lambda: queue.depth() == 0)
    until(lambda: backlog(config) == 0)
    wall, spent = time.monotonic() - begun, cpu_of(process) - spent
    return spent / options.events * 1e6, options.events / wall


@contextmanager
def daemon(config: Path) -> Iterator[tuple[int, str]]:
    """A daemon; its process id, and where its pages are."""
    said = config.with_name("daemon.log")
    command = [sys.executable, "-m", "poller", "run", "-c", str(config)]
    with said.open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            until(lambda: backlog(config) == 0)
            lines = map(json.loads, said.read_text().splitlines())
            port = next(line["port"] for line in lines if line["event"] == "web_listens")
            yield process.pid, f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)


# ---------------------------------------------------------------- at 500 a second


def rate(options: argparse.Namespace) -> list[Figure]:
    found: dict[int, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with (
        tempfile.TemporaryDirectory(prefix="poller-bench-", dir=options.directory) as folder,
        feeding(Path(folder), streams=options.streams, rate=500) as feed,
    ):
        for number in range(options.rounds):
            for way in WAYS[:: 1 if number % 2 else -1]:
                with viewers(way, feed.url):
                    time.sleep(1.0)
                    spent, begun = cpu_of(feed.daemon.child.pid), time.monotonic()
                    time.sleep(options.seconds)
                    wall, spent = time.monotonic() - begun, cpu_of(feed.daemon.child.pid) - spent
                    found[way].append((spent / wall * 100, 500.0))
    report(found, "% of a core", "pictures/s")
    return [_beside_none("CPU at 500 pictures a second", "%", found)]


def _beside_none(
    name: str, unit: str, found: dict[int, list[tuple[float, float]]], **promise: float
) -> Figure:
    name = f"{name}, {VIEWERS} pages, beside none"
    used = {way: [one[0] for one in values] for way, values in found.items()}
    return figures.beside("web", name, unit, used[VIEWERS], used[0], **promise)


def report(found: dict[int, list[tuple[float, float]]], *head: str) -> None:
    """The medians of both ways, the medians of the rounds' ratios, and the least of all rounds."""
    rows: list[list[object]] = []
    for way, values in found.items():
        ratios = [
            rig.median([one[side] / none[side] for one, none in zip(values, found[0], strict=True)])
            for side in (0, 1)
        ]
        medians = [rig.median([one[side] for one in values]) for side in (0, 1)]
        least = min(values)[0]
        rows.append(
            [f"{way} viewers", medians[0], ratios[0], least, least / min(found[0])[0], medians[1], ratios[1]]
        )
    print(rig.table(["", head[0], "ratio", "least", "ratio", head[1], "ratio"], rows))


# ---------------------------------------------------------------- in this process


class Standing(MemorySpool):
    """A spool with a catalogue that is changed at will."""

    def fill(self, count: int) -> None:
        self._catalogue = Catalogue(some_stream(number) for number in range(count))

    def change(self, count: int, of: int) -> None:
        """New pictures of so many streams, spread over all."""
        for number in range(0, of, max(1, of // count) if count else of + 1):
            self._catalogue.note(some_event(self.next_number(), stream=f"room-{number:05}"), number)
        self._catalogue.keep()

    def next_number(self) -> int:
        self._number = getattr(self, "_number", 0) + 1
        return self._number


def some_stream(number: int) -> Stream:
    return Stream(
        account="main",
        stream_id=f"room-{number:05}",
        first_seen=START,
        last_seen=START,
        last_screenshot=START,
        last_number=number,
        cadence=10.0,
        state="live",
    )


def standing(count: int) -> tuple[Standing, Hub]:
    """So many streams, and a hub that knows all of them."""
    made = Standing.Settings(type="memory")
    clock = Clock()
    spool = Standing("spool", made, {}, clock)
    spool.fill(count)
    settings = Settings.model_construct(accounts={}, sources={}, spool=made, sinks={})
    context = OperatorContext(
        settings=settings, spool=spool, clock=clock, metrics=Metrics(), source=lambda name: None
    )
    return spool, Hub(lambda: context)


async def looks(options: argparse.Namespace) -> list[Figure]:
    rows: list[list[object]] = []
    for size in SIZES:
        for count in (0, 125, size):
            spool, hub = standing(size)
            roster = Roster()
            roster.compare(spool.streams())
            await hub.look()
            compared, told = list[float](), list[float]()
            for _ in range(REPEAT if count < size else 5):
                spool.change(count, size)
                compared.append(await spent(partial(compare, roster, spool)))
                told.append(await spent(hub.look))
            rows.append([f"{size:,} streams, {count:,} changed", rig.median(compared), rig.median(told)])
    print(rig.table(["one look", "compared, ms", "with message, ms"], rows))
    return [_alone(f"a look, {row[0]}", "ms", row[2]) for row in rows]


async def compare(roster: Roster, spool: Standing) -> None:
    roster.compare(spool.streams())


async def spent(work: Callable[[], Any]) -> float:
    """The CPU of this thread, in milliseconds."""
    begun = time.thread_time()
    await work()
    return (time.thread_time() - begun) * 1000


async def state(options: argparse.Namespace) -> list[Figure]:
    rows: list[list[object]] = []
    for size in SIZES:
        _, hub = standing(size)
        encoded = await spent(hub.snapshot)
        begun = time.process_time()
        packed = await hub.compressed()
        packing = (time.process_time() - begun) * 1000
        plain = (await hub.snapshot()).plain
        rows.append([f"{size:,} streams", encoded, packing, f"{len(plain):,}", f"{len(packed):,}"])
    print(rig.table(["the whole state", "encoded, ms", "packed, ms", "bytes", "packed"], rows))
    return [_alone(f"the whole state encoded, {row[0]}", "ms", row[1]) for row in rows]


def _alone(name: str, unit: str, value: object) -> Figure:
    return Figure(bench="web", name=name, unit=unit, ours=float(str(value)))


PARTS: Final[dict[str, Callable[[argparse.Namespace], Any]]] = {
    "drain": drain,
    "rate": rate,
    "looks": looks,
    "state": state,
}


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--streams", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--part", choices=tuple(PARTS), default=None)
    parser.add_argument("--follow", default="", help=argparse.SUPPRESS)
    parser.add_argument("--viewers", type=int, default=VIEWERS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.follow:
        follow(options.follow, options.viewers)
        return []
    found: list[Figure] = []
    for part in [options.part] if options.part else PARTS:
        work = PARTS[part](options)
        if not isinstance(work, list):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                work = runner.run(work)
        found += work
    return found


if __name__ == "__main__":
    main()
