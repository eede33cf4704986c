"""The journal's file: its form, and what is found in one, however damaged.

Constraints
    A page may be any bytes, also bytes that look like a frame. A write may be cut anywhere by a kill, and a power cut
    keeps any part of what was not synced. A damaged file must lose no more than what is damaged, and say so.

Layout
    The first block holds two records, each with a CRC-32. At 0: magic, mark, size, and `released`, the number up to
    which the spool has every page. At 2048: the same once more, `synced` (every frame up to it is on the disk) and
    `committed` (the highest number that the spool committed). Frames begin at multiples of 4096 bytes: the mark, which
    is random per file, so that a page cannot forge a frame; a number, a length, and a CRC-32 of number and page.

Reading
    Every number above `released` and up to `synced` must be found, else its page is damaged. A frame above `synced`
    that cannot be read was never acknowledged. If one record is unreadable, the other one serves; if both are, the
    frames' own mark is taken, and all of them count as not released, because a page that is read in twice changes
    nothing.

Deleting
    A frame is overwritten with zeros once a record that calls it released is on the disk.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from poller.core.model import RawPage

BLOCK = 4096
RECORD_AT = 2048
NOBODY = "journal"
"""The source under which bytes go to quarantine when nobody can tell whose they are."""

_OLD = struct.Struct("<8s16sQQI")
_OLD_MAGIC = b"POLLERJ1"
_RECORD = struct.Struct("<8s16sQQQQI")
_MAGIC = b"POLLERR1"
_FRAME = struct.Struct("<16sQII")
_ZEROS = bytes(BLOCK)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(RawPage).decode


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What the first block says; 0 for what it does not know."""

    mark: bytes
    size: int
    released: int
    synced: int = 0
    committed: int = 0


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """Where a page lies; `span` is in whole blocks."""

    number: int
    offset: int
    span: int


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds beside its first block."""

    pages: tuple[tuple[Frame, RawPage], ...]
    """Those that are not released, by number."""
    rest: tuple[tuple[int, int], ...]
    """Offset and length of all else that is not zero: released frames, cut ones, damaged ones."""
    damaged: tuple[tuple[int, int], ...]
    """Those among them that are no whole released frame."""


# ---------------------------------------------------------------- the first block


def packed(head: Head) -> bytes:
    """The first block's beginning, to be written at once."""
    old = (_OLD_MAGIC, head.mark, head.size, head.released)
    new = (_MAGIC, head.mark, head.size, head.released, head.synced, head.committed)
    first = _OLD.pack(*old, zlib.crc32(_OLD.pack(*old, 0)))
    return first.ljust(RECORD_AT, b"\0") + _RECORD.pack(*new, zlib.crc32(_RECORD.pack(*new, 0)))


def read_head(fd: int) -> tuple[Head | None, str]:
    """The first block, None if neither record can be read; and what is damaged in it, empty if nothing is."""
    block = os.pread(fd, BLOCK, 0).ljust(BLOCK, b"\0")
    old = _record(_OLD, _OLD_MAGIC, block[: _OLD.size])
    new = _record(_RECORD, _MAGIC, block[RECORD_AT : RECORD_AT + _RECORD.size])
    if old is None and new is None:
        return None, "its first block cannot be read"
    if old is None or new is None:
        other = block[RECORD_AT:] if new is None else block[:RECORD_AT]
        # zeros at 2048: an older version wrote the file
        damage = "" if new is None and not any(other) else "one half of its first block cannot be read"
        return old or new, damage
    return msgspec.structs.replace(new, released=max(old.released, new.released)), ""


def _record(form: struct.Struct, magic: bytes, raw: bytes) -> Head | None:
    found, mark, size, *numbers, checksum = form.unpack(raw)
    if found != magic or checksum != zlib.crc32(form.pack(found, mark, size, *numbers, 0)) or not size:
        return None
    return Head(**dict(zip(("released", "synced", "committed"), numbers, strict=False)), mark=mark, size=size)


def is_blank(fd: int) -> bool:
    """Whether a file is empty or all zeros: a first start that was cut short, before any page."""
    offset = 0
    while chunk := os.pread(fd, 1 << 20, offset):
        if any(chunk):
            return False
        offset += len(chunk)
    return True


