"""CPU per event of each part, pages of 100 messages; the bare equivalent of a part stands beside it.

    python -m tests.bench.parts [--pages 400] [--rounds 5] [--directory DIR]

CPU is this process's, all threads, user and system (`process_time`), so a part's thread and its fsyncs count. Every
round measures every part once; the figures are medians, in microseconds per event.
"""

import argparse
import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from poller.core.model import Batch, Done, ParsedPage, RawPage, batch_id, new_event
from poller.core.spool import anything
from poller.pipeline.courier import Courier, Terms
from poller.pipeline.journal import Journal
from poller.pipeline.retry import RetryPolicy
from poller.qcloud.wire.account import Account
from poller.runtime.clock import Clock
from poller.runtime.log import configure
from poller.runtime.metrics import Metrics
from poller.settings import AccountSettings
from poller.sinks.webhook import Webhook, WebhookSettings
from poller.sources.screenshot_queue import ScreenshotQueue, ScreenshotQueueSettings
from poller.spools.sqlite import SqliteSpool
from tests.bench import figures, rig
from tests.bench.figures import Figure

EACH = 100
TOGETHER = (1, 4, 16)

Measured = dict[str, list[float]]

BARE: Final = {
    "read": "bare msgspec.json.decode",
    "journal: keep, release": "bare pwrite, fdatasync",
    "webhook: deliver (signed)": "bare POST",
}
"""The parts that have a bare equivalent, and its name."""


@contextmanager
def timed(found: Measured, name: str, events: int) -> Iterator[None]:
    """Note the CPU of the block, in microseconds per event."""
    before = time.process_time()
    yield
    found[name].append((time.process_time() - before) / events * 1e6)


# ---------------------------------------------------------------- material


def pages(count: int, first: int) -> list[RawPage]:
    """Answers with 100 messages each, in the form and with the names of 2016, no two alike."""
    made = []
    for number in range(first, first + count):
        data = [
            {
                "stream_id": f"load_1234_{n}",
                "pic_url": f"load_1234_{n}_1465000000_1465000000_{number * 10}_300_169.jpg",
            }
            for n in range(EACH)
        ]
        answer = {"ret": 0, "message": "return successfully!", "output": {"count": str(EACH), "data": data}}
        body = json.dumps(answer, separators=(",", ":")).encode()
        made.append(
            RawPage(
                source="screenshots",
                received_at=datetime.now(UTC),
                status=200,
                encoding="",
                whole=True,
                body=body,
            )
        )
    return made


def source() -> ScreenshotQueue:
    """The source, whose `read` needs no connection."""
    account = Account("main", AccountSettings.model_validate(rig.account("http://127.0.0.1:9/common_access")))
    settings = ScreenshotQueueSettings(type="screenshot_queue", account="main")
    return ScreenshotQueue("screenshots", settings, {"main": account})


# ---------------------------------------------------------------- parts


def reading(found: Measured, given: list[RawPage]) -> list[ParsedPage]:
    """Decoding alone, all of `read`, and the part of it that builds and encodes events."""
    events = len(given) * EACH
    queue = source()
    with timed(found, BARE["read"], events):
        for page in given:
            msgspec.json.decode(page.body)
    with timed(found, "read", events):
        readings = [queue.read(page, b"") for page in given]
    made = [event for one in readings for event in one.events]
    with timed(found, "read: new_event of it", events):
        for event in made:
            new_event(
                id=event.id,
                kind=event.kind,
                account=event.account,
                stream_id=event.stream_id,
                occurred_at=event.occurred_at,
                received_at=event.received_at,
                url=event.url,
                fields=event.fields,
                message=msgspec.Raw(event.message),
            )
    return readings


