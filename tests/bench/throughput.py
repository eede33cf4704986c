"""Events per CPU-second: queue, journal and spool, webhook in batches of 100; beside a bare loop in the same run.

    python -m tests.bench.throughput [--events 100000] [--rounds 5] [--concurrency 1] [--lanes 1] [--sinks 1]
        [--template] [--directory DIR]

A sandbox and a cheap webhook run as processes of their own. Each round drains the same load twice, once with the
bare loop (`tests.bench.bare`), once with `poller drain`, in an order that changes. What a program's start and end
cost is measured by draining an empty queue and subtracted. CPU is what `wait4` says of the process: all of its
threads, user and system. The figure is the median of the rounds' ratios; the promise is at most 1.4, beside a bare
loop that reads each message with `screenshot_event`. With `--template` the bare loop reads by the template too.
`--directory` says where spool and journal are (a disk by default; /dev/shm shows what the disk costs).
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench import figures, rig
from tests.bench.figures import Figure
from tests.bench.rig import Spent, Way, drained


def ways(api: str, hook: str, options: argparse.Namespace) -> dict[str, Way]:
    """The two ways to drain the queue."""

    def bare() -> Spent:
        command = [sys.executable, "-m", "tests.bench.bare", api, hook, str(options.lanes)]
        command += ["template"] if options.template else []
        return rig.spent_by(command, stdout=subprocess.DEVNULL)

    def daemon() -> Spent:
        with rig.scratch(options.directory) as folder:
            sinks = {f"hook{n}": rig.webhook(hook, options.concurrency) for n in range(options.sinks)}
            config = rig.configuration(folder, api, sinks)
            return rig.spent_by(
                [sys.executable, "-m", "poller", "drain", "-c", str(config)], stderr=subprocess.DEVNULL
            )

    return {"bare": bare, "daemon": daemon}


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    options = _options(arguments)
    with rig.scratch() as folder, rig.platform(folder / "platform") as queue, rig.receiver() as hook:
        both = ways(queue.api, hook, options)
        start = {
            name: rig.median([drained(queue, way, 0).cpu for _ in range(3)]) for name, way in both.items()
        }
        rows: list[list[object]] = []
        each: list[tuple[float, float]] = []
        for number in range(options.rounds):
            order = list(both)[:: 1 if number % 2 else -1]
            spent = {name: drained(queue, both[name], options.events) for name in order}
            rows.append(_row(number + 1, spent, start, options.events))
            each.append((float(str(rows[-1][2])), float(str(rows[-1][1]))))
            print(rows[-1], file=sys.stderr)
    rows.append(
        ["median", *[rig.median([float(str(row[column])) for row in rows]) for column in range(1, 8)]]
    )
    head = ["round", "bare us/event", "daemon us/event", "ratio", "daemon user", "daemon system"]
    print(
        f"{options.events:,} events a round; start and end: {start['bare']:.2f} and {start['daemon']:.2f} s of CPU"
    )
    print(rig.table([*head, "bare events/s", "daemon events/s"], rows))
    name = "CPU an event, queue to webhook, beside a bare loop"
    return [figures.beside("throughput", name, "µs", *zip(*each, strict=True), at_most=1.4)]


def _row(number: int, spent: dict[str, Spent], start: dict[str, float], events: int) -> list[object]:
    each = {name: (one.cpu - start[name]) / events * 1e6 for name, one in spent.items()}
    ours = spent["daemon"]
    walls = [events / spent[name].wall for name in ("bare", "daemon")]
    share = ours.system / ours.cpu
    ratio = each["daemon"] / each["bare"]
    return [
        number,
        each["bare"],
        each["daemon"],
        ratio,
        each["daemon"] * (1 - share),
        each["daemon"] * share,
        *walls,
    ]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=1, help="batches that the webhook carries at once")
    parser.add_argument(
        "--sinks", type=int, default=1, help="webhooks that each get every event (the bare loop: one)"
    )
    parser.add_argument("--lanes", type=int, default=1, help="loops that the bare one runs at once")
    parser.add_argument("--template", action="store_true", help="the bare loop reads by the template")
    parser.add_argument("--directory", type=Path, default=None)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
