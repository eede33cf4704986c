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
from tests.scenario.killed import owed
from tests.scenario.rig import Process, Scenario, scenario
from tests.scenario.test_operate import rows

Reader = Callable[[], Iterable[tuple[str, str]]]
"""Returns stream and id of every event at the other side, in the order in which they are stored."""
BATCH: Final = 20
CARRIED_AT_ONCE: Final = 2
RATE: Final = "1/25ms"
"""Of batches. A sink that is quicker would be through before a crowded machine lets the test kill."""
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
    """What came of it.

    sent:      the spool's events in their order
    stored:    the events at the other side in their order
    explained: for each id, how many kills of the daemon found it at the other side while the spool still owed it: so
               often it may come again
    in_hand:   how many more repeats there may be. Each kill, also one of the server, interrupts so many events at most
               whose arrival nobody knows: the other side may have them, or get them a moment after it was asked
    """

    sent: Sequence[Stored]
    stored: Sequence[Stored]
    explained: Mapping[str, int]
    in_hand: int


class _Data(msgspec.Struct):
    file_name: str


class _Line(msgspec.Struct):
    id: str
    data: _Data
    subject: str = ""


_line: Final = msgspec.json.Decoder(_Line).decode


def carry(
    folder: Path,
    server: Server,
    sink: Mapping[str, Any],
    stored: Reader,
    *,
    events: int = 2_000,
    kills: int = 2,
    streams: int = 5,
    pictures: bool = False,
) -> Carried:
    """Send so many events to a server that runs, killing the daemon first, then the server, and so on.

    sink:     the sink's settings; order, batches, concurrency and rate are set here
    stored:   reads the other side; also asked while the daemon is dead
    pictures: whether the sandbox has the events' pictures
    """
    terms = {
        "order": "stream",
        "concurrency": CARRIED_AT_ONCE,
        "batch": {"max_events": BATCH},
        "rate": RATE,
        "start": "earliest",
    }
    with environment(folder) as place, scenario(place, folder, sinks={NAME: {**sink, **terms}}) as daemon:
        place.enqueue(events, streams=streams, pictures=pictures)
        explained = _with_kills(daemon, server, stored, events, kills)
        assert daemon.drain() == 0, daemon.processes[-1].stderr[-3000:]
        books = daemon.books()
        said = [line for process in daemon.processes for line in process.said("library_error")]
        odd = [line for line in said if line["error"] != "CancelledError"]  # aiormq cancels when it closes
        assert not odd, odd
        assert not books.waiting
        assert not books.dead
        assert not books.quarantine
        sent = [Stored(line.subject, line.id) for line in _spooled(daemon.spool_file)]
    return Carried(sent, [Stored(*one) for one in stored()], explained, kills * CARRIED_AT_ONCE * BATCH)


def _with_kills(daemon: Scenario, server: Server, stored: Reader, events: int, kills: int) -> Counter[str]:
    """Kill so often, and stop at last; returns how often the daemon's kills explain that an id comes again."""
    process, before, explained = daemon.run(), 0, Counter[str]()
    until(lambda: daemon.environment.depth == 0, what="for the queue to be empty")
    for number in range(kills):
        done = before + _until_delivered(process, events * (number + 1) // (kills + 1) - before)
        assert done < events, "the kill came too late to mean anything"
        if number % 2:
            server.kill()
            server.start()
            rows(daemon, "resume", NAME, code=None)  # it may be paused by now
        else:
            _kill(process, daemon.spool_file, settled=done // 2)
            explained.update({id for _, id in stored()} & _owed(daemon.spool_file))
            process, before = daemon.run(), done
    process.stop()
    return explained


def _kill(process: Process, spool: Path, *, settled: int) -> None:
    """Kill a daemon whose file calls so many events delivered: if it called none so, every repetition was explained."""
    until(lambda: _settled(spool) >= settled, what=f"for {settled} settlements on the disk")
    process.kill()


def _until_delivered(process: Process, count: int) -> int:
    """Wait until this life has delivered so many events; returns how many those are now."""

    def delivered() -> int:
        return int(process.metric("deliveries_total", sink=NAME, outcome="done"))

    until(lambda: delivered() >= count, what=f"for {count} deliveries")
    return delivered()


def _spooled(spool: Path) -> list[_Line]:
    with closing(sqlite3.connect(f"{spool.as_uri()}?mode=ro", uri=True)) as file:
        pages = file.execute("SELECT events FROM page ORDER BY first").fetchall()
    return [_line(line) for (events,) in pages for line in events.split(b"\n")]


def _settled(spool: Path) -> int:
    """How many events the file calls delivered, all from the log's beginning on."""
    with closing(sqlite3.connect(f"{spool.as_uri()}?mode=ro", uri=True)) as file:
        (first,) = file.execute("SELECT min(first) FROM page").fetchone()
        (position,) = file.execute("SELECT position FROM sink WHERE name = ?", (NAME,)).fetchone()
    return int(position - first)


def _owed(spool: Path) -> set[str]:
    """The ids of the events that the file of a killed daemon does not call delivered."""
    names = owed(spool, NAME)
    return {line.id for line in _spooled(spool) if line.data.file_name in names}


def check(carried: Carried, *, least: int, keeps_repeats: bool = True, keeps_order: bool = True) -> int:
    """Compare both sides; returns how many events are repeated at the other side.

    least:         how many events must have come: a kill of the daemon may take the answers of polls in flight along
    keeps_repeats: whether the server stores a repetition, instead of dropping it
    keeps_order:   whether the server has an order
    """
    sent, stored = carried.sent, carried.stored
    assert len(sent) >= least, f"only {len(sent)} events came through the queue"
    counts = Counter(one.id for one in stored)
    missing = [one.id for one in sent if one.id not in counts]
    assert not missing, f"{len(missing)} of {len(sent)} events are missing, such as {missing[0]}"
    assert set(stored) == set(sent), "the other side has events of no one, or of another stream"
    repeats = counts.total() - len(counts)
    assert keeps_repeats or repeats == 0, f"{repeats} repeats"
    odd = sum(max(0, count - 1 - carried.explained.get(id, 0)) for id, count in counts.items())
    assert odd <= carried.in_hand, f"no kill explains {odd} repeats"
    assert not keeps_order or _by_stream(stored) == _by_stream(sent), "the order of a stream is not kept"
    return repeats


def _by_stream(events: Iterable[Stored]) -> dict[str, list[str]]:
    """The ids of each stream in the order in which they came first."""
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for one in events:
        found[one.stream].setdefault(one.id)
    return {stream: list(ids) for stream, ids in found.items()}
