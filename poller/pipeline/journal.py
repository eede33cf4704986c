"""The journal of raw pages: it makes a destructive read durable before anything parses it.

Purpose
    The platform removes messages from its queue as it sends them. The journal holds the answer until the spool has
    committed what was in it.

Invariants
    A page is durable when `keep` returns. A page that was kept and not released is read again at the next start. Every
    page has one owner: the intake that kept or took it, until it calls `release` or `hand_back`; otherwise the journal.
    A full disk cannot refuse a page, because the whole file is written in advance. A released page is overwritten with
    zeros within a second or two, and before its space is used again.

Life cycle
    `room`, `keep`, `release` for each page. After the start, `take_leftovers` returns pages of the process before.

`journal_file` describes the file. Its first block is written without an fsync of its own: reading a page twice changes
nothing, because events have ids.
"""

import asyncio
import os
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from poller.core.errors import StorageError, StorageFull
from poller.core.model import RawPage
from poller.pipeline.journal_file import (
    BLOCK,
    Contents,
    Frame,
    JournalHead,
    encode_frame,
    encode_head,
    encode_page,
    find_mark,
    is_blank,
    pwrite_all,
    read_contents,
    read_head,
    read_remains,
    span_of,
    wipe,
)
from poller.runtime.durable_files import is_still_at, make_folder, open_locked, sync_folder
from poller.runtime.failpoints import reached
from poller.runtime.group_thread import GroupThread

LARGEST_PAGE = 4 * 1024 * 1024 + 64 * 1024
"""Bytes reserved for each poll in flight: the largest answer of a source (4 MiB) and its framing."""
SETTLE_AFTER = 1.0
"""Seconds between a release and the overwriting of the page, when no other write comes first."""


class JournalDamage(msgspec.Struct, frozen=True, kw_only=True):
    """What was found damaged when the file was opened."""

    detail: str
    pages: int
    """How many pages may be gone."""
    remains: tuple[RawPage, ...] = ()
    """The bytes that are left of them, for quarantine. Their source is `journal_file.NOBODY` where it is unknown."""


class _Write(msgspec.Struct, frozen=True):
    frame: Frame
    payload: bytes


class _Job(Enum):
    HEADER = "write the first block"
    SETTLE = "sync it, and overwrite what is released"


