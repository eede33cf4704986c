"""The highest steady rate of pictures: two daemons, a spool in PostgreSQL, and the sink `download` in one folder.

    python -m tests.bench.shared_pictures [--pictures 40000] [--seconds 30] [--daemons 2] [--streams 1000]
        [--sync filesystem] [--directory DIR]

A cheap server gives the same picture of 15 kB for each URL. First all pictures wait in the queue: that gives the
most that are stored a second. Then messages come at a part of that rate, and each time at a smaller one, until the
daemons keep up: at the end no more than a second's messages are pending more than at half time. That rate is the
figure. All processes share the cores and the disk.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.bench import rig
from tests.bench.figures import Figure
from tests.bench.shared_daemons import Daemons, Town, daemons, town, until
from tests.bench.shared_load import feeding
from tests.bench.shared_server import server

BENCH: Final = "shared_pictures"
SINK: Final = "archive"
SPOOL: Final = "spool"
PARTS: Final = (0.95, 0.85, 0.75, 0.65, 0.5)
"""The parts of the highest rate that are tried."""


def sink(folder: Path, pictures: str, sync: str) -> dict[str, object]:
    """The settings of the sink, which stores what a server has."""
    return {
        "type": "download",
        "directory": str(folder),
        "shared": True,
        "sync": sync,
        "allow_hosts": [pictures.removeprefix("http://")],
        "allow_cidr": ["127.0.0.0/8"],
        "batch": {"max_events": 100},
        "concurrency": 2,
    }


def stored(place: Town) -> int:
    """How many pictures are stored, as the books say."""
    query = f"SELECT coalesce(sum(count), 0) FROM {SPOOL}.tally WHERE owner = '{SINK}' AND book = 'delivered'"
    return int(place.server.ask(query))


def fastest(place: Town, running: Daemons, options: argparse.Namespace) -> tuple[float, float]:
    """Pictures a second while enough wait, between a fifth and nine tenths of them; and the CPU of one in seconds."""
    count = options.pictures
    place.queue.enqueue(count, streams=options.streams)
    until(lambda: stored(place) >= count // 5, running, every=0.1)
    began, cpu, first = time.monotonic(), running.cpu(), stored(place)
    until(lambda: stored(place) >= count * 9 // 10, running, every=0.1)
    done = stored(place) - first
    found = done / (time.monotonic() - began), (running.cpu() - cpu) / done
    until(lambda: stored(place) == count, running, every=0.1)
    return found


def keeps_up(place: Town, running: Daemons, rate: float, options: argparse.Namespace) -> bool:
    """Whether pictures are stored as fast as messages come, at this rate."""
    before, began = stored(place), time.monotonic()
    pending = []
    with feeding(place.queue, rate, options.streams) as feed:
        for share in (0.5, 1.0):
            until(lambda: time.monotonic() - began >= options.seconds * share, running)  # noqa: B023
            pending.append(feed.messages - (stored(place) - before))
    print(f"{rate:,.0f} a second: pending {pending}", file=sys.stderr)
    until(lambda: stored(place) - before == feed.messages, running, every=0.1)
    return pending[1] - pending[0] <= rate


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rates, and return the figures; the command line's arguments if none are given."""
    options = _options(arguments)
    command = [sys.executable, "-m", "tests.bench.download", "--serve"]
    with (
        rig.scratch(options.directory) as folder,
        server() as database,
        rig.process(command) as where,
        town(folder / "town", database, options.streams) as place,
    ):
        pictures = f"http://127.0.0.1:{where['port']}"
        sinks = {SINK: sink(folder / "pictures", pictures, options.sync)}
        account = {"cos": {"base_url": pictures}}
        with daemons(place, options.daemons, database.spool(SPOOL), sinks, account=account) as running:
            speed, cpu = fastest(place, running, options)
            steady = next(
                (rate for part in PARTS if keeps_up(place, running, rate := speed * part, options)), 0.0
            )
            total = stored(place)
        there = sum(1 for _ in (folder / "pictures").rglob("*.jpg"))
        assert there == total, f"{there} files of {total} pictures"
    return [*_figures(speed, cpu, steady, options)]


def _figures(speed: float, cpu: float, steady: float, options: argparse.Namespace) -> Iterator[Figure]:
    what = f"{options.daemons} daemons, sync: {options.sync}"
    yield Figure(bench=BENCH, name=f"pictures stored while enough wait, {what}", unit="1/s", ours=speed)
    yield Figure(
        bench=BENCH,
        name=f"highest steady rate of pictures, {what}",
        unit="1/s",
        ours=steady,
    )
    yield Figure(bench=BENCH, name=f"CPU of the daemons a picture, {what}", unit="µs", ours=cpu * 1e6)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=40_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each rate")
    parser.add_argument("--daemons", type=int, default=2)
    parser.add_argument("--streams", type=int, default=1_000, help="which take turns")
    parser.add_argument("--sync", choices=("file", "filesystem"), default="filesystem")
    parser.add_argument("--directory", type=Path, default=None)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
