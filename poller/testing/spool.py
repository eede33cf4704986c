"""A spool opened for a test; what every engine's contract is built on."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from poller.core.spool import SpoolAdmin
from poller.runtime.clock import Clock
from poller.testing.factories import ManualClock

Scenario = Callable[[SpoolAdmin, ManualClock], Awaitable[None]]


class SpoolWorld:
    """`open` builds a spool over `folder`; the same folder is the same spool."""

    def open(self, folder: Path, clock: Clock) -> SpoolAdmin:
        """Build a spool, not entered."""
        raise NotImplementedError

    def _run(self, folder: Path, *stories: Scenario) -> None:
        """Tell stories by one clock, each on the spool opened anew."""
        clock = ManualClock()

        async def run_scenario(scenario: Scenario) -> None:
            async with self.open(folder, clock) as spool:
                await scenario(spool, clock)

        for scenario in stories:
            asyncio.run(asyncio.wait_for(run_scenario(scenario), 30))
