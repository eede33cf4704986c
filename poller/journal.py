"""The intake's notebook of raw pages: where a destructive read becomes safe.

A ring of frames in a file whose space is written in advance, so that a full disk cannot refuse a page.
A page is durable when `keep` returns; `release` says that the spool has it. What was kept and not
released is read in again at the next start.

Frames begin at multiples of 4096 bytes: a mark that is random per file (a page cannot forge a frame),
a number, a length and a CRC-32. The first block says which numbers are released; it is written without
an fsync of its own, because a page that is read in twice changes nothing (events have ids).
"""

import asyncio
import os
import struct
import zlib
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from poller.errors import StorageError, StorageFull
from poller.failpoints import reached
from poller.files import is_still_at, make_folder, own, sync_folder
from poller.model import Page
from poller.worker import GroupThread

BLOCK = 4096
LARGEST_PAGE = 4 * 1024 * 1024 + 64 * 1024
"""Bytes set aside for each poll in flight: the most that a source may return (4 MiB) and its framing."""

_HEADER = struct.Struct("<8s16sQQI")
_HEADER_MAGIC = b"POLLERJ1"
_FRAME = struct.Struct("<16sQII")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Page).decode


class _Frame(msgspec.Struct, frozen=True):
    number: int
    offset: int
    span: int  # whole blocks


class _Write(msgspec.Struct, frozen=True):
    frame: _Frame
    payload: bytes


