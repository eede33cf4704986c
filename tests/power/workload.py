"""The process whose power is cut: journal, spool, download at full speed, telling what each acknowledged.

Called with one JSON object, the arguments of `work`. It says on stdout, one JSON array a line, when and what is
true from then on: [seconds, "opening"], [seconds, "kept", page], [seconds, "appended", pages], [seconds,
"delivered", names]; always after the port returned, never before.
"""

import asyncio
import itertools
import json
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from poller.core.errors import PartlyFailed
from poller.core.model import Batch, ParsedPage, RawPage
from poller.pipeline.courier import Courier
from poller.pipeline.intake import Intake
from poller.pipeline.journal import Journal
from poller.qcloud.wire.account import Account
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.sinks.download import Download, syncing
from poller.sources.screenshot_queue import ScreenshotQueue
from poller.spools.sqlite import SqliteSpool, writer
from tests.power import shots


def say(*said: object) -> None:
    """Tell the rig; when nobody listens any more, that ends the process."""
    os.write(1, json.dumps([time.monotonic(), *said]).encode() + b"\n")


class EndlessQueue(ScreenshotQueue):
    """A queue with a full page for every poll; read by the real reader."""

    def start(self, number: int, latency: float) -> None:
        """The number of the first page, and the seconds that an answer takes."""
        self._numbers = itertools.count(number)
        self._latency = latency

    async def ready(self) -> None:
        """Allow it."""

    async def fetch(self) -> RawPage:
        """The next page."""
        await asyncio.sleep(self._latency)
        return shots.page(next(self._numbers))


class TellingJournal(Journal):
    """Says what was kept."""

    def __init__(self, path: Path, size: int, source: ScreenshotQueue) -> None:
        super().__init__(path, size)
        self._source = source

    async def keep(self, page: RawPage) -> int:
        """Keep, then say so."""
        number = await super().keep(page)
        for kept in shots.pages_in([self._source.read(page, b"")]):
            say("kept", kept)
        return number


class TellingSpool(SqliteSpool):
    """Says what was appended."""

    async def append(self, source: str, readings: Sequence[ParsedPage]) -> Counter[str]:
        """Append, then say so."""
        new = await super().append(source, readings)
        say("appended", shots.pages_in(readings))
        return new


class TellingDownload(Download):
    """Says what was delivered."""

    async def deliver(self, batch: Batch) -> None:
        """Deliver, then say so."""
        try:
            await super().deliver(batch)
        except PartlyFailed as error:
            _say_delivered(batch, error.failures)
            raise
        _say_delivered(batch, {})


def _say_delivered(batch: Batch, failures: Mapping[str, Exception]) -> None:
    say("delivered", [shots.name_of(event) for event in batch.events if event.id not in failures])


async def work(*, folder: str, pictures: str, first: int, latency: float, sync: str, spoil: str) -> None:
    """Drain and deliver until the power goes."""
    spoil_opening(spoil)
    files, metrics, clock = Path(folder), Metrics(), Clock()
    accounts: dict[str, Account] = {shots.ACCOUNT: shots.account(pictures)}
    source = EndlessQueue(shots.SOURCE, shots.queue_settings(), accounts)
    source.start(first, latency)
    async with AsyncExitStack() as stack:
        say("opening")
        spool = await stack.enter_async_context(TellingSpool("spool", shots.spool_settings(files), {}))
        journal = await stack.enter_async_context(
            TellingJournal(shots.journal_path(files), shots.JOURNAL_SIZE, source)
        )
        sink = await stack.enter_async_context(
            TellingDownload(shots.SINK, shots.download_settings(files, sync), accounts)
        )
        await spool.attach(shots.SINK, shots.wants)
        spoil_work(spoil)
        spoil_syncfs(spoil)
        intake = Intake(source, spool, journal, metrics=metrics, clock=clock)
        courier = Courier(sink, spool, shots.TERMS, metrics=metrics, clock=clock)
        async with asyncio.TaskGroup() as group:
            group.create_task(intake.run(journal.take_leftovers()))
            group.create_task(courier.run())


def spoil_opening(how: str) -> None:
    """The deliberate bug that has to be there before the files are opened."""
    if how == "synchronous=NORMAL":
        writer.SYNCHRONOUS = "NORMAL"


def spoil_work(how: str) -> None:
    """The deliberate bugs of a process that has opened its files as it should."""
    fsync = os.fsync

    def never(descriptor: int) -> None:
        """Durable, it says."""

    def folders_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            fsync(descriptor)

    def files_only(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            fsync(descriptor)

    match how:
        case "pages not synced":  # only the journal calls it: SQLite has its own
            setattr(os, "fdatasync", never)  # noqa: B010
        case "pictures not synced":
            setattr(os, "fsync", folders_only)  # noqa: B010
            setattr(os, "posix_fadvise", lambda *_: None)  # noqa: B010 - begins to write, and syncs nothing
        case "folders not synced":
            setattr(os, "fsync", files_only)  # noqa: B010


def spoil_syncfs(how: str) -> None:
    """The deliberate bugs of a sink with `sync: filesystem`."""
    match how:
        case "file system not synced":
            setattr(syncing, "syncfs", lambda _: None)  # noqa: B010
        case "file system not synced before the renames":
            setattr(syncing.WholeFileSystem, "sync_files", lambda _: None)  # noqa: B010


def main() -> None:
    """Read the order and begin."""
    order = json.loads(sys.argv[1])
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    asyncio.run(work(**order))


if __name__ == "__main__":
    main()
