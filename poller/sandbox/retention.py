"""What the platform forgets: pictures, recordings, channels and logs beyond their time."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Final

EVERY: Final = 3600.0
log = logging.getLogger("poller.sandbox")


class Retention:
    """Forgets what is older than `retain` seconds, at the start and once an hour."""

    def __init__(self, retain: float, forget: Sequence[Callable[[float], object]]) -> None:
        """Each of `forget` is given the epoch before which all is forgotten."""
        self._retain = retain
        self._forget = forget

    async def run(self) -> None:
        while True:
            self.step()
            await asyncio.sleep(min(EVERY, self._retain))

    def step(self) -> None:
        before = time.time() - self._retain
        for forget in self._forget:
            try:
                forget(before)
            except (
                OSError,
                sqlite3.OperationalError,
            ) as error:  # of the disk; the next turn comes to it again
                log.error("what is too old stays: %s", error)
