"""A way to wait for a change instead of sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Wakeup:
    """Wakes waiting tasks at every change of the sandbox. Each checks its condition again."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Returns as soon as `reached()` is true, asking after every change."""
        while not reached():
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
