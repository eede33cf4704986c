"""The daemon: it builds all parts from the settings, starts them, and stops them in order. Only here do they meet."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Self

import structlog

from poller import admin, control
from poller.control import ControlServer, OperatorContext, Request, Row
from poller.core.errors import PollerError, StorageError, StorageFull
from poller.core.history import Replay, ReplayState
from poller.core.replays import OPEN
from poller.core.spool import BeginsAnew, HasLimits, NoticesLoss, Pruned, Shared, SpoolAdmin
from poller.daemon import systemd
from poller.daemon.components import Component, Components
from poller.daemon.progress import DRAINING_EVERY, LARGE, RUNNING_EVERY, report_progress
from poller.daemon.reload import Changeover, ReloadPlan, new_accounts, plan
from poller.daemon.sharing import Sharing
from poller.daemon.signals import Stop
from poller.daemon.wiring import build_spool, build_tracing, control_path, event_filter, journal_path
from poller.operations import health
from poller.operations.duties import AUDIT, on_duty
from poller.operations.health import Health
from poller.operations.stream_states import count_streams
from poller.operations.throughput import Throughput
from poller.pipeline import recovery
from poller.pipeline.audit import Audit
from poller.pipeline.intake import Intake
from poller.pipeline.journal import Journal
from poller.pipeline.losses import Losses
from poller.pipeline.replayer import Replayer
from poller.pipeline.storage_watch import Placed, StorageWatch
from poller.qcloud.events.rebuilding import rebuilder
from poller.qcloud.wire.account import Account
from poller.runtime import stderr
from poller.runtime.clock import Clock, KeepsTime
from poller.runtime.failpoints import reached
from poller.runtime.http_server import MOST_CONNECTIONS, Listener
from poller.runtime.metrics import Metrics
from poller.settings import Settings, load
from poller.web.server import WebServer

log = structlog.get_logger("daemon")

HOUSEKEEPING = 30.0
WATCH_CLOCK = 1.0
LOOK_EVERY = 10.0
"""Seconds between two checks of the condition of all parts."""
ADOPT_EVERY = 1.0
COUNTED_WITHIN = 1.0
"""Seconds for reading the counts of a shared spool, once it was asked for more: see `health.ASKED_WITHIN`."""


class Daemon:
    """All parts of one configuration. Entering opens all of them; leaving closes them, the spool last.

    A reload reads `file` again. Without a file there is no reload. `visits` says that it is opened for a trial only
    (`Shared.visits`).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        file: Path | None = None,
        clock: Clock | None = None,
        visits: bool = False,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._file = file
        self._visits = visits
        self._clock = clock or Clock()
        self.losses = Losses(self._clock)
        self._watch = StorageWatch(self._clock)
        self._displaced: str | None = None
        self._web: WebServer | None = None
        self._sharing: Sharing | None = None
        self._stack = AsyncExitStack()
        self._group: asyncio.TaskGroup | None = None
        self._changing = asyncio.Lock()
        self._stopping = False
        self.spool: SpoolAdmin
        self.journal: Journal
        self.components: Components

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._stack.aclose()

    # ------------------------------------------------------------ building

    async def _open(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        spool = build_spool(settings.spool)
        if isinstance(spool, Shared):
            spool.visits = self._visits
        self.spool = await stack.enter_async_context(spool)
        if isinstance(spool, Shared) and spool.lacks_standby:
            log.warning("standby_missing", means="a server that is lost takes with it what it confirmed")
        if isinstance(self.spool, KeepsTime):
            self._clock = self.spool.clock
        told = spool.identity if isinstance(spool, Shared) else token_hex(8)
        self.metrics.spool_info.labels(told).set(1)
        self._throughput = Throughput(self._clock)
        self.losses.record_in(self.spool.count_loss)
        self._report_damage()
        journal = Journal(journal_path(settings), settings.journal.size)
        self.journal = await stack.enter_async_context(journal)
        self._report_losses()
        self.components = await stack.enter_async_context(
            Components(
                self.spool,
                self.journal,
                metrics=self.metrics,
                clock=self._clock,
                losses=self.losses,
                watch=self._watch,
                tracing=await stack.enter_async_context(build_tracing(settings.tracing)),
                competing=settings.spool.competing,
            )
        )
        self._audit = Audit(
            self.spool, lambda: self.settings.accounts, clock=self._clock, metrics=self.metrics
        )
        for name, account in settings.accounts.items():
            await self.components.open_account(name, account)
        for name, sink in settings.sinks.items():
            await self.components.open_sink(name, sink)
        for name, source in settings.sources.items():
            await self.components.open_source(name, source)
        if isinstance(self.spool, Shared):
            self._sharing = Sharing(self.spool, self.components, self.metrics)
            await self._sharing.open()
        if settings.admin is not None:
            await self._open_admin(stack)
        if settings.web is not None:
            self._web = await stack.enter_async_context(WebServer(settings.web, self._context))
        await stack.enter_async_context(
            ControlServer(control_path(settings), self._answer_request, self._tapped)
        )

    def _report_damage(self) -> None:
        if isinstance(self.spool, BeginsAnew) and (damage := self.spool.damage) is not None:
            self.losses.add("spool", f"the damaged file was moved to {damage.file}: {damage.reason}")
            log.error(
                "spool_began_anew",
                reason=damage.reason,
                moved_to=str(damage.file),
                means="undelivered events are in that file; ids are forgotten, so that duplicates may come",
                remedy=f"stop, then: poller spool salvage {damage.file} -c FILE",
            )

    def _report_losses(self) -> None:
        """Report the data that spool and journal have lost, once at the start."""
        if isinstance(self.spool, NoticesLoss) and self.spool.lost is not None:
            self.losses.add("spool", self.spool.lost, count=self.spool.commits_lost, damaged=True)
            log.error("spool_damaged", reason=self.spool.lost, count=self.spool.commits_lost)
        kept_as = self.spool.kept_as if isinstance(self.spool, NoticesLoss) else None
        anew = isinstance(self.spool, BeginsAnew) and self.spool.damage is not None  # told already
        found = recovery.describe_damage(self.journal, None if anew else kept_as)
        if found is not None:
            detail, pages = found
            self.losses.add("journal", detail, count=pages, damaged=True)
            log.error("journal_damaged", path=str(self.journal.path), reason=detail, count=pages)
        self.journal.begin_after(kept_as or 0)

    async def _open_admin(self, stack: AsyncExitStack) -> None:
        assert self.settings.admin is not None
        answer = admin.answers(
            self.metrics.registry,
            self.examine,
            self.settings.admin.token_value,
        )
        where = self.settings.admin.listen
        listener = await stack.enter_async_context(
            Listener(where.host, where.port, answer, each=MOST_CONNECTIONS // 2)
        )
        log.info("admin_listens", host=where.host, port=listener.port)

    def _answer_request(self, request: Request) -> AsyncGenerator[Row | None, None]:
        return control.answer(self._context(), request)

    def _tapped(self, request: Request) -> AsyncGenerator[bytes, None]:
        return control.tap(self._context(), request)

    def _context(self) -> OperatorContext:
        components = self.components
        return OperatorContext(
            settings=self.settings,
            spool=self.spool,
            clock=self._clock,
            metrics=self.metrics,
            source=components.source_parts.get,
            sink={courier.name: courier.sink for courier in components.couriers}.get,
            running=True,
            intakes=components.intakes,
            push_intakes=components.push_intakes,
            couriers=components.couriers,
            journal=self.journal,
            losses=self.losses,
            throughput=self._throughput,
            reload=self.reload,
            pages=None if self._web is None else self._web.address,
            wants=lambda name: event_filter(self.settings.sinks[name].only),
            accounts=components.accounts,
        )

    # ------------------------------------------------------------ health

    async def examine(self) -> Health:
        """Determine the condition of all parts, and set the gauges."""
        found = await health.examine(self._context())
        with suppress(
            StorageFull, TimeoutError
        ):  # it does not answer now, as `found` says: what was known stays
            async with asyncio.timeout(COUNTED_WITHIN if isinstance(self.spool, Shared) else None):
                if found.counted:
                    self._throughput.sample(await self.spool.tallies(), found.backlogs)
                self.metrics.spool_bytes.set(await self.spool.size())
        self._set_gauges(found)
        self.metrics.count_dropped_lines(stderr.dropped_lines())
        return found

    def _set_gauges(self, found: Health) -> None:
        metrics = self.metrics
        metrics.ready.set(not found.reasons)
        for sink, backlog in found.backlogs.items():
            age = self._clock.age(backlog.oldest) if backlog.oldest else 0.0
            metrics.sink_ready.labels(sink).set(found.sinks[sink].reason is None)
            metrics.backlog.labels(sink).set(backlog.events)
            metrics.oldest.labels(sink).set(age)
            metrics.dead_letters.labels(sink).set(backlog.dead)
            metrics.replay_left.labels(sink).set(self._left_to_replay(sink))
        if isinstance(self.spool, BeginsAnew):
            with suppress(OSError):  # no descriptor is left to look with: what was known stays
                metrics.spool_files_aside.set(len(self.spool.files_aside()))
        if isinstance(self.spool, HasLimits):
            for limit, fullness in self.spool.fullness.items():
                metrics.spool_fill.labels(limit).set(fullness)
        metrics.journal_bytes.set(self.journal.bytes_held)
        metrics.show_beats(
            {(one.source.account, one.source.name): one.beat_known for one in self.components.intakes}
        )
        for name, account in self.components.accounts.items():
            metrics.clock_skew.labels(name).set(account.skew)

    def _left_to_replay(self, sink: str) -> int:
        replays = self.spool.replays
        return sum(one.total - one.queued + (replays.unsettled(one) or 0) for one in self._open_replays(sink))

    def _open_replays(self, sink: str) -> list[Replay]:
        return [one for one in self.spool.replays.all() if one.sink == sink and one.state in OPEN]

    def _running_replay(self, sink: str) -> Replay | None:
        """The replay that goes on. Behind a paused one, all wait."""
        first = next(iter(self._open_replays(sink)), None)
        return first if first is not None and first.state is ReplayState.RUNNING else None

    async def _count_streams(self) -> None:
        """Not at each request for the metrics: there may be 100,000 streams."""
        streams = self.spool.streams()
        self.metrics.count_streams(await count_streams(streams, self.settings.accounts, self._clock.age))

    async def _watch_health(self) -> None:
        """Log when the daemon stops being ready, when the parts responsible for that change, and when it is ready
        again."""
        before: set[str] = set()
        await self.examine()  # the first sample of the pace
        while True:
            await self._count_streams()
            await asyncio.sleep(LOOK_EVERY)
            found = await self.examine()
            blamed = {": ".join(reason.split(": ")[:2]) for reason in found.reasons}
            if blamed and blamed != before:
                log.warning("not_ready", reasons=found.reasons)
            elif before and not blamed:
                log.info("ready_again")
            before = blamed

    # ------------------------------------------------------------ running

    async def run(self, stop: Stop) -> None:
        """Poll, receive and deliver until `stop`. Then wait for polls in flight, and for sinks within a grace period.

        Raises a group with `StorageError` when spool or journal fails for good, or when a file was moved or deleted.
        """
        async with asyncio.TaskGroup() as group:
            hearing = group.create_task(self._hear_reloads(stop))
            await self._run(group, stop.first, stop)
            hearing.cancel()

    async def drain(self, stop: Stop, timeout: float) -> bool:
        """Poll until every queue is empty, and deliver all events. Returns true if everything was delivered in time.

        Running replays are delivered too, paused ones are not.
        Otherwise an error in the log says what is left. Sources that are not destructive are polled too, but drain does
        not wait for them: they are never empty. Pushes are refused, because their senders would never come to an end,
        and repeat refused pushes later.
        """
        done = False

        async def drained() -> None:
            nonlocal done
            first = asyncio.ensure_future(stop.first())
            empty = asyncio.ensure_future(self._all_delivered())
            await asyncio.wait({first, empty}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            first.cancel()
            if empty.done():
                empty.result()  # raises if the spool has failed: then not everything was delivered
                done = True
            empty.cancel()

        async with asyncio.TaskGroup() as group:
            await self._run(group, drained, stop, pushed=False)
        left = await self._unfinished_work(done, stop.count > 0, timeout)
        if left:
            log.error("drain_failed", reason="; ".join(left))
        return not left

    async def _unfinished_work(self, done: bool, stopped: bool, timeout: float) -> list[str]:
        """What is left after a drain, and why, in one line each; empty if nothing is left."""
        left = []
        if not done:
            left.append("stopped by a signal" if stopped else f"not done within {timeout:g} s")
            left += [
                f"source {intake.source.name}: its queue was not seen empty"
                + _in_brackets(_why_not_empty(intake))
                for intake in self.components.intakes
                if intake.source.destructive and not intake.emptied.is_set()
            ]
        for courier in self.components.couriers:
            if not done and (undelivered := (await self.spool.backlog(courier.name)).events):
                _, error = courier.last_error or (None, "")
                why = courier.status.why or error
                left.append(f"sink {courier.name}: {undelivered} events undelivered" + _in_brackets(why))
            if replay := self._running_replay(courier.name):
                left.append(f"sink {courier.name}: replay {replay.number} is not done")
            if courier.dead:
                left.append(f"sink {courier.name}: {courier.dead} new dead letters")
        return left

    async def _run(
        self,
        group: asyncio.TaskGroup,
        until: Callable[[], Awaitable[None]],
        stop: Stop,
        *,
        pushed: bool = True,
    ) -> None:
        left_over = self.journal.leftover_count
        self._group = group
        self.components.begin(group, pushed=pushed)
        keeping = (
            self._keep_house(),
            self._watch_health(),
            self._watch_clock(),
            self._watch_storage(stop),
            self._adopt_pages(),
            report_progress(self._backlogs, RUNNING_EVERY, LARGE)
            if pushed
            else report_progress(self._backlogs, DRAINING_EVERY, 1),
            self._replayer().run(),
            self._audit_on_duty(),
            *(() if self._sharing is None else (self._sharing.follow(),)),
        )
        keepers = [group.create_task(work) for work in keeping]
        guarding = None if self._sharing is None else group.create_task(self._sharing.guard())
        systemd.notify("READY=1")
        log.info(
            "running",
            sources=len(self.components.sources),
            sinks=len(self.components.sinks),
            left_over=left_over,
        )
        await until()
        await self._wind_up(stop, keepers)
        if guarding is not None:
            guarding.cancel()
        if self._displaced is not None:
            raise StorageError(self._displaced)

    async def _wind_up(self, stop: Stop, keepers: Sequence[asyncio.Task[None]]) -> None:
        systemd.notify("STOPPING=1")
        log.info("stopping")
        reached("stop.begun")
        self._stopping = True
        self.components.stop()
        async with self._changing:  # a reload in progress ends first, and starts no more parts
            self.components.stop()
        for keeper in keepers:
            keeper.cancel()
        await self.components.wait_for_sinks(stop.second())
        await self.components.wait_for_sources()
        await self.components.backfills_ended()
        log.info("stopped")

    async def _adopt_pages(self) -> None:
        """Move pages that no source can parse from the journal to quarantine, so that every page is handled."""
        orphans = recovery.Orphans(self.spool, self.journal)
        while True:
            async with self._changing:  # a reload may be about to start the source of these pages
                await orphans.step({intake.source.name for intake in self.components.intakes}, self._keys())
            await asyncio.sleep(ADOPT_EVERY)

    async def _audit_on_duty(self) -> None:
        """One daemon at a time audits. It goes on where the one before it was."""
        async with on_duty(self.spool, AUDIT):
            await self._audit.run()

    def _replayer(self) -> Replayer:
        return Replayer(self.spool, lambda: self.components.sinks, lambda: rebuilder(self.settings.accounts))

    def _keys(self) -> list[str]:
        return [account.key_value for account in self.settings.accounts.values()]

    async def _all_delivered(self) -> None:
        for intake in self.components.intakes:
            if intake.source.destructive:  # others are never empty, and the next run finds their events
                await intake.emptied.wait()
        for intake in self.components.intakes:
            intake.stop()
        await self.components.wait_for_sources()  # another lane may still have an uncommitted page
        while True:
            self.components.settled.clear()
            replaying = any(self._running_replay(courier.name) for courier in self.components.couriers)
            if not replaying and not await self._has_pending() and not self.journal.bytes_held:
                return
            try:
                async with asyncio.timeout(1.0):  # passing events that no sink wants does not set `settled`
                    await self.components.settled.wait()
            except TimeoutError:
                continue

    async def _watch_storage(self, stop: Stop) -> None:
        parts: tuple[object, ...] = (self.spool, self.journal)
        placed = [part for part in parts if isinstance(part, Placed)]
        self._displaced = await self._watch.run(placed, self._has_pending)
        stop.now()

    async def _has_pending(self) -> bool:
        """Whether events are pending, as far as is known: the spool may not answer now."""
        try:
            return any((await self._backlogs()).values())
        except StorageFull:
            return True

    async def _backlogs(self) -> dict[str, int]:
        """The number of pending events of each sink."""
        return {
            courier.name: (await self.spool.backlog(courier.name)).events
            for courier in self.components.couriers
        }

    async def _keep_house(self) -> None:
        while True:
            try:
                while self._report_pruned(await self.spool.prune()):
                    await asyncio.sleep(0.05)  # let other writers commit between two steps
            except StorageFull as error:
                log.warning("pruning_failed", reason=str(error))
            await asyncio.sleep(HOUSEKEEPING)

    async def _watch_clock(self) -> None:
        while True:
            for jump in self._clock.jumps():
                log.warning(
                    "clock_jumped",
                    seconds=round(jump.seconds, 1),
                    when="before the start" if jump.at_start else "while running",
                    means="waits, ages and what is kept go on as if it had not",
                )
            await asyncio.sleep(WATCH_CLOCK)

    def _report_pruned(self, pruned: Pruned) -> bool:
        """Report expired dead letters and rejects, which were never delivered; true if there is more to prune."""
        for sink, count in pruned.dead.items():
            log.warning("dead_letters_expired", sink=sink, count=count)
        if pruned.rejects:
            log.warning("quarantine_expired", count=pruned.rejects)
        self.metrics.expired.labels("dead_letter").inc(sum(pruned.dead.values()))
        self.metrics.expired.labels("quarantine").inc(pruned.rejects)
        return pruned.more

    # ------------------------------------------------------------ reloading

    async def _hear_reloads(self, stop: Stop) -> None:
        while True:
            await stop.reload_wanted()
            try:
                await self.reload()
            except PollerError as error:
                log.error("reload_refused", reason=str(error))

    async def reload(self, *, dry: bool = False) -> ReloadPlan:
        """Apply the configuration file as it is now. Unchanged parts go on, and sinks keep their positions.

        With `dry`, nothing changes and the plan is returned. Raises `BadConfiguration` or another `PollerError` if the
        file cannot be applied; then nothing has changed.
        """
        if self._file is None or self._group is None:
            raise PollerError("there is nothing to reload: this daemon has no configuration file")
        async with self._changing:
            settings = await asyncio.to_thread(load, self._file)
            planned = plan(self.settings, settings)
            if not dry and not self._stopping:
                if isinstance(self.spool, Shared):
                    await self.spool.check_answers()  # sinks cannot be attached while the database is away
                accounts = await new_accounts(planned, settings)
                # a task of the group: a failure half-way ends the process, and its next start reads the new file
                await self._group.create_task(self._change(planned, settings, accounts))
        return planned

    async def _change(
        self, planned: ReloadPlan, new: Settings, accounts: dict[str, Component[Account]]
    ) -> None:
        systemd.notify_reloading(self._clock.monotonic())
        change = Changeover(self.components, self.settings, planned)
        await change.make(new, accounts, lambda: self._stopping)
        self.settings = change.settings
        systemd.notify("READY=1")


def _why_not_empty(intake: Intake) -> str:
    """Why the queue of a source was not seen empty; empty if nothing stands in the way."""
    if intake.stands_by:
        return "another daemon polls it"
    return intake.trouble or (intake.failure if intake.failing else "")


def _in_brackets(why: str) -> str:
    return f" ({why})" if why else ""
