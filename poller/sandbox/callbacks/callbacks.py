"""The platform's notifications: made of what happens, and pushed to every customer who wants them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Final, Self

import aiohttp

from poller.sandbox.callbacks import bodies
from poller.sandbox.callbacks.delivery_queue import DeliveryPolicy, DeliveryQueue
from poller.sandbox.callbacks.notified import NotifiedLog
from poller.sandbox.callbacks.rules import rule
from poller.sandbox.clock import Clock
from poller.sandbox.faults import Faults
from poller.sandbox.live import LivePush
from poller.sandbox.media.recordings import Recording
from poller.sandbox.names import Shot
from poller.sandbox.options import Options, Year
from poller.sandbox.wakeup import Wakeup

HEADERS: Final = {"Content-Type": "application/json"}
READ: Final = 4096
"""Bytes of an answer's body that are read, out of politeness: only its status counts."""


class Callbacks:
    """Sends notifications of pushes, segments and pictures. Sending begins when this is entered.

    The `report_*` methods neither wait nor raise: tasks of their own send the notifications.
    """

    def __init__(
        self,
        options: Options,
        *,
        clock: Clock,
        wakeup: Wakeup,
        faults: Faults,
        year: Callable[[], Year],
    ) -> None:
        """`year` returns the year whose form notifications have now."""
        self.policy = DeliveryPolicy(
            pace=options.callback_pace, fresh=options.callback_fresh, limit=options.callback_limit
        )
        self._timeout = options.callback_timeout
        self._year = year
        self._record = NotifiedLog(options.directory)
        self._lines = {
            one.app_id: DeliveryQueue(
                one,
                self.policy,
                post=self._post,
                faults=faults,
                record=self._record,
                clock=clock,
                wakeup=wakeup,
                rng=random.Random(f"{options.seed} callbacks {one.app_id}"),
            )
            for one in options.customers
        }
        self._session: aiohttp.ClientSession
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(self._record)
            self._session = await stack.enter_async_context(_session(self._timeout))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            for line in self._lines.values():
                line.open(group)
                stack.callback(line.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def line(self, app_id: int) -> DeliveryQueue:
        """The delivery queue of a customer's notifications."""
        return self._lines[app_id]

    def forget(self, before: float) -> None:
        """Moves the log aside once it begins before that moment (epoch)."""
        self._record.forget(before)

    def state(self) -> dict[str, object]:
        """Counts over all and per customer."""
        each = {str(app_id): line.state() for app_id, line in self._lines.items()}
        names = next(iter(each.values()))
        totals: dict[str, object] = {name: sum(one[name] for one in each.values()) for name in names}
        return totals | {"customers": each}

    # ---------------------------------------------------------------- what is reported

    def report_push_begin(self, push: LivePush) -> None:
        """Reports that a push was accepted."""
        self.send(push.customer.app_id, bodies.push_begin_body(push, self._year()))

    def report_push_end(self, push: LivePush, why: str) -> None:
        """Reports that a push has ended."""
        self.send(push.customer.app_id, bodies.push_end_body(push, why, self._year()))

    def report_recording(self, recording: Recording, push: LivePush | None) -> None:
        """Reports a segment that is finished and listed. The push is None if it ran in an earlier sandbox process."""
        line = self._lines.get(recording.app_id)
        if line is not None:  # of an earlier run it may be a former customer's
            self.send(recording.app_id, bodies.recording_body(recording, line.customer, push, self._year()))

    def report_screenshot(self, push: LivePush, shot: Shot, path: str, size: int) -> Callable[[], None]:
        """Prepares the report of a picture that is being uploaded. Call the result when it can be fetched."""
        body = bodies.screenshot_body(shot, path, size, push, self._year())
        return partial(self.send, push.customer.app_id, body)

    def send(self, app_id: int, body: Mapping[str, object]) -> None:
        """Sends any body to that customer, with `t` and `sign`."""
        self._lines[app_id].put(body, rule(self._year(), body.get("event_type")))

    async def _post(self, url: str, wire: bytes) -> int:
        try:
            async with self._session.post(url, data=wire, headers=HEADERS, allow_redirects=False) as answer:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    await answer.content.read(READ)
                return answer.status
        except (aiohttp.ClientError, OSError):  # a time that ran out is an OSError too
            return 0


def _session(timeout: float) -> aiohttp.ClientSession:
    """An HTTP session with a new connection for each request: a kept one may have been closed by the receiver."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