async def journal(found: Measured, given: list[RawPage], folder: Path) -> None:
    """Keeping and releasing, one page after the other; beside it pwrite and fdatasync of the same bytes."""
    async with Journal(folder / "journal", 64 * 2**20) as book:
        with timed(found, "journal: keep, release", len(given) * EACH):
            for page in given:
                await book.room()
                book.release(await book.keep(page))
    fd = os.open(folder / "bare", os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(fd, bytes(2**20), 0)
    os.fsync(fd)
    with timed(found, BARE["journal: keep, release"], len(given) * EACH):
        for page in given:
            os.pwrite(fd, page.body, 0)
            os.fdatasync(fd)
    os.close(fd)


async def spool(found: Measured, given: list[RawPage], folder: Path) -> None:
    """Appending so many pages a commit, then claiming and settling all of it."""
    queue = source()
    for number, together in enumerate(TOGETHER):
        share = given[number :: len(TOGETHER)]
        readings = [queue.read(page, b"") for page in share]
        events = len(readings) * EACH
        settings = SqliteSpool.Settings(type="sqlite", path=folder / f"spool{together}.db")
        async with SqliteSpool("spool", settings, {}) as log:
            await log.attach("hook", anything)
            with timed(found, f"spool: append, {together} pages a commit", events):
                for start in range(0, len(readings), together):
                    await log.append("screenshots", readings[start : start + together])
            if together != TOGETHER[-1]:
                continue
            with timed(found, "spool: claim, settle", events):
                for _ in readings:
                    batch = await log.claim("hook", EACH)
                    await log.settle(batch, [Done()] * EACH)


async def webhook(found: Measured, readings: list[ParsedPage], hook: str) -> None:
    """The sink's `deliver`, the courier's `carry` around it, and a POST of the same bytes without either."""
    settings = WebhookSettings.model_validate(rig.webhook(hook))
    batches = [_batch(one) for one in readings]
    events = len(batches) * EACH
    async with Webhook("hook", settings, {}) as sink:
        await sink.deliver(batches[0])
        with timed(found, BARE["webhook: deliver (signed)"], events):
            for one in readings:
                body = b"[" + b",".join([event.encoded for event in one.events]) + b"]"
                await sink._poster.post((), body)
        with timed(found, "webhook: deliver (signed)", events):
            for batch in batches:
                await sink.deliver(batch)


async def courier(found: Measured, readings: list[ParsedPage], folder: Path) -> None:
    """A courier's `step` with a sink that takes everything, over the SQLite spool, whatever the sink costs."""
    settings = SqliteSpool.Settings(type="sqlite", path=folder / "courier.db")
    async with SqliteSpool("spool", settings, {}) as log:
        await log.attach("hook", anything)
        for start in range(0, len(readings), 16):
            await log.append("screenshots", readings[start : start + 16])
        served = Courier(_Willing(), log, terms(), metrics=Metrics(), clock=Clock())
        with timed(found, "courier: step, spool included, sink for nothing", len(readings) * EACH):
            for _ in readings:
                await served.step()


class _Willing:
    name = "hook"

    async def __aenter__(self) -> "_Willing":
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def deliver(self, batch: Batch) -> None:
        pass


def terms() -> Terms:
    """One batch of 100 at a time."""
    policy = RetryPolicy(give_up_after=1e6)
    return Terms(policy=policy, timeout=15.0, concurrency=1, max_events=EACH, max_wait=0.0)


def _batch(one: ParsedPage) -> Batch:
    return Batch(id=batch_id([event.id for event in one.events]), sink="hook", events=tuple(one.events))


async def fetching(found: Measured, queue: rig.Platform, count: int) -> None:
    """One signed GET after the other, of full pages."""
    queue.enqueue(count * EACH)
    async with Account("main", AccountSettings.model_validate(rig.account(queue.api))) as account:
        settings = ScreenshotQueueSettings(type="screenshot_queue", account="main")
        polled = ScreenshotQueue("screenshots", settings, {"main": account})
        with timed(found, "fetch: signed GET", count * EACH):
            for _ in range(count):
                await polled.ready()
                await polled.fetch()


async def measured(options: argparse.Namespace, queue: rig.Platform, hook: str) -> Measured:
    """All parts, round by round."""
    found: Measured = defaultdict(list)
    for number in range(options.rounds):
        with rig.scratch(options.directory) as folder:
            given = pages(options.pages, number * options.pages)
            await fetching(found, queue, options.pages)
            readings = reading(found, given)
            await journal(found, given, folder)
            await spool(found, given, folder)
            await webhook(found, readings, hook)
            await courier(found, readings, folder)
    return found


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args(arguments)
    configure("info", "json")
    with (
        rig.scratch() as folder,
        rig.platform(folder / "platform") as queue,
        rig.receiver() as hook,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        found = runner.run(measured(options, queue, hook))
    rows = [[name, rig.median(times), min(times)] for name, times in found.items()]
    print(rig.table(["us per event", "median", "least"], rows))
    return _figures(found)


def _figures(found: Measured) -> list[Figure]:
    """Each part, beside its bare equivalent where it has one."""
    return [
        figures.beside("parts", f"{name}, beside {BARE[name]}", "µs", times, found[BARE[name]])
        if name in BARE
        else Figure(bench="parts", name=name, unit="µs", ours=rig.median(times))
        for name, times in found.items()
        if name not in BARE.values()
    ]


if __name__ == "__main__":
    main()
