"""The parts that may change while a daemon runs: accounts, sources with their intakes, sinks with their couriers."""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from poller.core.ports import Follows, PushedSource, Source
from poller.core.spool import Member, Shared, SpoolAdmin
from poller.core.tracing import Tracing
from poller.daemon import systemd
from poller.daemon.automatic_backfill import AutomaticBackfill
from poller.daemon.wiring import attach, build_sink, build_source, delivery_policy
from poller.operations.backfill import Backfill
from poller.operations.duties import on_duty, source_duty
from poller.pipeline.courier import Courier
from poller.pipeline.intake import Duty, Intake
from poller.pipeline.journal import Journal
from poller.pipeline.losses import Losses
from poller.pipeline.push_intake import PushIntake
from poller.pipeline.storage_watch import StorageWatch
from poller.qcloud.cos.bucket import Bucket, has_keys
from poller.qcloud.wire.account import Account
from poller.qcloud.wire.excerpts import Words
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.settings import AccountSettings, SinkSettings, SourceSettings

GRACE = 20.0
"""Seconds that sinks get at a stop to finish the batches in hand."""

Part = TypeVar("Part")
NewPart = TypeVar("NewPart")


class Component(Generic[Part]):
    """An open part. `part` is the port itself, or the intake or courier that works with it."""

    def __init__(self, part: Part, stack: AsyncExitStack) -> None:
        self.part = part
        self.task: asyncio.Task[None] | None = None
        self._stack = stack

    @classmethod
    async def enter(cls, port: AbstractAsyncContextManager[Part]) -> Self:
        """Enter a port. An exception of the port passes through."""
        stack = AsyncExitStack()
        return cls(await stack.enter_async_context(port), stack)

    def with_part(self, part: NewPart) -> "Component[NewPart]":
        """This component with `part` in place of its own. The port stays open, and is closed by the new component."""
        return Component(part, self._stack)

    def begin(self, group: asyncio.TaskGroup, running: Coroutine[Any, Any, None]) -> None:
        """Start the intake or the courier as a task of `group`."""
        self.task = group.create_task(running)

    async def close(self) -> None:
        """Leave the port. The task must have ended."""
        await self._stack.aclose()


