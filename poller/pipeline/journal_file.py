"""The format of the journal's file, and reading it, however damaged it is.

Constraints
    A page may be any bytes, even bytes that look like a frame. A kill may cut a write anywhere. After a power
    cut, any part of the bytes that were not synced may be on the disk. A damaged file must lose only the damaged pages,
    and the damage must be reported.

Layout
    The first block holds two records, each with a CRC-32. The record at 0 holds the magic, the mark, the size, and
    `released`, the number up to which every page is released. The record at 2048 holds the same fields and two more:
    `synced`, the number up to which every frame is on the disk, and `committed`, the highest number that the spool has
    committed. Frames begin at multiples of 4096 bytes. A frame holds the mark, a number, a length, a CRC-32 of number
    and page, and the page. The mark is random for each file, so that a page cannot forge a frame.

Reading
    A page whose number is above `released`, and not above `synced`, is damaged if it is not found. A frame above
    `synced` that cannot be read was never acknowledged. If one record cannot be read, the other one is used. If both
    cannot be read, the mark is taken from the first whole frame, and all pages count as not released: a page that is
    committed twice changes nothing.

Deleting
    A frame is overwritten with zeros after the record that releases it is on the disk.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from poller.core.errors import StorageError
from poller.core.model import RawPage
from poller.runtime.durable_files import open_locked

BLOCK = 4096
RECORD_AT = 2048
NOBODY = "journal"
"""The source of bytes in quarantine whose real source is unknown."""

_OLD = struct.Struct("<8s16sQQI")
_OLD_MAGIC = b"POLLERJ1"
_RECORD = struct.Struct("<8s16sQQQQI")
_MAGIC = b"POLLERR1"
_FRAME = struct.Struct("<16sQII")
_ZEROS = bytes(BLOCK)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(RawPage).decode


class JournalHead(msgspec.Struct, frozen=True, kw_only=True):
    """The values of the first block; 0 for a number that is unknown."""

    mark: bytes
    size: int
    released: int
    synced: int = 0
    committed: int = 0


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The place of a page in the file. `span` is its length in bytes, a multiple of `BLOCK`."""

    number: int
    offset: int
    span: int


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a file after its first block."""

    pages: tuple[tuple[Frame, RawPage], ...]
    """The pages that are not released, in order of their numbers."""
    rest: tuple[tuple[int, int], ...]
    """Offset and length of all other bytes that are not zero: released frames, cut frames, damaged frames."""
    damaged: tuple[tuple[int, int], ...]
    """The entries of `rest` that are not whole released frames."""


# ---------------------------------------------------------------- the first block


def encode_head(head: JournalHead) -> bytes:
    """The beginning of the first block, with both records, for one write."""
    old = (_OLD_MAGIC, head.mark, head.size, head.released)
    new = (_MAGIC, head.mark, head.size, head.released, head.synced, head.committed)
    first = _OLD.pack(*old, zlib.crc32(_OLD.pack(*old, 0)))
    return first.ljust(RECORD_AT, b"\0") + _RECORD.pack(*new, zlib.crc32(_RECORD.pack(*new, 0)))


def read_head(fd: int) -> tuple[JournalHead | None, str]:
    """The values of the first block (None if neither record can be read), and its damage in words (empty if none)."""
    block = os.pread(fd, BLOCK, 0).ljust(BLOCK, b"\0")
    old = _record(_OLD, _OLD_MAGIC, block[: _OLD.size])
    new = _record(_RECORD, _MAGIC, block[RECORD_AT : RECORD_AT + _RECORD.size])
    if old is None and new is None:
        return None, "its first block cannot be read"
    if old is None or new is None:
        other = block[RECORD_AT:] if new is None else block[:RECORD_AT]
        # an older version of the program leaves zeros at 2048
        damage = "" if new is None and not any(other) else "one half of its first block cannot be read"
        return old or new, damage
    return msgspec.structs.replace(new, released=max(old.released, new.released)), ""


def _record(form: struct.Struct, magic: bytes, raw: bytes) -> JournalHead | None:
    found, mark, size, *numbers, checksum = form.unpack(raw)
    if found != magic or checksum != zlib.crc32(form.pack(found, mark, size, *numbers, 0)) or not size:
        return None
    return JournalHead(
        **dict(zip(("released", "synced", "committed"), numbers, strict=False)), mark=mark, size=size
    )


def is_blank(fd: int) -> bool:
    """Whether a file is empty or all zeros: an earlier first start was cut short, before any page."""
    offset = 0
    while chunk := os.pread(fd, 1 << 20, offset):
        if any(chunk):
            return False
        offset += len(chunk)
    return True


def find_mark(fd: int, size: int) -> bytes | None:
    """The mark of the first whole frame, for a file whose first block cannot be read; None without such a frame."""
    for offset in range(BLOCK, size, BLOCK):
        head = os.pread(fd, _FRAME.size, offset)
        if any(head[:16]) and _frame_at(fd, offset, head, size) is not None:
            return head[:16]
    return None


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A journal of a stopped daemon: how many pages are not released, and the highest number that was committed."""

    left: int = 0
    committed: int = 0


