"""FLV files: written tag by tag, closed with their length, read back, repaired after a crash.

The format: Adobe Flash Video File Format Specification 10.1, annex E; its script data is AMF0.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from poller.sandbox.media.tags import AUDIO, SCRIPT, VIDEO, Packet, Tag, look

BUFFER = 256 * 1024
"""Bytes that wait in memory at most (and one more tag) before they are written."""
MAX_METADATA = 16 * 1024
"""Bytes of a publisher's metadata that are looked at."""

_HEADER = b"FLV\x01\x05" + (9).to_bytes(4, "big") + bytes(4)
_FLAGS_AT = 4
_FLAGS = {AUDIO: 4, VIDEO: 1}
_TAG = struct.Struct(">II3x")
_SIZE = struct.Struct(">I")
_NUMBER = struct.Struct(">d")

_NAME = b"\x02\x00\x0aonMetaData"
_DURATION, _FILESIZE = b"\x00\x08duration\x00", b"\x00\x08filesize\x00"
_DURATION_AT = len(_HEADER) + _TAG.size + len(_NAME) + 5 + len(_DURATION)
_FILESIZE_AT = _DURATION_AT + _NUMBER.size + len(_FILESIZE)
# AMF0 values of fixed length, by marker: number, boolean, null, undefined, date.
_FIXED = {0: 9, 1: 2, 5: 1, 6: 1, 11: 11}
_STRING, _OBJECT, _ECMA_ARRAY = 2, 3, 8

_FLUSH = 1000  # milliseconds of media that a kill may take from a slow stream
_LONGEST_FRAME = 1000


class FrameDurations:
    """How long a frame lasts, per kind: the shorter of the last two steps, at most a second."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._steps = {VIDEO: (40, 40), AUDIO: (23, 23)}  # a guess until two frames came

    def end(self, kind: int, position: int) -> int:
        """When the frame that begins then will end; milliseconds."""
        step = position - self._last.get(kind, position)
        if step > 0:
            self._steps[kind] = (self._steps[kind][1], min(step, _LONGEST_FRAME))
        self._last[kind] = position
        return position + min(self._steps[kind])

    def forget(self) -> None:
        """Forgets the last frames, after a jump of the clock: the next step is not measured."""
        self._last.clear()


class _Kept(NamedTuple):
    """What of a file is on disk: bytes up to the end of a whole tag, kinds of media, milliseconds."""

    size: int = 0
    flags: int = 0
    end: int = 0


class FlvWriter:
    """One FLV file on its way. What a method raises is OSError; `seal` can still save what was flushed before."""

    def __init__(self, file: BinaryIO, metadata: bytes) -> None:
        """The file is unbuffered and empty; `metadata` is a publisher's onMetaData message, or empty."""
        self._file = file
        self._pending: list[bytes] = [_HEADER]
        self._waiting = len(_HEADER)
        self._kept = _Kept()
        self._flags = 0
        self._end = 0
        self._flushed_at = 0
        self.write(SCRIPT, 0, _metadata(metadata))

    @classmethod
    def create(cls, path: Path, metadata: bytes = b"") -> FlvWriter:
        """Begins a file that does not exist yet."""
        return cls(open(path, "xb", buffering=0), metadata)

    def write(self, kind: int, timestamp: int, body: bytes, *, end: int = 0) -> None:
        """Adds a tag. `end` is when what it shows is over, in milliseconds like `timestamp`; 0: it shows nothing."""
        size = len(body)
        self._pending += (_head(kind, timestamp, size), body, _SIZE.pack(size + _TAG.size))
        self._waiting += size + _TAG.size + _SIZE.size
        self._flags |= _FLAGS.get(kind, 0)
        self._end = max(self._end, end)
        if self._waiting >= BUFFER or timestamp - self._flushed_at >= _FLUSH:
            self._flushed_at = timestamp
            self.flush()

    def flush(self) -> None:
        """Everything is in the file: a kill of the process cannot take it any more."""
        rest = memoryview(b"".join(self._pending))
        size = self._kept.size + len(rest)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._pending.clear()
        self._waiting = 0
        self._kept = _Kept(size, self._flags, self._end)

    def seal(self) -> bool:
        """Cuts the file after what was flushed, fills in its length and closes it; False: no media is in it.

        Needs no room on the disk. Also closes when it raises. Not to be called twice.
        """
        with self._file:
            _complete(self._file, self._kept)
        return self._kept.end > 0


