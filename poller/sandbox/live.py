"""What is pushed at this moment: who may push, and where each push's media goes."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import md5

from poller.sandbox.channels import Channels, Status
from poller.sandbox.media.footage import Latest
from poller.sandbox.media.recorder import Recorder
from poller.sandbox.media.recordings import Recordings
from poller.sandbox.media.tags import VIDEO
from poller.sandbox.options import Customer
from poller.sandbox.rtmp.publish_handler import PublishRefused, PublishRequest
from poller.sandbox.wakeup import Wakeup

TAKEN_OVER_AFTER = 1.0
"""Seconds of silence after which a push gives way to a new one of its own pusher."""
STREAM_ID = re.compile(r"[A-Za-z0-9_@#-]{1,128}")  # what was seen (docs/wire.md, section 3)
log = logging.getLogger("poller.sandbox")


class LivePush:
    """One push that lasts: recorded, and ready to be photographed.

    push:     the epoch of its start
    sequence: names it among all pushes
    pictures: how many were taken
    troubled: whether the last attempt at one failed
    """

    def __init__(
        self,
        customer: Customer,
        request: PublishRequest,
        *,
        recorder: Recorder,
        latest: Latest,
        close: Callable[[], None],
        ended: Callable[[LivePush, str], None],
    ) -> None:
        self.customer = customer
        self.request = request
        self.stream_id = request.stream
        self.push = int(time.time())
        self.sequence = str(10**17 + secrets.randbelow(9 * 10**17))
        self.latest = latest
        self.close = close
        self.pictures = 0
        self.troubled = False
        self._recorder = recorder
        self._ended = ended
        self._began = time.monotonic()
        self._over = False

    @property
    def duration(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def tag(self, kind: int, timestamp: int, body: bytes) -> None:
        """See `publish_handler.Push`."""
        if self._over:
            return
        self._recorder.tag(kind, timestamp, body)
        if kind == VIDEO:
            self.latest.add(timestamp, body)

    def end(self, why: str) -> None:
        """See `publish_handler.Push`. A second time it does nothing: its connection ends after a push that gave way."""
        if self._over:
            return
        self._over = True
        self._recorder.end()
        self._ended(self, why)

    def state(self) -> dict[str, object]:
        return {
            "stream_id": self.stream_id,
            "customer": self.customer.app_id,
            "push": self.push,
            "pictures": self.pictures,
        }


class Live:
    """All pushes of the moment; the publish handler of the RTMP server."""

    def __init__(
        self,
        customers: Sequence[Customer],
        channels: Channels,
        recordings: Recordings,
        wakeup: Wakeup,
        *,
        segment: float,
        exact: bool,
        began: Callable[[LivePush], None],
        ended: Callable[[LivePush, str], None],
    ) -> None:
        """`began` and `ended` are called for every push, `ended` with the reason."""
        self._customers = {str(one.biz_id): one for one in customers}
        self._first = customers[0]
        self._channels = channels
        self._recordings = recordings
        self._wakeup = wakeup
        self._segment = segment
        self._exact = exact
        self._began = began
        self._ended = ended
        self._pushes: dict[tuple[int, str], LivePush] = {}

    @property
    def pushes(self) -> list[LivePush]:
        """The live pushes, in the order in which they began."""
        return list(self._pushes.values())

    def find(self, app_id: int, stream_id: str) -> LivePush | None:
        return self._pushes.get((app_id, stream_id))

    def kick(self, app_id: int, stream_id: str) -> None:
        """Drops that push's connection, if it is live."""
        push = self.find(app_id, stream_id)
        if push is not None:
            push.close()

    def publish(self, request: PublishRequest, close: Callable[[], None]) -> LivePush:
        """See `PublishHandler`."""
        customer = self._owner(request)
        try:
            self._check(customer, request)
            self._clear(customer, request)
            self._channels.begin(customer.app_id, request.stream)
        except sqlite3.OperationalError as error:
            log.error("push refused: %s", error)
            raise PublishRefused("the platform is out of order") from None
        push = LivePush(
            customer,
            request,
            recorder=Recorder(self._recordings, customer, request.stream, limit=self._segment),
            latest=Latest(whole=self._exact),
            close=close,
            ended=self._end,
        )
        self._pushes[customer.app_id, request.stream] = push
        log.info("push began: %s of %d from %s", request.stream, customer.app_id, request.peer)
        self._began(push)
        self._wakeup.ring()
        return push

    def _end(self, push: LivePush, why: str) -> None:
        app_id = push.customer.app_id
        del self._pushes[app_id, push.stream_id]
        try:
            self._channels.end(app_id, push.stream_id)
        except sqlite3.OperationalError as error:  # a full disk; the next start of the sandbox puts it right
            log.error("the end of %s is not on record: %s", push.stream_id, error)
        log.info("push ended: %s of %d, %s", push.stream_id, app_id, why)
        self._ended(push, why)
        self._wakeup.ring()

    def _owner(self, request: PublishRequest) -> Customer:
        named = request.query.get("bizid") or request.host.partition(".")[0]
        return self._customers.get(named, self._first)

    def _check(self, customer: Customer, request: PublishRequest) -> None:
        if not STREAM_ID.fullmatch(request.stream):
            raise PublishRefused("a stream id has 1 to 128 letters, digits and _ - @ #")
        if customer.push_key is not None:
            check_secret(customer.push_key, request.stream, request.query, time.time())
        if self._channels.status(customer.app_id, request.stream) is Status.DISABLED:
            raise PublishRefused("this stream is disabled")

    def _clear(self, customer: Customer, request: PublishRequest) -> None:
        """Ends an earlier, silent push of the same pusher completely, so that the new push can begin."""
        live = self.find(customer.app_id, request.stream)
        if live is None:
            return
        same = customer.push_key is not None or live.request.address == request.address
        if not same or live.request.quiet() < TAKEN_OVER_AFTER:
            raise PublishRefused("this stream is live already")
        live.end("replaced")
        live.close()


def check_secret(key: str, stream_id: str, query: Mapping[str, str], now: float) -> None:
    """Raises PublishRefused where `txSecret` is wrong or `txTime` (hex epoch) is missing or has passed."""
    until, secret = query.get("txTime", ""), query.get("txSecret", "")
    if not re.fullmatch(r"[0-9A-Fa-f]{1,12}", until):
        raise PublishRefused("txTime is no time")
    right = md5(f"{key}{stream_id}{until}".encode(), usedforsecurity=False).hexdigest()
    if not hmac.compare_digest(right.encode(), secret.encode("utf-8", "replace")):
        raise PublishRefused("txSecret is wrong")
    if int(until, 16) < now:
        raise PublishRefused("txTime has passed")
