"""Two daemons, a spool in PostgreSQL and a webhook under a steady load: is anything lost, and how late is it?

    python -m tests.bench.shared_load [--rate 10000] [--seconds 600] [--daemons 2] [--streams 100000] [--directory DIR]

This process puts messages into a sandbox's queue, a tenth of a second's together. The webhook notes when each event
came first. An event is late by the time from the end of the request that put its message there. CPU is that of all
processes of the daemons and of the server, while messages come. Promise: nothing is lost, and nothing comes twice.
Stderr has how late the events of each ten seconds were at most.
"""

import argparse
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench import rig
from tests.bench.figures import Figure
from tests.bench.shared_daemons import Daemons, Town, daemons, town, until
from tests.bench.shared_server import Used, server

BENCH: Final = "shared_load"
EVERY: Final = 0.1
"""Seconds from one request to the next."""
LAST: Final = 120.0
"""Seconds after which the last events must have come."""
PART: Final = 10.0
"""Seconds of the load that are looked at together."""
TOO_LATE: Final = 2.0
"""Seconds by which the requests may be behind: beyond, this process does not bring the load."""


@dataclass
class Feed:
    """What was put into the queue: how many messages together, and when they were there (monotonic)."""

    together: int
    there: list[float] = field(default_factory=list)

    @property
    def messages(self) -> int:
        """How many messages there were."""
        return self.together * len(self.there)


@contextmanager
def feeding(queue: rig.Platform, rate: float, streams: int) -> Iterator[Feed]:
    """Put so many messages a second into the queue, until the block is left. Fails if that cannot be done."""
    feed, stop = Feed(int(rate * EVERY)), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        feeder = pool.submit(_feed, queue, streams, feed, stop)
        try:
            yield feed
        finally:
            stop.set()
        late = feeder.result()
    assert late < TOO_LATE, f"the load came {late:.1f} s late"


def _feed(queue: rig.Platform, streams: int, feed: Feed, stop: threading.Event) -> float:
    """Put messages into the queue until `stop`; returns by how many seconds a request was late at most."""
    late, due = 0.0, time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        queue.enqueue(feed.together, streams=streams)
        feed.there.append(time.monotonic())
        due += EVERY
        late = max(late, time.monotonic() - due)
    return late


@dataclass(frozen=True, kw_only=True)
class Load:
    """What became of the messages.

    late:  seconds by which each event was late, in order
    worst: the most of them in each ten seconds of the load
    cpu:   cores
    used:  what the server used in `seconds`
    """

    messages: int
    lost: int
    twice: int
    late: Sequence[float]
    worst: Sequence[float]
    cpu: float
    used: Used
    seconds: float

    def late_at(self, share: float) -> float:
        """How late this share of the events was at most."""
        return self.late[min(len(self.late) - 1, int(share * len(self.late)))]


def loaded(place: Town, running: Daemons, options: argparse.Namespace) -> Load:
    """Bring the load, and wait for the last events."""
    began, cpu, server = time.monotonic(), running.cpu(), place.server.used()
    with feeding(place.queue, options.rate, options.streams) as feed:
        until(lambda: time.monotonic() - began >= options.seconds, running, within=2 * options.seconds)
    spent, used = running.cpu() - cpu, place.server.used().since(server)
    seconds = time.monotonic() - began
    ended = time.monotonic()
    until(lambda: place.hook.counts().different >= feed.messages or time.monotonic() - ended > LAST, running)
    counts, times = place.hook.counts(), place.hook.times()
    late = [
        max(0.0, came - feed.there[number // feed.together]) if came else 0.0
        for number, came in enumerate(times[: feed.messages])
    ]
    part = int(options.rate * PART)
    return Load(
        messages=feed.messages,
        lost=feed.messages - counts.different,
        twice=counts.events - counts.different,
        late=sorted(late),
        worst=[max(late[first : first + part]) for first in range(0, len(late), part)],
        cpu=spent / seconds,
        used=used,
        seconds=seconds,
    )


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the table, and return the figures; the command line's arguments if none are given."""
    options = _options(arguments)
    with (
        rig.scratch(options.directory) as folder,
        server() as database,
        town(folder / "town", database, options.streams) as place,
        daemons(place, options.daemons, database.spool("spool")) as running,
    ):
        load = loaded(place, running, options)
    print(f"{load.messages:,} messages in {load.seconds:.0f} s", file=sys.stderr)
    print(f"late at most, each {PART:.0f} s:", *(f"{worst:.1f}" for worst in load.worst), file=sys.stderr)
    return [*_figures(load, options)]


def _figures(load: Load, options: argparse.Namespace) -> Iterator[Figure]:
    what = f"{options.rate:,} messages a second, {options.daemons} daemons"
    for name, unit, ours, most in (
        ("time", "s", load.seconds, None),
        ("messages a second", "1/s", load.messages / load.seconds, None),
        ("lost", "", float(load.lost), 0.0),
        ("twice", "", float(load.twice), 0.0),
        ("late, p50", "s", load.late_at(0.5), None),
        ("late, p99", "s", load.late_at(0.99), None),
        ("late, the last one", "s", load.late[-1], None),
        ("CPU of the daemons", "cores", load.cpu, None),
        ("CPU of the server", "cores", load.used.cpu / load.seconds, None),
        ("write-ahead log", "MB/s", load.used.log / load.seconds / 1e6, None),
        ("written by the server", "MB/s", load.used.written / load.seconds / 1e6, None),
    ):
        yield Figure(bench=BENCH, name=f"{what}: {name}", unit=unit, ours=ours, at_most=most)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=10_000, help="messages a second")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--daemons", type=int, default=2)
    parser.add_argument("--streams", type=int, default=100_000, help="which take turns")
    parser.add_argument("--directory", type=Path, default=None)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
