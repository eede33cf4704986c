"""What the index of the log costs, and what looking back costs with it.

    python -m tests.bench.index [--events 1000000] [--streams 2778] [--rounds 5] [--directory DIR]

Append: CPU an event of the spool's append, pages of 100 events and four pages a commit, beside the same writer without
an index, in turns: to a new file, and to a copy of the log of N events. CPU is this process's, all threads
(`process_time`).

Looking back: a log of N events, each stream one picture every ten seconds, so that a million events of 2,778
streams are an hour. Beside it the same log as schema 1 leaves it, without an index. Each question is asked step by
step, as the daemon asks it; the figures are the median and the most over streams, ids and moments picked at random.
"""

import argparse
import asyncio
import random
import shutil
import sqlite3
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

import msgspec
import uvloop

from poller.core.model import Event, ParsedPage, PollOutcome, identity, new_event
from poller.core.selection import ALL_EVENTS, Numbered, Selection
from poller.core.spool import anything
from poller.runtime.log import configure
from poller.spools.sqlite import SqliteSpool, writer
from poller.testing import START
from tests.bench import figures, rig
from tests.bench.figures import Figure
from tests.bench.parts import Measured, timed

EACH = 100
TOGETHER = 4
NEW = 100_000
WITH, WITHOUT = "append", "append without index"
CADENCE = 10.0
ASKED = 20


def events_of(streams: int, first: int, count: int) -> list[Event]:
    """So many events from a number on: one picture of each stream in turn, evenly over the cadence."""
    return [_event(streams, number) for number in range(first, first + count)]


@lru_cache(maxsize=4096)
def _at(seconds: float) -> datetime:
    """A moment after the start. The sources share the objects of equal times, too."""
    return START + timedelta(seconds=seconds)


