"""Daemons over one spool, between a sandbox and a counting webhook, and what they use."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.bench import rig
from tests.bench.shared_bare import SCHEMA
from tests.bench.shared_hook import CountingHook, counting_hook
from tests.bench.shared_server import Server, Used
from tests.servers import trees

PATIENCE: Final = 300.0


@dataclass(frozen=True, kw_only=True)
class Town:
    """What is around the daemons."""

    folder: Path
    queue: rig.Platform
    hook: CountingHook
    server: Server


@contextmanager
def town(folder: Path, server: Server, streams: int, delay: float = 0.0) -> Iterator[Town]:
    """An empty queue, and a webhook that has got nothing and answers after `delay` seconds."""
    folder.mkdir(parents=True)
    with rig.platform(folder / "platform") as queue, counting_hook(streams, delay) as hook:
        yield Town(folder=folder, queue=queue, hook=hook, server=server)


@dataclass
class Daemons:
    """The daemons that run, in the order in which they were started."""

    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def cpu(self) -> float:
        """Seconds of CPU that all of them have used."""
        return sum(trees.cpu(one.pid) for one in self.processes)


@contextmanager
def daemons(
    place: Town,
    count: int,
    spool: Mapping[str, Any] | None,
    sinks: Mapping[str, object] | None = None,
    *,
    account: Mapping[str, object] | None = None,
) -> Iterator[Daemons]:
    """So many daemons over a spool (one over a file if None), all of which serve the sinks; the first one polls."""
    found = Daemons()
    with ExitStack() as stack:
        for number in range(count):
            config = rig.configuration(
                folder_of(place, number),
                place.queue.api,
                sinks or {"hook": rig.webhook(place.hook.url, concurrency=4)},
                spool,
                account,
                beat="off",
                min_delay="10ms",
                max_delay="50ms",
            )
            found.processes.append(stack.enter_context(daemon(config)))
            polls = place.queue.polls()
            if number == 0:
                until(lambda: place.queue.polls() > polls, found)  # noqa: B023
        if spool is not None:
            until(lambda: serving(place.server, str(spool["schema"])) == count, found)
        yield found
        for process in found.processes:
            process.send_signal(signal.SIGTERM)


def folder_of(place: Town, number: int) -> Path:
    """Where a daemon has its configuration and its journal."""
    return place.folder / f"daemon-{number}"


@contextmanager
def bare_loop(place: Town) -> Iterator[Daemons]:
    """The bare loop over PostgreSQL, in the place of daemons. Its tables are there, and empty."""
    place.server.run(
        f"DROP SCHEMA IF EXISTS bare CASCADE; {SCHEMA}; INSERT INTO bare.sink VALUES ('hook', 1)"
    )
    command = [sys.executable, "-m", "tests.bench.shared_bare_way", place.queue.api, place.hook.url]
    polls = place.queue.polls()
    with subprocess.Popen([*command, place.server.dsn]) as process:
        try:
            until(lambda: place.queue.polls() > polls, found := Daemons([process]))
            yield found
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, "the loop has failed"
        finally:
            process.kill()


@contextmanager
def daemon(config: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A daemon, which has ended afterwards."""
    command = [sys.executable, "-m", "poller", "run", "-c", str(config)]
    with (
        config.with_name("log").open("ab") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=config.parent) as process,
    ):
        try:
            yield process
            assert process.wait(60) in (0, -signal.SIGKILL), "a daemon has failed"
        finally:
            process.kill()


def serving(server: Server, schema: str) -> int:
    """How many daemons serve the sink."""
    return int(server.ask(f"SELECT count(DISTINCT session) FROM {schema}.attached WHERE serves"))


def until(holds: Callable[[], bool], running: Daemons, every: float = 0.02, within: float = PATIENCE) -> None:
    """Wait for something that daemons do. Fails if it takes longer than `within` seconds, or if one of them ends."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < within, "waited in vain"
        assert all(one.poll() in (None, -signal.SIGKILL) for one in running.processes), "a daemon has ended"
        time.sleep(every)


# ---------------------------------------------------------------- the whole way


@dataclass(frozen=True, kw_only=True)
class Drained:
    """What it took to carry a burst the whole way: seconds, and seconds of CPU of all daemons; what the server used."""

    wall: float
    cpu: float
    server: Used


def drain(place: Town, running: Daemons, events: int) -> Drained:
    """Fill the queue, and wait until all has arrived, each event once."""
    before, server, cpu = place.hook.counts(), place.server.used(), running.cpu()
    began = time.monotonic()
    place.queue.enqueue(events, streams=STREAMS)
    until(lambda: place.hook.counts().different - before.different == events, running)
    wall = time.monotonic() - began
    after = place.hook.counts()
    assert after.events - before.events == events, "an event came twice"
    return Drained(wall=wall, cpu=running.cpu() - cpu, server=place.server.used().since(server))


STREAMS: Final = 1_000
"""The streams that take turns in a burst."""
