"""Reads the log in bounded steps, so that no question holds up claims and commits."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from poller.core.history import SpoolHistory
from poller.core.selection import Numbered, Selection

STEP: Final = 500
"""The most events that one step finds."""


async def steps(
    spool: SpoolHistory, chosen: Selection, *, start: int | None = None, newest_first: bool = False
) -> AsyncGenerator[Sequence[Numbered], None]:
    """The selected events, a step at a time; a step may be empty."""
    while True:
        step = await spool.scan(chosen, start, STEP, newest_first=newest_first)
        yield step.found
        if step.following is None:
            return
        start = step.following
        await asyncio.sleep(0)
