"""What viewers of pictures cost the daemon at drain speed.

    python -m tests.bench.pictures [--events 40000] [--rounds 3] [--directory DIR]

A sandbox, a cheap webhook and a daemon run as processes of their own. The first fill brings 5,000 pictures, more than
the daemon keeps in memory. Every round fills the queue three times, in an order that changes, and waits until all of
it is delivered: with nobody looking; with ten viewers who ask for six pictures a second each, as a wall of sixty
tiles does; and with ten viewers who ask for the next picture as soon as they have one. The viewers are one more
process, and go through all pictures in turn, so that hardly any is in memory. Reported are the daemon's CPU an event
and the events a second, the pictures a second, and the rounds' median ratios beside nobody. On a machine with fewer
cores than processes, the events a second also show the CPU of the viewers and of the picture host.
"""

import argparse
import asyncio
import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from tests.bench import figures, rig
from tests.bench.figures import Figure
from tests.bench.idle import cpu_of
from tests.bench.rig import Platform
from tests.bench.tap import backlog, daemon, until

VIEWERS = 10
TILES = 5_000
PACES = {"nobody": None, "walls": 6.0, "flat out": 0.0}
"""Pictures a second of each viewer; 0 for as many as there are."""


# ---------------------------------------------------------------- the viewers, a process


async def look(port: int, pace: float) -> None:
    """Ask for pictures until the end; prints how many came, and how many were refused."""
    came, refused = 0, 0
    turns = itertools.count()

    async def viewer(session: aiohttp.ClientSession) -> None:
        nonlocal came, refused
        while True:
            begun = time.monotonic()
            async with session.get(f"http://127.0.0.1:{port}/picture/{next(turns) % TILES + 1}") as answer:
                await answer.read()
            came, refused = came + (answer.status == 200), refused + (answer.status != 200)
            await asyncio.sleep(max(0.0, begun + 1 / pace - time.monotonic()) if pace else 0)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with aiohttp.ClientSession() as session:
        viewers = [asyncio.ensure_future(viewer(session)) for _ in range(VIEWERS)]
        print(json.dumps({}), flush=True)
        await stop.wait()
        for one in viewers:
            one.cancel()
        await asyncio.gather(*viewers, return_exceptions=True)
    print(json.dumps({"came": came, "refused": refused}), flush=True)


@contextmanager
def viewers(port: int, pace: float | None) -> Iterator[list[int]]:
    """The viewers; afterwards the list holds how many pictures came, and how many were refused."""
    counts: list[int] = []
    if pace is None:
        yield counts
        counts += [0, 0]
        return
    command = [sys.executable, "-m", "tests.bench.pictures", "--view", str(port), "--pace", str(pace)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield counts
        process.terminate()
        said = json.loads(process.stdout.readline())
        counts += [said["came"], said["refused"]]


# ---------------------------------------------------------------- a fill


def measured(queue: Platform, config: Path, process: int, pace: float | None, events: int) -> list[float]:
    """CPU an event in microseconds, events a second, pictures a second, and refusals."""
    with viewers(_port(config), pace) as counts:
        spent, begun = cpu_of(process), time.monotonic()
        queue.enqueue(events)
        until(lambda: queue.depth() == 0)
        until(lambda: backlog(config) == 0)
        wall, spent = time.monotonic() - begun, cpu_of(process) - spent
        begun_to_end = time.monotonic() - begun
    return [spent / events * 1e6, events / wall, counts[0] / begun_to_end, counts[1]]


def _port(config: Path) -> int:
    return int(json.loads(config.read_text())["web"]["listen"].rpartition(":")[2])


def configuration(own: Path, queue: Platform, hook: str) -> Path:
    """A configuration whose pictures are the sandbox's, with pages."""
    path = rig.configuration(own / "daemon", queue.api, {"hook": rig.webhook(hook)})
    settings = json.loads(path.read_text())
    settings["accounts"]["main"]["cos"] = {"base_url": f"{queue.cos}/shots-1250000000"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings["web"] = {"listen": f"127.0.0.1:{port}", "allow_cidr": ["127.0.0.0/8"]}
    path.write_text(json.dumps(settings))
    return path


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--view", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--pace", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.view is not None:
        asyncio.run(look(options.view, options.pace))
        return []
    found: dict[str, list[list[float]]] = {way: [] for way in PACES}
    ways = list(PACES)
    with (
        rig.scratch() as folder,
        rig.platform(folder / "platform") as queue,
        rig.receiver() as hook,
        rig.scratch(options.directory) as own,
    ):
        config = configuration(own, queue, hook)
        with daemon(config) as process:
            queue.enqueue(TILES, pictures=True, width=1280, height=720)
            until(lambda: queue.depth() == 0)
            until(lambda: backlog(config) == 0)
            measured(queue, config, process, None, options.events)  # the first fill is slower
            for number in range(options.rounds):
                for way in ways[number % 3 :] + ways[: number % 3]:
                    found[way].append(measured(queue, config, process, PACES[way], options.events))
                    print(number, way, *(round(one, 1) for one in found[way][-1]), file=sys.stderr)
    rows = [[way, *(rig.median([one[column] for one in found[way]]) for column in range(4))] for way in ways]
    print(rig.table(["viewers", "daemon us/event", "events/s", "pictures/s", "refused"], rows))
    for way in ways[1:]:
        for column, what in enumerate(("CPU", "events/s")):
            ratios = [
                one[column] / none[column] for one, none in zip(found[way], found["nobody"], strict=True)
            ]
            print(
                f"{way} / nobody, {what}: {rig.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            )
    assert not any(one[3] for rounds in found.values() for one in rounds), "pictures were refused"
    return _figures(found)


NAMES = {"walls": "ten viewers at six pictures a second", "flat out": "ten viewers as fast as they can"}


def _figures(found: dict[str, list[list[float]]]) -> list[Figure]:
    measured = []
    for way, name in NAMES.items():
        used, alone = ([one[0] for one in found[which]] for which in (way, "nobody"))
        measured.append(
            figures.beside("pictures", f"CPU an event of a drain, {name}, beside nobody", "µs", used, alone)
        )
        shown = rig.median([one[2] for one in found[way]])
        measured.append(Figure(bench="pictures", name=f"pictures a second, {name}", unit="1/s", ours=shown))
    return measured


if __name__ == "__main__":
    main()
