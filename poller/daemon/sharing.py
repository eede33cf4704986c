"""What a daemon does about the others that share its spool: it hears their operators, and sees them come and go.

Invariants
    What an operator asked of one daemon holds for all: each reads pauses and resumes from the spool when they change.
    Nothing is delivered while the lease is not proven.

Life cycle
    `open` is called before the couriers start. `follow` and `guard` run until they are cancelled; `guard` longer, until
    the last delivery has ended.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from poller.core.errors import StorageFull
from poller.core.spool import Member, Shared, SpoolAdmin
from poller.daemon.components import Components
from poller.runtime.metrics import Metrics

log = structlog.get_logger("daemon")

LOOK_AGAIN = 1.0
"""Seconds until the next look while the spool does not answer."""


class SharedSpool(SpoolAdmin, Shared, Protocol):
    """A spool that several daemons share, with all that operators see and do."""


class Sharing:
    """Follows the other daemons of one spool."""

    def __init__(self, spool: SharedSpool, components: Components, metrics: Metrics) -> None:
        self._spool = spool
        self._components = components
        self._metrics = metrics
        self._resumed: Mapping[str, int] = {}
        self._members: dict[int, Member] = {}

    async def open(self) -> None:
        """Learn who is there, and how often sinks were resumed until now."""
        self._resumed = await self._spool.resumed()
        members = await self._spool.members()
        self._members = _daemons(members)
        self._take(members)

    async def follow(self) -> None:
        """Follow what changes, for ever. Raises `StorageError` when this daemon can write nothing more."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._raise_failure())
            while True:
                await self._spool.wait_for_change()
                await self._step_once_answered()

    async def _step_once_answered(self) -> None:
        """Do a step, as soon as the spool answers: nobody says again what has changed."""
        while True:
            try:
                return await self.step()
            except StorageFull:  # others report that it does not answer now
                await asyncio.sleep(LOOK_AGAIN)

    async def guard(self) -> None:
        """Interrupt deliveries whenever the lease is not proven any more, for ever."""
        while True:
            await self._spool.proven.wait()
            await self._spool.until_unproven()
            log.warning("lease_not_proven", means="deliveries are cancelled: others may repeat them")
            for courier in self._components.couriers:
                courier.interrupt()
            await self._spool.proven.wait()
            log.info("lease_proven_again")

    async def _raise_failure(self) -> None:
        raise await self._spool.failed()

    async def step(self) -> None:
        """Read what other daemons changed, and apply it here. Raises `StorageFull` while the spool does not answer."""
        self._take(await self._spool.members())
        paused, resumed = await self._spool.paused(), await self._spool.resumed()
        again = {sink for sink, count in resumed.items() if count > self._resumed.get(sink, 0)}
        for courier in self._components.couriers:
            if courier.name in paused:
                if not courier.held:
                    courier.hold()
            elif courier.held or courier.name in again:
                courier.resume()
                await self._spool.retry_now(courier.name)
        self._resumed = resumed

    def _take(self, members: Sequence[Member]) -> None:
        """Log who came and who went, and tell the parts that depend on it."""
        before, now = self._members, _daemons(members)
        for number in now.keys() - before.keys():
            log.info("daemon_joined", number=number, daemon=now[number].name)
        for number in before.keys() - now.keys():
            log.info("daemon_gone", number=number, daemon=before[number].name)
        self._members = now
        self._metrics.spool_members.set(len(now))
        self._components.members = members
        if now.keys() != before.keys():
            for backfill in self._components.backfills.values():
                backfill.part.members_changed()


def _daemons(members: Sequence[Member]) -> dict[int, Member]:
    """The daemons among the members, by the number of their session."""
    return {member.number: member for member in members if not member.visits}
