"""The only place where the parts meet: built from settings, started, and stopped in order."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import structlog

from poller import admin, control, health, plugins, systemd
from poller.assembly import built, control_path, journal_path, terms, wants
from poller.clock import Clock
from poller.control import ControlServer, Request, Row, Works
from poller.courier import Courier
from poller.errors import PollerError, StorageFull
from poller.failpoints import reached
from poller.intake import Intake
from poller.journal import Journal
from poller.listen import Listener
from poller.metrics import Metrics
from poller.model import Page, PollOutcome, Reading, Reject
from poller.ports import BeginsAnew, Follows, PushedSource, Sink, Source, Spool
from poller.qcloud.account import Account
from poller.reception import Reception
from poller.reload import Plan, plan
from poller.served import Part, Served
from poller.settings import Settings, SinkSettings, SourceSettings, load
from poller.stop import Stop

log = structlog.get_logger("daemon")

GRACE = 20.0
"""Seconds that sinks get to finish what they hold."""
HOUSEKEEPING = 30.0


class Daemon:
    """All parts of one configuration. Entering opens every one of them, leaving closes them, the spool last.

    `file` is where the configuration is read again from at a reload; without it there is none.
    """

    def __init__(self, settings: Settings, *, file: Path | None = None, clock: Clock | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._file = file
        self._clock = clock or Clock()
        self._stack = AsyncExitStack()
        self._settled = asyncio.Event()
        self._watchdog = systemd.Watchdog(self._clock.monotonic)
        self._accounts: dict[str, Served[Account]] = {}
        self._sources: dict[str, Served[Intake | Reception]] = {}
        self._sinks: dict[str, Served[Courier]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._changing = asyncio.Lock()
        self._stopping = False
        self.spool: Spool
        self.journal: Journal

    @property
    def intakes(self) -> list[Intake]:
        """The pumps of sources that ask."""
        return [one.part for one in self._sources.values() if isinstance(one.part, Intake)]

    @property
    def receptions(self) -> list[Reception]:
        """The pumps of sources that are pushed to."""
        return [one.part for one in self._sources.values() if isinstance(one.part, Reception)]

    @property
    def couriers(self) -> list[Courier]:
        """The pumps of sinks."""
        return [one.part for one in self._sinks.values()]

    @property
    def accounts(self) -> dict[str, Account]:
        """The accounts, entered."""
        return {name: one.part for name, one in self._accounts.items()}

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
            cast(Spool, built(plugins.SPOOLS, "spool", settings.spool, {}))
        )
        self._tell_damage()
        journal = Journal(journal_path(settings), settings.journal.size)
        self.journal = await stack.enter_async_context(journal)
        stack.push_async_callback(_leave_all, self._accounts)
        stack.push_async_callback(_leave_all, self._sinks)
        stack.push_async_callback(_leave_all, self._sources)
        for name, account in settings.accounts.items():
            self._accounts[name] = await Served.enter(Account(name, account))
        for name, sink in settings.sinks.items():
            await self._open_sink(name, sink)
        for name, source in settings.sources.items():
            await self._open_source(name, source)
        if settings.admin is not None:
            await self._open_admin(stack)
        await stack.enter_async_context(ControlServer(control_path(settings), self._asked))

    def _tell_damage(self) -> None:
        if isinstance(self.spool, BeginsAnew) and (damage := self.spool.damage) is not None:
            log.error(
                "spool_began_anew",
                reason=damage.reason,
                moved_to=str(damage.file),
                means="undelivered events are in that file; ids are forgotten, so that duplicates may come",
                remedy=f"stop, then: poller spool salvage {damage.file} -c FILE",
            )

    async def _open_sink(self, name: str, settings: SinkSettings) -> None:
        sink = cast(Sink, built(plugins.SINKS, name, settings, self.accounts))
        await self.spool.attach(name, wants(settings.only), ordered=settings.order == "stream")
        served = await Served.enter(sink)
        self.metrics.declare_sink(name)
        courier = Courier(
            sink,
            self.spool,
            terms(settings),
            metrics=self.metrics,
            clock=self._clock,
            settled=self._settled,
        )
        self._sinks[name] = served.with_pump(courier)
        if name in await self.spool.paused():
            courier.hold()

    async def _open_source(self, name: str, settings: SourceSettings) -> None:
        source = built(plugins.SOURCES, name, settings, self.accounts)
        if isinstance(source, Follows):
            source.follow(self.spool.streams)
        beat = self._watchdog.beater(name)
        pump: Intake | Reception
        if isinstance(source, PushedSource):
            self.metrics.declare_pushed_source(name)
            pump = Reception(source, self.spool, metrics=self.metrics, beat=beat)
            source.attach(pump)
        else:
            source = cast(Source, source)
            self.metrics.declare_source(source.account, name)
            pump = Intake(
                source, self.spool, self.journal, metrics=self.metrics, clock=self._clock, beat=beat
            )
        self._sources[name] = (await Served.enter(source)).with_pump(pump)

    async def _open_admin(self, stack: AsyncExitStack) -> None:
        assert self.settings.admin is not None
        answer = admin.answers(
            self.metrics.registry,
            lambda: health.refresh(self._works(), self.accounts),
            lambda: health.reasons(self._works()),
            self.settings.admin.token_value,
            lambda: health.notes(self._works()),
        )
        where = self.settings.admin.listen
        listener = await stack.enter_async_context(Listener(where.host, where.port, answer))
        log.info("admin_listens", host=where.host, port=listener.port)

    def _asked(self, request: Request) -> AsyncGenerator[Row | None, None]:
        return control.answer(self._works(), request)

    def _works(self) -> Works:
        sources: dict[str, Source | PushedSource] = {
            name: one.part.source for name, one in self._sources.items()
        }
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
            reload=self.reload,
        )

    # ------------------------------------------------------------ running

    async def run(self, stop: Stop) -> None:
        """Poll, receive and deliver until `stop`; then wait for polls in flight, and give sinks their grace."""
        async with asyncio.TaskGroup() as group:
            hearing = group.create_task(self._hear_reloads(stop))
            await self._run(group, stop.first, stop)
            hearing.cancel()

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
            await self._run(group, drained, stop, pushed=False)
        return done and not any(courier.dead for courier in self.couriers)

    async def _run(
        self,
        group: asyncio.TaskGroup,
        until: Callable[[], Awaitable[None]],
        stop: Stop,
        *,
        pushed: bool = True,
    ) -> None:
        left_over = await self._sorted_pages()
        self._group = group
        for name, source in self._sources.items():
            if pushed or isinstance(source.part, Intake):
                self._begin_source(name, left_over.get(name, ()))
        for sink in self._sinks.values():
            sink.begin(group, sink.part.run())
        keeper = group.create_task(self._keep_house())
        systemd.notify("READY=1")
        log.info(
            "running",
            sources=len(self._tasks(self._sources)),
            sinks=len(self._sinks),
            left_over=sum(map(len, left_over.values())),
        )
        await until()
        await self._wind_up(stop, keeper)

    async def _wind_up(self, stop: Stop, keeper: asyncio.Task[None]) -> None:
        systemd.notify("STOPPING=1")
        log.info("stopping")
        reached("stop.begun")
        self._stopping = True
        self._stop_parts()
        async with self._changing:  # a reload that was under way begins nothing more
            self._stop_parts()
        keeper.cancel()
        await self._grace(self._tasks(self._sinks), stop.second())
        await _ended(self._tasks(self._sources))
        log.info("stopped")

    def _stop_parts(self) -> None:
        for source in self._sources.values():
            source.part.stop()
        for sink in self._sinks.values():
            sink.part.stop()

    def _begin_source(self, name: str, left_over: Sequence[tuple[int, Page]] = ()) -> None:
        assert self._group is not None
        source = self._sources[name]
        pump = source.part
        source.begin(self._group, pump.run(left_over) if isinstance(pump, Intake) else pump.run())

    def _tasks(
        self, parts: Mapping[str, Served[Intake | Reception]] | Mapping[str, Served[Courier]]
    ) -> list[asyncio.Task[None]]:
        return [one.task for one in parts.values() if one.task is not None]

    async def _grace(self, couriers: list[asyncio.Task[None]], hurried: Awaitable[None]) -> None:
        """Give couriers that were stopped their time, but when we are in a hurry."""
        hurry = asyncio.ensure_future(hurried)
        ended = asyncio.ensure_future(_ended(couriers))
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
        await _ended(self._tasks(self._sources))  # another lane may still hold a page that is owed then
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

    # ------------------------------------------------------------ reloading

    async def _hear_reloads(self, stop: Stop) -> None:
        while True:
            await stop.reload_wanted()
            try:
                await self.reload()
            except PollerError as error:
                log.error("reload_refused", reason=str(error))

    async def reload(self, *, dry: bool = False) -> Plan:
        """Heed the configuration file as it is now: what did not change goes on, positions are kept.

        `dry` only says what would be done. Raises `BadConfiguration` and `PollerError` when nothing was changed.
        """
        if self._file is None or self._group is None:
            raise PollerError("there is nothing to reload: this daemon has no configuration file")
        async with self._changing:
            settings = await asyncio.to_thread(load, self._file)
            planned = plan(self.settings, settings)
            if not dry and not self._stopping:
                accounts = await self._new_accounts(planned, settings)
                # a task of the group: a failure in the midst ends the process, whose next start reads the new file
                await self._group.create_task(self._heed(planned, settings, accounts))
        return planned

    async def _heed(self, planned: Plan, new: Settings, accounts: dict[str, Served[Account]]) -> None:
        systemd.notify_reloading(self._clock.monotonic())
        log.info("reloading", plan=planned.lines())
        await self._end_sources(planned)
        await self._end_sinks(planned)
        old, self.settings = self.settings, _heeded(self.settings, new, planned)
        gone = [one for name in planned.accounts if (one := self._accounts.pop(name, None))]
        self._accounts.update(accounts)
        for one in gone:
            await one.leave()
        if self._stopping:
            return
        for name in planned.sinks.beginning:
            await self._begin_sink_anew(name, old.sinks.get(name))
        for name in planned.sources.beginning:
            await self._begin_source_anew(name, old.sources.get(name))
        systemd.notify("READY=1")
        log.info("reloaded", unheeded=planned.unheeded)

    async def _new_accounts(self, planned: Plan, new: Settings) -> dict[str, Served[Account]]:
        """First of all, as it may fail, and then nothing has changed."""
        found: dict[str, Served[Account]] = {}
        for name in planned.accounts:
            if name in new.accounts:
                try:
                    found[name] = await Served.enter(Account(name, new.accounts[name]))
                except OSError as error:
                    await _leave_all(found)
                    raise PollerError(f"account {name}: {error}") from error
        return found

    async def _end_sources(self, planned: Plan) -> None:
        ending = [self._sources[name] for name in planned.sources.ending]
        for one in ending:
            one.part.stop()
        await _ended([one.task for one in ending if one.task is not None])
        for name in planned.sources.ending:
            await self._sources.pop(name).leave()
            self._watchdog.forget(name)

    async def _end_sinks(self, planned: Plan) -> None:
        ending = [self._sinks[name] for name in planned.sinks.ending]
        for one in ending:
            one.part.stop()
        never = asyncio.get_running_loop().create_future()
        await self._grace([one.task for one in ending if one.task is not None], never)
        for name in planned.sinks.ending:
            await self._sinks.pop(name).leave()
        for name in planned.sinks.stop:
            await self.spool.detach(name)
            self.metrics.forget_sink(name)

    async def _begin_sink_anew(self, name: str, before: SinkSettings | None) -> None:
        assert self._group is not None
        try:
            await self._open_sink(name, self.settings.sinks[name])
        except (PollerError, OSError) as error:
            self._keep_old("sinks", name, before, error)
            if before is None:
                await self.spool.detach(name)
                return
            await self._open_sink(name, before)
        sink = self._sinks[name]
        sink.begin(self._group, sink.part.run())

    async def _begin_source_anew(self, name: str, before: SourceSettings | None) -> None:
        try:
            await self._open_source(name, self.settings.sources[name])
        except (PollerError, OSError) as error:
            self._watchdog.forget(name)
            self._keep_old("sources", name, before, error)
            if before is None:
                return
            await self._open_source(name, before)
        self._begin_source(name)

    def _keep_old(self, section: str, name: str, before: object, error: Exception) -> None:
        """A part that cannot be opened as it is now wanted stays as it was; the next reload tries again."""
        outcome = "stays away" if before is None else "goes on as it was"
        log.error(
            "reload_failed", part=f"{section.removesuffix('s')} {name}", reason=str(error), outcome=outcome
        )
        parts = dict(getattr(self.settings, section))
        del parts[name]
        if before is not None:
            parts[name] = before
        self.settings = self.settings.model_copy(update={section: parts})


def _heeded(old: Settings, new: Settings, planned: Plan) -> Settings:
    """The new settings, but for what only a restart heeds: the next reload says so again."""
    return new.model_copy(update={section: getattr(old, section) for section in planned.unheeded})


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)


async def _leave_all(parts: dict[str, Served[Part]]) -> None:
    while parts:
        _, one = parts.popitem()
        await one.leave()
