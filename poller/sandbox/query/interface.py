"""The query interface: `common_access` over HTTP, where Live_Queue_Get gives messages away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import web

from poller.sandbox.broken import HTML, Answer, send, send_broken
from poller.sandbox.faults import Fault, Faults
from poller.sandbox.options import Answers, Customer
from poller.sandbox.query.answers import encode, page, refusal
from poller.sandbox.query.poison import POISONS
from poller.sandbox.query.queues import Message, Platform, Queue
from poller.sandbox.query.reading import (
    BAD_PARAMETER,
    TOO_FREQUENT,
    Pace,
    Refused,
    Who,
    asked_count,
    check_signature,
)

PATH = "/common_access"
Interface = Callable[[web.BaseRequest, Queue, int], Awaitable[web.StreamResponse]]


class QueryInterface:
    """Answers every signed query; what it says comes from the platform, how it fails from the faults."""

    def __init__(
        self,
        platform: Platform,
        faults: Faults,
        *,
        id_params: tuple[str, ...],
        rate_limit: float | None,
        rng: random.Random,
    ) -> None:
        customers = {str(app_id): queue.customer for app_id, queue in platform.queues.items()}
        self._platform = platform
        self._faults = faults
        self._who = Who(id_params=id_params, customers=customers)
        self._paces = {app_id: Pace(rate_limit) for app_id in platform.queues} if rate_limit else {}
        self._rng = rng
        self._interfaces: Mapping[str, Interface] = {"Live_Queue_Get": self._live_queue_get}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """One HTTP request of any kind."""
        if request.path != PATH:
            return web.Response(status=404, body=HTML % (b"404", b"404"), content_type="text/html")
        if request.method != "GET":
            return web.Response(status=405, headers={"Allow": "GET"})
        try:
            return await self._query(request)
        except Refused as refused:
            return await send(request, self._refusal(refused))
        finally:
            self._platform.bell.ring()

    async def _query(self, request: web.BaseRequest) -> web.StreamResponse:
        customer = self._who.asks(request.query)
        queue = self._platform.queue(customer.app_id)
        queue.counts.polls += 1
        poll = queue.counts.polls
        try:
            interface = self._checked(request, customer)
            return await interface(request, queue, poll)
        except Refused:
            queue.counts.refused += 1
            raise

    def _checked(self, request: web.BaseRequest, customer: Customer) -> Interface:
        check_signature(request.query, customer, self._platform.clock.now())
        interface = self._interfaces.get(request.query.get("interface", ""))
        if interface is None:
            raise Refused("interface is invalid", BAD_PARAMETER)
        if self._paces:
            self._paces[customer.app_id].check(asyncio.get_running_loop().time())
        return interface

    async def _live_queue_get(self, request: web.BaseRequest, queue: Queue, poll: int) -> web.StreamResponse:
        count = asked_count(request.query)
        fault = self._faults.draw()
        if fault is None:
            return await send(request, self._page(queue.take(count, poll=poll)))
        if fault.name == "latency":
            await asyncio.sleep(fault.seconds)
        if fault.name == "too_frequent":
            raise Refused("too frequent", TOO_FREQUENT)
        if fault.name == "poison":
            queue.enqueue_poison(self._kinds(fault, count), first=True)
        taken = queue.take(count, poll=poll, fault=fault.name) if fault.takes else []
        self._platform.bell.ring()
        batch = _altered(taken, fault, queue, self._rng)
        answer = self._page(batch, ret=fault.ret if fault.name == "wrong_ret" else 0)
        return await send_broken(request, answer, fault, self._rng)

    def _kinds(self, fault: Fault, count: int) -> Sequence[str]:
        """Which poison goes in: that ordered, else some of all, leaving room for good neighbours."""
        return fault.poison or self._rng.sample(POISONS, min(len(POISONS), max(1, count // 2)))

    def _page(self, batch: Sequence[Message], ret: int = 0) -> Answer:
        form = self._platform.form
        return self._said(page([message.body for message in batch], form, ret), form)

    def _refusal(self, refused: Refused) -> Answer:
        form = self._platform.form
        ret = form.refused if refused.ret is None else refused.ret
        return self._said(refusal(ret, refused.message, form), form)

    def _said(self, text: bytes, form: Answers) -> Answer:
        headers = {"Date": self._platform.clock.date(), "Content-Type": form.content_type}
        if form.gzip:
            headers["Content-Encoding"] = "gzip"
        return Answer(body=encode(text, form), headers=headers, framing=form.framing)


def _altered(taken: list[Message], fault: Fault, queue: Queue, rng: random.Random) -> list[Message]:
    """The batch as the fault leaves it."""
    if fault.name == "duplicate":
        return [*taken, *rng.sample(taken, max(1, len(taken) // 2))] if taken else taken
    if fault.name == "duplicate_later":
        queue.give_again(taken)
    if fault.name == "reorder":
        return list(reversed(taken)) if len(taken) < 3 else rng.sample(taken, len(taken))
    return taken
