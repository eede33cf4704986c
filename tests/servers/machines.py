"""Machines with one configuration, whose daemons share a spool in a real PostgreSQL.

Each daemon has a folder of its own, as if it were another machine's, so each has its own journal.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.scenario.environment import Environment, environment, until
from tests.scenario.rig import Process, Scenario, scenario, webhook
from tests.servers.databases import Database
from tests.servers.postgres_spools import head_of, owed_by, settings_of

LEASE = 6.0
"""Seconds. A machine that is held up for half of it keeps its session."""
POLLING = "source:shots"
"""The duty of the daemon that polls for all."""


@dataclass(frozen=True)
class Machines:
    """The machines, a town around them, and the database."""

    place: Environment
    server: Database
    folder: Path
    all: list[Scenario]

    def __getitem__(self, number: int) -> Scenario:
        return self.all[number]

    def run(self) -> list[Process]:
        """A daemon on each machine, running."""
        return [machine.run() for machine in self.all]

    def polling(self, number: int) -> Process:
        """The daemon of a machine, started and polling: whoever is started now stands by."""
        process = self.all[number].run()
        until(lambda: self.holder(POLLING).endswith(f", process {process.child.pid}"), what="for it to poll")
        return process

    def stored(self, count: int) -> None:
        """Wait until the spool has `count` events."""
        until(lambda: head_of(self.server, self.folder) == count + 1, what=f"for {count} events")

    def removed(self) -> set[str]:
        """The pictures' names of all messages that were taken off the queue."""
        return {one.path for one in self.place.oracle.removed() if one.path is not None}

    def all_arrived(self, count: int) -> None:
        """Wait until `count` messages have arrived and are settled. No other message arrived."""
        until(lambda: len(self.place.hook.files) >= count, what=f"for {count} pictures")
        assert set(self.place.hook.files) == self.removed()
        assert len(self.removed()) == count
        self.settled()

    def caught_up(self) -> None:
        """Wait until all that journals had left over, and one more, is delivered."""
        self.place.enqueue(1)
        until(lambda: self.place.depth == 0)
        last = self.place.oracle.removed()[-1].path
        until(lambda: last in self.place.hook.files, what="for the last message")
        self.settled()

    def settled(self) -> None:
        """Wait until the spool owes nobody anything."""
        until(lambda: owed_by(self.server, self.folder) == 0, what="for the settlements")

    def holder(self, duty: str) -> str:
        """The name of the daemon that has a duty; empty if none has it."""
        rows = self.server.ask_now(
            f"SELECT session.name FROM {self.schema}.session JOIN {self.schema}.duty ON holder = session.id"
            f" WHERE duty.name = '{duty}'"
        )
        return str(rows[0][0]) if rows else ""

    @property
    def schema(self) -> str:
        return str(settings_of(self.server, self.folder)["schema"])


@contextmanager
def machines(
    server: Database,
    folder: Path,
    count: int = 3,
    *,
    lease: str = f"{LEASE:g}s",
    wire: bool = False,
    spool: dict[str, Any] | None = None,
    sink: dict[str, Any] | None = None,
    **more: Any,
) -> Iterator[Machines]:
    """Nothing runs yet. With `wire`, answers of the platform take their way."""
    with environment(folder) as place, ExitStack() as stack:
        common: dict[str, Any] = {
            "endpoint": place.wire.endpoint if wire else "",
            "spool": settings_of(server, folder, lease=lease, **(spool or {})),
            "sinks": {"hook": webhook(place, **{"batch": {"max_events": 20}, **(sink or {})})},
            **more,
        }
        names = [f"machine-{number}" for number in range(1, count + 1)]
        found = [stack.enter_context(scenario(place, folder / name, **common)) for name in names]
        yield Machines(place, server, folder, found)


def no_bug(process: Process) -> None:
    """What went wrong was foreseen."""
    assert "Traceback" not in process.stderr
    assert [line for line in process.log if "exception" in line] == []


def standing_by(process: Process) -> Process:
    """Wait until another daemon polls for it."""
    process.heard("source_stands_by")
    return process


def took_over(process: Process, since: float) -> float:
    """Wait until a daemon polls that stood by; returns how many seconds after `since` it did."""
    process.heard("source_taken_over")
    return time.monotonic() - since
