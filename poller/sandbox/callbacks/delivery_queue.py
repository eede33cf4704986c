"""One customer's notifications on their way: in order, repeated until they are answered, spoilt on purpose."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

from poller.sandbox.callbacks.notified import Notified, NotifiedLog, facts
from poller.sandbox.callbacks.rules import VALID, Rule, signature
from poller.sandbox.clock import Clock
from poller.sandbox.faults import Fault, Faults
from poller.sandbox.options import Customer
from poller.sandbox.wakeup import Wakeup

AT_ONCE = 16
"""Notifications of one customer that are sent at the same time."""
ANSWERED = 200
log = logging.getLogger("poller.sandbox")

Post = Callable[[str, bytes], Awaitable[int]]
"""Sends a body to a URL; the answer's HTTP status, 0 where there was none in time."""


@dataclass(kw_only=True)
class DeliveryPolicy:
    """How notifications are sent, to all customers.

    pace:  by what the pauses between repeats are multiplied
    fresh: the probability that a repeat carries a fresh `t` and `sign`, not the bytes of the attempt before
    limit: how many may wait per customer; beyond it the oldest are dropped
    """

    pace: float
    fresh: float
    limit: int


@dataclass(kw_only=True)
class NotificationCounts:
    """What became of one customer's notifications since the start.

    sent:     begun to be sent, each counted once
    repeated: attempts after the first, because that was not answered
    given_up: not answered, however often they were repeated
    dropped:  given up because too many waited
    """

    sent: int = 0
    answered: int = 0
    repeated: int = 0
    given_up: int = 0
    dropped: int = 0


class _Notice:
    """One notification. `gone` is set when its first attempt has ended, or when it will have no attempt."""

    def __init__(self, number: int, body: Mapping[str, object], rule: Rule, fault: Fault | None) -> None:
        self.number = number
        self.body = body
        self.rule = rule
        self.fault = fault
        self.gone = asyncio.Event()
        self.after: asyncio.Event | None = None
        """The event that the first attempt waits for."""
        self.frees: list[asyncio.Event] = []
        """The events of notifications that wait for this one's first attempt: a fault holds this one back."""
        self.attempts = 0
        self.sending = False
        self.task: asyncio.Task[None]

    @property
    def flaw(self) -> str | None:
        return None if self.fault is None else self.fault.name


