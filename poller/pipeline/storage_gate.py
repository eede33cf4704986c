"""Whether the storage takes what a source brings: the one gate of both ways in."""

import asyncio
from collections.abc import Awaitable, Callable

from poller.core.errors import StorageFull
from poller.pipeline.storage_watch import StorageWatch

FULL_AGAIN = 1.0
"""Seconds between two attempts at a full disk: nothing reports that it has room again."""


class StorageGate:
    """Closed while the spool refuses writes, and while the watch sees that files are away.

    `paused` and `resumed` are called once for each time that the spool refuses writes and takes them again.
    """

    def __init__(
        self,
        watch: StorageWatch,
        *,
        paused: Callable[[str], None],
        resumed: Callable[[], None],
        heartbeat: Callable[[], None],
        reason: str | None = None,
    ) -> None:
        self._watch = watch
        self._paused = paused
        self._resumed = resumed
        self._heartbeat = heartbeat
        self._reason = reason
        self._reported = False
        self._opened = asyncio.Event()
        self._opened.set()

    @property
    def reason(self) -> str | None:
        """Why nothing is taken in; None while the gate is open."""
        return self._watch.reason or self._reason

    @property
    def shut(self) -> bool:
        """Whether the spool refused the last write."""
        return self._reason is not None

    async def wait_until_open(self) -> None:
        """Wait until the spool takes writes and all files are at their paths. May be cancelled."""
        await self._opened.wait()
        await self._watch.wait_until_in_place()

    def close(self, reason: str) -> None:
        """Close the gate: the spool has refused a write."""
        if not self._reported:
            self._paused(reason)
        self._reported = True
        self._reason = reason
        self._opened.clear()

    def try_again(self) -> None:
        """Let one write through after a test write has succeeded. It shows whether the spool takes pages again."""
        self._reason = None
        self._opened.set()

    def open(self) -> None:
        """Open the gate: the spool has taken a write."""
        self.try_again()
        if self._reported:
            self._resumed()
        self._reported = False

    async def write_until_taken(
        self, write: Callable[[], Awaitable[None]], stopping: Callable[[], bool]
    ) -> bool:
        """Write, and repeat the write while the spool is full. False if `stopping` comes first."""
        while True:
            try:
                await write()
            except StorageFull as error:
                self.close(str(error))
                if stopping():
                    return False
                await asyncio.sleep(FULL_AGAIN)
                self._heartbeat()
            else:
                self.open()
                return True
