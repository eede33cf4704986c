"""The screenshot queue: `Live_Queue_Get`, whose every answer takes its messages away."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Annotated, Self

import msgspec
from pydantic import Field, model_validator

from poller.model import Event, Page, Reading, Reject, identity, new_event
from poller.qcloud.account import Account
from poller.qcloud.messages import (
    Message,
    Scalar,
    Unreadable,
    created_at,
    read_message,
    whole_number,
)
from poller.qcloud.names import Shot, parse_name
from poller.qcloud.redaction import redact
from poller.qcloud.replies import Answer, judge_answer, open_answer
from poller.qcloud.urls import Located, locate
from poller.settings import Duration, SourceSettings, duration_between, wrong

KIND = "screenshot"
INTERFACE = "Live_Queue_Get"
_LARGEST_ERROR_PAGE = 64 * 1024
_LARGEST_REJECT = 4 * 1024 * 1024


class ScreenshotQueueSettings(SourceSettings):
    """The account's screenshot queue."""

    queue_id: int = Field(default=100, ge=0, description="Which queue (Param.n.bid); 100 is screenshots.")
    count: int = Field(default=100, ge=1, le=100, description="The most messages in one answer, 1 to 100.")
    min_delay: Annotated[Duration, duration_between("10ms", "10m")] = Field(
        default=0.25, description="The pause after an answer that was not full."
    )
    max_delay: Annotated[Duration, duration_between("10ms", "10m")] = Field(
        default=5.0, description="The longest pause while the queue is empty and nothing is wrong."
    )
    max_in_flight: int = Field(
        default=4, ge=1, le=64, description="How many polls may be outstanding at once."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_delay > self.max_delay:
            raise wrong("is longer than max_delay", at="min_delay")
        return self


class ScreenshotQueue:
    """Drains the screenshot queue of one account; the account is entered before and left after it."""

    Settings = ScreenshotQueueSettings
    destructive = True

    def __init__(self, name: str, settings: ScreenshotQueueSettings, accounts: Mapping[str, Account]) -> None:
        self.name = name
        self.account = settings.account
        self.min_delay = settings.min_delay
        self.max_delay = settings.max_delay
        self.max_in_flight = settings.max_in_flight
        self._count = settings.count
        self._account = accounts[settings.account]
        self._inputs = {"Param.n.bid": str(settings.queue_id), "Param.n.count": str(settings.count)}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def ready(self) -> None:
        """Wait for the account's throttle, which all its sources share."""
        await self._account.ready()

    async def fetch(self) -> Page:
        """Take up to `count` messages off the queue, with one request at most."""
        answer = await self._account.call(INTERFACE, self._inputs)
        return Page(
            source=self.name,
            received_at=datetime.now(UTC),
            status=answer.status,
            encoding=answer.encoding,
            whole=answer.whole,
            body=answer.body,
        )

    def read(self, page: Page, memory: bytes) -> Reading:
        """Open the answer; each message becomes an event, or a reject on its own. `memory` stays as it is."""
        answer = open_answer(page.body, page.encoding)
        events, unread = self._events(answer, page.received_at)
        verdict = judge_answer(answer, status=page.status, whole=page.whole, asked=self._count)
        unread += answer.rejects
        understood = answer.readable and page.status == 200 and not answer.cut
        if answer.text and not answer.size and not understood:
            unread += ((verdict.detail or f"HTTP {page.status}", answer.text[:_LARGEST_ERROR_PAGE]),)
        return Reading(
            events=tuple(events),
            rejects=tuple(self._reject(reason, raw, page) for reason, raw in unread),
            outcome=verdict.outcome,
            detail=verdict.detail,
            expired=verdict.expired,
            memory=memory,
            about=page.about,
        )

    def _events(
        self, answer: Answer, received_at: datetime
    ) -> tuple[list[Event], tuple[tuple[str, bytes], ...]]:
        events: list[Event] = []
        unread: list[tuple[str, bytes]] = []
        for raw in answer.messages:
            try:
                events.append(self._event(raw, received_at))
            except Unreadable as error:
                unread.append((str(error), bytes(raw)))
        return events, tuple(unread)

    def _event(self, raw: bytes | msgspec.Raw, received_at: datetime) -> Event:
        message = read_message(raw)
        name = message.pic_url or message.pic_full_url
        if not name:
            raise Unreadable("names no picture")
        place = locate(name, self._account.picture_base)
        shot = parse_name(place.path)
        full = message.pic_full_url
        url = place.url if not full or full is name else locate(full, self._account.picture_base).url
        created = None if message.create_time is None else created_at(message.create_time)
        stream = message.stream_id
        return new_event(
            id=identity(KIND, self.account, _key(place, shot, message.create_time)),
            kind=KIND,
            account=self.account,
            stream_id=str(stream) if stream not in (None, "") else shot.stream or "",
            occurred_at=created or shot.taken_at,
            received_at=received_at,
            url=url,
            fields=_fields(place, shot, message, created),
            message=raw if isinstance(raw, msgspec.Raw) else msgspec.Raw(raw),
        )

    def _reject(self, reason: str, raw: bytes, page: Page) -> Reject:
        # The bytes are decompressed and UTF-8 by now as far as they could be: no encoding to undo.
        body = redact(raw[:_LARGEST_REJECT], self._account.key)
        return Reject(received_at=page.received_at, reason=reason, encoding="", body=body)


def _key(place: Located, shot: Shot, create_time: Scalar) -> str:
    """What fixes the event (DESIGN.md, "Event id"): the path, and more where the name fixes no moment."""
    if shot.fixed:
        return place.path
    return f"{place.path}\0{place.query if create_time is None else create_time}"


def _fields(place: Located, shot: Shot, message: Message, created: datetime | None) -> dict[str, object]:
    width, height = shot.width, shot.height
    if width is None or height is None:
        width, height = whole_number(message.width), whole_number(message.height)
    fields: dict[str, object] = {
        "file_name": place.path,
        "width": width,
        "height": height,
        "push_started_at": shot.push_started_at,
        "task_started_at": shot.task_started_at,
        "offset": shot.offset,
    }
    if created is not None:
        fields["create_time"] = created
    if message.file_size is not None:
        fields["file_size"] = whole_number(message.file_size)
    return fields