def read(file: BinaryIO) -> Iterator[tuple[Tag, int]]:
    """The whole tags from the file's beginning, each with the offset of its end; ends where no whole tag follows."""
    if file.read(len(_HEADER))[:4] != _HEADER[:4]:
        return
    at = len(_HEADER)
    while len(head := file.read(_TAG.size)) == _TAG.size:
        first, second = _TAG.unpack(head)
        kind, size = first >> 24, first & 0xFFFFFF
        body, tail = file.read(size), file.read(_SIZE.size)
        if kind not in (AUDIO, VIDEO, SCRIPT) or tail != _SIZE.pack(size + _TAG.size):
            return
        at += size + _TAG.size + _SIZE.size
        yield Tag(kind, second >> 8 | (second & 0xFF) << 24, body), at


def repair(path: Path) -> float | None:
    """Repairs a file that a FlvWriter never sealed. Returns its seconds of media, or None without media."""
    with open(path, "r+b") as file:
        kept = _survey(file)
        _complete(file, kept)
    return kept.end / 1000 if kept.end else None


def _survey(file: BinaryIO) -> _Kept:
    flags, end, size, pace = 0, 0, 0, FrameDurations()
    for tag, size in read(file):  # noqa: B007 - the last one counts
        if tag.kind == SCRIPT:
            continue
        flags |= _FLAGS[tag.kind]
        payload = look(tag.kind, tag.body)
        if payload.packet in (Packet.KEYFRAME, Packet.FRAME):
            end = max(end, pace.end(tag.kind, tag.timestamp))
    return _Kept(size, flags, end)


def _complete(file: BinaryIO, kept: _Kept) -> None:
    file.truncate(kept.size)
    if kept.size:
        number = file.fileno()
        os.pwrite(number, bytes([kept.flags]), _FLAGS_AT)
        os.pwrite(number, _NUMBER.pack(kept.end / 1000), _DURATION_AT)
        os.pwrite(number, _NUMBER.pack(kept.size), _FILESIZE_AT)


def _head(kind: int, timestamp: int, size: int) -> bytes:
    return _TAG.pack(kind << 24 | size, (timestamp & 0xFFFFFF) << 8 | timestamp >> 24)


def _metadata(publishers: bytes) -> bytes:
    """A segment's onMetaData: its own length, to be filled in, and what the publisher said."""
    zero = _NUMBER.pack(0)
    entries = [_DURATION + zero, _FILESIZE + zero]
    ours = (_DURATION[:-1], _FILESIZE[:-1])
    entries += [key + value for key, value in scalars(publishers) if key not in ours]
    return b"".join([_NAME, bytes([_ECMA_ARRAY]), _SIZE.pack(len(entries)), *entries, b"\x00\x00\x09"])


def scalars(message: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The plain entries of an onMetaData message, keys and values as AMF0 has them, up to the first that is nested.

    Any other message, or a broken one, has none, or fewer.
    """
    if not is_metadata(message):
        return
    message = message[:MAX_METADATA]
    marker = message[len(_NAME)]
    at = len(_NAME) + {_OBJECT: 1, _ECMA_ARRAY: 5}.get(marker, MAX_METADATA)
    while at + 3 < len(message):
        value = at + 2 + int.from_bytes(message[at : at + 2], "big")
        end = value + _length(message[value : value + 3])
        if end == value or end > len(message):
            return
        yield message[at:value], message[value:end]
        at = end


def is_metadata(message: bytes) -> bool:
    """Whether a script message is an onMetaData with something in it."""
    return message.startswith(_NAME) and len(message) > len(_NAME)


def _length(value: bytes) -> int:
    """The length of a plain AMF0 value, derived from its first three bytes; 0 for any other value."""
    if len(value) == 3 and value[0] == _STRING:
        return 3 + int.from_bytes(value[1:], "big")
    return _FIXED.get(value[0], 0) if value else 0
