"""How long it takes until another daemon does what a killed one did. A part of `tests.bench.shared`."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.shared_daemons import (
    STREAMS,
    Daemons,
    Town,
    daemon,
    daemons,
    folder_of,
    serving,
    town,
    until,
)
from tests.bench.shared_server import Server

LEASE: Final = 2.0
"""Seconds: the shortest lease."""
HELD_UP: Final = 0.2
"""Seconds until the webhook answers, so that a killed daemon has something in hand."""
A_SECOND: Final = 2_000
AT_RISK: Final = 400
"""The messages of the polls in flight."""


@dataclass(frozen=True, kw_only=True)
class Takeover:
    """Seconds from the kill until another daemon polls, and until what the killed one held is in other hands.

    twice: how many events came twice
    """

    polls: float
    holds: float
    twice: int


def takeover(folder: Path, server: Server, schema: str) -> Takeover:
    """Kill the daemon that polls while messages come, and see that all that was stored arrives."""
    with (
        town(folder, server, STREAMS, HELD_UP) as place,
        daemons(place, 2, server.spool(schema, LEASE)) as running,
    ):
        with _feeding(place) as fed:
            until(lambda: _held(place, schema, _first(place, schema)) > 0, running)
            found = _kill(place, running, schema)
        with daemon(folder_of(place, 0) / "poller.yaml") as again:
            until(lambda: place.queue.depth() == 0, running)
            until(lambda: serving(place.server, schema) == 2, running)
            until(lambda: place.hook.counts().different == _stored(place, schema), running)
            again.send_signal(signal.SIGTERM)
        counts = place.hook.counts()
        assert fed[0] - counts.different <= AT_RISK, "more is lost than the polls in flight"
        return Takeover(**found, twice=counts.events - counts.different)


@contextmanager
def _feeding(place: Town) -> Iterator[list[int]]:
    """Messages come all the time; the list holds how many."""
    stop, fed = threading.Event(), [0]

    def feed() -> None:
        while not stop.wait(0.1):
            place.queue.enqueue(A_SECOND // 10, streams=STREAMS)
            fed[0] += A_SECOND // 10

    with ThreadPoolExecutor(1) as pool:
        feeder = pool.submit(feed)
        try:
            yield fed
        finally:
            stop.set()
        feeder.result()


def _kill(place: Town, running: Daemons, schema: str) -> dict[str, float]:
    session = _first(place, schema)
    running.processes[0].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    running.processes[0].wait()
    polls = place.queue.polls()
    until(lambda: place.queue.polls() > polls, running)
    found = {"polls": time.monotonic() - killed}
    until(lambda: _held(place, schema, session) == 0, running)
    return {**found, "holds": time.monotonic() - killed}


def _first(place: Town, schema: str) -> int:
    """The session of the daemon that polls."""
    return int(place.server.ask(f"SELECT min(id) FROM {schema}.session WHERE NOT visits"))


def _held(place: Town, schema: str, session: int) -> int:
    """How many events a session holds, or held and nobody has taken over."""
    return int(
        place.server.ask(
            f"SELECT (SELECT coalesce(sum(upto - first), 0) FROM {schema}.share WHERE holder IN (0, {session}))"
            f" + (SELECT coalesce(sum(size), 0) FROM {schema}.waiting WHERE holder IN (0, {session}))"
        )
    )


def _stored(place: Town, schema: str) -> int:
    """How many events the log has got."""
    return int(place.server.ask(f"SELECT head - 1 FROM {schema}.log"))
