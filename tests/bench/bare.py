"""The bare loop: the same client, GET, reading, encoding and POST as the daemon's, and nothing else.

    python -m tests.bench.bare API_URL HOOK_URL [LANES] [template]

Each lane polls with the account's own signed calls, reads each page with the source's own `read` (which encodes the
events), and posts each page's events as one signed batch with the webhook's own connections and headers, one after
the other, until an answer holds no message. Each message is read with `screenshot_event`, and by the template only if
`template` is given. One lane if not told otherwise. No journal, no spool, no retries, no metrics, no throttle.
"""

import asyncio
import sys

import uvloop

from poller.qcloud.wire.account import Account
from poller.settings import AccountSettings
from poller.sinks.webhook import Webhook, WebhookSettings
from poller.sources.screenshot_queue import ScreenshotQueue, ScreenshotQueueSettings
from tests.bench import rig

_BATCH = "application/cloudevents-batch+json"


async def drained(api: str, hook: str, lanes: int, *, template: bool) -> int:
    """Drain the queue; how many events there were."""
    account = Account("main", AccountSettings.model_validate(rig.account(api)))
    settings = ScreenshotQueueSettings(type="screenshot_queue", account="main")
    source = ScreenshotQueue("screenshots", settings, {"main": account})
    if not template:
        source._usual = None
    sink = Webhook("hook", WebhookSettings.model_validate(rig.webhook(hook, lanes)), {})

    async def lane() -> int:
        total = 0
        while events := source.read(await source.fetch(), b"").events:
            total += len(events)
            body = b"[" + b",".join([event.encoded for event in events]) + b"]"
            headers = sink._headers(events[0].id, body, _BATCH)
            answer = await sink._poster.post(headers, body)
            assert answer.status == 200
        return total

    async with account, sink:
        return sum(await asyncio.gather(*[lane() for _ in range(lanes)]))


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        lanes = int(sys.argv[3]) if len(sys.argv) > 3 else 1
        print(runner.run(drained(sys.argv[1], sys.argv[2], lanes, template="template" in sys.argv)))


if __name__ == "__main__":
    main()
