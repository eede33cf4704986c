"""How each interface's words become an answer, whole or as a fault has it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from aiohttp import web

from poller.sandbox.broken import Response, send, send_broken
from poller.sandbox.faults import Fault, Faults
from poller.sandbox.options import Answers
from poller.sandbox.query.answers import encode, refusal
from poller.sandbox.query.queues import Platform
from poller.sandbox.query.reading import TOO_FREQUENT, QueryRefused

Telling = Callable[[Answers, int], bytes]
"""An answer's text, once the form and the `ret` of success are known."""


class Responder:
    """Makes answers in the current form, dated by the platform's clock."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    @property
    def form(self) -> Answers:
        return self._platform.form

    def answer(self, text: bytes) -> Response:
        """The whole HTTP answer for a text."""
        form = self._platform.form
        headers = {"Date": self._platform.clock.date(), "Content-Type": form.content_type}
        if form.gzip:
            headers["Content-Encoding"] = "gzip"
        return Response(body=encode(text, form), headers=headers, framing=form.framing)

    def refusal(self, refused: QueryRefused) -> Response:
        form = self._platform.form
        ret = form.refused if refused.ret is None else refused.ret
        return self.answer(refusal(ret, refused.message, form))

    async def tell(
        self, request: web.BaseRequest, telling: Telling, faults: Faults, rng: random.Random
    ) -> web.StreamResponse:
        """Answers a call that changed nothing, with the fault of this turn, if any."""
        fault = faults.draw()
        if fault is None:
            return await send(request, self.answer(telling(self.form, 0)))
        await before(fault)
        answer = self.answer(telling(self.form, ret_of(fault)))
        return await send_broken(request, answer, fault, rng)


async def before(fault: Fault) -> None:
    """Applies the part of a fault that comes before the call has an effect. Raises QueryRefused."""
    if fault.name == "latency":
        await asyncio.sleep(fault.seconds)
    if fault.name == "too_frequent":
        raise QueryRefused("too frequent", TOO_FREQUENT)


def ret_of(fault: Fault) -> int:
    """The `ret` of an answer that is otherwise in order."""
    return fault.ret if fault.name == "wrong_ret" else 0
