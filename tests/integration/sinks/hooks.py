"""How the webhook tests build a sink and carry one batch."""

import asyncio

from poller.core.errors import SinkError
from poller.core.model import Batch
from poller.sinks.webhook import Webhook, WebhookSettings
from tests.patience import PATIENCE

from .servers import Answer, Server, batch, serving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def sink(url: str, **settings: object) -> Webhook:
    """A sink that may go to 127.0.0.1, unless told otherwise."""
    given = {"type": "webhook", "url": url, "allow_cidr": ["127.0.0.0/8"], **settings}
    return Webhook("hook", WebhookSettings.model_validate(given), {})


async def carry(url: str, sent: Batch | None = None, **settings: object) -> SinkError | None:
    """Deliver one batch as the courier does, within a deadline; what the sink raised, if it did."""
    async with sink(url, **settings) as hook:
        try:
            async with asyncio.timeout(PATIENCE):
                await hook.deliver(sent or batch())
        except SinkError as error:
            return error
    return None


def carried(answer: Answer, sent: Batch | None = None, **settings: object) -> tuple[SinkError | None, Server]:
    """Deliver one batch to a server that answers so."""

    async def main() -> tuple[SinkError | None, Server]:
        async with serving(answer) as server:
            return await carry(server.url, sent, **settings), server

    return asyncio.run(main())
