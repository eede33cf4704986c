"""What `order: stream` costs: a backlog out of a SQLite spool into a local webhook, unordered, ordered, and bare.

    python -m tests.bench.order [--events 40000] [--streams 50] [--concurrency 4] [--batch 100] [--rounds 5]

The webhook is a process of its own. In every round the same events go out three times, in an order that changes:
by a courier with `order: none`, by one with `order: stream`, and by a bare loop that posts the same bodies from
memory, as many at once. Reported are events a second (wall) and CPU an event, and the rounds' median ratio of
ordered to unordered throughput; the promise is 0.8 or more. `--delay` lets the sink take so many seconds a
batch more, as a receiver that is far away does.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvloop

from poller.core.model import Batch, Event, ParsedPage, PollOutcome
from poller.pipeline.courier import Courier, Terms
from poller.pipeline.retry import RetryPolicy
from poller.runtime.clock import Clock
from poller.runtime.log import configure
from poller.runtime.metrics import Metrics
from poller.sinks.webhook import Webhook, WebhookSettings
from poller.spools.sqlite import SqliteSpool
from poller.testing import anything, some_event
from tests.bench import figures, rig
from tests.bench.figures import Figure

PAGE = 100


class Hook(Webhook):
    """The webhook, with a way to its receiver."""

    delay = 0.0

    async def deliver(self, batch: Batch) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        await super().deliver(batch)


def events_of(options: argparse.Namespace) -> list[Event]:
    """As a platform gives them: every stream in turn."""
    return [some_event(n, stream=f"room{n % options.streams}") for n in range(options.events)]


def sink(hook: str, options: argparse.Namespace) -> Hook:
    """The webhook of this bench."""
    made = Hook("hook", WebhookSettings.model_validate(rig.webhook(hook, options.concurrency)), {})
    made.delay = options.delay
    return made


async def served(options: argparse.Namespace, hook: str, events: list[Event], *, ordered: bool) -> None:
    """By a courier, from a spool that holds all of it already."""
    with rig.scratch(options.directory) as folder:
        settings = SqliteSpool.Settings(type="sqlite", path=folder / "spool.db")
        async with SqliteSpool("spool", settings, {}) as spool, sink(hook, options) as out:
            await spool.attach("hook", anything, ordered)
            for start in range(0, len(events), PAGE):
                page = tuple(events[start : start + PAGE])
                await spool.append("source", [ParsedPage(events=page, rejects=(), outcome=PollOutcome.FULL)])
            courier = Courier(out, spool, _terms(options, ordered), metrics=Metrics(), clock=Clock())
            with _timed(options, ordered=ordered):
                running = asyncio.ensure_future(courier.run())
                while (await spool.backlog("hook")).events:
                    courier.settled.clear()
                    await courier.settled.wait()
            courier.stop()
            await asyncio.gather(running, return_exceptions=True)


async def bare(options: argparse.Namespace, hook: str, events: list[Event]) -> None:
    """The same posts and nothing else."""
    starts = iter(range(0, len(events), options.batch))

    async def lane(out: Hook) -> None:
        for start in starts:
            some = events[start : start + options.batch]
            body = b"[" + b",".join([event.encoded for event in some]) + b"]"
            headers = out._headers(some[0].id, body, "application/cloudevents-batch+json")
            if options.delay:
                await asyncio.sleep(options.delay)
            await out._poster.post(headers, body)

    async with sink(hook, options) as out:
        with _timed(options, ordered=None):
            await asyncio.gather(*[lane(out) for _ in range(options.concurrency)])


class _timed:  # noqa: N801 - reads as a word
    def __init__(self, options: argparse.Namespace, *, ordered: bool | None) -> None:
        self._options = options
        self._name = {None: "bare", False: "none", True: "stream"}[ordered]

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        wall, cpu = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        count = self._options.events
        self._options.found.setdefault(self._name, []).append((count / wall, cpu / count * 1e6))


def _terms(options: argparse.Namespace, ordered: bool) -> Terms:
    return Terms(
        policy=RetryPolicy(give_up_after=1e6),
        timeout=15.0,
        concurrency=options.concurrency,
        max_events=options.batch,
        max_wait=0.0,
        ordered=ordered,
    )


async def measured(options: argparse.Namespace, hook: str) -> None:
    """All rounds."""
    events = events_of(options)
    ways: list[Callable[[], Awaitable[None]]] = [
        lambda: bare(options, hook, events),
        lambda: served(options, hook, events, ordered=False),
        lambda: served(options, hook, events, ordered=True),
    ]
    for number in range(options.rounds):
        for way in ways[number % 3 :] + ways[: number % 3]:
            await way()


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args(arguments)
    options.found = {}
    configure("info", "json")
    with rig.receiver() as hook, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measured(options, hook))
    found = options.found
    rows: list[list[object]] = [
        [name, *(rig.median([one[column] for one in found[name]]) for column in (0, 1))]
        for name in ("bare", "none", "stream")
    ]
    print(rig.table(["order", "events/s", "CPU us/event"], rows))
    ratios = [ours[0] / plain[0] for ours, plain in zip(found["stream"], found["none"], strict=True)]
    print(f"stream / none: {rig.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    speeds = ([one[0] for one in found[way]] for way in ("stream", "none"))
    name = "events a second, order: stream beside none"
    return [figures.beside("order", name, "1/s", *speeds, at_least=0.8)]


if __name__ == "__main__":
    main()
