"""Parses an HTTP/1.x answer: its head, the end of its body, and the oddities of both. Pure.

The reader never refuses an answer: it returns every byte of it, whatever the head looks like. If the head
cannot be parsed, all bytes are the body. The transfer coding `chunked` is undone as far as it is well formed.
Nothing is decompressed.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

import msgspec

LARGEST_HEAD: Final = 1024 * 1024
LARGEST_INTERIM: Final = 64 * 1024
MOST_INTERIM: Final = 1000
"""Informational answers (1xx) that may precede an answer. A server that sends more, or longer ones, never answers."""
USUAL_LINE: Final = 8190
USUAL_FIELDS: Final = 100
LONGEST_DATE: Final = 64

_STATUS = re.compile(rb"(HTTP/1\.[0-9]) +([0-9]{3})(?:[ \t](.*))?", re.DOTALL)
_LOOSE_STATUS = re.compile(rb"[A-Za-z]{2,8}(?:/[0-9.]{0,8})?[ \t]+([1-9][0-9]{2})(?:[ \t\r].*)?", re.DOTALL)
_NO_HEAD = re.compile(rb"[{\[<\"'(]|\xef\xbb\xbf|\xff\xfe|\xfe\xff|\x1f\x8b|\0")
_HEAD_END = re.compile(rb"\n\r?\n")
_BLANK = re.compile(rb"[\r\n]+")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(r"[0-9]{1,15}")
_CHUNK = re.compile(rb"[ \t]*(0[xX])?0*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*?)?(\r*)\n")
_CHUNK_BEGUN = re.compile(rb"[ \t]*(?:0[xX])?[0-9A-Fa-f]*(?:[ \t]*\r*|[ \t]*;[^\n]*)")
_LONGEST_CHUNK_LINE = 16 * 1024


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


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it was received. `framed`: it ended where its framing says. `cut`: it ended before."""

    head: AnswerHead
    by: Delimiter
    coding: str
    body: bytes
    framed: bool
    cut: bool
    odd: tuple[str, ...]


# ---------------------------------------------------------------- heads


def read_head(text: bytes) -> AnswerHead | None:
    """Parse a head, without its blank line. None if the text has neither a status nor a header."""
    first, _, rest = text.partition(b"\n")
    status, version, odd = _read_status(first)
    if not status and b":" in first and _LOOSE_STATUS.match(first) is None:
        rest, odd = text, ["no status line"]
    fields, more = _read_fields(rest)
    if not status and not fields:
        return None
    if b"\n" in text.replace(b"\r\n", b""):
        more.append("a line end without CR")
    return AnswerHead(status=status, version=version, fields=fields, odd=tuple(dict.fromkeys(odd + more)))


def _read_status(line: bytes) -> tuple[int, str, list[str]]:
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


# ---------------------------------------------------------------- the reader


