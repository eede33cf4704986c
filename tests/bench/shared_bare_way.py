"""The bare loop from the queue over PostgreSQL to a webhook, until SIGTERM.

    python -m tests.bench.shared_bare_way API_URL HOOK_URL DSN

Four lanes poll with the account's own signed calls, and read each page with the source's own `read`. One task appends
the pages that wait, in one transaction. One takes shares and posts their events with the webhook's own connections and
headers, four batches of 100 at once.
What is stored is durable before the next GET of its lane (`tests.bench.shared_bare`). No journal, no retries.
"""

import asyncio
import signal
import sys

import uvloop

from poller.core.model import ParsedPage
from poller.qcloud.wire.account import Account
from poller.settings import AccountSettings
from poller.sinks.webhook import Webhook, WebhookSettings
from poller.sources.screenshot_queue import ScreenshotQueue, ScreenshotQueueSettings
from tests.bench import rig
from tests.bench.parts import EACH
from tests.bench.shared_bare import Bare

LANES = 4
PAUSE = 0.05
"""Seconds to the next look where there was nothing."""
_BATCH = "application/cloudevents-batch+json"


Waiting = list[tuple[ParsedPage, "asyncio.Future[None]"]]
"""Pages that are to be appended, each with what is done once it is durable."""


async def poll(source: ScreenshotQueue, waiting: Waiting, bell: asyncio.Event) -> None:
    """One lane."""
    while True:
        page = source.read(await source.fetch(), b"")
        if not page.events:
            await asyncio.sleep(PAUSE)
            continue
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append((page, durable))
        bell.set()
        await durable


async def append(bare: Bare, waiting: Waiting, bell: asyncio.Event) -> None:
    """Append all pages that wait, in one transaction."""
    while True:
        await bell.wait()
        bell.clear()
        some, waiting[:] = waiting[:], []
        await bare.append([page for page, _ in some])
        for _, durable in some:
            durable.set_result(None)


async def deliver(sink: Webhook, bare: Bare) -> None:
    """Post what is stored."""
    share = None
    while True:
        if (share := await bare.take("hook", share)) is None:
            await asyncio.sleep(PAUSE / 5)
            continue
        batches = list(await bare.batches(share, EACH))
        await asyncio.gather(*[_post(sink, share.first, batches[lane::LANES]) for lane in range(LANES)])


async def _post(sink: Webhook, number: int, batches: list[list[bytes]]) -> None:
    for batch in batches:
        body = b"[" + b",".join(batch) + b"]"
        answer = await sink._poster.post(sink._headers(str(number), body, _BATCH), body)
        assert answer.status == 200


async def run(api: str, hook: str, dsn: str) -> None:
    """Poll and deliver until SIGTERM."""
    account = Account("main", AccountSettings.model_validate(rig.account(api)))
    settings = ScreenshotQueueSettings(type="screenshot_queue", account="main")
    source = ScreenshotQueue("screenshots", settings, {"main": account})
    sink = Webhook("hook", WebhookSettings.model_validate(rig.webhook(hook, LANES)), {})
    stop, bell, waiting = asyncio.Event(), asyncio.Event(), Waiting()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    puts, takes = await Bare.connect(dsn), await Bare.connect(dsn)
    async with account, sink:
        tasks = [asyncio.create_task(poll(source, waiting, bell)) for _ in range(LANES)]
        tasks += [asyncio.create_task(append(puts, waiting, bell)), asyncio.create_task(deliver(sink, takes))]
        for task in tasks:
            task.add_done_callback(lambda _: stop.set())
        await stop.wait()
        failed = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in failed:
            task.result()


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(*sys.argv[1:4]))


if __name__ == "__main__":
    main()