class Journal:
    """A durable ring of pages, owned by one process."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._size = max(size, BLOCK + 2 * (LARGEST_PAGE + BLOCK)) // BLOCK * BLOCK
        self._fd = -1
        self._mark = b""
        self._live: OrderedDict[int, _Frame] = OrderedDict()
        self._released_early: set[int] = set()
        self._next_number = 1
        self._released = 0
        self._held = 0
        self._head = BLOCK
        self._reserved = 0
        self._failed: StorageError | None = None
        self._broken: OSError | None = None
        """The thread's first failure: after it, nothing is written, because no later fsync could be believed."""
        self._room = asyncio.Event()
        self._left_over: list[tuple[int, Page]] = []
        self._header_due = False
        self._thread: GroupThread[_Write | None, None] = GroupThread("journal", self._write)

    async def __aenter__(self) -> Self:
        """Open, preallocate and prove the file writable; raises `StorageError`."""
        await asyncio.get_running_loop().run_in_executor(None, self._open)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close, with what is released written durably."""
        await self._thread.stop()
        if self._fd >= 0:
            if self._failed is None and self._broken is None:
                self._write_header()
                os.fdatasync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def displaced(self) -> str | None:
        """See `Placed.displaced`."""
        if self._fd < 0 or is_still_at(self.path, self._fd):
            return None
        return f"journal {self.path}: the file was moved or deleted"

    def deleted(self) -> bool:
        """Whether the file is deleted; the spool has what was in it."""
        return False

    def left_over(self) -> list[tuple[int, Page]]:
        """Pages that were kept and not released before this start, oldest first, each with its number."""
        pages, self._left_over = self._left_over, []
        return pages

    async def room(self) -> None:
        """Wait until there is space for one more page and set it aside; `cancel_room` or `keep` use it up.

        Raises `StorageError` once the journal has failed. May be cancelled.
        """
        while True:
            if self._failed is not None:
                raise self._failed
            self._room.clear()
            if self._fits(self._reserved + 1):
                self._reserved += 1
                return
            await self._room.wait()

    def cancel_room(self) -> None:
        """Give back what `room` set aside."""
        self._reserved -= 1
        self._room.set()

    async def keep(self, page: Page) -> int:
        """Make a page durable in the space that `room` set aside; returns its number.

        Raises `StorageError` when that failed: then the journal is done for, because what a failed fsync
        left on the disk cannot be known (PostgreSQL's lesson of 2018), and every later call raises too.
        """
        payload = _encode(page)
        self._reserved -= 1
        if self._failed is not None:
            raise self._failed
        frame = self._place(len(payload))
        self._hold(frame)
        try:
            await self._thread.submit(_Write(frame, payload))
        except OSError as error:
            self._failed = StorageError(f"journal: {error.strerror}")
            self._room.set()
            raise self._failed from error
        return frame.number

    def release(self, number: int) -> None:
        """The spool has this page durably; its space may be used again."""
        self._released_early.add(number)
        while self._live and (oldest := next(iter(self._live))) in self._released_early:
            self._released_early.discard(oldest)
            self._held -= self._live.pop(oldest).span
        self._released = next(iter(self._live), self._next_number) - 1
        self._room.set()
        if not self._header_due and self._failed is None:
            self._header_due = True
            self._thread.submit(None).add_done_callback(_ignore)

    @property
    def bytes_held(self) -> int:
        """Bytes of pages that are not released."""
        return self._held

    # ------------------------------------------------------------ the ring

    def _hold(self, frame: _Frame) -> None:
        self._live[frame.number] = frame
        self._held += frame.span

    def _fits(self, pages: int) -> bool:
        largest = _span(LARGEST_PAGE)
        # one page's worth may be lost at the end of the ring, where frames are not split
        return self.bytes_held + (pages + 1) * largest <= self._size - BLOCK

    def _place(self, length: int) -> _Frame:
        span = _span(length)
        tail = next(iter(self._live.values())).offset if self._live else None
        offset = self._head
        if tail is None or offset > tail:
            if offset + span > self._size:
                offset = BLOCK
                if tail is not None and offset + span > tail:
                    raise StorageFull("journal: no room in the ring")
        elif offset + span > tail:
            raise StorageFull("journal: no room in the ring")
        frame = _Frame(self._next_number, offset, span)
        self._next_number += 1
        self._head = offset + span
        return frame

    # ------------------------------------------------------------ in the thread

    def _write(self, jobs: list[_Write | None]) -> list[Exception | None]:
        if self._broken is not None:
            return [self._broken for _ in jobs]
        writes = [job for job in jobs if job is not None]
        try:
            for write in writes:
                self._write_frame(write)
            self._write_header()
            if writes:
                reached("journal.written")
                os.fdatasync(self._fd)
                reached("journal.synced")
        except OSError as error:
            self._broken = error
            return [error for _ in jobs]
        return [None for _ in jobs]

    def _write_frame(self, write: _Write) -> None:
        checksum = _checksum(write.frame.number, write.payload)
        head = _FRAME.pack(self._mark, write.frame.number, len(write.payload), checksum)
        _pwrite_all(self._fd, head + write.payload, write.frame.offset)

    def _write_header(self) -> None:
        self._header_due = False
        fields = (_HEADER_MAGIC, self._mark, self._size, self._released)
        checksum = zlib.crc32(_HEADER.pack(*fields, 0))
        _pwrite_all(self._fd, _HEADER.pack(*fields, checksum), 0)

    # ------------------------------------------------------------ opening

    def _open(self) -> None:
        try:
            make_folder(self.path.parent)
            self._fd = self._own()
            released = self._read_header()
            if released is not None:
                self._scan(released)
            if released is None or (not self._live and os.fstat(self._fd).st_size != self._size):
                self._create()
                reached("journal.created")
            reached("journal.scanned")
            self._write_header()
            os.fdatasync(self._fd)
        except OSError as error:
            raise StorageError(f"journal {self.path}: {error.strerror}") from error

    def _read_header(self) -> int | None:
        head = os.pread(self._fd, _HEADER.size, 0)
        if not any(head):  # empty, or a first start that did not come to its end: no page was ever in it
            return None
        if len(head) == _HEADER.size:
            magic, mark, size, released, checksum = _HEADER.unpack(head)
            if magic == _HEADER_MAGIC and checksum == zlib.crc32(
                _HEADER.pack(magic, mark, size, released, 0)
            ):
                self._mark = mark
                self._next_number = released + 1
                self._released = released
                if os.fstat(self._fd).st_size == size:
                    return int(released)
        self._move_aside()
        return None

    def _move_aside(self) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        aside = f"{self.path.name}.unreadable-{stamp}-{os.urandom(4).hex()}"
        os.rename(self.path, self.path.with_name(aside))
        os.close(self._fd)
        self._fd = self._own()

    def _own(self) -> int:
        return own(self.path, f"journal {self.path}")

    def _create(self) -> None:
        """Write every byte, so that no later write needs space; the mark goes last."""
        self._mark = os.urandom(16)
        os.ftruncate(self._fd, 0)
        zeros = bytes(1024 * 1024)
        for offset in range(0, self._size, len(zeros)):
            _pwrite_all(self._fd, zeros[: self._size - offset], offset)
        self._head = BLOCK
        os.fsync(self._fd)
        sync_folder(self.path.parent)

    def _scan(self, released: int) -> None:
        size = os.fstat(self._fd).st_size
        found: list[tuple[_Frame, Page]] = []
        offset = BLOCK
        while offset < size:
            span, frame_and_page = self._frame_at(offset, released)
            if frame_and_page is not None:
                found.append(frame_and_page)
            offset += span
        found.sort(key=lambda item: item[0].number)
        for frame, page in found:
            self._hold(frame)
            self._left_over.append((frame.number, page))
            self._next_number = frame.number + 1
            self._head = frame.offset + frame.span
        if self._live:
            self._size = size

    def _frame_at(self, offset: int, released: int) -> tuple[int, tuple[_Frame, Page] | None]:
        head = os.pread(self._fd, _FRAME.size, offset)
        if len(head) < _FRAME.size or head[:16] != self._mark:
            return BLOCK, None
        _, number, length, checksum = _FRAME.unpack(head)
        payload = os.pread(self._fd, length, offset + _FRAME.size)
        if len(payload) != length or _checksum(number, payload) != checksum:
            return BLOCK, None
        span = _span(length)
        if number <= released:
            return span, None
        return span, (_Frame(number, offset, span), _decode(payload))


def _span(length: int) -> int:
    return -(-(length + _FRAME.size) // BLOCK) * BLOCK


def _checksum(number: int, payload: bytes) -> int:
    return zlib.crc32(payload, number & 0xFFFFFFFF)


def _pwrite_all(fd: int, chunk: bytes, offset: int) -> None:
    view = memoryview(chunk)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def _ignore(future: "asyncio.Future[None]") -> None:
    """The next `keep` tells of the same failure."""
    if not future.cancelled():
        future.exception()