def _event(streams: int, number: int) -> Event:
    turn, stream = divmod(number, streams)
    taken = _at(int(turn * CADENCE + stream * CADENCE / streams))
    page_at = _at((number // EACH * EACH) * CADENCE / streams + 1)
    id, name = f"load_1234_{stream}", f"load_1234_{stream}_1465000000_1465000000_{turn * 10}_300_169.jpg"
    return new_event(
        id=identity("screenshot", "main", name),
        kind="screenshot",
        account="main",
        stream_id=id,
        occurred_at=taken,
        received_at=page_at,
        url=f"http://shots-1250000000.file.myqcloud.com/{name}",
        fields={"file_name": name, "width": 300, "height": 169, "push_started_at": 1465000000},
        message=msgspec.Raw(msgspec.json.encode({"stream_id": id, "pic_url": name})),
    )


def readings(streams: int, first: int, count: int) -> list[ParsedPage]:
    """The same as pages."""
    return [
        ParsedPage(
            events=tuple(events_of(streams, start, EACH)),
            rejects=(),
            outcome=PollOutcome.FULL,
            asked_at=START,
        )
        for start in range(first, first + count, EACH)
    ]


def spool(file: Path) -> SqliteSpool:
    """The spool in a file, whatever its size."""
    settings = SqliteSpool.Settings(type="sqlite", path=file, max_bytes=2**40, min_free=0, retain=365 * 86400)
    return SqliteSpool("spool", settings, {})


@contextmanager
def without_index() -> Iterator[None]:
    """The writer leaves the index out."""
    names = vars(writer)
    put, names["put_index"] = names["put_index"], lambda *row: None
    try:
        yield
    finally:
        names["put_index"] = put


# ---------------------------------------------------------------- append


async def append(found: Measured, name: str, file: Path, news: list[ParsedPage]) -> None:
    """One round over the spool in a file."""
    async with spool(file) as log:
        await log.attach("hook", anything)
        with timed(found, name, len(news) * EACH):
            for start in range(0, len(news), TOGETHER):
                await log.append("screenshots", news[start : start + TOGETHER])


async def appends(
    found: Measured, log: Path | None, folder: Path, news: list[ParsedPage], rounds: int
) -> None:
    """Rounds with and without an index, in turns, each over a new file or a copy of this log."""
    for number in range(rounds):
        for name in (WITH, WITHOUT)[:: 1 if number % 2 else -1]:
            file = folder / f"{name} {number}.db"
            if log is not None:
                shutil.copyfile(log, file)
            with nullcontext() if name == WITH else without_index():
                await append(found, name, file, news)
            for path in folder.glob(f"{file.name}*"):
                path.unlink()


def report(title: str, found: Measured) -> Figure:
    """Print what appends cost, and return it."""
    ratios = [a / b for a, b in zip(found[WITH], found[WITHOUT], strict=True)]
    rows = [[name, rig.median(times), min(times)] for name, times in found.items()]
    print(rig.table([f"us of CPU an event, {title}", "median", "least"], rows))
    print(f"ratio: median {rig.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")
    name = f"append {title}, beside the same without an index"
    return figures.beside("index", name, "µs", found[WITH], found[WITHOUT], at_most=1.05)


# ---------------------------------------------------------------- looking back


async def fill(file: Path, streams: int, count: int) -> None:
    """A log of this number of events."""
    async with spool(file) as log:
        for first in range(0, count, 20_000):
            news = readings(streams, first, min(20_000, count - first))
            for start in range(0, len(news), 16):
                await log.append("screenshots", news[start : start + 16])


def drop_index(file: Path) -> None:
    """Leave the file as one of schema 1 that was just opened."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("DELETE FROM page_index")
        db.execute("DELETE FROM meta WHERE name = 'unindexed'")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def scanned(log: SqliteSpool, chosen: Selection, most: int, *, newest_first: bool) -> list[Numbered]:
    """Up to `most` selected events."""
    found: list[Numbered] = []
    start: int | None = None
    while True:
        step = await log.scan(chosen, start, most - len(found), newest_first=newest_first)
        found += step.found
        if step.following is None or len(found) == most:
            return found
        start = step.following


Question = Callable[[], Awaitable[object]]


def questions(log: SqliteSpool, streams: int, count: int, rng: random.Random) -> dict[str, Question]:
    """What people ask, each about something else every time."""

    def some() -> Event:
        return _event(streams, rng.randrange(count))

    async def stream_hour() -> None:
        taken = START + timedelta(seconds=count * CADENCE / streams - 3600)
        chosen = Selection(account="main", stream=some().stream_id, taken_since=taken)
        found = await scanned(log, chosen, 10_000, newest_first=True)
        assert abs(len(found) - min(360, count // streams)) <= 2, len(found)

    async def by_id() -> None:
        event = some()
        ((_, found),) = await scanned(log, Selection(ids=frozenset({event.id})), 1, newest_first=True)
        assert found == event

    async def unknown_id() -> None:
        assert not await scanned(
            log, Selection(ids=frozenset({f"{rng.randrange(2**128):032x}"})), 1, newest_first=True
        )

    async def latest() -> None:
        chosen = Selection(account="main", stream=some().stream_id)
        assert await scanned(log, chosen, 1, newest_first=True)

    async def number() -> None:
        number = rng.randrange(1, count + 1)
        assert (await log.scan(ALL_EVENTS, number, 1)).found[0][0] == number

    async def number_at() -> None:
        await log.number_at(some().received_at)

    async def origin() -> None:
        assert await log.origin(rng.randrange(1, count + 1))

    return {
        "one stream's last hour": stream_hour,
        "event by id": by_id,
        "unknown id": unknown_id,
        "latest of a stream, by scan": latest,
        "event by number": number,
        "page at a time": number_at,
        "origin": origin,
    }


async def ask(found: Measured, kind: str, asked: dict[str, Question], times: int) -> None:
    """CPU and wall time of each question, in milliseconds."""
    for name, question in asked.items():
        await question()
        for _ in range(times):
            cpu, wall = time.process_time(), time.perf_counter()
            await question()
            found[f"{name}, {kind}"].append((time.process_time() - cpu) * 1000)
            found[f"{name}, {kind}, wall"].append((time.perf_counter() - wall) * 1000)


async def longest_step(log: SqliteSpool, chosen: Selection) -> float:
    """Milliseconds of the longest step of a scan of the whole log."""
    start, longest = None, 0.0
    while True:
        began = time.perf_counter()
        step = await log.scan(chosen, start, 1_000)
        longest = max(longest, time.perf_counter() - began)
        if (start := step.following) is None:
            return longest * 1000


async def looking_back(found: Measured, file: Path, streams: int, count: int) -> None:
    """All questions with the index, then without it, then the time to fill it."""
    rng = random.Random(1)
    async with spool(file) as log:
        await ask(found, "indexed", questions(log, streams, count, rng), ASKED)
        for chosen in (Selection(stream="nobody"), Selection(kinds=frozenset({"screenshot"}))):
            found["longest step of a scan, wall"].append(await longest_step(log, chosen))
    drop_index(file)
    async with spool(file) as log:
        await ask(found, "schema 1", questions(log, streams, count, rng), 2)
        began, longest = time.process_time(), 0.0
        more = True
        while more:
            step = time.perf_counter()
            more = (await log.prune()).more
            longest = max(longest, time.perf_counter() - step)
        found["fill the index of schema 1, whole"].append((time.process_time() - began) * 1000)
        found["fill the index of schema 1, longest step, wall"].append(longest * 1000)
        await ask(found, "filled", questions(log, streams, count, rng), ASKED)


def sizes(file: Path, count: int) -> list[list[object]]:
    """Bytes an event of the log and of its index."""
    with closing(sqlite3.connect(file)) as db:
        return [
            [
                table,
                db.execute("SELECT sum(pgsize) FROM dbstat WHERE name = ?", (table,)).fetchone()[0] / count,
            ]
            for table in ("page", "page_index")
        ]


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--streams", type=int, default=2_778)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args(arguments)
    configure("info", "json")
    measured: list[Figure] = []
    with (
        rig.scratch(options.directory) as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        if options.rounds:
            found: Measured = defaultdict(list)
            news = readings(options.streams, 0, NEW)
            runner.run(appends(found, None, folder, news, options.rounds))
            measured.append(report("to a new file", found))
        if options.events:
            file = folder / "spool.db"
            runner.run(fill(file, options.streams, options.events))
            print(rig.table(["bytes an event", ""], sizes(file, options.events)))
            if options.rounds:
                found = defaultdict(list)
                news = readings(options.streams, options.events, NEW)
                runner.run(appends(found, file, folder, news, options.rounds))
                measured.append(report(f"to a log of {options.events:,}", found))
            back: Measured = defaultdict(list)
            runner.run(looking_back(back, file, options.streams, options.events))
            answers = [[name, rig.median(times), max(times)] for name, times in back.items()]
            print(rig.table(["ms of CPU", "median", "most"], answers))
            measured += _figures(back, options.events)
    return measured


PROMISED = {
    "one stream's last hour": 50,
    "event by id": 50,
    "unknown id": 50,
    "latest of a stream, by scan": None,
    "event by number": None,
    "page at a time": 0.1,
    "origin": None,
}
"""The questions, and the most milliseconds of CPU."""


def _figures(back: Measured, events: int) -> list[Figure]:
    """Each question with an index, beside the log without one; then what is not a question."""
    asked = [
        Figure(
            bench="index",
            name=f"{name}, of {events:,}, beside no index",
            unit="ms",
            ours=rig.median(back[f"{name}, indexed"]),
            reference=rig.median(back[f"{name}, schema 1"]),
            at_most=most,
            absolute=True,
        )
        for name, most in PROMISED.items()
    ]
    others = ("longest step of a scan, wall", "fill the index of schema 1, longest step, wall")
    return asked + [Figure(bench="index", name=name, unit="ms", ours=max(back[name])) for name in others]


if __name__ == "__main__":
    main()
