"""Reports in the log how far a drain, or a start with a large backlog, has come."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from poller.core.errors import StorageFull

log = structlog.get_logger("daemon")

DRAINING_EVERY = 10.0
RUNNING_EVERY = 60.0
LARGE = 10_000
"""The least pending events of a sink that are reported while the daemon runs."""

Backlogs = Callable[[], Awaitable[Mapping[str, int]]]
"""The number of pending events of each sink."""


async def report_progress(backlogs: Backlogs, every: float, least: int) -> None:
    """Log one line for each sink whose backlog shrinks, every `every` seconds."""
    before: Mapping[str, int] = {}
    while True:
        await asyncio.sleep(every)
        try:
            now = await backlogs()
        except StorageFull:  # the spool does not answer now, which others report
            continue
        for sink, left in now.items():
            if found := progress(before.get(sink, 0), left, every, least):
                log.info("catching_up", sink=sink, **found)
        before = now


def progress(before: int, left: int, seconds: float, least: int) -> dict[str, float]:
    """How fast a backlog shrinks, and how long that will take at this rate; empty if there is nothing to report."""
    rate = (before - left) / seconds
    if left < least or rate <= 0:
        return {}
    return {"left": left, "per_second": round(rate, 1), "seconds_left": round(left / rate)}
