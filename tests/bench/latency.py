"""How late messages are taken out of the queue while they come on a beat, for settings of `beat` in turns.

    python -m tests.bench.latency [--streams 5 20 50 200 500] [--period 10] [--spread 0.2 2]
                                  [--settings off 10s] [--rounds 5] [--seconds 60] [--warm 40]
                                  [--directory DIR]

For each number of streams there are a sandbox and a daemon as processes, all numbers side by side. At each beat this
process puts the message of each stream into the sandbox's queue, at a random time within the spread. A daemon lives for
one turn. A message is late by the time from the end of the request that put it there to `received_at` of its event: the
clock is the same. Messages and polls count once the daemon has had time to learn (`--warm`). A cell is the median of
the rounds. Where others write much to the disk, `--directory` on tmpfs keeps their syncs out of the figures.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tests.bench import figures, rig
from tests.bench.figures import Figure

TOGETHER = 0.02
"""The seconds within which messages share a request."""
LAST = 6.0
"""Seconds after the last message until a daemon is stopped."""
PROMISED = {10.0: {"p50": 0.3, "p99": 0.6}, 5.0: {"p50": 0.25, "p99": 0.85}}
"""Seconds, by the period in which messages come."""


class Turn(NamedTuple):
    """Polls a second, and how late messages were, in seconds."""

    polls: float
    p50: float
    p99: float
    mean: float


def times_of_a_beat(dice: random.Random, options: argparse.Namespace, streams: int) -> Iterator[list[float]]:
    """When the messages of one beat come, after its tick; those that share a request are together."""
    slots: dict[int, list[float]] = {}
    for _ in range(streams):
        at = dice.uniform(*options.spread)
        slots.setdefault(int(at / TOGETHER), []).append(at)
    for slot in sorted(slots):
        yield slots[slot]


def feed(queue: rig.Platform, options: argparse.Namespace, streams: int, label: str) -> dict[str, float]:
    """Put messages into the queue for one turn; when each of them was there, by the name of its picture."""
    dice, there = random.Random(label), dict[str, float]()
    first = time.time() + dice.uniform(0.0, options.period)
    beats = max(1, int((options.warm + options.seconds) / options.period))
    due = sorted(
        (first + beat * options.period + slot[0], len(slot))
        for beat in range(beats)
        for slot in times_of_a_beat(dice, options, streams)
    )
    for at, count in due:
        time.sleep(max(0.0, at - time.time()))
        names = [f"{label}_{len(there) + number}.jpg" for number in range(count)]
        queue.put([{"stream_id": "room", "pic_url": name} for name in names])
        there |= dict.fromkeys(names, time.time())
    return there


def turn(queue: rig.Platform, folder: Path, options: argparse.Namespace, streams: int, beat: str) -> Turn:
    """The life of a daemon with this setting."""
    sinks = {"out": {"type": "stdout", "lines": "json"}}
    config = rig.configuration(folder, queue.api, sinks, beat=beat)
    command = [sys.executable, "-m", "poller", "run", "-c", str(config)]
    with (
        (folder / "events").open("wb") as events,
        subprocess.Popen(command, stdout=events, stderr=subprocess.DEVNULL) as process,
        ThreadPoolExecutor(1) as counting,
    ):
        began = time.time()
        polls = counting.submit(_polls, queue, options)
        there = feed(queue, options, streams, f"{streams}_{folder.name}")
        time.sleep(LAST)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    late = sorted(_late(folder / "events", there, began + options.warm))
    return Turn(polls.result(), _quantile(late, 0.5), _quantile(late, 0.99), sum(late) / len(late))


def _polls(queue: rig.Platform, options: argparse.Namespace) -> float:
    """Polls a second after the time to learn."""
    time.sleep(options.warm)
    before, began = queue.polls(), time.monotonic()
    time.sleep(options.seconds)
    return (queue.polls() - before) / (time.monotonic() - began)


def _late(events: Path, there: dict[str, float], since: float) -> Iterator[float]:
    for line in events.read_bytes().splitlines():
        data = json.loads(line)["data"]
        put = there.pop(data["message"]["pic_url"])
        if put >= since:
            yield max(0.0, datetime.fromisoformat(data["received_at"]).timestamp() - put)
    assert not there, f"{len(there)} messages never came"


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def scenario(folder: Path, options: argparse.Namespace, streams: int) -> dict[str, list[Turn]]:
    """All rounds for a number of streams, by setting."""
    found: dict[str, list[Turn]] = {beat: [] for beat in options.settings}
    with rig.platform(folder / "platform") as queue:
        for number in range(options.rounds):
            for beat in options.settings:
                one = turn(queue, folder / f"{beat}_{number}", options, streams, beat)
                found[beat].append(one)
                print(streams, number + 1, beat, *(f"{cell:.3f}" for cell in one), file=sys.stderr)
    return found


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    options = _options(arguments)
    with rig.scratch(options.directory) as folder, ThreadPoolExecutor(len(options.streams)) as pool:
        runs = {streams: folder / str(streams) for streams in options.streams}
        found = list(pool.map(lambda streams: scenario(runs[streams], options, streams), runs))
    rows: list[list[object]] = []
    for streams, turns in zip(runs, found, strict=True):
        for beat in options.settings:
            cells = [rig.median(column) for column in zip(*turns[beat], strict=True)]
            rows.append([f"{streams} streams, beat: {beat}", *cells])
    spread = "-".join(f"{one:g}" for one in options.spread)
    print(
        f"a beat of {options.period:g} s, messages after {spread} s; medians of {options.rounds} rounds of "
        f"{options.seconds:g} s"
    )
    print(rig.table(["", "polls/s", "p50 s", "p99 s", "mean s"], rows))
    return [
        one
        for streams, turns in zip(runs, found, strict=True)
        for one in _figures(streams, turns, options.period)
    ]


def _figures(streams: int, turns: dict[str, list[Turn]], period: float) -> Iterator[Figure]:
    """Each setting beside the first one; the promises are those of `beat: 10s`."""
    plain, *others = turns
    for beat in others:
        promised = PROMISED.get(period) if beat == "10s" else None
        for what, unit in (("polls", "1/s"), ("p50", "s"), ("p99", "s")):
            ways = [[float(getattr(one, what)) for one in turns[way]] for way in (beat, plain)]
            bound = {"at_most": promised.get(what, 1.2), "absolute": what in promised} if promised else {}
            each = "" if period == 10.0 else f" each {period:g} s"
            name = f"{what}, {streams} streams{each}, beat: {beat}, beside {plain}"
            yield figures.beside("latency", name, unit, ways[0], ways[1], **bound)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, nargs="+", default=[5, 20, 50, 200, 500])
    parser.add_argument("--period", type=float, default=10.0, help="seconds from one beat to the next")
    parser.add_argument("--spread", type=float, nargs=2, default=(0.2, 2.0))
    parser.add_argument("--settings", nargs="+", default=["off", "10s"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--warm", type=float, default=40.0)
    parser.add_argument("--directory", type=Path, default=None, help="where all files are, such as /dev/shm")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
