"""Reads an HTTP/1.x answer piece by piece: the head, the body, and the oddities of both. Pure.

The reader never refuses an answer: it returns every byte of it, whatever the head looks like. If the head
cannot be parsed, all bytes are the body. The transfer coding `chunked` is undone as far as it is well formed.
Nothing is decompressed.
"""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from poller.runtime.http_head import AnswerHead, Delimiter, Framing, frame, read_head, read_status

LARGEST_HEAD: Final = 1024 * 1024
LARGEST_INTERIM: Final = 64 * 1024
MOST_INTERIM: Final = 1000
"""Informational answers (1xx) that may precede an answer. A server that sends more, or longer ones, never answers."""

_NO_HEAD = re.compile(rb"[{\[<\"'(]|\xef\xbb\xbf|\xff\xfe|\xfe\xff|\x1f\x8b|\0")
_HEAD_END = re.compile(rb"\n\r?\n")
_BLANK = re.compile(rb"[\r\n]+")
_CHUNK = re.compile(rb"[ \t]*(0[xX])?0*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*?)?(\r*)\n")
_CHUNK_BEGUN = re.compile(rb"[ \t]*(?:0[xX])?[0-9A-Fa-f]*(?:[ \t]*\r*|[ \t]*;[^\n]*)")
_LONGEST_CHUNK_LINE = 16 * 1024


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it was received. `framed`: it ended where its framing says. `cut`: it ended before."""

    head: AnswerHead
    by: Delimiter
    coding: str
    body: bytes
    framed: bool
    cut: bool
    odd: tuple[str, ...]


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
            status, version, _ = read_status(bytes(self._data[:end]))
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
        head = read_head(bytes(self._data)) if newline and read_status(bytes(first))[0] else None
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
