"""The spool that several daemons share, beside the spool in a file and a bare asyncpg loop, in one run.

    python -m tests.bench.shared [--retained 1000000] [--events 64000] [--burst 100000] [--rounds 3] [--takeovers 5]
        [--members 1 2 4] [--directory DIR]

Members are processes of their own. The spool in PostgreSQL, the one in SQLite and the bare tables
(`tests.bench.shared_bare`) hold the same retained events. A round appends so many more to each, in pages of 100 with
new ids, 1 and 16 pages a commit, with 1 and 2 members; and it claims and settles all that is retained for a new sink,
with 1, 2 and 4 members. SQLite has one member. A round fails if an event is missing or comes twice. Each member learns
what others append: that is measured with one that does nothing else.

Then a burst goes the whole way, from a sandbox through the spool to a webhook that counts: with a daemon over SQLite,
with the bare loop (`tests.bench.shared_bare_way`), and with 1 and 2 daemons over PostgreSQL.

Last, two daemons with a lease of 2 s carry messages, and the one that polls is killed (`kill -9`). Promise: 3 s later
at most, another one polls, and what the killed one held is in other hands.

CPU of the members is theirs, all threads; CPU of the server is that of all its processes. The server runs on the same
cores and the same disk: the events a second are those of a machine that does everything.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.bench import figures, rig
from tests.bench.figures import Figure
from tests.bench.shared_daemons import STREAMS, Drained, Town, bare_loop, daemons, drain, town
from tests.bench.shared_rounds import Found, Places, Round, Way, measure
from tests.bench.shared_server import Server, server
from tests.bench.shared_takeover import LEASE, Takeover, takeover

BENCH: Final = "shared"
PEERS: Final[dict[Way, str]] = {"bare": "bare asyncpg", "sqlite": "SQLite"}
SLACK: Final = 1.0
"""Seconds that a takeover may take longer than a lease."""


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    options = _options(arguments)
    with rig.scratch(options.directory) as folder, server() as database:
        return [
            *_spools(folder, database, options),
            *_ways(folder, database, options),
            *_takeovers(folder, database, options),
        ]


# ---------------------------------------------------------------- the spool alone


def _spools(folder: Path, database: Server, options: argparse.Namespace) -> Iterator[Figure]:
    places, found = Places(database, folder), Found()
    places.fill(options.retained)
    kept, follows = places.kept(), []
    for turn in range(options.rounds):
        follows.append(places.follow(options.events))
        measure(places, found, members=options.members, events=options.events, turn=turn)
        print(f"round {turn + 1}", file=sys.stderr)
    print(rig.table(["", "events/s", "us of CPU", "us, server", "bytes of log"], _rows(found)))
    yield from _beside(found)
    name = "CPU of a member that follows what another one appends"
    yield Figure(bench=BENCH, name=name, unit="µs", ours=rig.median(follows))
    for what, size in kept.items():
        yield Figure(bench=BENCH, name=f"bytes kept {what}", unit="B", ours=float(size))


def _rows(found: Found) -> list[list[object]]:
    return [
        [
            f"{work}: {way}",
            *[rig.median([getattr(one, what) for one in rounds]) for what in Round.__dataclass_fields__],
        ]
        for (way, work), rounds in found.items()
    ]


def _beside(found: Found) -> Iterator[Figure]:
    """Each work by the spool in PostgreSQL, beside the same work by the others."""
    for (way, work), ours in found.items():
        if way != "postgres":
            continue
        for peer, name in PEERS.items():
            if theirs := found.get((peer, work)):
                yield _figure(f"{work}, beside {name}", "1/s", "speed", ours, theirs)
                yield _figure(f"{work}, CPU of the members, beside {name}", "µs", "cpu", ours, theirs)
        bare = found["bare", work]
        yield _figure(f"{work}, CPU of the server, beside {PEERS['bare']}", "µs", "server", ours, bare)
        yield Figure(
            bench=BENCH,
            name=f"{work}, bytes of the write-ahead log an event",
            unit="B",
            ours=rig.median([one.log for one in ours]),
        )


def _figure(name: str, unit: str, what: str, ours: Sequence[Round], theirs: Sequence[Round]) -> Figure:
    values = [[float(getattr(one, what)) for one in rounds] for rounds in (ours, theirs)]
    return figures.beside(BENCH, name, unit, values[0], values[1])


# ---------------------------------------------------------------- the whole way


SQLITE, BARE, ONE, TWO = "a daemon over SQLite", "the bare loop", "1 daemon", "2 daemons"


def _ways(folder: Path, database: Server, options: argparse.Namespace) -> list[Figure]:
    found: dict[str, list[Drained]] = {name: [] for name in (SQLITE, BARE, ONE, TWO)}
    for turn in range(options.rounds):
        for name in list(found)[:: 1 if turn % 2 else -1]:
            with town(folder / f"{turn}-{name}", database, STREAMS) as place:
                found[name].append(_drained(place, name, f"way{turn}", options.burst))
    head = ["the whole way", "events/s", "us of CPU", "us, server", "bytes of log", "bytes written"]
    print(rig.table(head, [[name, *_cells(rounds, options.burst)] for name, rounds in found.items()]))
    return [*_way_figures(found, options.burst)]


def _drained(place: Town, name: str, schema: str, burst: int) -> Drained:
    """A burst on its way, after a small one that warms up."""
    count = 2 if name == TWO else 1
    spool = None if name == SQLITE else place.server.spool(f"{schema}_{count}")
    with bare_loop(place) if name == BARE else daemons(place, count, spool) as running:
        drain(place, running, max(burst // 20, 100))
        return drain(place, running, burst)


def _cells(rounds: Sequence[Drained], burst: int) -> list[float]:
    return [rig.median(column) for column in zip(*[_values(one, burst) for one in rounds], strict=True)]


def _values(one: Drained, burst: int) -> tuple[float, ...]:
    used = one.server
    return (
        burst / one.wall,
        one.cpu / burst * 1e6,
        used.cpu / burst * 1e6,
        used.log / burst,
        used.written / burst,
    )


def _way_figures(found: dict[str, list[Drained]], burst: int) -> Iterator[Figure]:
    values = {
        name: list(zip(*[_values(one, burst) for one in rounds], strict=True))
        for name, rounds in found.items()
    }
    for name in (ONE, TWO):
        speed, cpu, used, log, written = values[name]
        for peer in (SQLITE, BARE):
            yield figures.beside(
                BENCH, f"the whole way, {name}, beside {peer}", "1/s", speed, values[peer][0]
            )
            yield figures.beside(
                BENCH, f"the whole way, {name}, CPU of the daemons, beside {peer}", "µs", cpu, values[peer][1]
            )
        yield figures.beside(
            BENCH, f"the whole way, {name}, CPU of the server, beside {BARE}", "µs", used, values[BARE][2]
        )
        for what, ours in (("of the write-ahead log", log), ("written by the server", written)):
            yield Figure(
                bench=BENCH, name=f"the whole way, {name}, bytes {what}", unit="B", ours=rig.median(ours)
            )


# ---------------------------------------------------------------- takeovers


def _takeovers(folder: Path, database: Server, options: argparse.Namespace) -> Iterator[Figure]:
    found: list[Takeover] = []
    for number in range(options.takeovers):
        found.append(takeover(folder / f"takeover{number}", database, f"takeover{number}"))
        print(found[-1], file=sys.stderr)
    for what, values in (
        ("another polls", [one.polls for one in found]),
        ("others hold what it held", [one.holds for one in found]),
    ):
        yield Figure(
            bench=BENCH,
            name=f"kill -9 until {what}, lease of {LEASE:g} s, the slowest round",
            unit="s",
            ours=max(values),
            at_most=LEASE + SLACK,
        )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--retained", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=64_000, help="that a round appends")
    parser.add_argument("--burst", type=int, default=100_000, help="messages that go the whole way")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--takeovers", type=int, default=5)
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--directory", type=Path, default=None)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
