"""Queue, durable store, webhook in batches of 100: the daemon beside mq-bridge, where that is installed.

    python -m tests.bench.peers [--events 40000] [--rounds 5] [--directory DIR]

`pip install mq-bridge==1.2.0` installs the peer; it is no dependency of the tests. A sandbox and a cheap webhook run as
processes of their own. Each round drains the same load with `poller drain` and with mq-bridge over a file and over
SQLite (`tests.bench.mq_bridge_loop`), in an order that changes. What a start and an end cost is measured by draining
an empty queue and subtracted. CPU is what `wait4` says of the process. mq-bridge signs no request, reads no message,
remembers no ids, and its events have half the bytes.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests.bench import figures, rig
from tests.bench.figures import Figure
from tests.bench.rig import Platform, Spent, Way, drained

OURS: Final = "poller"
PEERS: Final = {"file": "mq-bridge over a file", "sqlite": "mq-bridge over SQLite"}
WORK: Final = "queue to webhook"


def ways(api: str, hook: str, directory: Path | None) -> dict[str, Way]:
    """The ways to drain the queue that there are here."""

    def daemon() -> Spent:
        with rig.scratch(directory) as folder:
            config = rig.configuration(folder, api, {"hook": rig.webhook(hook)})
            command = [sys.executable, "-m", "poller", "drain", "-c", str(config)]
            return rig.spent_by(command, stderr=subprocess.DEVNULL)

    def peer(kind: str) -> Way:
        def run() -> Spent:
            with rig.scratch(directory) as folder:
                command = [sys.executable, "-m", "tests.bench.mq_bridge_loop", api, hook, str(folder), kind]
                return rig.spent_by(command, stdout=subprocess.DEVNULL)

        return run

    installed = PEERS if find_spec("mq_bridge") else {}
    return {OURS: daemon, **{name: peer(kind) for kind, name in installed.items()}}


def compared(queue: Platform, here: Mapping[str, Way], events: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds of CPU an event of each way, round by round."""
    start = {name: rig.median([drained(queue, way, 0).cpu for _ in range(3)]) for name, way in here.items()}
    found: dict[str, list[float]] = {name: [] for name in here}
    names = list(here)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            spent = drained(queue, here[name], events)
            found[name].append((spent.cpu - start[name]) / events * 1e6)
            print(number, name, round(found[name][-1], 1), f"{events / spent.wall:,.0f}/s", file=sys.stderr)
    return found


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    options = _options(arguments)
    with rig.scratch() as folder, rig.platform(folder / "platform") as queue, rig.receiver() as hook:
        found = compared(queue, ways(queue.api, hook, options.directory), options.events, options.rounds)
    print(rig.table(["us of CPU an event", "median"], [[name, rig.median(of)] for name, of in found.items()]))
    name = f"CPU an event, {WORK}"
    return [
        figures.beside("peers", f"{name}, beside {peer}", "µs", found[OURS], found[peer])
        if peer in found
        else figures.alone("peers", name, "µs", found[OURS], peer)
        for peer in PEERS.values()
    ]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=None)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