class Journal:
    """A durable ring of pages, owned by one process."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.damage: JournalDamage | None = None
        """The damage that opening found; None for a whole file."""
        self._size = max(size, BLOCK + 2 * (LARGEST_PAGE + BLOCK)) // BLOCK * BLOCK
        self._fd = -1
        self._mark = b""
        self._live: OrderedDict[int, Frame] = OrderedDict()
        self._kept_at: dict[int, float] = {}
        self._missing: set[int] = set()
        """The numbers of damaged pages whose remains are not in quarantine yet. They count as not released."""
        self._released_early: set[int] = set()
        self._next_number = 1
        self._released = 0
        self._synced = 0
        self._committed = 0
        self._held = 0
        self._to_wipe: deque[Frame] = deque()
        """Released frames that are not overwritten yet. The event loop appends, the writing thread removes."""
        self._header_released = 0
        self._durably_released = 0
        self._head = BLOCK
        self._reserved = 0
        self._failed: StorageError | None = None
        self._broken: OSError | None = None
        """The writing thread's first failure. Nothing is written after it: no later fsync could be trusted."""
        self._room = asyncio.Event()
        self._left_over: dict[int, RawPage] = {}
        self._header_due = False
        self._settle: asyncio.TimerHandle | None = None
        self._thread: GroupThread[_Write | _Job, None] = GroupThread("journal", self._write)

    async def __aenter__(self) -> Self:
        """Open the file, write all of its space and check that it can be written; raises `StorageError`."""
        await asyncio.get_running_loop().run_in_executor(None, self._open)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close the file. All releases are durable."""
        if self._settle is not None:
            self._settle.cancel()
        await self._thread.stop()
        if self._fd >= 0:
            if self._failed is None and self._broken is None:
                self._sync_released()
            os.close(self._fd)
            self._fd = -1

    def why_displaced(self) -> str | None:
        """See `Placed.why_displaced`."""
        if self._fd < 0 or is_still_at(self.path, self._fd):
            return None
        return f"journal {self.path}: the file was moved or deleted"

    def is_deleted(self) -> bool:
        """Always false: the spool has what was in the file."""
        return False

    def take_leftovers(self, source: str | None = None) -> list[tuple[int, RawPage]]:
        """Take the pages that have no owner, of one source or of all, oldest first, each with its number.

        They were kept and not released, by an earlier process or by an intake that has ended. The caller must call
        `release` or `hand_back` for each.
        """
        taken = [
            (number, page)
            for number, page in sorted(self._left_over.items())
            if source is None or page.source == source
        ]
        for number, _ in taken:
            del self._left_over[number]
        return taken

    def hand_back(self, pages: Mapping[int, RawPage]) -> None:
        """Return the ownership of pages that cannot be committed now."""
        self._left_over |= pages

    def leftover_sources(self) -> frozenset[str]:
        """The sources of the pages that have no owner."""
        return frozenset(page.source for page in self._left_over.values())

    @property
    def leftover_count(self) -> int:
        """The number of pages that have no owner."""
        return len(self._left_over)

    async def room(self) -> None:
        """Reserve space for one more page, and wait until there is some. `keep` or `cancel_room` ends each reservation.

        Raises `StorageError` once the journal has failed. May be cancelled: nothing is reserved then.
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
        """Return the space that `room` reserved."""
        self._reserved -= 1
        self._room.set()

    async def keep(self, page: RawPage) -> int:
        """Write a page into the space that `room` reserved; returns its number. The page is durable on return.

        Raises `StorageError` when the write or the fsync fails. The journal cannot be used after that, and every later
        call raises too: what a failed fsync left on the disk is unknown (PostgreSQL, "fsyncgate", 2018).
        """
        payload = encode_page(page)
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

    def release(self, number: int, *, committed: bool = False) -> None:
        """Give up a page: the spool has committed it (`committed`), or it held nothing. Its space may be used again."""
        self._released_early.add(number)
        if committed:
            self._committed = max(self._committed, number)
        while self._live and (oldest := next(iter(self._live))) in self._released_early:
            self._released_early.discard(oldest)
            self._let_go(oldest)
        self._advance()

    def release_damaged(self) -> None:
        """Forget the damaged pages: their remains are in quarantine. The next start does not report them again."""
        self._missing.clear()
        self._advance()

    def begin_after(self, number: int) -> None:
        """Continue above the highest number that the spool has seen, where the journal is newer than the spool.

        Where the spool lacks pages that were committed, they are forgotten: the next start does not report them again.
        """
        if number < self._committed:
            self._committed = number
            self._advance()
        if number >= self._next_number and not self._live:
            self._next_number = number + 1
            self._advance()

    @property
    def has_damaged(self) -> bool:
        """Whether there are damaged pages for which `release_damaged` was not called."""
        return bool(self._missing)

    @property
    def bytes_held(self) -> int:
        """Bytes of pages that are not released."""
        return self._held

    @property
    def oldest(self) -> float | None:
        """Seconds for which the oldest page that is not released has waited in this process; None if there is none."""
        number = next(iter(self._live), None)
        return None if number is None else time.monotonic() - self._kept_at[number]

    @property
    def last_number(self) -> int:
        """The highest page number that was used."""
        return self._next_number - 1

    @property
    def committed(self) -> int:
        """The highest number that was released as committed."""
        return self._committed

    # ------------------------------------------------------------ the ring

    def _hold(self, frame: Frame) -> None:
        self._live[frame.number] = frame
        self._kept_at[frame.number] = time.monotonic()
        self._held += frame.span

    def _let_go(self, number: int) -> None:
        frame = self._live.pop(number)
        del self._kept_at[number]
        self._held -= frame.span
        self._to_wipe.append(frame)

    def _advance(self) -> None:
        """Advance the number up to which all pages are released, and write it to the file."""
        self._released = min(next(iter(self._live), self._next_number), *self._missing, self._next_number) - 1
        if self._failed is not None:
            self._room.set()
            return
        if not self._header_due:
            self._header_due = True
            self._submit(_Job.HEADER)
        if self._to_wipe and self._settle is None:
            self._settle = asyncio.get_running_loop().call_later(SETTLE_AFTER, self._settle_now)
        self._room.set()

    def _settle_now(self) -> None:
        self._settle = None
        if self._to_wipe and self._failed is None:
            self._submit(_Job.SETTLE)

    def _submit(self, job: _Job) -> None:
        self._thread.submit(job).add_done_callback(_ignore)

    def _fits(self, pages: int) -> bool:
        largest = span_of(LARGEST_PAGE)
        # one page's worth may be lost at the end of the ring, where frames are not split
        return self._held + (pages + 1) * largest <= self._size - BLOCK

    def _place(self, length: int) -> Frame:
        span = span_of(length)
        tail = next(iter(self._live.values())).offset if self._live else None
        offset = self._head
        if tail is None or offset > tail:
            if offset + span > self._size:
                offset = BLOCK
                if tail is not None and offset + span > tail:
                    raise StorageFull("journal: no room in the ring")
        elif offset + span > tail:
            raise StorageFull("journal: no room in the ring")
        frame = Frame(number=self._next_number, offset=offset, span=span)
        self._next_number += 1
        self._head = offset + span
        return frame

    # ------------------------------------------------------------ in the thread

    def _write(self, jobs: list[_Write | _Job]) -> list[Exception | None]:
        if self._broken is not None:
            return [self._broken for _ in jobs]
        writes = [job for job in jobs if isinstance(job, _Write)]
        try:
            for write in writes:
                self._make_way(write.frame)
                payload = encode_frame(self._mark, write.frame.number, write.payload)
                pwrite_all(self._fd, payload, write.frame.offset)
            if writes:
                reached("journal.written")
            self._write_header()
            if writes or _Job.SETTLE in jobs:
                self._sync(writes)
        except OSError as error:
            self._broken = error
            return [error for _ in jobs]
        return [None for _ in jobs]

    def _sync(self, writes: list[_Write]) -> None:
        os.fdatasync(self._fd)
        if writes:
            reached("journal.synced")
            self._synced = max(self._synced, *(write.frame.number for write in writes))
            self._write_header(released=self._header_released)
        self._durably_released = self._header_released
        self._wipe_released()

    def _write_header(self, released: int | None = None) -> None:
        self._header_due = False
        self._header_released = self._released if released is None else released
        head = JournalHead(
            mark=self._mark,
            size=self._size,
            released=self._header_released,
            synced=self._synced,
            committed=self._committed,
        )
        pwrite_all(self._fd, encode_head(head), 0)

    def _wipe_released(self) -> None:
        """Overwrite pages whose release is on the disk. An earlier wipe would look like damage after a power cut."""
        while self._to_wipe and self._to_wipe[0].number <= self._durably_released:
            frame = self._to_wipe.popleft()
            wipe(self._fd, frame.offset, frame.span)

    def _make_way(self, new: Frame) -> None:
        """Sync the release of a frame before a new frame takes its place."""
        if any(
            frame.offset in _place_of(new) or new.offset in _place_of(frame) for frame in list(self._to_wipe)
        ):
            self._sync_released()

    def _sync_released(self) -> None:
        self._write_header()
        os.fdatasync(self._fd)
        self._durably_released = self._header_released
        self._wipe_released()

    # ------------------------------------------------------------ opening

    def _open(self) -> None:
        try:
            make_folder(self.path.parent)
            self._fd = self._lock_file()
            head, trouble = read_head(self._fd)
            contents = self._contents(head, trouble)
            reached("journal.scanned")
            os.fdatasync(self._fd)  # what is found is called synced
            self._sync_released()
            if contents is not None and not self._missing:
                for offset, length in contents.rest:
                    wipe(self._fd, offset, length)
        except OSError as error:
            raise StorageError(f"journal {self.path}: {error.strerror}") from error

    def _contents(self, head: JournalHead | None, trouble: str) -> Contents | None:
        """Read the contents of the file. Create a new file if there is none, or if it cannot be read."""
        size, lost = os.fstat(self._fd).st_size, head is None
        if head is None:
            if is_blank(self._fd):
                self._create()
                return None
            mark = find_mark(self._fd, size)
            if mark is None:
                aside = self._move_aside()
                self.damage = JournalDamage(detail=f"it cannot be read, and was moved to {aside}", pages=1)
                self._create()
                return None
            head = JournalHead(mark=mark, size=size // BLOCK * BLOCK, released=0)
        self._mark, self._released = head.mark, head.released
        self._committed = head.committed
        # a number may be damaged where the checksum does not see it; the ring holds no more pages than blocks
        furthest = max(head.released, head.synced) + 2 * head.size // BLOCK if not lost else 1 << 62
        contents = read_contents(self._fd, head.mark, min(size, head.size), head.released, furthest)
        self._take(head, contents)
        self._judge(head, contents, trouble, size)
        if not self._live and not self._missing and size != self._size:
            self._create()
            return None
        if self._live or self._missing:
            self._size = head.size
            if size < head.size:
                wipe(self._fd, size, head.size - size)
        return contents

    def _take(self, head: JournalHead, contents: Contents) -> None:
        for frame, page in contents.pages:
            self._hold(frame)
            self._left_over[frame.number] = page
            self._head = frame.offset + frame.span
        last = max(self._live, default=0)
        self._synced = max(head.synced, last)
        self._next_number = max(head.released, self._synced) + 1

    def _judge(self, head: JournalHead, contents: Contents, trouble: str, size: int) -> None:
        """Determine the missing pages, and what to report about the file."""
        first = min(self._live, default=1) if head.released == 0 and head.synced == 0 else head.released + 1
        last = head.synced or (self._synced if trouble else 0)
        last = min(last, first + 2 * head.size // BLOCK)
        self._missing = set(range(first, last + 1)) - self._live.keys()
        self._released = min(self._live.keys() | self._missing, default=self._next_number) - 1
        found = [trouble] if trouble else []
        if size < head.size:
            found.append(f"{head.size - size} bytes of its end are gone")
        if self._missing:
            found.append(f"{len(self._missing)} pages in it that the spool did not have are damaged")
        if found:
            unknown = not head.synced  # the file does not say how many pages there were
            left = tuple(read_remains(self._fd, contents, LARGEST_PAGE)) if self._missing else ()
            self.damage = JournalDamage(
                detail="; ".join(found), pages=max(len(self._missing), int(unknown)), remains=left
            )

    def _move_aside(self) -> Path:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        aside = self.path.with_name(f"{self.path.name}.unreadable-{stamp}-{os.urandom(4).hex()}")
        os.rename(self.path, aside)
        os.close(self._fd)
        self._fd = self._lock_file()
        return aside

    def _lock_file(self) -> int:
        return open_locked(self.path, f"journal {self.path}")

    def _create(self) -> None:
        """Write every byte of a new file, so that no later write needs space. The mark is written last."""
        self._mark = os.urandom(16)
        os.ftruncate(self._fd, 0)
        zeros = bytes(1024 * 1024)
        for offset in range(0, self._size, len(zeros)):
            pwrite_all(self._fd, zeros[: self._size - offset], offset)
        self._head = BLOCK
        os.fsync(self._fd)
        sync_folder(self.path.parent)
        reached("journal.created")


def _place_of(frame: Frame) -> range:
    return range(frame.offset, frame.offset + frame.span)


def _ignore(future: "asyncio.Future[None]") -> None:
    """Ignore the result: the next `keep` raises the same failure."""
    if not future.cancelled():
        future.exception()
