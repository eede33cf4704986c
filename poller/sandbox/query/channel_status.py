"""Live_Channel_GetStatus: whether a channel is live, interrupted or disabled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from poller.sandbox.channels import Channels
from poller.sandbox.options import Answers, Customer
from poller.sandbox.query.answers import refusal, status
from poller.sandbox.query.reading import NEVER_PUSHED, read_channel
from poller.sandbox.query.responder import Telling


def status_answer(channels: Channels, query: Mapping[str, str], customer: Customer) -> Telling:
    """The answer to Live_Channel_GetStatus. Another customer's channel counts as unknown. Raises QueryRefused."""
    state = channels.status(customer.app_id, read_channel(query))
    return _never_pushed if state is None else partial(status, state)


def _never_pushed(form: Answers, ret: int) -> bytes:
    return refusal(ret or NEVER_PUSHED, "the stream was never pushed", form)
