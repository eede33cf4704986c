"""What a notification says, as an event (the platform's documents, 2016 to 2025). Pure."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from poller.catalogue import believable
from poller.model import Event, identity, new_event
from poller.qcloud.channels import INTERRUPTED, LIVE
from poller.qcloud.files import lasted, named, recording_key
from poller.qcloud.messages import Unreadable, created_at
from poller.qcloud.screenshots import screenshot_event
from poller.qcloud.urls import locate

RECORDING, CHANNEL, OTHER = "recording", "channel", "other"
SEEN_BY = "callbacks"
STOPPED, STARTED, RECORDED, SHOT = 0, 1, 100, 200
_STATES = {STARTED: LIVE, STOPPED: INTERRUPTED}
_STREAM = ("stream_id", "channel_id", "streamId", "channelId")
_MOMENT = ("event_time", "create_time", "end_time")
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
        """What tells notices without an id apart: all but `t` and `sign`, which a repeat has anew."""
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
    return _understood(notice) or _other(notice)


def _understood(notice: Notice) -> Event | None:
    event_type = notice.word("event_type")
    if event_type == str(SHOT):
        return _screenshot(notice)
    if event_type == str(RECORDED):
        return _recording(notice)
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
    except Unreadable:
        return None


def _recording(notice: Notice) -> Event | None:
    file_id = named(notice.word("file_id")) or named(notice.word("record_file_id"))
    vid = named(notice.word("video_id", "vid"))
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
            "duration": lasted(notice.number("duration"), start, end),
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
