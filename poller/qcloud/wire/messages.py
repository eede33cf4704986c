"""Parses a message of the queue, and checks whether its bytes may be passed on. Pure."""

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from poller.qcloud.wire.times import BEIJING, moment

Scalar = int | float | str | None
_HUGE = re.compile(rb"[0-9]{310}")
_LONG = 700
_DEEPEST = 64
_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_DATE = "%Y-%m-%d %H:%M:%S"


class Message(msgspec.Struct, frozen=True, gc=False):
    """The fields of a queue message; None if missing or unusable. `create_time` is as the platform wrote it."""

    stream_id: str | int | None = None
    pic_url: str | None = None
    pic_full_url: str | None = None
    create_time: Scalar = None
    width: Scalar = None
    height: Scalar = None
    file_size: Scalar = None


class UnreadableMessage(Exception):
    """A message cannot be parsed. The text gives the reason, and shows nothing of the message."""


_decode = msgspec.json.Decoder(Message).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_types: dict[str, type] = {field.name: field.type for field in msgspec.structs.fields(Message)}


def read_message(raw: bytes | msgspec.Raw) -> Message:
    """Parse a JSON object. A field of a wrong type counts as missing. Raises `UnreadableMessage` for any other text."""
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_by_member(raw)


def compact(raw: bytes) -> bytes:
    """The message as one line of JSON that every receiver can parse; raises `UnreadableMessage` if there is none."""
    try:
        line = msgspec.json.format(raw, indent=-1) if b"\n" in raw or b"\r" in raw else raw
        line.decode()
    except msgspec.DecodeError:
        raise UnreadableMessage("not JSON") from None
    except UnicodeDecodeError:
        raise UnreadableMessage("not UTF-8") from None
    except RecursionError:
        raise UnreadableMessage("too deep") from None
    if len(line) > _LONG and _HUGE.search(line):
        raise UnreadableMessage("a number with more than 300 digits")
    if depth(line) > _DEEPEST:
        raise UnreadableMessage("too deep")
    return line


def depth(raw: bytes) -> int:
    """The depth of nested brackets in a JSON text."""
    if raw.count(b"{") + raw.count(b"[") <= _DEEPEST:
        return 1
    deepest = now = 0
    for token in _BRACKET.findall(raw):
        now += (token in b"{[") - (token in b"}]")
        deepest = max(deepest, now)
    return deepest


def created_at(value: Scalar) -> datetime | None:
    """Return a `create_time` as aware UTC: an epoch in s or ms (number or text), or Beijing time."""
    if isinstance(value, int) and value < 10_000_000_000:
        return moment(value)
    text = str(value)
    try:
        if text[:4].isdigit() and text[4:5] == "-":
            return datetime.strptime(text, _DATE).replace(tzinfo=BEIJING).astimezone(UTC)
        epoch = int(float(text)) if len(text) < 32 else 0
    except (ValueError, OverflowError):
        return None
    return moment(epoch // 1000 if epoch >= 100_000_000_000 else epoch)


def whole_number(value: Scalar) -> int | None:
    """Return a count of pixels or bytes, up to ten digits; None for anything else."""
    text = str(value)
    return int(text) if len(text) <= 10 and text.isascii() and text.isdigit() else None


def _read_by_member(raw: bytes | msgspec.Raw) -> Message:
    try:
        members = _members(raw)
    except (msgspec.ValidationError, RecursionError):
        raise UnreadableMessage("not an object") from None
    except msgspec.DecodeError:
        raise UnreadableMessage("not JSON") from None
    except UnicodeDecodeError:
        raise UnreadableMessage("not UTF-8") from None
    known: dict[str, Any] = {
        name: _member(members[name], kind) for name, kind in _types.items() if name in members
    }
    return Message(**known)


def _member(raw: msgspec.Raw, kind: type) -> str | int | float | None:
    try:
        value: str | int | float | None = msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value
