"""Events through a real daemon's sink to a real server, while the daemon and the server are killed in turns.

`carry` fills the sandbox's queue, runs the daemon, kills, and drains. `check` then compares the spool with the other
side: nothing is missing or invented, repeats are explained by the kills, and each stream's order is kept.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from tests.scenario.environment import environment, until
from tests.scenario.rig import Process, Scenario, scenario

BATCH: Final = 20
CARRIED_AT_ONCE: Final = 2
NAME: Final = "out"
ORDINARY: Final = (2_000, 2)
"""Events and kills in every run."""
FULL: Final = (100_000, 10)
"""Events and kills with `--soak`."""


class Server(Protocol):
    """What the daemon delivers to. `tests.servers.processes.ServerProcess` is one."""

    def kill(self) -> None: ...

    def start(self) -> None: ...


class Stored(NamedTuple):
    """One event at the other side."""

    stream: str
    id: str


class Carried(NamedTuple):
    """The spool's events in their order, those at the other side in their order, and the most repeats explained."""

    sent: Sequence[Stored]
    stored: Sequence[Stored]
    explained: int


class _Line(msgspec.Struct):
    id: str
    subject: str = ""


_line: Final = msgspec.json.Decoder(_Line).decode


def carry(
    folder: Path,
    server: Server,
    sink: Mapping[str, Any],
    stored: Callable[[], Iterable[tuple[str, str]]],
    *,
    events: int = 2_000,
    kills: int = 2,
    streams: int = 5,
) -> Carried:
    """Send so many events to a server that runs, killing the daemon first, then the server, and so on.

    sink:   the sink's settings; order, batches and concurrency are set here
    stored: returns stream and id of every event at the other side, in the order in which they are stored
    """
    terms = {
        "order": "stream",
        "concurrency": CARRIED_AT_ONCE,
        "batch": {"max_events": BATCH},
        "start": "earliest",
    }
    with environment(folder) as place, scenario(place, folder, sinks={NAME: {**sink, **terms}}) as daemon:
        place.enqueue(events, streams=streams)
        _with_kills(daemon, server, events, kills)
        assert daemon.drain() == 0, daemon.processes[-1].stderr[-3000:]
        books = daemon.books()
        assert not books.waiting
        assert not books.dead
        assert not books.quarantine
        sent = _spooled(daemon.spool_file)
    return Carried(sent, [Stored(*one) for one in stored()], kills * CARRIED_AT_ONCE * BATCH)


def _with_kills(daemon: Scenario, server: Server, events: int, kills: int) -> None:
    process, before = daemon.run(), 0
    until(lambda: daemon.environment.depth == 0, what="for the queue to be empty")
    for number in range(kills):
        done = before + _until_delivered(process, events * (number + 1) // (kills + 1) - before)
        assert done < events, "the kill came too late to mean anything"
        if number % 2:
            server.kill()
            server.start()
        else:
            process.kill()
            process, before = daemon.run(), done
    process.stop()


def _until_delivered(process: Process, count: int) -> int:
    """Wait until this life has delivered so many events; returns how many those are now."""

    def delivered() -> int:
        return int(process.metric("deliveries_total", sink=NAME, outcome="done"))

    until(lambda: delivered() >= count, what=f"for {count} deliveries")
    return delivered()


def _spooled(spool: Path) -> list[Stored]:
    with closing(sqlite3.connect(f"{spool.as_uri()}?mode=ro", uri=True)) as file:
        pages = file.execute("SELECT events FROM page ORDER BY first").fetchall()
    lines = [_line(line) for (events,) in pages for line in events.split(b"\n")]
    return [Stored(line.subject, line.id) for line in lines]


def check(carried: Carried, *, least: int, keeps_repeats: bool = True) -> int:
    """Compare both sides; returns how many events are repeated at the other side.

    least:         how many events must have come: a kill of the daemon may take the answers of polls in flight along
    keeps_repeats: whether the server stores a repetition, instead of dropping it
    """
    sent, stored = carried.sent, carried.stored
    assert len(sent) >= least, f"only {len(sent)} events came through the queue"
    counts = Counter(one.id for one in stored)
    missing = [one.id for one in sent if one.id not in counts]
    assert not missing, f"{len(missing)} of {len(sent)} events are missing, such as {missing[0]}"
    assert set(stored) == set(sent), "the other side has events of no one, or of another stream"
    repeats = counts.total() - len(counts)
    assert repeats <= (carried.explained if keeps_repeats else 0), f"{repeats} repeats"
    assert _by_stream(stored) == _by_stream(sent), "the order of a stream is not kept"
    return repeats


def _by_stream(events: Iterable[Stored]) -> dict[str, list[str]]:
    """The ids of each stream in the order in which they came first."""
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for one in events:
        found[one.stream].setdefault(one.id)
    return {stream: list(ids) for stream, ids in found.items()}
