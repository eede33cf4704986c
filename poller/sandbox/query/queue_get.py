"""Live_Queue_Get: gives messages away."""

from __future__ import annotations

import random
from collections.abc import Sequence

from aiohttp import web

from poller.sandbox.broken import Response, send, send_broken
from poller.sandbox.faults import Fault, Faults
from poller.sandbox.query.answers import page
from poller.sandbox.query.messages import Message
from poller.sandbox.query.poison import POISONS
from poller.sandbox.query.queues import Platform, Queue
from poller.sandbox.query.reading import read_count
from poller.sandbox.query.responder import Responder, before, ret_of


class QueueGet:
    """The destructive read: messages are gone once it has taken them, whether or not the answer arrives."""

    def __init__(self, platform: Platform, responder: Responder, faults: Faults, rng: random.Random) -> None:
        self._platform = platform
        self._responder = responder
        self._faults = faults
        self._rng = rng

    async def answer(self, request: web.BaseRequest, queue: Queue, *, poll: int) -> web.StreamResponse:
        """Answers a call with a valid signature. `number` counts the customer's polls. Raises QueryRefused."""
        count = read_count(request.query)
        fault = self._faults.draw()
        if fault is None:
            return await send(request, self._page(queue.take(count, poll=poll)))
        await before(fault)
        if fault.name == "poison":
            queue.enqueue_poison(self._kinds(fault, count), first=True)
        taken = queue.take(count, poll=poll, fault=fault.name) if fault.takes else []
        self._platform.wakeup.ring()
        answer = self._page(_apply_fault(taken, fault, queue, self._rng), ret_of(fault))
        return await send_broken(request, answer, fault, self._rng)

    def _kinds(self, fault: Fault, count: int) -> Sequence[str]:
        """The kinds of poison to mix in: the ordered ones, else some of all, with room for good messages."""
        return fault.poison or self._rng.sample(POISONS, min(len(POISONS), max(1, count // 2)))

    def _page(self, batch: Sequence[Message], ret: int = 0) -> Response:
        return self._responder.answer(page(batch, self._responder.form, ret))


def _apply_fault(taken: list[Message], fault: Fault, queue: Queue, rng: random.Random) -> list[Message]:
    """The batch after the fault has altered it."""
    if fault.name == "duplicate":
        return [*taken, *rng.sample(taken, max(1, len(taken) // 2))] if taken else taken
    if fault.name == "duplicate_later":
        queue.give_again(taken)
    if fault.name == "reorder":
        return list(reversed(taken)) if len(taken) < 3 else rng.sample(taken, len(taken))
    return taken
