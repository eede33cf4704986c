"""Splits an answer that is not valid JSON into messages. Pure, linear, without recursion on depth.

A message is an object that names a picture, or an element of an array: one under `data` or `output`, or the
whole answer. In a cut answer only objects at these places count, because an object inside a message without
an end may be any part of it.
"""

import re

import msgspec

_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)("|\\?\Z)(\s*+:)?|[\[\]{}]', re.DOTALL)
_NESTED = re.compile(rb'[\s\\"]*+[\[{]')
_ESCAPE = re.compile(
    rb"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL
)
_SHORT = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_PICTURE = frozenset({b"pic_url", b"pic_full_url"})
_PASSAGE = frozenset({b"data", b"output"})
_DEEPEST = 256
_MOST_NESTED = 3


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """The messages found, and the rest: the text with `null` in each message's place.

    `torn` holds what was left of strings that hold JSON themselves and are broken. `closed` tells that every
    bracket and string was closed.
    """

    messages: tuple[bytes, ...]
    rest: bytes
    torn: tuple[bytes, ...]
    closed: bool


def split(text: bytes, level: int = 0) -> Split:
    """Find the messages in any bytes, however broken; messages and rest together hold every byte."""
    scan = _Scan(text, level)
    scan.run()
    return scan.result()


class _Frame:
    __slots__ = ("curly", "edge", "found", "holds", "key", "pictured", "start", "streamed")

    def __init__(self, curly: bool, start: int, edge: bytes, found: int) -> None:
        self.curly, self.start, self.edge, self.found = curly, start, edge, found
        self.key = b""
        self.pictured = self.streamed = self.holds = False

    def note(self, key: bytes) -> None:
        self.key = key
        if key in _PICTURE:
            self.pictured = True
        elif key == b"stream_id":
            self.streamed = True
        elif key in _PASSAGE:
            self.holds = True


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    start: int
    end: int
    sure: bool
    inner: Split | None = None


class _Scan:
    """One pass over the tokens. `frames` are the open brackets. `open` counts the square and the curly ones.
    `deep` counts brackets beyond the depth at which messages are searched for."""

    def __init__(self, text: bytes, level: int) -> None:
        self.text, self.level = text, level
        self.frames: list[_Frame] = []
        self.open = [0, 0]
        self.deep = bytearray()
        self.found: list[_Found] = []
        self.unclosed_string = False

    def run(self) -> None:
        for token in _TOKEN.finditer(self.text):
            first = self.text[token.start()]
            if first == 0x22:
                self._string(token)
            elif first in b"{[":
                self._open(first == 0x7B, token.start())
            else:
                self._close(first == 0x7D, token.end())

    def result(self) -> Split:
        closed = not self.frames and not self.deep and not self.unclosed_string
        if self.frames:
            self._doubt()
        pieces: list[bytes] = []
        messages: list[bytes] = []
        torn: list[bytes] = []
        last = 0
        for item in self.found:
            pieces.append(self.text[last : item.start])
            last = item.end
            if item.inner is None:
                messages.append(self.text[item.start : item.end])
                continue
            messages.extend(item.inner.messages)
            torn.extend(item.inner.torn)
            if not is_json(item.inner.rest):
                torn.append(item.inner.rest)
            closed = closed and item.inner.closed
        pieces.append(self.text[last:])
        return Split(messages=tuple(messages), rest=b"null".join(pieces), torn=tuple(torn), closed=closed)

    def _doubt(self) -> None:
        # The answer was cut: what lies inside a message without its end, or at an unknown place, is none.
        suspect = [frame.start for frame in self.frames if frame.pictured and not frame.holds]
        limit = min(suspect, default=len(self.text))
        self.found = [item for item in self.found if item.sure and item.start < limit]

    def _string(self, token: re.Match[bytes]) -> None:
        content, close, colon = token.groups()
        self.unclosed_string = close != b'"'
        if self.deep:
            return
        top = self.frames[-1] if self.frames else None
        if colon and top is not None and top.curly:
            top.note(content)
        elif b"pic_" in content and self.level < _MOST_NESTED and _NESTED.match(content):
            inner = split(unescape(content), self.level + 1)
            if inner.messages:
                sure = self._edge() in _PASSAGE or not self._edge()
                self.found.append(_Found(start=token.start(), end=token.end(2), sure=sure, inner=inner))

    def _edge(self) -> bytes:
        if not self.frames:
            return b""
        top = self.frames[-1]
        return top.key if top.curly else top.edge

    def _open(self, curly: bool, start: int) -> None:
        if self.deep or len(self.frames) >= _DEEPEST:
            self.deep.append(curly)
        else:
            self.frames.append(_Frame(curly, start, self._edge(), len(self.found)))
            self.open[curly] += 1

    def _close(self, curly: bool, end: int) -> None:
        # A closing bracket closes the nearest opening one of its kind; unclosed ones between are given up.
        if self.deep:
            opening = self.deep.rfind(bytes([curly]))
            if opening >= 0:
                del self.deep[opening:]
                return
            self.deep.clear()
        if not self.open[curly]:
            return
        while (frame := self.frames.pop()).curly != curly:
            self.open[frame.curly] -= 1
        self.open[curly] -= 1
        if curly:
            self._closed_object(frame, end)

    def _closed_object(self, frame: _Frame, end: int) -> None:
        inside = len(self.found) > frame.found
        if inside and (frame.holds or not frame.pictured):
            return
        sure = frame.edge in _PASSAGE or not frame.edge
        listed = bool(self.frames) and not self.frames[-1].curly
        unnamed = sure and not frame.holds and (listed or (frame.streamed and frame.edge in _PASSAGE))
        if frame.pictured or unnamed:
            del self.found[frame.found :]
            self.found.append(_Found(start=frame.start, end=end, sure=sure))


def is_json(text: bytes) -> bool:
    """Whether this is one whole JSON value (msgspec's reading: strict, but blind to invalid UTF-8)."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def unescape(content: bytes) -> bytes:
    """Undo the escapes in the text between a JSON string's quotes. A lone surrogate becomes invalid UTF-8."""
    return _ESCAPE.sub(_plain, content)


def _plain(escape: re.Match[bytes]) -> bytes:
    high, low, unit, short = escape.groups()
    if short is not None:
        return _SHORT.get(short, short)
    if unit is not None:
        return chr(int(unit, 16)).encode("utf-8", "surrogatepass")
    code = 0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00)
    return chr(code).encode()