class Components:
    """The parts by name. On leaving, sources are closed first, then sinks, then accounts."""

    def __init__(
        self,
        spool: SpoolAdmin,
        journal: Journal,
        *,
        metrics: Metrics,
        clock: Clock,
        losses: Losses,
        watch: StorageWatch,
        tracing: Tracing,
        competing: bool = False,
    ) -> None:
        """`competing` says that all daemons that share the spool poll queues, and not one of them at a time."""
        self.sources: dict[str, Component[Intake | PushIntake]] = {}
        self.sinks: dict[str, Component[Courier]] = {}
        self.entered: dict[str, Component[Account]] = {}
        self.backfills: dict[str, Component[AutomaticBackfill]] = {}
        """By account, for those that look for missing pictures by themselves."""
        self.settled = asyncio.Event()
        """Set at every settlement of any sink."""
        self._spool = spool
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._losses = losses
        self._words = Words()
        self._storage = watch
        self._tracing = tracing
        self._competing = competing
        self.members: Sequence[Member] = ()
        """The daemons that share the spool, as they were last seen."""
        self._watchdog = systemd.Watchdog(clock.monotonic)
        self._group: asyncio.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await close_all(self.sources)
        await close_all(self.backfills)
        await close_all(self.sinks)
        await close_all(self.entered)

    @property
    def intakes(self) -> list[Intake]:
        """The intakes of polled sources."""
        return [one.part for one in self.sources.values() if isinstance(one.part, Intake)]

    @property
    def push_intakes(self) -> list[PushIntake]:
        """The intakes of pushed sources."""
        return [one.part for one in self.sources.values() if isinstance(one.part, PushIntake)]

    @property
    def couriers(self) -> list[Courier]:
        """The couriers of all sinks."""
        return [one.part for one in self.sinks.values()]

    @property
    def accounts(self) -> dict[str, Account]:
        """The open accounts."""
        return {name: one.part for name, one in self.entered.items()}

    @property
    def source_parts(self) -> Mapping[str, Source | PushedSource]:
        """The sources themselves, without their intakes."""
        return {name: one.part.source for name, one in self.sources.items()}

    # ------------------------------------------------------------ opening

    async def open_account(self, name: str, settings: AccountSettings) -> None:
        """Enter an account."""
        self._words.learn(settings)
        self.add_account(name, await Component.enter(Account(name, settings)))
        await self.open_backfill(name, settings)

    def add_account(self, name: str, entered: Component[Account]) -> None:
        """Take over an account that was entered. Its rate is divided among the daemons that poll its sources."""
        entered.part.share_rate(partial(self._pollers_of, name))
        self.entered[name] = entered

    def _pollers_of(self, account: str) -> int:
        """How many daemons poll sources of an account now; at least 1."""
        own = {name: source for name, source in self.source_parts.items() if source.account == account}
        if isinstance(self._spool, Shared) and any(map(self._is_polled_by_all, own.values())):
            return self._spool.live_members
        duties = {source_duty(name) for name in own}
        return max(1, sum(not duties.isdisjoint(member.duties) for member in self.members))

    def _is_polled_by_all(self, source: Source | PushedSource) -> bool:
        return self._competing and not isinstance(source, PushedSource) and source.destructive

    def _duty_of(self, source: Source) -> Duty | None:
        """What keeps other daemons from polling a source; None if they may poll it."""
        if not isinstance(self._spool, Shared) or self._is_polled_by_all(source):
            return None
        return partial(on_duty, self._spool, source_duty(source.name))

    async def open_backfill(self, name: str, settings: AccountSettings) -> None:
        """Make the automatic backfill of an account that was entered, if its settings ask for it."""
        self._words.learn(settings)
        self._metrics.declare_account(name)
        if settings.audit.backfill != "auto" or not has_keys(settings):
            return
        account = self.accounts[name]
        entered = await Component.enter(Bucket(name, settings, account.ready))
        backfill = Backfill(
            name,
            account.picture_base,
            entered.part,
            self._spool,
            metrics=self._metrics,
            clock=self._clock,
        )
        self.backfills[name] = entered.with_part(AutomaticBackfill(backfill, self._spool, self._clock))

    async def open_sink(self, name: str, settings: SinkSettings) -> None:
        """Attach a sink to the spool, enter it, and make its courier. `begin_sink` starts the courier."""
        self._words.learn(settings)
        sink = build_sink(name, settings, self.accounts)
        await attach(self._spool, name, settings, self._clock)
        served = await Component.enter(sink)
        self._metrics.declare_sink(name)
        courier = Courier(
            sink,
            self._spool,
            delivery_policy(settings, self._words.of),
            metrics=self._metrics,
            clock=self._clock,
            settled=self.settled,
            tracing=self._tracing,
        )
        self.sinks[name] = served.with_part(courier)
        if name in await self._spool.paused():
            courier.hold()

    async def open_source(self, name: str, settings: SourceSettings) -> None:
        """Enter a source and make its intake. `begin_source` starts the intake."""
        self._words.learn(settings)
        source = build_source(name, settings, self.accounts)
        if isinstance(source, Follows):
            source.follow(self._spool.streams)
        heartbeat = self._watchdog.heartbeat(name)
        intake: Intake | PushIntake
        if isinstance(source, PushedSource):
            self._metrics.declare_pushed_source(name)
            intake = PushIntake(
                source,
                self._spool,
                metrics=self._metrics,
                heartbeat=heartbeat,
                watch=self._storage,
                tracing=self._tracing,
            )
            source.attach(intake)
        else:
            self._metrics.declare_source(source.account, name)
            intake = Intake(
                source,
                self._spool,
                self._journal,
                metrics=self._metrics,
                clock=self._clock,
                losses=self._losses,
                watch=self._storage,
                heartbeat=heartbeat,
                may_have_lost=partial(self._report_loss, source.account),
                tracing=self._tracing,
                duty=self._duty_of(source),
            )
        self.sources[name] = (await Component.enter(source)).with_part(intake)

    # ------------------------------------------------------------ running

    def begin(self, group: asyncio.TaskGroup, *, pushed: bool) -> None:
        """Start all couriers and intakes (those of pushed sources only if `pushed`). Later parts run in `group` too."""
        self._group = group
        for account in self.backfills:
            self.begin_backfill(account)
        for name, source in self.sources.items():
            if pushed or isinstance(source.part, Intake):
                self.begin_source(name)
        for name in self.sinks:
            self.begin_sink(name)

    def begin_source(self, name: str) -> None:
        """Start the intake of a source. It gets the source's pages that an earlier intake left in the journal."""
        assert self._group is not None
        source = self.sources[name]
        intake = source.part
        source.begin(
            self._group,
            intake.run(self._journal.take_leftovers(name)) if isinstance(intake, Intake) else intake.run(),
        )

    def begin_sink(self, name: str) -> None:
        """Start the courier of a sink."""
        assert self._group is not None
        self.sinks[name].begin(self._group, self.sinks[name].part.run())

    def begin_backfill(self, account: str) -> None:
        """Start the automatic backfill of an account, if there is one."""
        assert self._group is not None
        if (backfill := self.backfills.get(account)) is not None:
            backfill.begin(self._group, backfill.part.run())

    def _report_loss(self, account: str) -> None:
        if (backfill := self.backfills.get(account)) is not None:
            backfill.part.report_loss()

    def stop(self) -> None:
        """Stop polling, taking pushes and claiming batches. `wait_for_sources` and `wait_for_sinks` see the end."""
        for source in self.sources.values():
            source.part.stop()
        for sink in self.sinks.values():
            sink.part.stop()

    async def wait_for_sources(self, names: Iterable[str] | None = None) -> None:
        """Wait until the stopped intakes of these sources, or of all, have ended. Polls in flight are not cut short."""
        await _wait_for(_tasks(self.sources, names))

    async def wait_for_sinks(self, hurry: Awaitable[None], names: Iterable[str] | None = None) -> None:
        """Wait until the stopped couriers of these sinks, or of all, have ended.

        Deliveries in progress are cancelled after `GRACE`, or as soon as `hurry` returns.
        """
        tasks = _tasks(self.sinks, names)
        hurried = asyncio.ensure_future(hurry)
        ended = asyncio.ensure_future(_wait_for(tasks))
        await asyncio.wait({hurried, ended}, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for task in tasks:
            task.cancel()
        await ended

    async def backfills_ended(self, accounts: Iterable[str] | None = None) -> None:
        """Stop the automatic backfills of these accounts, or of all, and wait until they have noted what is pending.

        Their sources must have ended before: a last poll may report a loss.
        """
        names = [name for name in self.backfills if accounts is None or name in set(accounts)]
        for name in names:
            self.backfills[name].part.stop()
        await _wait_for([task for name in names if (task := self.backfills[name].task) is not None])

    # ------------------------------------------------------------ ending

    async def end_sources(self, names: Sequence[str]) -> None:
        """Stop these sources and leave them."""
        for name in names:
            self.sources[name].part.stop()
        await self.wait_for_sources(names)
        for name in names:
            await self.sources.pop(name).close()
            self.forget_source(name)

    async def end_backfills(self, accounts: Iterable[str]) -> None:
        """Stop the automatic backfills of these accounts and leave their buckets."""
        await self.backfills_ended(accounts)
        for name in accounts:
            if (backfill := self.backfills.pop(name, None)) is not None:
                await backfill.close()

    def forget_source(self, name: str) -> None:
        """Stop expecting heartbeats from a source that has ended."""
        self._watchdog.forget(name)

    async def end_sinks(self, names: Sequence[str]) -> None:
        """Stop these sinks and leave them. Batches that were cancelled are pending again when the sink is opened."""
        for name in names:
            self.sinks[name].part.stop()
        await self.wait_for_sinks(asyncio.get_running_loop().create_future(), names)
        for name in names:
            await self.sinks.pop(name).close()

    async def forget_sink(self, name: str) -> None:
        """Detach a sink that is no longer configured, so that the spool keeps no events for it."""
        await self._spool.detach(name)
        self._metrics.forget_sink(name)


def _tasks(
    parts: Mapping[str, Component[Courier]] | Mapping[str, Component[Intake | PushIntake]],
    names: Iterable[str] | None,
) -> list[asyncio.Task[None]]:
    wanted = None if names is None else set(names)
    return [
        one.task for name, one in parts.items() if one.task is not None and (wanted is None or name in wanted)
    ]


async def _wait_for(tasks: Sequence[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)


async def close_all(parts: dict[str, Component[Part]]) -> None:
    """Close all parts, the newest first."""
    while parts:
        _, one = parts.popitem()
        await one.close()
