"""What a tap costs the daemon at drain speed, and whether it shows everything.

    python -m tests.bench.tap [--events 40000] [--rounds 5] [--directory DIR] [--alone]

A sandbox, a cheap webhook and a daemon run as processes of their own. Every round fills the queue three times, in an
order that changes, and waits until all of it is delivered: with no tap, with `poller tap --json` into a file, and
with a tap that is stopped before. Reported are the daemon's CPU an event, the events a second, and the rounds' median
ratios beside no tap. The promise is 1.05 or less of the CPU. On a machine with fewer cores than processes the events
a second also show the CPU that the tap's own process takes. The bench fails if the tap misses an event.

With `--alone` only the spool and the control socket run, in this process: pages of 100 events are appended, claimed and
settled. The difference between the ways is what a tap adds to the way of an event. It is steadier on a busy machine.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvloop

from poller.control import (
    ControlServer,
    NotRunning,
    OperatorContext,
    Request,
    Verb,
    answer,
    ask,
    socket_path,
    tap,
)
from poller.core.model import ParsedPage, PollOutcome
from poller.core.spool import SpoolAdmin
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.settings import Settings, load_stored
from poller.spools.sqlite import SqliteSpool
from poller.testing import anything, some_event
from poller.testing.factories import done
from tests.bench import figures, rig
from tests.bench.figures import Figure
from tests.bench.idle import cpu_of
from tests.bench.rig import Platform

WAYS = ("none", "tap", "stopped")
NAMES = {"tap": "with a tap", "stopped": "with a stopped tap"}


@contextmanager
def daemon(config: Path) -> Iterator[int]:
    """A daemon; its process id."""
    command = [sys.executable, "-m", "poller", "run", "-c", str(config)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: backlog(config) == 0)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)


@contextmanager
def tapped(config: Path, way: str) -> Iterator[Path]:
    """A tap; the file that it writes."""
    out, err = config.with_name("tap.out"), config.with_name("tap.err")
    out.write_bytes(b"")
    if way == "none":
        yield out
        return
    with out.open("wb") as to, err.open("wb") as notices:
        command = [sys.executable, "-m", "poller", "tap", "--json", "-c", str(config)]
        process = subprocess.Popen(command, stdout=to, stderr=notices)
    try:
        until(lambda: b"from now on" in err.read_bytes())
        if way == "stopped":
            process.send_signal(signal.SIGSTOP)
        yield out
    finally:
        process.kill()
        process.wait()


def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < 300
        time.sleep(0.01)


def backlog(config: Path) -> int | None:
    """How many events are pending; None while the daemon does not listen."""
    try:
        (status,) = ask(socket_path(config.with_name("spool.db")), Request(verb=Verb.STATUS))
    except NotRunning:
        return None
    sinks = cast(list[dict[str, int]], status["sinks"])
    return sum(sink["backlog"] for sink in sinks)


def measured(queue: Platform, config: Path, process: int, way: str, events: int) -> tuple[float, float]:
    """CPU an event in microseconds, and events a second."""
    with tapped(config, way) as out:
        queue.enqueue(events)
        spent, begun = cpu_of(process), time.monotonic()
        until(lambda: queue.depth() == 0)
        until(lambda: backlog(config) == 0)
        wall, spent = time.monotonic() - begun, cpu_of(process) - spent
        if way == "tap":
            until(lambda: out.read_bytes().count(b"\n") >= events)
            shown = [json.loads(line)["id"] for line in out.read_bytes().splitlines()]
            assert len(shown) == len(set(shown)) == events, "the tap missed events"
    return spent / events * 1e6, events / wall


# ---------------------------------------------------------------- the spool and the socket alone


async def alone(options: argparse.Namespace) -> list[Figure]:
    """All rounds in this process; prints the CPU an event."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with rig.scratch(options.directory) as own:
        config = rig.configuration(own, "http://127.0.0.1:1/none", {"hook": {"type": "stdout"}})
        settings = load_stored(config)
        made = SqliteSpool.Settings(type="sqlite", path=own / "spool.db")
        async with SqliteSpool("spool", made, {}) as spool, _server(settings, spool, made.path):
            await spool.attach("hook", anything)
            for number in range(options.rounds):
                for way in WAYS[number % 3 :] + WAYS[: number % 3]:
                    found[way].append(await _filled(spool, config, way, options.events))
                    print(number, way, round(found[way][-1], 2), file=sys.stderr)
    rows = [[way, rig.median(found[way]), min(found[way])] for way in WAYS]
    print(rig.table(["tap", "us/event, median", "least"], rows))
    return [
        figures.beside(
            "tap",
            f"CPU an event of spool and socket alone, {NAMES[way]}, beside no tap",
            "µs",
            found[way],
            found["none"],
        )
        for way in WAYS[1:]
    ]


def _server(settings: Settings, spool: SpoolAdmin, path: Path) -> ControlServer:
    context = OperatorContext(
        settings=settings,
        spool=spool,
        clock=Clock(),
        metrics=Metrics(),
        source=lambda name: None,
        running=True,
    )
    return ControlServer(
        socket_path(path), lambda request: answer(context, request), lambda request: tap(context, request)
    )


async def _filled(spool: SpoolAdmin, config: Path, way: str, events: int) -> float:
    first = spool.head
    pages = [
        tuple(some_event(number) for number in range(start, start + 100))
        for start in range(first, first + events, 100)
    ]
    tapping = tapped(config, way)
    out = await asyncio.to_thread(tapping.__enter__)
    try:
        spent = time.process_time()
        for page in pages:
            await spool.append("source", [ParsedPage(events=page, rejects=(), outcome=PollOutcome.FULL)])
            batch = await spool.claim("hook", 100)
            await spool.settle(batch, done(batch))
        while way == "tap" and out.stat().st_size < sum(
            len(one.encoded) + 1 for page in pages for one in page
        ):
            await asyncio.sleep(0.5)
        return (time.process_time() - spent) / events * 1e6
    finally:
        await asyncio.to_thread(tapping.__exit__, None, None, None)


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args(arguments)
    if options.alone:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(alone(options))
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with (
        rig.scratch() as folder,
        rig.platform(folder / "platform") as queue,
        rig.receiver() as hook,
        rig.scratch(options.directory) as own,
    ):
        config = rig.configuration(own / "daemon", queue.api, {"hook": rig.webhook(hook)})
        with daemon(config) as process:
            measured(queue, config, process, "none", options.events)  # the first fill is slower
            for number in range(options.rounds):
                for way in WAYS[number % 3 :] + WAYS[: number % 3]:
                    found[way].append(measured(queue, config, process, way, options.events))
                    print(number, way, *(round(one, 1) for one in found[way][-1]), file=sys.stderr)
    rows = [[way, *(rig.median([one[column] for one in found[way]]) for column in (0, 1))] for way in WAYS]
    print(rig.table(["tap", "daemon us/event", "events/s"], rows))
    for way in WAYS[1:]:
        for column, what in enumerate(("CPU", "events/s")):
            ratios = [one[column] / none[column] for one, none in zip(found[way], found["none"], strict=True)]
            print(f"{way} / none, {what}: {rig.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    used = {way: [one[0] for one in found[way]] for way in WAYS}
    return [
        figures.beside(
            "tap", f"CPU of a drain, {NAMES[way]}, beside no tap", "µs", used[way], used["none"], at_most=1.05
        )
        for way in WAYS[1:]
    ]


if __name__ == "__main__":
    main()
