"""A spool opened for a test; what every engine's contract is built on."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from poller.core.ports import Spool
from poller.runtime.clock import Clock
from poller.testing.factories import ToldClock

Story = Callable[[Spool, ToldClock], Awaitable[None]]


class SpoolWorld:
    """`open` builds a spool over `folder`; the same folder is the same spool."""

    def open(self, folder: Path, clock: Clock) -> Spool:
        """Build a spool, not entered."""
        raise NotImplementedError

    def _run(self, folder: Path, *stories: Story) -> None:
        """Tell stories by one clock, each on the spool opened anew."""
        clock = ToldClock()

        async def told(story: Story) -> None:
            async with self.open(folder, clock) as spool:
                await story(spool, clock)

        for story in stories:
            asyncio.run(asyncio.wait_for(told(story), 30))
