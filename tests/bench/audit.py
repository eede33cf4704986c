"""What the running audit costs: CPU of a drain with it and without it, and CPU an event of its own work.

    python -m tests.bench.audit [--events 60000] [--rounds 5] [--directory DIR]

A sandbox and a cheap webhook run as processes of their own. Each round drains the same load with the audit on and off,
in an order that changes. Then an audit follows a log of as many events of 500 streams in this process, from memory and
from the file, without its pauses. The promise is 3 % of a drain.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from poller.core.model import Event, ParsedPage, PollOutcome
from poller.pipeline.audit import Audit
from poller.runtime.metrics import Metrics
from poller.settings import AccountSettings
from poller.spools.sqlite import SqliteSpool
from poller.testing import ManualClock
from tests.bench import figures, rig
from tests.bench.figures import Figure
from tests.bench.rig import Spent, Way, drained
from tests.unit.pipeline.on_grid import picture

STREAMS = 500
HELD = 8_000
"""Events that are in memory still."""


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    options = _options(arguments)
    with rig.scratch() as folder, rig.platform(folder / "platform") as queue, rig.receiver() as hook:
        both = {word: _drain(queue.api, hook, options.directory, word == "on") for word in ("off", "on")}
        drained(queue, both["on"], 1_000)
        ratios = []
        each: dict[str, list[float]] = {"on": [], "off": []}
        for number in range(options.rounds):
            order = list(both) if number % 2 else list(both)[::-1]
            spent = {word: drained(queue, both[word], options.events).cpu for word in order}
            ratios.append(spent["on"] / spent["off"])
            for word, cpu in spent.items():
                each[word].append(cpu / options.events * 1e6)
            print({word: round(cpu / options.events * 1e6, 1) for word, cpu in spent.items()}, flush=True)
    print(
        f"drain with the audit: {rig.median(ratios):.3f} times (rounds {min(ratios):.3f} to {max(ratios):.3f})"
    )
    found = [
        figures.beside("audit", "drain with the audit, beside without", "µs", *each.values(), at_most=1.03)
    ]
    for name, events in (("memory", HELD), ("the file", options.events)):
        alone = asyncio.run(_alone(options.directory, events))
        print(f"from {name}: {alone:.2f} µs of CPU an event")
        found.append(Figure(bench="audit", name=f"the audit's own work, from {name}", unit="µs", ours=alone))
    return found


def _drain(api: str, hook: str, directory: Path | None, audited: bool) -> Way:
    def drain() -> Spent:
        with rig.scratch(directory) as folder:
            config = rig.configuration(folder, api, {"hook": rig.webhook(hook)})
            settings = json.loads(config.read_text())
            settings["accounts"]["main"]["audit"] = {"enabled": audited}
            config.write_text(json.dumps(settings))
            command = [sys.executable, "-m", "poller", "drain", "-c", str(config)]
            return rig.spent_by(command, stderr=subprocess.DEVNULL)

    return drain


async def _alone(directory: Path | None, count: int) -> float:
    events = [picture(10 * (n // STREAMS), stream=f"live_{n % STREAMS}") for n in range(count)]
    account = AccountSettings.model_validate({"app_id": 1, "key": "k" * 32})
    clock = ManualClock()
    with rig.scratch(directory) as folder:
        settings = SqliteSpool.Settings(type="sqlite", path=folder / "spool.db")
        async with SqliteSpool("spool", settings, {}, clock) as spool:
            audit = Audit(spool, lambda: {"main": account}, clock=clock, metrics=Metrics())
            await audit.begin()
            await _fill(spool, events)
            begun = time.process_time()
            while audit.position < spool.head:
                clock.pass_time(0.02)
                await audit.step()
            return (time.process_time() - begun) / count * 1e6


async def _fill(spool: SqliteSpool, events: Sequence[Event]) -> None:
    for start in range(0, len(events), 100):
        some = tuple(events[start : start + 100])
        await spool.append("shots", [ParsedPage(events=some, rejects=(), outcome=PollOutcome.PARTIAL)])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
