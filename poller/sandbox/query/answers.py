"""What the interfaces say, in every form they were seen or suspected to say it."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence

import msgspec

from poller.sandbox.channels import Status
from poller.sandbox.options import Answers
from poller.sandbox.query.messages import Message, Said

__all__ = ["Said", "encode", "file_list", "page", "refusal", "status"]

NO_ROWS = 10003
Row = Mapping[str, str | None]
_compact = msgspec.json.Encoder().encode


def page(messages: Sequence[Message], form: Answers, ret: int = 0) -> bytes:
    """The text of a Live_Queue_Get's answer, before it is encoded for the wire."""
    data = _array([message.body for message in messages], form)
    if not messages:
        return _empty_answer(_rows(_count("count", 0, form.count), "data", data), form, ret)
    if form.output == "list":
        return _envelope(form, ret, form.success, data)
    output = _rows(_count("count", len(messages), form.count), "data", data)
    return _envelope(form, ret, form.success, _box(output, form.output == "array"))


def file_list(total: int, rows: Sequence[Row], form: Answers, ret: int = 0) -> bytes:
    """The text of a Live_Tape_GetFilelist's answer. A page after the last one has the total too."""
    listed = _array([_one(row, form) for row in rows], form)
    output = _rows(_count("all_count", total, form.all_count), "file_list", listed)
    if not total:
        return _empty_answer(output, form, ret)
    return _envelope(form, ret, form.success, _box(output, form.file_list == "array"))


def status(state: Status, form: Answers, ret: int = 0) -> bytes:
    """The text of a Live_Channel_GetStatus' answer: the original rate, received by RTMP, and the state."""
    output = _one({"rate_type": 0, "recv_type": 1, "status": int(state)}, form)
    return _envelope(form, ret, form.success, _box(output, form.status == "array"))


def refusal(ret: int, message: str, form: Answers) -> bytes:
    """The text of an answer that refuses."""
    return _envelope(form, ret, message, b"")


def encode(text: bytes, form: Answers) -> bytes:
    """The bytes that are sent for a text."""
    if form.encoding == "utf-8-bom":
        text = b"\xef\xbb\xbf" + text
    elif form.encoding == "utf-16":
        text = text.decode("utf-8", "replace").encode("utf-16")
    return gzip.compress(text, 1) if form.gzip else text


def _empty_answer(output: bytes, form: Answers, ret: int) -> bytes:
    """An answer without any row; `output` is its form where that is an object."""
    if form.empty == "10003":
        return _envelope(form, ret or NO_ROWS, "no rows", b"")
    outputs = {"object": output, "array": b"[]", "null": b"null", "missing": b""}
    return _envelope(form, ret, form.success, outputs[form.empty])


def _count(name: str, number: int, written: str) -> bytes:
    """A counter and its name. `written` is one of the forms that `Answers` lists."""
    number += 7 if written == "wrong" and number else 0
    return (
        b'"%s":"%d"' % (name.encode(), number)
        if written == "string"
        else b'"%s":%d' % (name.encode(), number)
    )


def _rows(count: bytes, key: str, rows: bytes) -> bytes:
    return b'{%s,"%s":%s}' % (count, key.encode(), rows)


def _box(output: bytes, boxed: bool) -> bytes:
    return b"[" + output + b"]" if boxed else output


def _array(rows: Sequence[bytes], form: Answers) -> bytes:
    return b"[" + (b",\n" if form.pretty else b",").join(rows) + b"]"


def _one(value: Mapping[str, object], form: Answers) -> bytes:
    text = _compact(value)
    return msgspec.json.format(text, indent=2) if form.pretty else text


def _envelope(form: Answers, ret: int, message: str, output: bytes) -> bytes:
    text = _compact(message)
    fields = [b'"ret":"%d"' % ret if form.ret == "string" else b'"ret":%d' % ret, b'"message":' + text]
    if form.extra:
        fields += [b'"retcode":%d' % ret, b'"errmsg":' + text]
    if output:
        fields.append(b'"output":' + output)
    if form.pretty:
        return b"{\n  " + b",\n  ".join(fields) + b"\n}\n"
    return b"{" + b",".join(fields) + b"}"
