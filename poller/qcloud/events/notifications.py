"""Turns a notification into an event, by the platform's documents from 2016 to 2025. Pure."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeGuard

import msgspec

from poller.core.catalogue import believable
from poller.core.model import Event, identity, new_event
from poller.qcloud.events.channels import INTERRUPTED, LIVE
from poller.qcloud.events.files import duration_of, id_or_empty, recording_key
from poller.qcloud.events.screenshots import KIND as SCREENSHOT
from poller.qcloud.events.screenshots import screenshot_event
from poller.qcloud.wire.messages import UnreadableMessage, created_at
from poller.qcloud.wire.urls import locate

RECORDING, CHANNEL, OTHER = "recording", "channel", "other"
MODERATION, RECORDING_STATUS, PUSH_EXCEPTION = "moderation", "recording_status", "push_exception"
KINDS = frozenset({SCREENSHOT, RECORDING, CHANNEL, MODERATION, RECORDING_STATUS, PUSH_EXCEPTION, OTHER})
SEEN_BY = "callbacks"
STOPPED, STARTED, RECORDED, SHOT = 0, 1, 100, 200
AUDITED, BROKEN_OFF, RECORD_STATUS = 317, 321, 332
_STATES = {STARTED: LIVE, STOPPED: INTERRUPTED}
_TYPE = ("event_type", "eventType")
_STREAM = ("stream_id", "channel_id", "streamId", "channelId", "stream_name", "streamName")
_MOMENT = (
    "event_time",
    "eventTime",
    "create_time",
    "createTime",
    "screenshot_time",
    "screenshotTime",
    "report_time",
    "reportTime",
    "end_time",
    "endTime",
)
_PICTURE = ("img", "pic_full_url", "picFullUrl", "pic_url", "picUrl")
_AUDIT = ("img", "type", "score", "suggestion")
_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_LARGEST_NUMBER = 2**63
_LONGEST_TYPE = 64


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A notification as it is kept (`line`: one JSON object in one line), decoded, and where it belongs."""

    line: bytes
    fields: dict[str, Any]
    account: str
    picture_base: str | None
    received_at: datetime

    def event(
        self, kind: str, *, key: str, at: datetime | None, url: str | None, fields: Mapping[str, object]
    ) -> Event:
        """An event of this notice."""
        return new_event(
            id=identity(kind, self.account, key),
            kind=kind,
            account=self.account,
            stream_id=self.word(*_STREAM) or "",
            occurred_at=at,
            received_at=self.received_at,
            url=url,
            fields=fields,
            message=msgspec.Raw(self.line),
        )

    def word(self, *names: str) -> str | None:
        """The first of these members that is a text or a whole number, as text; not an empty one."""
        for name in names:
            value = self.fields.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
                return str(value)
        return None

    def type(self) -> str | None:
        """Its `event_type`, however the number is written; else of the audit that is sent without one, by its shape."""
        stated = self.word(*_TYPE) or self._float()
        if stated is not None:
            digits = stated.strip().removesuffix(".0")
            return str(int(digits)) if digits.isascii() and digits.isdigit() and len(digits) < 20 else stated
        return str(AUDITED) if sum(name in self.fields for name in _AUDIT) >= 3 else None

    def _float(self) -> str | None:
        values = (self.fields.get(name) for name in _TYPE)
        return next((str(value) for value in values if isinstance(value, float)), None)

    def labels(self, name: str) -> str | int | list[str | int] | None:
        """A member that is a text, a whole number or a list of such."""
        value = self.fields.get(name)
        if not isinstance(value, list):
            return value if _is_label(value) else None
        return [one for one in value if _is_label(one)]

    def decimal(self, *names: str) -> int | float | None:
        """The first of these members that is a number, or a text that is one."""
        for name in names:
            value = self.fields.get(name)
            if isinstance(value, str) and _DECIMAL.fullmatch(value):
                return float(value) if "." in value else int(value)
        return self.number(*names)

    def number(self, *names: str) -> int | float | None:
        """The first of these members that is a number, or a text of digits."""
        for name in names:
            value = self.fields.get(name)
            if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
                value = int(value)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return value if abs(value) < _LARGEST_NUMBER else None
        return None

    def moment(self, *names: str) -> datetime | None:
        """The first of these members that is a time, aware, UTC."""
        for name in names:
            value = self.fields.get(name)
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                found = created_at(value)
                if found is not None:
                    return found
        return None

    def content(self) -> str:
        """The identity of a notice without an id: all members except `t` and `sign`, which differ in a repeat."""
        rest = {name: value for name, value in self.fields.items() if name not in ("t", "sign")}
        return json.dumps(rest, sort_keys=True)


