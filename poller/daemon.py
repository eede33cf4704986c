"""The only place where the parts meet: built from settings, started, and stopped in order."""

import asyncio
import fnmatch
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import structlog

from poller import admin, control, plugins, systemd
from poller.clock import Clock
from poller.control import ControlServer, Works
from poller.courier import Courier, SinkState, Terms
from poller.errors import StorageError, StorageFull
from poller.intake import Intake
from poller.journal import Journal
from poller.listen import Listener
from poller.metrics import Metrics
from poller.model import Event, Page, PollOutcome, Reading, Reject
from poller.ports import BeginsAnew, Follows, PushedSource, Sink, Source, Spool, Wants
from poller.qcloud.account import Account
from poller.reception import Reception
from poller.retry import RetryPolicy
from poller.settings import Only, Settings, SinkSettings
from poller.stop import Stop

log = structlog.get_logger("daemon")

GRACE = 20.0
"""Seconds that sinks get to finish what they hold."""
HOUSEKEEPING = 30.0
POLLED_LATELY = 180.0
"""Without a good answer for so many seconds, a source is not ready."""
PROVE_WITHIN = 5.0


class Daemon:
    """All parts of one configuration. Entering opens every one of them, leaving closes them, the spool last."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._clock = clock or Clock()
        self._stack = AsyncExitStack()
        self._settled = asyncio.Event()
        self._watchdog = _Watchdog(self._clock)
        self.accounts: dict[str, Account] = {}
        self.intakes: list[Intake] = []
        self.receptions: list[Reception] = []
        self._polling: list[asyncio.Task[None]] = []
        self.couriers: list[Courier] = []
        self.spool: Spool
        self.journal: Journal

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
        self.spool = await stack.enter_async_context(
            cast(Spool, _built(plugins.SPOOLS, "spool", settings.spool, {}))
        )
        self._tell_damage()
        journal = Journal(_journal_path(settings), settings.journal.size)
        self.journal = await stack.enter_async_context(journal)
        for name, account in settings.accounts.items():
            self.accounts[name] = await stack.enter_async_context(Account(name, account))
        for name, sink in settings.sinks.items():
            await self._open_sink(stack, name, sink)
        for name, source in settings.sources.items():
            await self._open_source(stack, _built(plugins.SOURCES, name, source, self.accounts))
        if settings.admin is not None:
            await self._open_admin(stack)
        await stack.enter_async_context(
            ControlServer(control_path(settings), partial(control.answer, self._works()))
        )

    def _tell_damage(self) -> None:
        if isinstance(self.spool, BeginsAnew) and (damage := self.spool.damage) is not None:
            log.error(
                "spool_began_anew",
                reason=damage.reason,
                moved_to=str(damage.file),
                means="undelivered events are in that file; ids are forgotten, so that duplicates may come",
                remedy=f"stop, then: poller spool salvage {damage.file} -c FILE",
            )

    async def _open_sink(self, stack: AsyncExitStack, name: str, settings: SinkSettings) -> None:
        built = cast(Sink, _built(plugins.SINKS, name, settings, self.accounts))
        sink = await stack.enter_async_context(built)
        await self.spool.attach(name, wants(settings.only), ordered=settings.order == "stream")
        self.metrics.declare_sink(name)
        courier = Courier(
            sink,
            self.spool,
            terms(settings),
            metrics=self.metrics,
            clock=self._clock,
            settled=self._settled,
        )
        if name in await self.spool.paused():
            courier.hold()
        self.couriers.append(courier)

    async def _open_source(self, stack: AsyncExitStack, built: object) -> None:
        if isinstance(built, Follows):
            built.follow(self.spool.streams)
        if isinstance(built, PushedSource):
            reception = self._add_reception(built)
            built.attach(reception)
            await stack.enter_async_context(built)
        else:
            self._add_intake(await stack.enter_async_context(cast(Source, built)))

    def _add_reception(self, source: PushedSource) -> Reception:
        self.metrics.declare_pushed_source(source.name)
        beat = self._watchdog.beater(source.name)
        reception = Reception(source, self.spool, metrics=self.metrics, beat=beat)
        self.receptions.append(reception)
        return reception

    def _add_intake(self, source: Source) -> None:
        self.metrics.declare_source(source.account, source.name)
        beat = self._watchdog.beater(source.name)
        self.intakes.append(
            Intake(source, self.spool, self.journal, metrics=self.metrics, clock=self._clock, beat=beat)
        )

    async def _open_admin(self, stack: AsyncExitStack) -> None:
        assert self.settings.admin is not None
        answer = admin.answers(
            self.metrics.registry, self._refresh, self.reasons, self.settings.admin.token_value, self.notes
        )
        where = self.settings.admin.listen
        listener = await stack.enter_async_context(Listener(where.host, where.port, answer))
        log.info("admin_listens", host=where.host, port=listener.port)

    def _works(self) -> Works:
        sources: dict[str, Source | PushedSource] = {one.source.name: one.source for one in self.intakes}
        sources |= {one.source.name: one.source for one in self.receptions}
        return Works(
            settings=self.settings,
            spool=self.spool,
            clock=self._clock,
            metrics=self.metrics,
            source=sources.get,
            running=True,
            intakes=self.intakes,
            receptions=self.receptions,
            couriers=self.couriers,
            journal=self.journal,
        )

    # ------------------------------------------------------------ running

    async def run(self, stop: Stop) -> None:
        """Poll, receive and deliver until `stop`; then wait for polls in flight, and give sinks their grace."""
        async with asyncio.TaskGroup() as group:
            await self._run(group, stop.first, stop, self.receptions)

    async def drain(self, stop: Stop, timeout: float) -> bool:
        """Poll until every queue is empty and deliver it all; true if every delivery was done in time.

        Sources that take nothing away are not waited for: what they find meanwhile is delivered too. Nothing that is
        pushed is taken: its senders repeat, and there would be no end.
        """
        done = False

        async def drained() -> None:
            nonlocal done
            first = asyncio.ensure_future(stop.first())
            empty = asyncio.ensure_future(self._all_delivered())
            await asyncio.wait({first, empty}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            first.cancel()
            if empty.done():
                empty.result()  # a spool that failed has not delivered
                done = True
            empty.cancel()

        async with asyncio.TaskGroup() as group:
            await self._run(group, drained, stop, ())
        return done and not any(courier.dead for courier in self.couriers)

    async def _run(
        self,
        group: asyncio.TaskGroup,
        until: Callable[[], Awaitable[None]],
        stop: Stop,
        receptions: Sequence[Reception],
    ) -> None:
        left_over = await self._sorted_pages()
        intakes = [group.create_task(i.run(left_over.get(i.source.name, ()))) for i in self.intakes]
        self._polling = intakes
        receiving = [group.create_task(reception.run()) for reception in receptions]
        couriers = [group.create_task(courier.run()) for courier in self.couriers]
        keeper = group.create_task(self._keep_house())
        systemd.notify("READY=1")
        log.info(
            "running",
            sources=len(intakes) + len(receiving),
            sinks=len(couriers),
            left_over=sum(map(len, left_over.values())),
        )
        await until()
        systemd.notify("STOPPING=1")
        log.info("stopping")
        for intake in self.intakes:
            intake.stop()
        for reception in receptions:
            reception.stop()
        for courier in self.couriers:
            courier.stop()
        keeper.cancel()
        await self._grace(couriers, stop)
        await _ended([*intakes, *receiving])
        log.info("stopped")

    async def _grace(self, couriers: list[asyncio.Task[None]], stop: Stop) -> None:
        hurry = asyncio.ensure_future(stop.second())
        ended = asyncio.ensure_future(asyncio.wait(couriers))
        await asyncio.wait({hurry, ended}, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        for courier in couriers:
            courier.cancel()
        await ended

    async def _sorted_pages(self) -> Mapping[str, list[tuple[int, Page]]]:
        """What the journal held from before, by source; pages of sources that are gone go to quarantine."""
        names = {intake.source.name for intake in self.intakes}
        pages: defaultdict[str, list[tuple[int, Page]]] = defaultdict(list)
        for number, page in self.journal.left_over():
            if page.source in names:
                pages[page.source].append((number, page))
                continue
            reject = Reject(
                received_at=page.received_at,
                reason=f"source {page.source} is not configured any more",
                encoding=page.encoding,
                body=page.body,
            )
            reading = Reading(events=(), rejects=(reject,), outcome=PollOutcome.PARTIAL)
            try:
                await self.spool.append(page.source, [reading])
            except StorageFull as error:  # the sinks must run for that to end
                log.warning("page_stays_in_journal", source=page.source, reason=str(error))
                continue
            self.journal.release(number)
        return pages

    async def _all_delivered(self) -> None:
        for intake in self.intakes:
            if intake.source.destructive:  # the others are never empty: what they leave, the next run finds
                await intake.emptied.wait()
        for intake in self.intakes:
            intake.stop()
        await _ended(self._polling)  # another lane may still hold a page that is owed then
        while True:
            self._settled.clear()
            owed = [(await self.spool.backlog(courier.name)).events for courier in self.couriers]
            if not any(owed) and not self.journal.bytes_held:
                return
            try:
                async with asyncio.timeout(1.0):  # events that no sink wants are passed without a settlement
                    await self._settled.wait()
            except TimeoutError:
                continue

    async def _keep_house(self) -> None:
        while True:
            try:
                while await self.spool.prune():
                    await asyncio.sleep(0.05)  # between two steps, for those who wait for a commit
            except StorageFull as error:
                log.warning("pruning_failed", reason=str(error))
            await asyncio.sleep(HOUSEKEEPING)

    # ------------------------------------------------------------ what an operator sees

    async def _refresh(self) -> None:
        metrics, now = self.metrics, self._clock.now()
        for courier in self.couriers:
            backlog = await self.spool.backlog(courier.name)
            age = (now - backlog.oldest).total_seconds() if backlog.oldest else 0.0
            metrics.backlog.labels(courier.name).set(backlog.events)
            metrics.oldest.labels(courier.name).set(max(0.0, age))
            metrics.dead_letters.labels(courier.name).set(backlog.dead)
        metrics.spool_bytes.set(await self.spool.size())
        if isinstance(self.spool, BeginsAnew):
            metrics.spool_files_aside.set(len(self.spool.files_aside()))
        metrics.journal_bytes.set(self.journal.bytes_held)
        for name, account in self.accounts.items():
            metrics.clock_skew.labels(name).set(account.skew)

    async def reasons(self) -> list[str]:
        """Why the daemon is not ready; empty when it is."""
        return [*self._source_reasons(), *await self._spool_reasons(), *await self._sink_reasons()]

    def notes(self) -> list[str]:
        """What is not as usual, and no reason by itself: sinks that are paused, until they are too far behind."""
        standings = [(courier.name, courier.standing) for courier in self.couriers]
        return [
            f"sink {name}: {standing.state}: {standing.why}"
            for name, standing in standings
            if standing.state is SinkState.PAUSED
        ]

    def _source_reasons(self) -> list[str]:
        found = []
        for intake in self.intakes:
            name = intake.source.name
            if intake.trouble is not None:
                found.append(f"source {name}: polling is paused: {intake.trouble}")
            elif not intake.source.destructive and not intake.failing:
                continue  # it asks when something is due, which may take hours
            elif intake.last_answer is None:
                found.append(f"source {name}: no good answer yet")
            elif (age := self._clock.monotonic() - intake.last_answer) > POLLED_LATELY:
                found.append(f"source {name}: no good answer for {age:.0f} s")
        for reception in self.receptions:
            if reception.trouble is not None:
                found.append(f"source {reception.source.name}: takes nothing: {reception.trouble}")
        return found

    async def _spool_reasons(self) -> list[str]:
        try:
            async with asyncio.timeout(PROVE_WITHIN):
                await self.spool.prove()
        except StorageError as error:
            return [f"spool: {error}"]
        except TimeoutError:
            return [f"spool: no write within {PROVE_WITHIN:.0f} s"]
        return []

    async def _sink_reasons(self) -> list[str]:
        assert self.settings.admin is not None
        limit, now, found = self.settings.admin.sink_age_limit, self._clock.now(), []
        for courier in self.couriers:
            backlog = await self.spool.backlog(courier.name)
            age = (now - backlog.oldest).total_seconds() if backlog.oldest else 0.0
            if courier.disabled is not None:
                found.append(f"sink {courier.name}: disabled: {courier.disabled}")
            elif age > limit and not courier.held:  # who paused it knows
                state = "paused and probed, " if courier.paused else ""
                found.append(f"sink {courier.name}: {state}its oldest event waits for {age:.0f} s")
        return found


class _Watchdog:
    """Tells the service manager that we live, as long as every poll loop does."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._beats: dict[str, float] = {}
        seconds = systemd.watchdog_seconds()
        self._every = None if seconds is None else seconds / 4
        self._told = 0.0

    def beater(self, source: str) -> Callable[[], None]:
        """What a poll loop calls at every turn, and at least every 60 s: that is the longest poll."""
        self._beats[source] = self._clock.monotonic()

        def beat() -> None:
            now = self._clock.monotonic()
            self._beats[source] = now
            if self._every is None or now - self._told < self._every:
                return
            if now - min(self._beats.values()) < self._every * 2:
                self._told = now
                systemd.notify("WATCHDOG=1")

        return beat


