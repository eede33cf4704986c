"""Queueing replayed events, piece by piece, whenever a sink has room for more.

Life cycle
    `run` goes on until it is cancelled. A replay that was cut short goes on with the next start.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import structlog

from poller.core.errors import StorageFull
from poller.core.history import Replay
from poller.core.model import Event
from poller.core.spool import SpoolAdmin

log = structlog.get_logger("replayer")

AGAIN: Final = 5.0
"""Seconds until the next attempt while the spool has no room."""

NOTHING_DONE: Final = 0.05
"""The same after a step that queued nothing."""


class Replayer:
    """Fills the queues of all sinks. A reload may change what `sinks` and `rebuild` return."""

    def __init__(
        self,
        spool: SpoolAdmin,
        sinks: Callable[[], Collection[str]],
        rebuild: Callable[[], Callable[[Event], Event]],
    ) -> None:
        self._spool = spool
        self._sinks = sinks
        self._rebuild = rebuild

    async def run(self) -> None:
        """Queue events whenever there is room."""
        while True:
            await self._spool.replays.ready()
            before = self._spool.replays.all()
            try:
                await self.step()
                if (
                    self._spool.replays.all() == before
                ):  # the sink is just being restarted, or served elsewhere
                    await asyncio.sleep(NOTHING_DONE)
            except StorageFull as error:
                log.info("replay_waits", reason=str(error))
                await asyncio.sleep(AGAIN)

    async def step(self) -> None:
        """Queue one piece for each sink."""
        rebuild = self._rebuild()
        for sink in list(self._sinks()):
            if (done := await self._spool.replays.fill(sink, rebuild)) is not None:
                _report(done)


def _report(done: Replay) -> None:
    log.info("replay_done", replay=done.number, sink=done.sink, events=done.queued, expected=done.total)
