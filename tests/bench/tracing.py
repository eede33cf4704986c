"""The price of traces: CPU of an event with `tracing` and without, for batches of 100 and of 1.

    python -m tests.bench.tracing [--events 50000] [--singles 10000] [--rounds 3]

A sandbox, a cheap webhook and a cheap collector run as processes of their own. Each round drains the same load with
traces and without, in an order that changes. Start and end, with and without, are measured by draining an empty queue
and subtracted. CPU is what `wait4` says of the process: all of its threads, also that of the exporter.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench import figures, rig
from tests.bench.figures import Figure
from tests.bench.rig import Platform, Spent

WAYS = ("plain", "traced")


def drained(queue: Platform, hook: str, collector: str, batch: int, events: int) -> Spent:
    """Drain so many events; with a collector, traced."""
    if events:
        queue.enqueue(events)
    with rig.scratch() as folder:
        sink = {**rig.webhook(hook), "batch": {"max_events": batch}}
        config = rig.configuration(Path(folder), queue.api, {"hook": sink})
        if collector:
            config.write_text(json.dumps({**json.loads(config.read_text()), "tracing": {"otlp": collector}}))
        command = [sys.executable, "-m", "poller", "drain", "-c", str(config)]
        spent = rig.spent_by(command, stderr=subprocess.DEVNULL)
    assert spent.code == 0, spent
    assert queue.depth() == 0
    return spent


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    options = _options(arguments)
    with rig.scratch() as folder, rig.platform(folder / "platform") as queue, rig.receiver() as hook:
        collectors = {"plain": "", "traced": hook.removesuffix("/hook")}
        start = {
            way: rig.median([drained(queue, hook, collectors[way], 100, 0).cpu for _ in range(3)])
            for way in WAYS
        }
        rows: list[list[object]] = []
        measured: list[Figure] = []
        for batch, events in ((100, options.events), (1, options.singles)):
            ratios = []
            found: dict[str, list[float]] = {way: [] for way in WAYS}
            for number in range(options.rounds):
                each = {
                    way: (drained(queue, hook, collectors[way], batch, events).cpu - start[way])
                    / events
                    * 1e6
                    for way in WAYS[:: 1 if number % 2 else -1]
                }
                ratios.append(each["traced"] / each["plain"])
                for way, one in each.items():
                    found[way].append(one)
                rows.append([f"{batch} in a batch", each["plain"], each["traced"], ratios[-1]])
            rows.append([f"{batch} in a batch, median", "", "", rig.median(ratios)])
            name = f"traced, {batch} in a batch, beside plain"
            measured.append(figures.beside("tracing", name, "µs", found["traced"], found["plain"]))
    print(f"start and end: {start['plain']:.2f} s of CPU, traced {start['traced']:.2f} s")
    print(rig.table(["", "plain us/event", "traced us/event", "ratio"], rows))
    return measured


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--singles", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
