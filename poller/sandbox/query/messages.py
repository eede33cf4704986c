"""One message of a queue: what it says, how it is kept, how an answer writes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from poller.sandbox.options import Answers, Customer

_is_plain = re.compile(r"[A-Za-z0-9/._~-]*").fullmatch


class Said(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The facts about a picture in one message, before they are written in a form. `create_time` is an epoch."""

    stream_id: str
    path: str
    create_time: int


class Facts(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """One numbered message as the database keeps it, whatever the form.

    `poison` names a deliberately bad one, which `raw` then is, byte for byte.
    """

    n: int
    stream_id: str | None
    path: str | None
    create_time: int | None = None
    poison: str | None = None
    raw: bytes | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message in the form in force: as sent (`body`), and as logged (`head`, a JSON object without its end)."""

    n: int
    body: bytes
    head: bytes


class _Head(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    n: int
    customer: int
    stream_id: str | None
    path: str | None
    pic_url: str | None
    create_time: int | None = None
    poison: str | None = None


_compact = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[Facts]).decode
_read_head = msgspec.json.Decoder(_Head).decode


def pack(facts: Sequence[Facts]) -> bytes:
    """The facts as bytes."""
    return _pack(facts)


def unpack(body: bytes) -> list[Facts]:
    """The reverse of `pack`."""
    return _unpack(body)


def write_message(facts: Facts, form: Answers, customer: Customer) -> Message:
    """The message in this form."""
    url = _pic_url(facts, form, customer)
    head = _Head(
        n=facts.n,
        customer=customer.app_id,
        stream_id=facts.stream_id,
        path=facts.path,
        pic_url=url,
        create_time=facts.create_time,
        poison=facts.poison,
    )
    body = _body(facts, url, form) if facts.raw is None else facts.raw
    return Message(n=facts.n, body=body, head=_compact(head)[:-1])


def facts_of(message: Message) -> Facts:
    """The facts in a message, read back from its form."""
    head = _read_head(message.head + b"}")
    return Facts(
        n=head.n,
        stream_id=head.stream_id,
        path=head.path,
        create_time=head.create_time,
        poison=head.poison,
        raw=None if head.poison is None else message.body,
    )


def _body(facts: Facts, url: str | None, form: Answers) -> bytes:
    key = "pic_full_url" if form.fields == "pic_full_url" else "pic_url"
    message: dict[str, object] = {"stream_id": facts.stream_id, key: url}
    if form.fields != "pic_url":
        message["create_time"] = facts.create_time
    text = _compact(message)
    return msgspec.json.format(text, indent=2) if form.pretty else text


def _pic_url(facts: Facts, form: Answers, customer: Customer) -> str | None:
    """The picture's place as this form writes it; of a bad message the path that a test looks for."""
    path = facts.path
    if path is None or facts.raw is not None:
        return path
    if form.fields != "pic_full_url" and form.url in ("bare", "slash"):
        return f"/{path}" if form.url == "slash" else path
    name = path if _is_plain(path) else quote(path, safe="/-_.~")
    full = f"http://{customer.host_label}.file.myqcloud.com/{name}"
    if form.fields == "pic_full_url" or form.url == "full":
        return full
    return f"{full}?t={facts.create_time}&tt={(facts.create_time or 0) + 970}"