def notification_event(
    line: bytes, *, account: str, picture_base: str | None, received_at: datetime
) -> Event:
    """Read a notification; whatever is not understood is an event of kind `other`."""
    notice = Notice(
        line=line,
        fields=json.loads(line),
        account=account,
        picture_base=picture_base,
        received_at=received_at,
    )
    return _known_event(notice) or _other(notice)


def _known_event(notice: Notice) -> Event | None:
    event_type = notice.type()
    read = _READERS.get(event_type or "")
    if read is not None:
        return read(notice)
    if event_type in (str(STARTED), str(STOPPED)):
        return _channel(notice, int(event_type))
    return None


def _screenshot(notice: Notice) -> Event | None:
    try:
        return screenshot_event(
            notice.line,
            account=notice.account,
            picture_base=notice.picture_base,
            received_at=notice.received_at,
        )
    except UnreadableMessage:
        return None


def _recording(notice: Notice) -> Event | None:
    file_id = id_or_empty(notice.word("file_id")) or id_or_empty(notice.word("record_file_id"))
    vid = id_or_empty(notice.word("video_id", "vid"))
    link = notice.word("video_url", "record_file_url")
    key = recording_key(file_id, vid, link)
    if not key:
        return None
    start, end = notice.moment("start_time"), notice.moment("end_time")
    return notice.event(
        RECORDING,
        key=key,
        at=end or notice.moment("event_time"),
        url=None if link is None else locate(link, None).url,
        fields={
            "vid": vid or None,
            "file_id": file_id or None,
            "start_time": start,
            "end_time": end,
            "duration": duration_of(notice.number("duration"), start, end),
            "file_format": notice.word("file_format"),
            "file_size": notice.number("file_size"),
        },
    )


def _channel(notice: Notice, event_type: int) -> Event:
    sequence = notice.word("sequence")
    which = sequence or notice.word("event_time")
    stream = notice.word(*_STREAM)
    key = f"{stream}\0{event_type}\0{which}" if stream and which else notice.content()
    return notice.event(
        CHANNEL,
        key=key,
        at=believable(notice.moment("event_time") or notice.received_at, notice.received_at),
        url=None,
        fields={
            "state": _STATES[event_type],
            "seen_by": SEEN_BY,
            "sequence": sequence,
            "errcode": notice.number("errcode"),
            "errmsg": notice.word("errmsg"),
            "push_duration": notice.number("push_duration"),
            "node": notice.word("node"),
        },
    )


def _moderation(notice: Notice) -> Event:
    """A verdict on a picture. The picture's URL is built as for screenshots; a sink that fetches it checks the host."""
    picture = notice.word(*_PICTURE)
    place = None if picture is None else locate(picture, notice.picture_base)
    return notice.event(
        MODERATION,
        key=notice.content(),
        at=notice.moment(*_MOMENT),
        url=None if place is None else place.url,
        fields={
            "file_name": None if place is None else place.path,
            "type": notice.labels("type"),
            "score": notice.decimal("score"),
            "suggestion": notice.word("suggestion"),
        },
    )


def _recording_status(notice: Notice) -> Event:
    return _plain(notice, RECORDING_STATUS, {"record_event": notice.word("record_event", "recordEvent")})


def _push_exception(notice: Notice) -> Event:
    return _plain(notice, PUSH_EXCEPTION, {})


def _plain(notice: Notice, kind: str, fields: Mapping[str, object]) -> Event:
    """An event of which little is read: the documents differ on the rest, which the message holds."""
    return notice.event(kind, key=notice.content(), at=notice.moment(*_MOMENT), url=None, fields=fields)


def _is_label(value: object) -> TypeGuard[str | int]:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < _LARGEST_NUMBER
    return isinstance(value, str)


_READERS: Mapping[str, Callable[[Notice], Event | None]] = {
    str(SHOT): _screenshot,
    str(RECORDED): _recording,
    str(AUDITED): _moderation,
    str(RECORD_STATUS): _recording_status,
    str(BROKEN_OFF): _push_exception,
}


def _other(notice: Notice) -> Event:
    event_type = notice.fields.get("event_type")
    if not isinstance(event_type, int) or isinstance(event_type, bool) or abs(event_type) >= _LARGEST_NUMBER:
        event_type = (notice.word("event_type") or "")[:_LONGEST_TYPE] or None
    return notice.event(
        OTHER,
        key=notice.content(),
        at=notice.moment(*_MOMENT),
        url=None,
        fields={"event_type": event_type},
    )
