"""What the query interface says, in every form it was seen or suspected to say it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from poller.sandbox.options import Answers, Customer

NO_ROWS = 10003
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_PRETTY = json.JSONEncoder(ensure_ascii=False, indent=2).encode


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What one message says of a picture, before it takes a form."""

    stream_id: str
    path: str
    create_time: int


def pic_url(said: Said, form: Answers, customer: Customer) -> str:
    """The picture's place as this form writes it."""
    if form.fields != "pic_full_url" and form.url in ("bare", "slash"):
        return f"/{said.path}" if form.url == "slash" else said.path
    full = f"http://{customer.host_label}.file.myqcloud.com/{quote(said.path, safe='/-_.~')}"
    if form.fields == "pic_full_url" or form.url == "full":
        return full
    return f"{full}?t={said.create_time}&tt={said.create_time + 970}"


def message_body(said: Said, form: Answers, customer: Customer) -> bytes:
    """One element of `data`, encoded."""
    key = "pic_full_url" if form.fields == "pic_full_url" else "pic_url"
    message: dict[str, object] = {"stream_id": said.stream_id, key: pic_url(said, form, customer)}
    if form.fields != "pic_url":
        message["create_time"] = said.create_time
    return _dump(message, form)


def page(bodies: Sequence[bytes], form: Answers, ret: int = 0) -> bytes:
    """The text of an answer with these messages, before it is encoded for the wire."""
    if not bodies:
        return _empty_page(form, ret)
    return _envelope(form, ret, form.success, _output(bodies, form))


def refusal(ret: int, message: str, form: Answers) -> bytes:
    """The text of an answer that refuses."""
    return _envelope(form, ret, message, b"")


def encode(text: bytes, form: Answers) -> bytes:
    """The text as it goes over the wire."""
    if form.encoding == "utf-8-bom":
        text = b"\xef\xbb\xbf" + text
    elif form.encoding == "utf-16":
        text = text.decode("utf-8", "replace").encode("utf-16")
    return gzip.compress(text, 1) if form.gzip else text


def _empty_page(form: Answers, ret: int) -> bytes:
    if form.empty == "10003":
        return _envelope(form, ret or NO_ROWS, "no rows", b"")
    outputs = {"object": _output([], form), "array": b"[]", "null": b"null", "missing": b""}
    return _envelope(form, ret, form.success, outputs[form.empty])


def _output(bodies: Sequence[bytes], form: Answers) -> bytes:
    between = b",\n" if form.pretty else b","
    data = b"[" + between.join(bodies) + b"]"
    if form.output == "list" and bodies:
        return data
    number = len(bodies) + 7 if form.count == "wrong" else len(bodies)
    count = b'"%d"' % number if form.count == "string" else b"%d" % number
    whole = b'{"count":' + count + b',"data":' + data + b"}"
    return b"[" + whole + b"]" if form.output == "array" and bodies else whole


def _envelope(form: Answers, ret: int, message: str, output: bytes) -> bytes:
    text = json.dumps(message, ensure_ascii=False).encode()
    fields = [b'"ret":"%d"' % ret if form.ret == "string" else b'"ret":%d' % ret, b'"message":' + text]
    if form.extra:
        fields += [b'"retcode":%d' % ret, b'"errmsg":' + text]
    if output:
        fields.append(b'"output":' + output)
    if form.pretty:
        return b"{\n  " + b",\n  ".join(fields) + b"\n}\n"
    return b"{" + b",".join(fields) + b"}"


def _dump(value: object, form: Answers) -> bytes:
    return (_PRETTY if form.pretty else _COMPACT)(value).encode()