def _built(group: plugins.Group, name: str, settings: Any, accounts: Mapping[str, Account]) -> object:
    adapter: Any = plugins.adapter(group, settings.type)
    return adapter(name, settings, accounts)


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)


def _journal_path(settings: Settings) -> Path:
    if settings.journal.path is not None:
        return settings.journal.path
    spool = getattr(settings.spool, "path", None)
    return (
        spool.with_name(spool.name + ".journal")
        if isinstance(spool, Path)
        else Path("poller.journal").absolute()
    )


def control_path(settings: Settings) -> Path:
    """Where a daemon with these settings listens for its operator: beside the spool, or the journal without one."""
    spool = getattr(settings.spool, "path", None)
    return control.socket_path(spool if isinstance(spool, Path) else _journal_path(settings))


def wants(only: Only | None) -> Wants:
    """Whether an event passes a sink's `only`."""
    if only is None:
        return lambda event: True
    kinds = None if only.kinds is None else frozenset(only.kinds)
    streams = None if only.streams is None else re.compile("|".join(map(fnmatch.translate, only.streams)))

    def wanted(event: Event) -> bool:
        if kinds is not None and event.kind not in kinds:
            return False
        return streams is None or streams.match(event.stream_id) is not None

    return wanted


def terms(settings: SinkSettings) -> Terms:
    """How a sink wants to be served."""
    rate = settings.rate
    return Terms(
        policy=RetryPolicy(give_up_after=settings.give_up_after),
        timeout=settings.timeout,
        concurrency=settings.concurrency,
        max_events=settings.batch.max_events,
        max_wait=settings.batch.max_wait,
        rate=None if rate is None else (rate.limit, rate.period),
        ordered=settings.order == "stream",
    )
