"""Claims over the lanes of a sink: whichever has events first."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from poller.core.model import Batch

Claim = Callable[[str, int, float], Awaitable[Batch]]
"""Claims from one lane, by its name: `Spool.claim` otherwise."""


class LaneClaims:
    """The lanes of one sink that this daemon serves. One claim of each lane waits, for whoever comes first."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._lanes: dict[str, asyncio.Task[Batch] | None] = {}
        self._changed = asyncio.Event()

    @property
    def lanes(self) -> list[str]:
        """The names of the lanes."""
        return list(self._lanes)

    def open(self, key: str) -> None:
        """Claim from this lane too."""
        self._lanes[key] = None
        self._changed.set()

    async def close(self, key: str) -> Batch | None:
        """Claim from this lane no more. Returns a batch that was claimed for nobody."""
        if (task := self._lanes.pop(key)) is None:
            return None
        task.cancel()
        with suppress(asyncio.CancelledError):
            return await task
        return None

    async def claim(self, limit: int, linger: float) -> Batch:
        """A batch of any lane, of those first that have waited longest.

        May be cancelled. What its lanes claim then goes to the next one.
        """
        while True:
            self._changed.clear()
            for key, task in self._lanes.items():
                if task is None:
                    self._lanes[key] = asyncio.ensure_future(self._claim(key, limit, linger))
            waiting = {task: key for key, task in self._lanes.items() if task is not None}
            for task, key in waiting.items():
                if task.done():
                    del self._lanes[key]
                    self._lanes[key] = None  # behind the others
                    return task.result()
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait({*waiting, changed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
