"""Events per second and CPU an event of the sinks to other systems, beside bare loops that use the same libraries.

    python -m tests.bench.sinks [--sinks kafka,nats] [--events 100000] [--rounds 3] [--ways alone,daemon]
        [--directory DIR]

Each sink's server is a real one, started for this run; one that cannot be started is named. The bare loop
(`tests.bench.sink_loops`) gives the same library the same events in the same batches, as many at once as the sink's
default settings say, and waits for the same proof. After each run the events at the other side are counted. Both ways
take turns, in an order that changes.

`alone`:  the sink's `deliver` beside the bare loop, each in a process of its own. Events are made beforehand, and
          connecting is not measured. CPU is the process's own: all its threads, user and system, but no commands.
`daemon`: `poller drain`, from a sandbox's queue into the sink, beside a loop that polls the queue and sends. What a
          start and an end cost is measured with an empty queue and subtracted. CPU is what `wait4` says, with that of
          commands. Not measured for pictures.

The figures are medians of the rounds, with the least and the greatest ratio. The promise is at least half of the
bare loop's events a second, and at most twice its CPU an event. `grown` is what the sink's memory grew after its first
20,000 events, in MiB. `--directory` says where the servers and the spool keep their files.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from tests.bench import rig
from tests.bench.rig import Platform, Spent
from tests.bench.sink_loops import terms
from tests.bench.sink_places import PLACES, Place, arrived

WAYS = ("alone", "daemon")
TOGETHER = {"sql": ("postgresql", "mariadb")}
"""A name that stands for several servers."""
HEAD = ["bare events/s", "sink events/s", "ratio", "bare us/event", "sink us/event", "ratio"]

Pair = tuple[float, float]
"""Events a second, and microseconds of CPU an event."""


# ---------------------------------------------------------------- the sink alone


def alone(place: Place, way: str, events: int) -> tuple[Pair, float]:
    """One run of the sink or of the bare loop; also how much its memory grew."""
    place.clear()
    command = [sys.executable, "-m", "tests.bench.sink_loops", way, json.dumps(place.settings)]
    done = subprocess.run([*command, str(events), place.pictures], stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    first = terms(place.settings).batch.max_events  # has connected
    _see(place, events + first)
    return (events / found["wall"], found["cpu"] / events * 1e6), found["grown"]


def _see(place: Place, wanted: int) -> None:
    count = arrived(place, wanted)
    assert count == wanted, f"{count} events arrived, not {wanted}"


def rounds_alone(name: str, place: Place, options: argparse.Namespace) -> list[object]:
    """A row of the table."""
    events = options.events or place.usual
    found: dict[str, list[Pair]] = {"bare": [], "sink": []}
    grown = []
    for number in range(options.rounds):
        for way in list(found)[:: 1 if number % 2 else -1]:
            pair, more = alone(place, way, events)
            found[way].append(pair)
            grown += [more] if way == "sink" else []
            print(name, way, *(round(one, 1) for one in pair), file=sys.stderr)
    return [name, events, *_row(found["bare"], found["sink"]), max(grown)]


def _row(bare: list[Pair], sink: list[Pair]) -> list[object]:
    row: list[object] = []
    for column in (0, 1):
        ratios = [ours[column] / theirs[column] for ours, theirs in zip(sink, bare, strict=True)]
        row += [rig.median([one[column] for one in many]) for many in (bare, sink)]
        row += [f"{rig.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
    return row


# ---------------------------------------------------------------- the whole daemon


def drained(place: Place, queue: Platform, way: Callable[[], Spent], events: int) -> Spent:
    """Fill the queue, drain it, and see that everything has arrived."""
    place.clear()
    if events:
        queue.enqueue(events)
    spent = way()
    assert spent.code == 0, spent
    assert queue.depth() == 0
    _see(place, events)
    return spent


def rounds_of_daemon(name: str, place: Place, queue: Platform, options: argparse.Namespace) -> list[object]:
    """A row of the table."""
    events = options.events or place.usual

    def bare() -> Spent:
        command = [sys.executable, "-m", "tests.bench.sink_loops", queue.api, json.dumps(place.settings)]
        return rig.spent_by([*command, "0", ""], stdout=subprocess.DEVNULL)

    def daemon() -> Spent:
        with rig.scratch() as folder:
            config = rig.configuration(folder, queue.api, {"out": place.settings})
            command = [sys.executable, "-m", "poller", "drain", "-c", str(config)]
            return rig.spent_by(command, stderr=subprocess.DEVNULL)

    ways = {"bare": bare, "daemon": daemon}
    empty = {way: [drained(place, queue, run, 0) for _ in range(3)] for way, run in ways.items()}
    start = {
        way: (rig.median([s.wall for s in many]), rig.median([s.cpu for s in many]))
        for way, many in empty.items()
    }
    found: dict[str, list[Pair]] = {"bare": [], "daemon": []}
    for number in range(options.rounds):
        for way in list(ways)[:: 1 if number % 2 else -1]:
            spent = drained(place, queue, ways[way], events)
            wall, cpu = spent.wall - start[way][0], spent.cpu - start[way][1]
            found[way].append((events / wall, cpu / events * 1e6))
            print(name, way, *(round(one, 1) for one in found[way][-1]), file=sys.stderr)
    return [name, events, *_row(found["bare"], found["daemon"])]


# ---------------------------------------------------------------- all of it


def measure(name: str, options: argparse.Namespace, tables: dict[str, list[list[object]]]) -> None:
    """All rounds of one sink."""
    with PLACES[name]() as place:
        if "alone" in options.ways:
            tables["alone"].append(rounds_alone(name, place, options))
        if "daemon" in options.ways and not place.pictures:
            with rig.scratch() as folder, rig.platform(folder) as queue:
                row = rounds_of_daemon(name, place, queue, options)
                tables["daemon"].append(row)


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the servers
    if options.directory is not None:
        tempfile.tempdir = str(options.directory)
    tables: dict[str, list[list[object]]] = {way: [] for way in options.ways}
    failed: list[str] = []
    for name in options.sinks:
        try:
            measure(name, options, tables)
        except pytest.skip.Exception as missing:
            failed.append(f"{name}: {missing}")
        except Exception as error:
            traceback.print_exc()
            failed.append(f"{name}: {type(error).__name__}: {error}")
    for way, rows in tables.items():
        print(f"\n{'the sink alone' if way == 'alone' else 'the whole daemon'}, {options.rounds} rounds")
        print(rig.table(["", "events", *HEAD, *(["grown MiB"] if way == "alone" else [])], rows))
    for line in failed:
        print(f"not measured: {line}")
    sys.exit(bool(failed))


def _names(allowed: Collection[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        found = [name for one in text.split(",") for name in TOGETHER.get(one, (one,))]
        for one in found:
            if one not in allowed:
                raise argparse.ArgumentTypeError(f"{one} is none of {', '.join(allowed)}")
        return found

    return names


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sinks", type=_names(PLACES), default=list(PLACES))
    parser.add_argument("--ways", type=_names(WAYS), default=list(WAYS))
    parser.add_argument("--events", type=int, default=None, help="by default a number for each sink")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=None)
    return parser.parse_args()


if __name__ == "__main__":
    main()