def found_mark(fd: int, size: int) -> bytes | None:
    """The mark of the first whole frame, for a file whose first block does not say it."""
    for offset in range(BLOCK, size, BLOCK):
        head = os.pread(fd, _FRAME.size, offset)
        if any(head[:16]) and _frame_at(fd, offset, head, size) is not None:
            return head[:16]
    return None


# ---------------------------------------------------------------- frames


def span_of(length: int) -> int:
    """The bytes that a page of this length takes, with its frame."""
    return -(-(length + _FRAME.size) // BLOCK) * BLOCK


def encoded(page: RawPage) -> bytes:
    """A page as it is stored."""
    return _encode(page)


def framed(mark: bytes, number: int, payload: bytes) -> bytes:
    """A page with its frame."""
    return _FRAME.pack(mark, number, len(payload), _checksum(number, payload)) + payload


def read_contents(fd: int, mark: bytes, size: int, released: int, furthest: int) -> Contents:
    """Everything in a file up to `size`; what cannot be read, or has a number beyond `furthest`, is no obstacle."""
    pages: list[tuple[Frame, RawPage]] = []
    stale: list[tuple[int, int]] = []
    damaged: list[tuple[int, int]] = []
    offset = BLOCK
    while offset < size:
        block = os.pread(fd, BLOCK, offset)
        if not block:
            break
        step = BLOCK
        if block[:16] == mark and (payload := _frame_at(fd, offset, block[: _FRAME.size], size)) is not None:
            number, step = _number(block), span_of(len(payload))
            page = _page(payload) if released < number <= furthest else None
            if page is not None:
                pages.append((Frame(number=number, offset=offset, span=step), page))
            else:
                (stale if number <= released else damaged).append((offset, step))
        elif block != _ZEROS[: len(block)]:
            _extend(damaged, offset, begins=block[:16] == mark)
        offset += step
    pages.sort(key=lambda item: item[0].number)
    return Contents(pages=tuple(pages), rest=(*stale, *damaged), damaged=tuple(damaged))


def remains(fd: int, contents: Contents, most: int) -> Iterator[RawPage]:
    """What is left of damaged pages: each as far as it can be read, or as raw bytes of `NOBODY`."""
    now = datetime.now(UTC)
    for offset, length in contents.damaged:
        raw = os.pread(fd, min(length, most), offset)
        stored = int.from_bytes(raw[24:28], "little")
        page = _page(raw[_FRAME.size :][:stored])
        if page is not None:
            yield page
        else:
            yield RawPage(source=NOBODY, received_at=now, status=0, encoding="", whole=False, body=raw)


def _extend(places: list[tuple[int, int]], offset: int, *, begins: bool) -> None:
    """One more block that is not zero: of the place before it, unless a frame begins there."""
    if places and not begins and sum(places[-1]) == offset:
        places[-1] = (places[-1][0], places[-1][1] + BLOCK)
    else:
        places.append((offset, BLOCK))


def _frame_at(fd: int, offset: int, head: bytes, size: int) -> bytes | None:
    if len(head) < _FRAME.size:
        return None
    _, number, length, checksum = _FRAME.unpack(head)
    if length > size - offset - _FRAME.size:
        return None
    payload = os.pread(fd, length, offset + _FRAME.size)
    if len(payload) != length or _checksum(number, payload) != checksum:
        return None
    return payload


def _number(block: bytes) -> int:
    return int.from_bytes(block[16:24], "little")


def _page(payload: bytes) -> RawPage | None:
    try:
        return _decode(payload)
    except Exception:  # a reader of damaged bytes: whatever it raises, they are no page
        return None


def _checksum(number: int, payload: bytes) -> int:
    return zlib.crc32(payload, number & 0xFFFFFFFF)


def pwrite_all(fd: int, chunk: bytes, offset: int) -> None:
    """Write all of it, also where the kernel takes it in parts."""
    view = memoryview(chunk)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def wipe(fd: int, offset: int, length: int) -> None:
    """Overwrite with zeros."""
    while length > 0:
        some = min(length, len(_WIPE))
        pwrite_all(fd, _WIPE[:some], offset)
        offset, length = offset + some, length - some


_WIPE = bytes(1 << 20)
