"""How much is stored, and whether the spool is full.

A full spool takes no events. It is pruned until it has room.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

from poller.core.errors import StorageError
from poller.spools.postgres import queries
from poller.spools.postgres.page_sizes import PageSizes
from poller.spools.postgres.reader import Reader
from poller.spools.postgres.writer import Writer

MEASURE_EVERY: Final = 5.0
"""Seconds between two looks at the size."""


class Capacity:
    """Measures the spool, and tells the writer whether it is full (`Writer.full`).

    `prune` deletes some settled events of any age, and returns whether there may be more.
    """

    def __init__(
        self, reader: Reader, writer: Writer, max_bytes: int, prune: Callable[[], Awaitable[bool]]
    ) -> None:
        self.max_bytes = max_bytes
        self.size = 0
        """The bytes of what is stored, when it was last measured."""
        self._reader = reader
        self._writer = writer
        self._prune = prune
        self._page_sizes = PageSizes()

    @property
    def fullness(self) -> float:
        """1 at the limit, 0 far from it."""
        return self.size / self.max_bytes

    async def run(self) -> None:
        """Measure now and then, for ever. A database that does not answer is asked again."""
        while True:
            with suppress(StorageError):
                await self.measure()
            await asyncio.sleep(MEASURE_EVERY)

    async def measure(self) -> None:
        """Measure what is stored. A full spool is pruned until it has room, or until nothing more can be pruned."""
        while True:
            self.size = await self._reader.read(partial(queries.size, self._page_sizes))
            self._writer.full = self._why_full()
            if self._writer.full is None or not await self._prune():
                return

    def _why_full(self) -> str | None:
        resume = self.max_bytes * 9 // 10
        if self.size <= (self.max_bytes if self._writer.full is None else resume):
            return None
        return (
            f"full: {self.size >> 20} MiB in use, max_bytes is {self.max_bytes >> 20} MiB, taken again under"
            f" {resume >> 20} MiB: let the sinks deliver, or raise max_bytes"
        )
