"""What a backlog costs: CPU an event, memory, the start and the way back after `kill -9`, with 10^3 to 10^6 events.

    python -m tests.bench.growth [--sizes 1000 100000 1000000] [--rounds 5] [--events 60000] [--directory DIR]

For each size a spool that owes so many events to one sink, and remembers as many ids. Each round takes so many events
more the whole way, four pages of 100 and then four batches of 100 of the oldest, so that the backlog stays: a signed
GET, the journal, `read`, the spool's append; the courier's `step` with a webhook. CPU is this process's, all threads
(`process_time`). The spool's share, appending and claiming, is measured over as many events more. The bare loop does
the spool's work with SQLite alone: it inserts the same lines, four pages a commit, looks their ids up in a `set`, and
reads the oldest page back into events. The promise is that the whole way costs at most 1.2 times with the largest
backlog what it costs with the smallest, whose spool is made anew for each of these.

Then events that wait are delivered by a courier with a webhook, beside events just appended to a new file. Wanted with
a million: at most 7 µs an event, and 1.1 times fresh ones. Ids that were appended in a burst are merged before that, so
that no delivery pays for it.

Then the daemon over each of these files (`tests.bench.starts`): seconds from its start to its first poll, its resident
memory after that, and seconds to the first poll after `kill -9`, of an idle daemon and of one that takes messages as
fast as it can (promise: 5 s, and 150 MiB). Its sink's receiver is not there.
"""

import argparse
import asyncio
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path

import uvloop

from poller.core.model import Done, ParsedPage, parse_event
from poller.core.spool import anything
from poller.pipeline.courier import Courier
from poller.pipeline.journal import Journal
from poller.qcloud.wire.account import Account
from poller.runtime.clock import Clock
from poller.runtime.log import configure
from poller.runtime.metrics import Metrics
from poller.settings import AccountSettings
from poller.sinks.webhook import Webhook, WebhookSettings
from poller.sources.screenshot_queue import ScreenshotQueue, ScreenshotQueueSettings
from poller.spools.sqlite import SqliteSpool
from poller.spools.sqlite.seen import MERGE_AT
from poller.spools.sqlite.writer import flush
from tests.bench import figures, rig
from tests.bench.figures import Figure
from tests.bench.parts import EACH, Measured, pages, source, terms, timed
from tests.bench.starts import BACK, BACK_UNDER_LOAD, MEMORY, START, lives, queue

TOGETHER = 4
SIZES = (1_000, 100_000, 1_000_000)


