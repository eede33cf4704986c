"""Waiting for a spool that another daemon owns."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from poller.core.errors import StorageError, StorageLocked
from poller.core.spool import HasStandby
from poller.daemon import systemd
from poller.daemon.daemon import Daemon
from poller.daemon.signals import Stop
from poller.daemon.wiring import build_spool
from poller.settings import Settings

log = structlog.get_logger("daemon")

LOOK_AGAIN = 1.0
SIGN_OF_LIFE = 5.0
"""Seconds between two signs of life for the service manager."""


async def enter_in_turn(
    build: Callable[[], Daemon], settings: Settings, stop: Stop, stack: AsyncExitStack
) -> Daemon | None:
    """Enter a daemon, once no other one owns its spool. None if a stop comes first.

    Raises `StorageLocked` at once for a spool that nobody may take over, such as a file.
    """
    spool, waited = build_spool(settings.spool), False
    while not stop.count:
        try:
            daemon = await stack.enter_async_context(build())
        except StorageLocked as error:
            if not isinstance(spool, HasStandby):
                raise
            if not waited:
                systemd.notify("READY=1\nSTATUS=stands by")
                log.info("standing_by", reason=str(error))
            waited = True
            await _wait(spool, stop)
        else:
            if waited:
                log.info("spool_taken_over")
            return daemon
    return None


async def _wait(spool: HasStandby, stop: Stop) -> None:
    """Wait until the spool may be free, or until a stop."""
    stopped = asyncio.ensure_future(stop.first())
    turn = asyncio.ensure_future(_turn(spool))
    while not (
        await asyncio.wait({stopped, turn}, timeout=SIGN_OF_LIFE, return_when=asyncio.FIRST_COMPLETED)
    )[0]:
        systemd.notify("WATCHDOG=1")
    for waiting in (stopped, turn):
        waiting.cancel()
    await asyncio.wait({stopped, turn})


async def _turn(spool: HasStandby) -> None:
    while True:
        try:
            await spool.wait_for_turn()
        except StorageError:  # the database is away, for the owner too
            await asyncio.sleep(LOOK_AGAIN)
        else:
            return
