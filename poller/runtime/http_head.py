"""Parses the head of an HTTP/1.x answer, and finds out where the body ends. Pure.

No head is refused: all that is wrong or very unusual is listed in `odd`.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

import msgspec

USUAL_LINE: Final = 8190
USUAL_FIELDS: Final = 100
LONGEST_DATE: Final = 64

_STATUS = re.compile(rb"(HTTP/1\.[0-9]) +([0-9]{3})(?:[ \t](.*))?", re.DOTALL)
_LOOSE_STATUS = re.compile(rb"[A-Za-z]{2,8}(?:/[0-9.]{0,8})?[ \t]+([1-9][0-9]{2})(?:[ \t\r].*)?", re.DOTALL)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(r"[0-9]{1,15}")


class AnswerHead(msgspec.Struct, frozen=True, kw_only=True):
    """A status line and headers. `status` is 0 where the status line cannot be read; names are in lower case.

    `version` is `HTTP/1.1` or the like where the status line is one of RFC 9112, else empty.
    """

    status: int = 0
    version: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    odd: tuple[str, ...] = ()

    def get(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.fields if key == name), None)

    def all(self, name: str) -> list[str]:
        """The elements of a header that is a list, however often the header is there."""
        values = [value for key, value in self.fields if key == name]
        return [part.strip() for value in values for part in value.split(",")]


class Delimiter(Enum):
    """The sign by which the end of a body is recognised."""

    NOTHING = "nothing"
    LENGTH = "length"
    CHUNKS = "chunks"
    CLOSE = "close"
    CONFLICT = "conflict"


class Framing(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a body. `coding` is a transfer coding beneath `chunked`, and is not undone."""

    by: Delimiter
    length: int = 0
    coding: str = ""
    odd: tuple[str, ...] = ()


def read_head(text: bytes) -> AnswerHead | None:
    """Parse a head, without its blank line. None if the text has neither a status nor a header."""
    first, _, rest = text.partition(b"\n")
    status, version, odd = read_status(first)
    if not status and b":" in first and _LOOSE_STATUS.match(first) is None:
        rest, odd = text, ["no status line"]
    fields, more = _read_fields(rest)
    if not status and not fields:
        return None
    if b"\n" in text.replace(b"\r\n", b""):
        more.append("a line end without CR")
    return AnswerHead(status=status, version=version, fields=fields, odd=tuple(dict.fromkeys(odd + more)))


def read_status(line: bytes) -> tuple[int, str, list[str]]:
    """The status (0 if unreadable), the version (empty if the line is not one of RFC 9112), and the oddities."""
    line = line.removesuffix(b"\r")
    if strict := _STATUS.fullmatch(line):
        odd = ["a control character"] if _CONTROL.search(strict[3] or b"") else []
        return int(strict[2]), strict[1].decode(), odd
    loose = _LOOSE_STATUS.fullmatch(line)
    return int(loose[1]) if loose else 0, "", ["a garbled status line"]


def _read_fields(text: bytes) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    found: list[tuple[str, str]] = []
    odd: list[str] = []
    for line, folded in _unfold(text):
        odd += _judge_line(line, folded)
        name, colon, value = line.partition(b":")
        if colon and name.strip():
            found.append((name.strip().decode("latin-1").lower(), value.strip().decode("latin-1")))
    if len(found) > USUAL_FIELDS:
        odd.append(f"{len(found)} headers")
    return tuple(found), odd


def _unfold(text: bytes) -> Iterator[tuple[bytes, bool]]:
    """The headers' lines, each with whether it was folded or indented."""
    parts: list[bytes] = []
    folded = False
    for line in [*text.split(b"\n"), b""]:
        if line[:1] in (b" ", b"\t"):
            parts.append(line.strip())
            folded = True
            continue
        if whole := b" ".join(part for part in parts if part):
            yield whole, folded
        parts, folded = [line.removesuffix(b"\r")], False


def _judge_line(line: bytes, folded: bool) -> Iterator[str]:
    name, colon, value = line.partition(b":")
    if len(line) > USUAL_LINE:
        yield f"a header of {len(line)} bytes"
    if folded:
        yield "a folded header"
    if not colon:
        yield "a header without a colon"
    elif name[-1:] in (b" ", b"\t"):
        yield "a space before a header's colon"
    elif not _TOKEN.fullmatch(name):
        yield "a header's name that is none"
    if _CONTROL.search(value):
        yield "a control character"


def frame(head: AnswerHead) -> Framing:
    """Determine the end of a body from the head of its answer."""
    lengths = head.all("content-length")
    codings = [coding.lower() for coding in head.all("transfer-encoding") if coding]
    if head.status in (204, 304):
        odd = (
            ["a length where no body is"]
            if codings or (head.status == 204 and lengths not in ([], ["0"]))
            else []
        )
        return Framing(by=Delimiter.NOTHING, odd=tuple(odd))
    odd = ["Transfer-Encoding: identity"] if "identity" in codings else []
    codings = [coding for coding in codings if coding != "identity"]
    if not codings:
        return _frame_by_length(lengths, odd)
    if lengths:
        odd.append("Content-Length beside Transfer-Encoding")
    if codings[-1] != "chunked":
        return Framing(by=Delimiter.CLOSE, odd=(*odd, "an unknown Transfer-Encoding"))
    if codings.count("chunked") > 1:
        odd.append("chunked twice")
    beneath = [coding for coding in codings if coding != "chunked"]
    if beneath:
        odd.append("a transfer coding beneath chunked")
    return Framing(by=Delimiter.CHUNKS, coding=", ".join(beneath), odd=tuple(odd))


def _frame_by_length(lengths: list[str], odd: list[str]) -> Framing:
    if not lengths:
        return Framing(by=Delimiter.CLOSE, odd=tuple(odd))
    known = {int(length) if _LENGTH.fullmatch(length) else length for length in lengths}
    if len(known) > 1:
        return Framing(by=Delimiter.CONFLICT, odd=(*odd, "lengths that conflict"))
    length = known.pop()
    if isinstance(length, str):
        return Framing(by=Delimiter.CLOSE, odd=(*odd, "a Content-Length that is none"))
    if len(lengths) > 1:
        odd.append("Content-Length twice")
    return Framing(by=Delimiter.LENGTH, length=length, odd=tuple(odd))


def read_date(text: str) -> datetime | None:
    """The moment of an HTTP date, aware; None for an unreadable or unrepresentable one."""
    if len(text) > LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC)