def readings(count: int, first: int) -> list[ParsedPage]:
    """So many events from a number on, as the source reads them; the same numbers are the same events."""
    queue = source()
    return [queue.read(page, b"") for page in pages(count // EACH, first // EACH)]


# ---------------------------------------------------------------- CPU an event


@contextmanager
def opened(runner: asyncio.Runner, file: Path) -> Iterator[SqliteSpool]:
    """The spool with its one sink, which wants everything."""
    log = SqliteSpool(
        "spool", SqliteSpool.Settings(type="sqlite", path=file, max_bytes=2**40, min_free=0), {}
    )
    runner.run(log.__aenter__())
    try:
        runner.run(log.attach("hook", anything))
        yield log
    finally:
        runner.run(log.__aexit__(None, None, None))


def filled(runner: asyncio.Runner, file: Path, size: int) -> None:
    """Make a spool that owes the first so many events."""
    for end in ("", "-wal", "-shm"):
        file.with_name(file.name + end).unlink(missing_ok=True)
    file.parent.mkdir(exist_ok=True)
    with opened(runner, file) as log:
        for first in range(0, size, 20_000):
            news = readings(min(20_000, size - first), first)
            for start in range(0, len(news), TOGETHER):
                runner.run(log.append("screenshots", news[start : start + TOGETHER]))
        runner.run(merged(log))


async def merged(log: SqliteSpool) -> None:
    """Let the spool merge the ids that came in a burst."""
    while len(log._writer.seen._young) >= MERGE_AT:
        await log._write(flush)


async def spooled(found: Measured, size: int, log: SqliteSpool, news: list[ParsedPage]) -> None:
    """One round over a spool alone."""
    spent = {"append": 0.0, "claim, settle": 0.0}
    for start in range(0, len(news), TOGETHER):
        some = news[start : start + TOGETHER]
        began = time.process_time()
        await log.append("screenshots", some)
        between = time.process_time()
        for _ in some:
            batch = await log.claim("hook", EACH)
            await log.settle(batch, [Done()] * len(batch.events))
        spent["append"] += between - began
        spent["claim, settle"] += time.process_time() - between
    for part, seconds in spent.items():
        found[f"{size} {part}"].append(seconds / len(news) / EACH * 1e6)


async def carried(found: Measured, size: int, log: SqliteSpool, ends: tuple[str, str], count: int) -> None:
    """One round of the whole way, between a queue's and a webhook's URL."""
    api, hook = ends
    async with AsyncExitStack() as stack:
        settings = AccountSettings.model_validate(rig.account(api))
        account = await stack.enter_async_context(Account("main", settings))
        asked = ScreenshotQueueSettings(type="screenshot_queue", account="main")
        polled = ScreenshotQueue("screenshots", asked, {"main": account})
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=log._path.parent)))
        book = await stack.enter_async_context(Journal(folder / "journal", 64 * 2**20))
        sink = Webhook("hook", WebhookSettings.model_validate(rig.webhook(hook)), {})
        courier = Courier(
            await stack.enter_async_context(sink), log, terms(), metrics=Metrics(), clock=Clock()
        )
        with timed(found, f"{size} whole", count):
            for _ in range(count // EACH // TOGETHER):
                await _turn(polled, book, log, courier)


async def _turn(polled: ScreenshotQueue, book: Journal, log: SqliteSpool, courier: Courier) -> None:
    kept, news = [], []
    for _ in range(TOGETHER):
        await book.room()
        await polled.ready()
        page = await polled.fetch()
        kept.append(await book.keep(page))
        news.append(polled.read(page, b""))
    assert (await log.append("screenshots", news)).total() == TOGETHER * EACH
    for number in kept:
        book.release(number)
    for _ in news:
        assert await courier.step() == EACH


async def delivered(
    found: Measured, name: str, log: SqliteSpool, hook: str, news: list[ParsedPage], *, fresh: bool
) -> None:
    """One round of a courier with a webhook over events that wait, or over events just appended.

    As many waiting events as were delivered are appended afterwards, so that the backlog stays.
    """
    sink = Webhook("hook", WebhookSettings.model_validate(rig.webhook(hook)), {})
    spent = 0.0
    async with sink:
        courier = Courier(sink, log, terms(), metrics=Metrics(), clock=Clock())
        for start in range(0, len(news), TOGETHER):
            some = news[start : start + TOGETHER]
            if fresh:
                await log.append("screenshots", some)
            began = time.process_time()
            for _ in some:
                assert await courier.step() == EACH
            spent += time.process_time() - began
    found[name].append(spent / len(news) / EACH * 1e6)
    if not fresh:
        for start in range(0, len(news), TOGETHER):
            await log.append("screenshots", news[start : start + TOGETHER])
        await merged(log)


class Bare:
    """SQLite and nothing else."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA page_size=8192;")
        self._db.execute("CREATE TABLE page (n INTEGER PRIMARY KEY, events BLOB)")
        self._db.execute("CREATE TABLE sink (position INTEGER)")
        self._known: set[str] = set()
        self._next = 0

    def run(self, news: list[ParsedPage]) -> None:
        """One round."""
        for start in range(0, len(news), TOGETHER):
            self._db.execute("BEGIN")
            for one in news[start : start + TOGETHER]:
                fresh = [event for event in one.events if event.id not in self._known]
                self._known.update([event.id for event in fresh])
                lines = b"\n".join([event.encoded for event in fresh])
                self._db.execute("INSERT INTO page (events) VALUES (?)", (lines,))
            self._db.execute("COMMIT")
        for _ in news:
            self._next += 1
            (blob,) = self._db.execute("SELECT events FROM page WHERE n = ?", (self._next,)).fetchone()
            for line in blob.split(b"\n"):
                parse_event(line)
            self._db.execute("UPDATE sink SET position = ?", (self._next,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


# ---------------------------------------------------------------- the tables


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    options = _options(arguments)
    configure("info", "json")
    found: Measured = defaultdict(list)
    with rig.scratch(options.directory) as folder:
        files = {size: folder / str(size) / "spool.db" for size in options.sizes}
        _measure(found, files, folder, options)
        with queue() as server:
            lived = [(f"{size:,} owed", lives(file.parent, server)) for size, file in files.items()]
    head = ["us of CPU an event", "median", "least", "to the smallest", "least", "most"]
    print(rig.table(head, _rows(found, options.sizes)))
    print(rig.table(["", *lived[0][1]], [[name, *found.values()] for name, found in lived]))
    return [*_figures(found, options.sizes), *_lived(lived)]


PARTS = {"append": {}, "claim, settle": {"at_most": 1.1}, "whole": {"at_most": 1.2}}


def _figures(found: Measured, sizes: Sequence[int]) -> Iterator[Figure]:
    smallest, largest = min(sizes), max(sizes)
    for part, promise in PARTS.items():
        ours, theirs = (found[f"{size} {part}"] for size in (largest, smallest))
        name = f"{part}, {largest:,} pending, beside {smallest:,}"
        yield figures.beside("growth", name, "µs", ours, theirs, **promise)
    fresh = found["fresh delivered"]
    for size in sizes:
        bound = {"at_most": 1.1} if size >= 10**6 else {}
        delivered = found[f"{size} delivered"]
        yield figures.beside(
            "growth", f"deliver {size:,} waiting, beside fresh", "µs", delivered, fresh, **bound
        )
    most = rig.median(found[f"{largest} delivered"])
    yield Figure(bench="growth", name=f"deliver {largest:,} waiting", unit="µs", ours=most, at_most=7.0)


def _lived(lived: Sequence[tuple[str, Mapping[str, float]]]) -> Iterator[Figure]:
    for name, values in lived:
        for what, unit, bound in (
            (START, "s", 5.0),
            (BACK, "s", 5.0),
            (BACK_UNDER_LOAD, "s", 5.0),
            (MEMORY, "MiB", 150.0),
        ):
            yield Figure(bench="growth", name=f"{what}, {name}", unit=unit, ours=values[what], at_most=bound)


def _measure(found: Measured, files: Mapping[int, Path], folder: Path, options: argparse.Namespace) -> None:
    smallest, highest, count = min(files), max(files), options.events
    with (
        rig.platform(folder / "platform") as platform,
        rig.receiver() as hook,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        for size in files:
            filled(runner, files[size], size)
        bare = Bare(folder / "bare.db")
        for number in range(options.rounds):
            news = readings(count, highest + number * count)
            with timed(found, "bare", count):
                bare.run(news)
            for size in list(files)[:: 1 if number % 2 else -1]:
                platform.enqueue(count)
                for way in (
                    partial(carried, found, size, ends=(platform.api, hook), count=count),
                    partial(spooled, found, size, news=news),
                ):
                    if size == smallest:
                        filled(runner, files[size], size)
                    with opened(runner, files[size]) as log:
                        runner.run(way(log=log))
            first = highest + (options.rounds + number) * count
            _deliver(found, files, (runner, folder / "fresh" / "spool.db"), hook, readings(count, first))
            print({name: round(times[-1], 2) for name, times in found.items()}, file=sys.stderr)
        bare.close()


def _deliver(
    found: Measured,
    files: Mapping[int, Path],
    own: tuple[asyncio.Runner, Path],
    hook: str,
    news: list[ParsedPage],
) -> None:
    """One round of delivering: events just appended to a new file, then those that wait in each file."""
    runner, new = own
    filled(runner, new, 0)
    with opened(runner, new) as log:
        runner.run(delivered(found, "fresh delivered", log, hook, news, fresh=True))
    for size, file in files.items():
        if size == min(files):
            filled(runner, file, size)
        with opened(runner, file) as log:
            some = news[: size // EACH]
            runner.run(delivered(found, f"{size} delivered", log, hook, some, fresh=False))


def _rows(found: Measured, sizes: Sequence[int]) -> list[list[object]]:
    rows: list[list[object]] = [["bare", rig.median(found["bare"]), min(found["bare"]), "", "", ""]]
    fresh = found["fresh delivered"]
    rows.append(["deliver, fresh", rig.median(fresh), min(fresh), "", "", ""])
    for part in ("append", "claim, settle", "whole", "delivered"):
        for size in sizes:
            times, least = found[f"{size} {part}"], found[f"{min(sizes)} {part}"]
            ratios = [one / other for one, other in zip(times, least, strict=True)]
            row = [rig.median(times), min(times), rig.median(ratios), min(ratios), max(ratios)]
            rows.append([f"{part}, {size:,} owed", *row])
    return rows


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--directory", type=Path, default=None)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