def look_at(path: Path) -> Look:
    """Look at a journal without changing it. One that does not exist holds nothing.

    Raises `StorageLocked` while a daemon has it, and `StorageError` if it cannot be read.
    """
    if not path.exists():
        return Look()
    try:
        fd = open_locked(path, f"journal {path}")
        try:
            return _look(fd, path)
        finally:
            os.close(fd)
    except OSError as error:
        raise StorageError(f"journal {path}: {error.strerror}") from error


def _look(fd: int, path: Path) -> Look:
    head, trouble = read_head(fd)
    if head is None and is_blank(fd):
        return Look()
    if head is None:
        raise StorageError(f"journal {path}: {trouble}")
    size = min(os.fstat(fd).st_size, head.size)
    furthest = max(head.released, head.synced) + 2 * head.size // BLOCK
    pages = read_contents(fd, head.mark, size, head.released, furthest).pages
    last = max([head.released, head.synced, *(frame.number for frame, _ in pages)])
    return Look(left=last - head.released, committed=head.committed)


# ---------------------------------------------------------------- frames


def span_of(length: int) -> int:
    """The bytes that a page of this length takes in the file, with its frame header."""
    return -(-(length + _FRAME.size) // BLOCK) * BLOCK


def encode_page(page: RawPage) -> bytes:
    """The stored bytes of a page."""
    return _encode(page)


def encode_frame(mark: bytes, number: int, payload: bytes) -> bytes:
    """The stored bytes of a page behind their frame header."""
    return _FRAME.pack(mark, number, len(payload), _checksum(number, payload)) + payload


def read_contents(fd: int, mark: bytes, size: int, released: int, furthest: int) -> Contents:
    """The contents of a file up to `size`. Frames that cannot be read, or are above `furthest`, are damaged."""
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


def read_remains(fd: int, contents: Contents, most: int) -> Iterator[RawPage]:
    """The remains of damaged pages: a page where it can be decoded, otherwise raw bytes with the source `NOBODY`."""
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
    """Add a block that is not zero. It extends the place right before it, unless a frame begins in it."""
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
    except Exception:  # the bytes may be damaged: any exception means that they are no page
        return None


def _checksum(number: int, payload: bytes) -> int:
    return zlib.crc32(payload, number & 0xFFFFFFFF)


def pwrite_all(fd: int, chunk: bytes, offset: int) -> None:
    """Write all of `chunk`, even if the kernel takes it in parts."""
    view = memoryview(chunk)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def wipe(fd: int, offset: int, length: int) -> None:
    """Overwrite a range with zeros."""
    while length > 0:
        some = min(length, len(_WIPE))
        pwrite_all(fd, _WIPE[:some], offset)
        offset, length = offset + some, length - some


_WIPE = bytes(1 << 20)
