"""What counting costs: the ages of a page's pictures, and the states of many streams.

    python -m tests.bench.counting [--streams 100000] [--rounds 7]

CPU of this process. The least of the rounds is the figure: nothing here waits.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from poller.core.catalogue import Stream
from poller.operations.stream_states import count_streams
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.testing import some_event
from tests.bench import rig
from tests.bench.figures import Figure

EACH = 100
PAGES = 1000


def least(rounds: int, work: Callable[[], object]) -> float:
    """Seconds of CPU of the quickest round."""
    found = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return min(found)


def ages(rounds: int) -> tuple[float, float]:
    """Microseconds an event: all pictures of a page at once as the daemon counts them, and one after the other."""
    metrics, now = Metrics(), datetime.now(UTC)
    seconds_ago = [
        15.0 - 10.0 * n / EACH + random.random() for n in range(EACH)
    ]  # a queue is nearly in order
    taken = [now - timedelta(seconds=ago) for ago in seconds_ago]
    page = [msgspec.structs.replace(some_event(n), occurred_at=at) for n, at in enumerate(taken)]

    def together() -> None:
        for _ in range(PAGES):
            delays = [now - event.occurred_at for event in page if event.kind == "screenshot"]
            metrics.picture_lag.observe("main", delays)

    def alone() -> None:
        seconds = metrics.delivery_seconds  # a histogram of the library
        for _ in range(PAGES):
            for event in page:
                seconds.labels("main").observe((now - event.occurred_at).total_seconds())

    each = 1e6 / PAGES / EACH
    return least(rounds, together) * each, least(rounds, alone) * each


def states(rounds: int, count: int) -> float:
    """Milliseconds to count the states of so many streams, which the daemon does every ten seconds."""
    now, clock = datetime.now(UTC), Clock()
    streams = [
        Stream(
            account="main",
            stream_id=f"room-{number}",
            first_seen=now,
            last_seen=now - timedelta(seconds=number % 60),
            state="live",
            last_screenshot=now,
            cadence=10.0,
        )
        for number in range(count)
    ]
    return least(rounds, lambda: asyncio.run(count_streams(streams, ["main"], clock.age))) * 1e3


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    together, alone = ages(options.rounds)
    counted = states(options.rounds, options.streams)
    rows: list[list[object]] = [
        ["age of a picture, a page at once", f"{together:.3f} us"],
        ["the same, one observation a picture", f"{alone:.3f} us"],
        [f"states of {options.streams:,} streams", f"{counted:.0f} ms"],
    ]
    print(rig.table(["what", "CPU"], rows))
    name = f"states of {options.streams:,} streams"
    return [
        Figure(
            bench="counting",
            name="age of a picture, a page at once, beside one observation a picture",
            unit="µs",
            ours=together,
            reference=alone,
            at_most=0.15,  # about 0.1
            absolute=True,
        ),
        Figure(bench="counting", name=name, unit="ms", ours=counted),
    ]


if __name__ == "__main__":
    main()
