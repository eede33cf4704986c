"""An account on the platform: its signed calls, its throttle, its clock skew, its pictures' and recordings' URLs."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import structlog
from msgspec import structs

from poller.core.model import PollOutcome
from poller.qcloud.wire import skew as skews
from poller.qcloud.wire.addresses import addresses
from poller.qcloud.wire.bodies import open_body
from poller.qcloud.wire.client import Client, Deadlines, HttpReply
from poller.qcloud.wire.redaction import blank
from poller.qcloud.wire.replies import judge_answer, open_output
from poller.qcloud.wire.signing import signed_query
from poller.qcloud.wire.urls import locate
from poller.runtime.outbound import ssl_context
from poller.runtime.throttle import Throttle
from poller.settings import AccountSettings

log = structlog.get_logger("qcloud")

_NUMBER = re.compile(r"[0-9]+")
_MOST_ODD = 100
_LONGEST_REFUSAL = 4096
"""Bytes. A longer answer is not a refusal by the platform, and is not parsed here."""


class Account:
    """One customer of the platform, shared by its sources; entered once, before them."""

    def __init__(
        self,
        name: str,
        settings: AccountSettings,
        *,
        now: Callable[[], float] = time.time,
        deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
    ) -> None:
        self.name = name
        self.key = settings.key_value
        self.addresses = addresses(settings)
        self.picture_base = self.addresses.picture_base
        self.picture_hosts = self.addresses.picture_hosts
        self._settings = settings
        self._now = now
        self._deadlines = deadlines
        self._skew = skews.Skew()
        self._client: Client | None = None
        self._throttle = Throttle(settings.rate.limit, settings.rate.period)
        self._turnstile = asyncio.Lock()
        self._odd: set[str] = set()

    async def __aenter__(self) -> Self:
        client = Client(
            self._settings.endpoint,
            tls=ssl_context(self._settings.tls),
            proxy=self._settings.proxy,
            deadlines=self._deadlines,
        )
        self._client = await client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.__aexit__(kind, error, trace)

    @property
    def skew(self) -> float:
        """Seconds by which the platform's clock is ahead of ours, as far as measured."""
        return self._skew.seconds

    def share_rate(self, sharers: Callable[[], int]) -> None:
        """Divide the rate of calls by what `sharers` returns: how many daemons call for this account now."""
        self._throttle.sharers = sharers

    async def ready(self) -> None:
        """Wait until one more attempt is allowed. May be cancelled."""
        async with self._turnstile:  # asyncio-throttle polls: one waiter, not one per lane
            await self._throttle.acquire()

    async def call(self, interface: str, inputs: Mapping[str, str]) -> HttpReply:
        """Send one signed call (see `Client.get`); our key and signature are blanked in its answer."""
        assert self._client is not None, "enter the account first"
        sent = self._now()
        query = signed_query(
            key=self.key,
            app_id_param=self._settings.app_id_param,
            app_id=self._settings.app_id,
            now=sent + self._skew.correction,
        )
        answer = await self._client.get({**query, "interface": interface, **inputs})
        self._learn(answer, sent, self._now())
        self._report_odd(answer)
        return _blank_secrets(answer, query["sign"], self.key)

    def picture_url(self, name: str) -> str | None:
        """The URL of a picture; None for a bare name where the account has no `cos`."""
        return locate(name, self.picture_base).url

    def recording_url(self, vid: str) -> str | None:
        """The URL of a recorded segment by its vid (the 2016 v1.1 document); None where the account has no `vod`."""
        return self.addresses.recording_url(vid)

    def _report_odd(self, answer: HttpReply) -> None:
        """Log once each way in which answers are odd."""
        kind = _NUMBER.sub("", answer.odd)
        if kind and kind not in self._odd and len(self._odd) < _MOST_ODD:
            self._odd.add(kind)
            log.warning(
                "odd_answer", account=self.name, status=answer.status, odd=answer.odd, whole=answer.whole
            )

    def _learn(self, answer: HttpReply, sent: float, received: float) -> None:
        before = self._skew.state
        skew = skews.learn_date(self._skew, sent=sent, received=received, date=answer.date, age=answer.age)
        if answer.status and len(answer.body) <= _LONGEST_REFUSAL:
            opened, _ = open_output(answer.body, answer.encoding)
            verdict = judge_answer(opened, status=answer.status, whole=answer.whole, asked=1)
            if verdict.outcome is PollOutcome.REFUSED:
                skew = skews.learn_refusal(skew, expired=verdict.expired)
        self._skew = skew
        if skew.state != before:
            say = log.info if skew.state == skews.RIGHT else log.warning
            say("clock_skew", account=self.name, seconds=round(skew.seconds, 1), state=skew.state)


def _blank_secrets(answer: HttpReply, *secrets: str) -> HttpReply:
    """The answer with these secrets blanked. A packed body that holds one of them is returned unpacked."""
    body, encoding = answer.body, answer.encoding
    if encoding or body[:2] == b"\x1f\x8b":
        opened = open_body(body, encoding)
        if opened.opened and any(secret.encode() in opened.text for secret in secrets):
            body, encoding = opened.text, ""
    for secret in secrets:
        body = blank(body, secret)
    return answer if body is answer.body else structs.replace(answer, body=body, encoding=encoding)
