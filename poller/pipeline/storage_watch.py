"""The watch over the files of the spool and the journal: every second it checks that they are still at their paths.

Purpose
    A folder may be renamed or deleted under a running daemon. The open files can still be read and written, but the
    next start does not find them.

Invariants
    No page is taken from any source while a file is away. Pages in hand are still committed, and sinks go on.

Life cycle
    Files that come back within a minute end the pause. Otherwise the daemon ends, and its next start uses the files at
    the paths. A deleted file is gone with the process, so the daemon first waits until its events are delivered.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

import structlog

from poller.runtime.clock import Clock

log = structlog.get_logger("daemon")

LOOK_EVERY = 1.0
END_AFTER = 60.0
"""Seconds for which the files may be away before the daemon ends."""


@runtime_checkable
class Placed(Protocol):
    """A part that keeps files open at paths."""

    def why_displaced(self) -> str | None:
        """Why an open file is no longer at its path; None while all are. Opens no file, but may block."""
        ...

    def is_deleted(self) -> bool:
        """Whether an open file has no name left on the disk."""
        ...


class StorageWatch:
    """Checks the files. `reason` says why no page may be taken; None while all files are at their paths."""

    def __init__(self, clock: Clock, *, end_after: float = END_AFTER) -> None:
        self.reason: str | None = None
        self._clock = clock
        self._end_after = end_after
        self._well = asyncio.Event()
        self._well.set()

    async def wait_until_in_place(self) -> None:
        """Wait until all files are at their paths."""
        await self._well.wait()

    async def run(self, placed: Sequence[Placed], undelivered: Callable[[], Awaitable[bool]]) -> str:
        """Check until the daemon must end; returns the reason. `undelivered` tells whether events still wait."""
        since = self._clock.monotonic()
        while True:
            found = await asyncio.to_thread(_why_displaced, placed)
            self._report(found)
            if found is None:
                since = self._clock.monotonic()
            elif self._clock.monotonic() - since > self._end_after and not await _would_lose(
                placed, undelivered
            ):
                return found
            await asyncio.sleep(LOOK_EVERY)

    def _report(self, found: str | None) -> None:
        if found is not None and self.reason is None:
            log.error("storage_moved", reason=found)
        if found is None and self.reason is not None:
            log.info("storage_back")
        self.reason = found
        if found is None:
            self._well.set()
        else:
            self._well.clear()


def _why_displaced(placed: Sequence[Placed]) -> str | None:
    return next((reason for one in placed if (reason := one.why_displaced()) is not None), None)


async def _would_lose(placed: Sequence[Placed], undelivered: Callable[[], Awaitable[bool]]) -> bool:
    return any(one.is_deleted() for one in placed) and await undelivered()