class DeliveryQueue:
    """One customer's notifications, used by the event loop's thread.

    The first attempts of one stream are made one after the other. Streams do not wait for each other. Repeats wait for
    nothing. The queue is in memory only: notifications that wait when the sandbox ends are lost.
    """

    def __init__(
        self,
        customer: Customer,
        policy: DeliveryPolicy,
        *,
        post: Post,
        faults: Faults,
        record: NotifiedLog,
        clock: Clock,
        wakeup: Wakeup,
        rng: random.Random,
    ) -> None:
        self.customer = customer
        self.url = customer.callback_url
        self.counts = NotificationCounts()
        self._policy = policy
        self._post = post
        self._faults = faults
        self._record = record
        self._clock = clock
        self._wakeup = wakeup
        self._rng = rng
        self._group: asyncio.TaskGroup | None = None
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._number = 0
        self._waiting: dict[int, _Notice] = {}
        self._tails: dict[object, asyncio.Event] = {}
        """For each stream, the `gone` of its newest notification."""
        self._held: list[asyncio.Event] = []
        self._silent = False

    def open(self, group: asyncio.TaskGroup) -> None:
        """Starts sending, in tasks of that group."""
        self._group = group

    def close(self) -> None:
        """Stops sending."""
        self._group = None
        for notice in self._waiting.values():
            notice.task.cancel()

    def state(self) -> dict[str, int]:
        return asdict(self.counts) | {"waiting": len(self._waiting)}

    def put(self, body: Mapping[str, object], rule: Rule) -> None:
        """Queues a notification. A customer without a URL gets none."""
        if self.url is None or self._group is None:
            return
        fault = self._faults.draw()
        if fault is not None and fault.name == "lost":
            return
        self._number += 1
        notice = _Notice(self._number, body, rule, fault)
        self._place(notice)
        self._waiting[notice.number] = notice
        notice.task = self._group.create_task(self._deliver(notice, self.url))
        # Not by a `finally` inside: of a task that is cancelled before its first step nothing is run.
        notice.task.add_done_callback(partial(self._forget, notice))
        if len(self._waiting) > self._policy.limit:
            self._drop()

    # ---------------------------------------------------------------- order

    def _place(self, notice: _Notice) -> None:
        """Decides which notification the first attempt waits for, and which ones wait for this notification."""
        notice.frees, self._held = self._held, []
        if notice.flaw == "out_of_order":
            notice.after = asyncio.Event()
            self._held.append(notice.after)
        elif notice.flaw != "late":
            stream_id = notice.body.get("stream_id")
            if isinstance(stream_id, str):
                notice.after = self._tails.get(stream_id)
                self._tails[stream_id] = notice.gone

    def _let_next_go(self, notice: _Notice) -> None:
        notice.gone.set()
        for event in notice.frees:
            event.set()
        stream_id = notice.body.get("stream_id")
        if isinstance(stream_id, str) and self._tails.get(stream_id) is notice.gone:
            del self._tails[stream_id]

    def _forget(self, notice: _Notice, task: asyncio.Task[None]) -> None:
        self._waiting.pop(notice.number, None)
        self._let_next_go(notice)
        self._wakeup.ring()

    def _drop(self) -> None:
        """Drops the oldest notification that is not being sent at the moment."""
        oldest = next((one for one in self._waiting.values() if not one.sending), None)
        if oldest is not None:
            self.counts.dropped += 1
            del self._waiting[oldest.number]
            oldest.task.cancel()

    # ---------------------------------------------------------------- one notification's way

    async def _deliver(self, notice: _Notice, url: str) -> None:
        if notice.after is not None:
            await notice.after.wait()
        if notice.fault is not None and notice.flaw == "late":
            await asyncio.sleep(notice.fault.seconds)
        sent = await self._until_answered(notice, url)
        if sent is None:
            self.counts.given_up += 1
            return
        self.counts.answered += 1
        self._note(notice)
        self._wakeup.ring()
        if notice.flaw == "replay":
            await self._send(notice, url, sent)
        elif notice.flaw == "twice":
            await self._send(notice, url, self._encode(notice.body))

    async def _until_answered(self, notice: _Notice, url: str) -> bytes | None:
        """Sends a notification until it is answered. Returns the answered bytes, or None if no attempt was answered."""
        wire = self._encode(notice.body, notice.fault)
        while not await self._attempt(notice, url, wire):
            if notice.attempts > notice.rule.repeats:
                return None
            await asyncio.sleep(notice.rule.pause * self._policy.pace)
            if self._rng.random() < self._policy.fresh:
                wire = self._encode(notice.body)
        return wire

    async def _attempt(self, notice: _Notice, url: str, wire: bytes) -> bool:
        """Makes one attempt. Returns whether it was answered."""
        if notice.attempts:
            self.counts.repeated += 1
        else:
            self.counts.sent += 1
        notice.attempts += 1
        status = await self._send(notice, url, wire)
        self._let_next_go(notice)
        self._say(status)
        return status == ANSWERED

    async def _send(self, notice: _Notice, url: str, wire: bytes) -> int:
        async with self._slots:
            notice.sending = True
            try:
                return await self._post(url, wire)
            finally:
                notice.sending = False

    def _encode(self, body: Mapping[str, object], fault: Fault | None = None) -> bytes:
        """The body as it is sent now: signed if the customer has a key, and spoilt by the fault.

        A `t` or `sign` that is in the body already stays. Only a body from the control port may have them.
        """
        key, flaw = self.customer.callback_key, None if fault is None else fault.name
        if key is None or flaw == "unsigned":
            return json.dumps(body).encode()
        t = int(self._clock.now()) + VALID
        if fault is not None and flaw == "stale":
            t = int(self._clock.now() - fault.seconds)
        sign = signature(key[::-1] + "?" if flaw == "wrong_sign" else key, t)
        return json.dumps({"t": t, "sign": sign, **body}).encode()

    # ---------------------------------------------------------------- records

    def _note(self, notice: _Notice) -> None:
        fields = facts(notice.body)
        line = Notified(
            customer=self.customer.app_id,
            **fields,
            attempts=notice.attempts,
            fault=notice.flaw,
            at=time.time(),
        )
        try:
            self._record.note(line)
        except OSError as error:
            log.error("a callback that was answered is not on record: %s", error)

    def _say(self, status: int) -> None:
        """Logs a change once: when answers begin to fail, and when they come again."""
        silent = status != ANSWERED
        if silent and not self._silent:
            log.warning("callbacks of %d are not answered: status %d", self.customer.app_id, status)
        elif self._silent and not silent:
            log.info("callbacks of %d are answered again", self.customer.app_id)
        self._silent = silent
