"""The source `screenshot_queue`: polls `Live_Queue_Get`. The platform deletes messages as it sends them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar, Self

from msgspec import Raw
from pydantic import Field, model_validator

from poller.core.model import ERROR_PAGE, Event, ParsedPage, RawPage, Reject
from poller.core.ports import Source
from poller.qcloud.events.screenshots import screenshot_event
from poller.qcloud.events.usual_messages import UsualMessages
from poller.qcloud.wire.account import Account
from poller.qcloud.wire.messages import UnreadableMessage
from poller.qcloud.wire.redaction import redact
from poller.qcloud.wire.replies import Reply, judge_answer, open_answer
from poller.settings import (
    EVERY_TEN_SECONDS,
    BeatPeriod,
    Duration,
    SourceSettings,
    duration_between,
    wrong,
)

INTERFACE = "Live_Queue_Get"
MOST_IN_ANSWER = 100
"""The most messages that the platform puts into one answer."""
MOST_LANES = 64
"""The most polls that a configuration may ask for at once."""
_LARGEST_ERROR_PAGE = 64 * 1024
_GATEWAY = frozenset({502, 504})
"""Statuses of a gateway between us and the platform. The platform may have answered all the same."""
_LARGEST_REJECT = 4 * 1024 * 1024


class ScreenshotQueueSettings(SourceSettings):
    """The account's screenshot queue."""

    kinds: ClassVar[frozenset[str] | None] = frozenset({"screenshot"})
    names_pictures: ClassVar[bool] = True

    queue_id: int = Field(default=100, ge=0, description="The queue (Param.n.bid); 100 is screenshots.")
    count: int = Field(
        default=MOST_IN_ANSWER,
        ge=1,
        le=MOST_IN_ANSWER,
        description="The most messages in one answer, 1 to 100.",
    )
    min_delay: Annotated[Duration, duration_between("10ms", "10m")] = Field(
        default=0.25, description="The pause after an answer with fewer messages than count."
    )
    max_delay: Annotated[Duration, duration_between("10ms", "10m")] = Field(
        default=5.0, description="The longest pause while the queue is empty and no error occurs."
    )
    beat: BeatPeriod = Field(
        default=EVERY_TEN_SECONDS,
        description="The interval at which pictures are taken, 1s to 60s. The daemon learns when in it their messages "
        'come, and polls then. With "off" (in quotes) the pause depends only on the last answers.',
    )
    max_in_flight: int = Field(
        default=4,
        ge=1,
        le=MOST_LANES,
        description="How many polls may be outstanding at once. In a crash each can lose count messages.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_delay > self.max_delay:
            raise wrong("is longer than max_delay", at="min_delay")
        return self


class ScreenshotQueue(Source):
    """Drains the screenshot queue of one account. The account must be entered before it, and left after it."""

    Settings = ScreenshotQueueSettings
    destructive = True

    def __init__(self, name: str, settings: ScreenshotQueueSettings, accounts: Mapping[str, Account]) -> None:
        self.name = name
        self.account = settings.account
        self.min_delay = settings.min_delay
        self.max_delay = settings.max_delay
        self.max_in_flight = settings.max_in_flight
        self.beat = settings.beat.seconds
        self._count = settings.count
        self._account = accounts[settings.account]
        base = self._account.picture_base
        self._usual = None if base is None else UsualMessages(settings.account, base)
        self._inputs = {"Param.n.bid": str(settings.queue_id), "Param.n.count": str(settings.count)}

    async def ready(self) -> None:
        """Wait for the account's throttle, which all its sources share."""
        await self._account.ready()

    async def fetch(self) -> RawPage:
        """Take up to `count` messages off the queue, with a single request."""
        answer = await self._account.call(INTERFACE, self._inputs)
        return answer.page(self.name)

    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        """Parse an answer: each message becomes an event or a reject. `memory` is returned unchanged."""
        answer = open_answer(page.body, page.encoding)
        events, unread = self._events(answer, page.received_at)
        verdict = judge_answer(answer, status=page.status, whole=page.whole, asked=self._count, odd=page.odd)
        unread += answer.rejects
        understood = answer.readable and page.status == 200 and not answer.cut
        if answer.text and not answer.size and not understood:
            reason, text = verdict.detail or f"HTTP {page.status}", answer.text[:_LARGEST_ERROR_PAGE]
            unread += ((f"{ERROR_PAGE}: {reason}" if _is_error_page(answer, page) else reason, text),)
        return ParsedPage(
            events=tuple(events),
            rejects=tuple(self._reject(reason, raw, page) for reason, raw in unread),
            outcome=verdict.outcome,
            detail=verdict.detail,
            expired=verdict.expired,
            blank=not answer.readable and not answer.size and (page.status < 300 or page.status in _GATEWAY),
            memory=memory,
            about=page.about,
        )

    def _events(
        self, answer: Reply, received_at: datetime
    ) -> tuple[list[Event], tuple[tuple[str, bytes], ...]]:
        events: list[Event] = []
        unread: list[tuple[str, bytes]] = []
        account, base = self.account, self._account.picture_base
        read = _read_nothing if self._usual is None else self._usual.reader(received_at)
        for raw in answer.messages:
            try:
                event = read(raw) or screenshot_event(
                    raw, account=account, picture_base=base, received_at=received_at
                )
                events.append(event)
            except UnreadableMessage as error:
                unread.append((str(error), bytes(raw)))
        return events, tuple(unread)

    def _reject(self, reason: str, raw: bytes, page: RawPage) -> Reject:
        # the bytes are decompressed and converted to UTF-8 already, as far as possible
        body = redact(raw[:_LARGEST_REJECT], self._account.key)
        return Reject(received_at=page.received_at, reason=reason, encoding="", body=body)


def _read_nothing(raw: bytes | Raw) -> None:
    """Without the beginning of the pictures' URLs, no message is read by the template."""


def _is_error_page(answer: Reply, page: RawPage) -> bool:
    """Whether a body without messages is an error page, rather than an unknown form of message."""
    if not page.whole or answer.cut or b"pic_" in answer.text or b"stream_id" in answer.text:
        return False
    return page.status != 200 or answer.text.lstrip()[:1] not in (b"{", b"[")
