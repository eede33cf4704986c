"""The query interface: `common_access` over HTTP, three signed interfaces behind one door."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from functools import partial

from aiohttp import web

from poller.sandbox.broken import HTML, send
from poller.sandbox.channels import Channels
from poller.sandbox.faults import Faults
from poller.sandbox.media.recordings import Recordings
from poller.sandbox.options import EXAMPLE, Customer
from poller.sandbox.query.channel_status import status_answer
from poller.sandbox.query.queue_get import QueueGet
from poller.sandbox.query.queues import Platform, Queue
from poller.sandbox.query.reading import BAD_PARAMETER, CallRate, QueryRefused, Who, check_signature
from poller.sandbox.query.responder import Responder, Telling
from poller.sandbox.query.tape_filelist import file_list_answer

PATH = "/common_access"
Operation = Callable[[Mapping[str, str], Customer], Telling]


class QueryInterface:
    """Answers signed queries: checks signature and call rate, then calls the named interface."""

    def __init__(
        self,
        platform: Platform,
        channels: Channels,
        recordings: Recordings,
        faults: Mapping[str, Faults],
        *,
        id_params: tuple[str, ...],
        rate_limit: float | None,
        rng: random.Random,
    ) -> None:
        """`faults`: those of Live_Queue_Get as `api`, of the other two as `query`."""
        customers = {str(app_id): queue.customer for app_id, queue in platform.queues.items()}
        if default := customers.get(str(Customer.app_id)):
            customers.setdefault(str(EXAMPLE), default)
        self._platform = platform
        self._who = Who(id_params=id_params, customers=customers)
        self._paces = {app_id: CallRate(rate_limit) for app_id in platform.queues} if rate_limit else {}
        self._responder = Responder(platform)
        self._queue_get = QueueGet(platform, self._responder, faults["api"], rng)
        self._operations: Mapping[str, Operation] = {
            "Live_Tape_GetFilelist": partial(file_list_answer, recordings),
            "Live_Channel_GetStatus": partial(status_answer, channels),
        }
        self._faults = faults["query"]
        self._rng = rng

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """One HTTP request of any kind."""
        if request.path != PATH:
            return web.Response(status=404, body=HTML % (b"404", b"404"), content_type="text/html")
        if request.method != "GET":
            return web.Response(status=405, headers={"Allow": "GET"})
        try:
            return await self._query(request)
        except QueryRefused as refused:
            return await send(request, self._responder.refusal(refused))
        finally:
            self._platform.wakeup.ring()

    async def _query(self, request: web.BaseRequest) -> web.StreamResponse:
        query = request.query
        queue = self._platform.queue(self._who.asks(query).app_id)
        name = query.get("interface", "")
        number = _count(name, queue)
        try:
            self._check(query, queue.customer)
            if name == "Live_Queue_Get":
                return await self._queue_get.answer(request, queue, poll=number)
            if name in self._operations:
                telling = self._operations[name](query, queue.customer)
                return await self._responder.tell(request, telling, self._faults, self._rng)
            raise QueryRefused("interface is invalid", BAD_PARAMETER)
        except QueryRefused:
            queue.counts.refused += 1
            raise

    def _check(self, query: Mapping[str, str], customer: Customer) -> None:
        check_signature(query, customer, self._platform.clock.now())
        if self._paces:
            self._paces[customer.app_id].check(asyncio.get_running_loop().time())


def _count(name: str, queue: Queue) -> int:
    """Counts a call, even if it is refused later. Returns its number among the customer's calls of that interface."""
    counts = queue.counts
    if name == "Live_Queue_Get":
        return queue.next_poll()
    if name == "Live_Tape_GetFilelist":
        counts.lists += 1
        return counts.lists
    if name == "Live_Channel_GetStatus":
        counts.statuses += 1
        return counts.statuses
    return 0