class AnswerReader:
    """Takes an answer's bytes as they come. At most `largest` bytes of the body are kept."""

    def __init__(self, largest: int) -> None:
        self.status: int | None = None
        """The final status, as soon as its line is complete; 0 for a line that is no `HTTP/1.x` status line."""
        self.ended = False
        """The framing says that nothing more belongs to the answer."""
        self.full = False
        """True if further bytes are dropped: the body is too large, or informational answers do not end."""
        self._largest = largest
        self._head: AnswerHead | None = None
        self._framing = Framing(by=Delimiter.CLOSE)
        self._odd: list[str] = []
        self._data = bytearray()
        self._body = bytearray()
        self._looked = 0
        self._left = 0
        self._interim = (0, 0)
        self._step: Callable[[], bool] = self._take_head

    @property
    def body(self) -> bytearray:
        """The bytes of the body that have arrived."""
        return self._body

    @property
    def encoding(self) -> str:
        """The content coding, or the transfer coding beneath `chunked`."""
        named = (self._head.get("content-encoding") or "") if self._head else ""
        return named.strip().lower() or self._framing.coding

    @property
    def began(self) -> bool:
        """Whether the head has arrived."""
        return self._head is not None

    @property
    def stays_open(self) -> bool:
        """Whether a whole answer came, well formed from its first byte to its last, and another may follow."""
        if self._head is None or not self.ended or self.full or self._odd or self._data:
            return False
        says = [option.lower() for option in self._head.all("connection")]
        return "close" not in says and (self._head.version == "HTTP/1.1" or "keep-alive" in says)

    def feed(self, data: bytes) -> None:
        """Take the next bytes; those after the end are kept too."""
        self._data += data
        while not self.full and self._step():
            pass
        if self.ended and len(self._data) > self._largest:
            self.full = True

    def received(self) -> Received:
        """The answer as received. Call this after the last byte."""
        framed = self.ended
        if self._head is None and not self.full:
            self._without_head("a head without end" if self._data else "")
        if self.ended and self._data.strip():
            framed = False
            self._note(f"{len(self._data)} bytes after the end")
            self._keep(len(self._data))
        if self._framing.by in (Delimiter.CLOSE, Delimiter.NOTHING) and (inner := _join_chunks(self._body)):
            self._note("chunks that no header announced")
            self._body = inner
        return Received(
            head=self._head or AnswerHead(),
            by=self._framing.by,
            coding=self._framing.coding,
            body=bytes(self._body),
            framed=framed and not self.full,
            cut=self.full or (not self.ended and self._framing.by in (Delimiter.LENGTH, Delimiter.CHUNKS)),
            odd=tuple(dict.fromkeys(self._odd)),
        )

    def _note(self, *odd: str) -> None:
        self._odd += odd

    def _keep(self, size: int) -> None:
        self._body += self._data[:size]
        del self._data[:size]
        if len(self._body) > self._largest:
            del self._body[self._largest :]
            self.full = True

    # ------------------------------------------------------------ the head

    def _take_head(self) -> bool:
        if blank := _BLANK.match(self._data):
            del self._data[: blank.end()]
            self._note(*(["a blank line before the head"] if self._interim == (0, 0) else []))
        if _NO_HEAD.match(self._data):
            self._without_head("no head")
            return True
        self._look_at_status()
        end = _HEAD_END.search(self._data, max(0, self._looked - 2))
        self._looked = len(self._data)
        if end is None:
            if len(self._data) > LARGEST_HEAD:
                self._without_head("a head without end")
            return len(self._data) > LARGEST_HEAD
        head = read_head(bytes(self._data[: end.start()]))
        if head is None:
            self._without_head("no head")
        elif 100 <= head.status < 200 and head.status != 101:
            self._pass_interim(end.end())
        else:
            self._begin_body(head, end.end())
        return True

    def _look_at_status(self) -> None:
        if self.status is None and (end := self._data.find(b"\n")) >= 0:
            status, version, _ = _read_status(bytes(self._data[:end]))
            if not 100 <= status < 200 or status == 101:
                self.status = status if version else 0

    def _pass_interim(self, size: int) -> None:
        count, total = self._interim
        self._interim = count + 1, total + size
        del self._data[:size]
        self._looked = 0
        if count + 1 > MOST_INTERIM or total + size > LARGEST_INTERIM:
            self._note("informational answers without end")
            self.full = True

    def _begin_body(self, head: AnswerHead, size: int) -> None:
        del self._data[:size]
        self._head, self._framing = head, frame(head)
        self._left = self._framing.length
        self._note(*head.odd, *self._framing.odd)
        match self._framing.by:
            case Delimiter.CHUNKS:
                self._step = self._take_chunk_size
            case Delimiter.LENGTH | Delimiter.NOTHING:
                self._step = self._take_length
            case _:
                self._step = self._take_all

    def _without_head(self, why: str) -> None:
        """Treat all bytes as the body. A head without an end still gives status and headers."""
        first, newline, _ = self._data.partition(b"\n")
        head = read_head(bytes(self._data)) if newline and _read_status(bytes(first))[0] else None
        self._head = head or AnswerHead()
        self.status = self.status or 0
        self._framing = Framing(by=Delimiter.CLOSE)
        self._note(*([why] if why else []))
        self._keep(len(self._data))
        self._step = self._take_all

    # ------------------------------------------------------------ the body

    def _take_all(self) -> bool:
        self._keep(len(self._data))
        return False

    def _take_length(self) -> bool:
        if self.ended:
            return False
        size = min(self._left, len(self._data))
        self._keep(size)
        self._left -= size
        self.ended = not self._left
        return False

    def _take_chunk_size(self) -> bool:
        line = _CHUNK.match(self._data)
        if line is None:
            if not _CHUNK_BEGUN.fullmatch(self._data) or len(self._data) > _LONGEST_CHUNK_LINE:
                return self._break_chunks("a chunk size that is none")
            return False
        if line[1] or line[3] != b"\r":
            self._note("a line end without CR" if not line[3] else "a chunk size in other form")
        self._left = int(line[2], 16)
        del self._data[: line.end()]
        self._step = self._take_chunk if self._left else self._take_trailer
        return True

    def _take_chunk(self) -> bool:
        size = min(self._left, len(self._data))
        self._keep(size)
        self._left -= size
        if self._left or not self._data or self._data == b"\r":
            return False
        end = 1 if self._data[:1] == b"\n" else 2 if self._data[:2] == b"\r\n" else 0
        if not end:
            return self._break_chunks("a chunk that is longer than its size")
        del self._data[:end]
        self._step = self._take_chunk_size
        return True

    def _take_trailer(self) -> bool:
        while not self.ended and (end := self._data.find(b"\n")) >= 0:
            self.ended = not self._data[:end].strip()
            del self._data[: end + 1]
        if len(self._data) > LARGEST_INTERIM and not self.ended:
            self._note("trailers without end")
            self.full = True
        return False

    def _break_chunks(self, why: str) -> bool:
        """Stop undoing `chunked`: the bytes from here on are kept unchanged."""
        self._note(why)
        self._framing = Framing(by=Delimiter.CLOSE, coding=self._framing.coding)
        self._step = self._take_all
        return True


def _join_chunks(body: bytearray) -> bytearray | None:
    """The content of a body that consists of chunks from its first byte to its last; None for any other body."""
    if not _CHUNK.match(body):
        return None
    inner = AnswerReader(len(body))
    inner.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    inner.feed(bytes(body))
    return inner.body if inner.ended and inner.body else None
