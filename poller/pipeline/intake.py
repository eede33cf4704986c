"""The intake of a polled source, from the poll to the spool.

Purpose
    An intake polls one source, keeps each destructive answer in the journal, parses it, and commits the result.

Invariants
    An intake never waits for a sink. A destructive poll is sent only after the journal has reserved space for its
    answer. A poll in flight is never cancelled, because the platform hands out a message only once. A page is released
    in the journal after its commit, or at once if it changes nothing.

Life cycle
    `run` first commits the pages that an earlier process left in the journal. Then it waits for the duty, if one daemon
    at a time polls the source, and polls until `stop`. It ends when every poll in flight has been answered and
    committed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import structlog

from poller.core.errors import NotSent, StorageError
from poller.core.model import ParsedPage, PollOutcome, RawPage
from poller.core.ports import Source
from poller.core.spool import Spool
from poller.core.tracing import NO_TRACING, Tracing
from poller.pipeline.beat import Beat
from poller.pipeline.ingest import Ingest
from poller.pipeline.journal import Journal
from poller.pipeline.losses import Losses
from poller.pipeline.pace import FAILURES, Pace, next_pace
from poller.pipeline.storage_gate import StorageGate
from poller.pipeline.storage_watch import StorageWatch
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.runtime.metrics import Metrics

log = structlog.get_logger("intake")

COMMIT_TOGETHER = 16
GATHER = 0.05
"""Seconds between two commits while a backlog is drained. Pages that share a commit cost the spool half as much."""
HEARTBEAT = 10.0
"""Seconds between two heartbeats during a long wait."""
STANDS_BY_AFTER = 1.0
"""Seconds of waiting for the duty after which the source is shown as polled by another daemon."""

Result = TypeVar("Result")
Duty = Callable[[], AbstractAsyncContextManager[None]]
"""Returns what waits until no other daemon polls the source, and keeps the others from polling it (`Shared.duty`)."""


class Intake:
    """Drains one source. After `stop`, `run` ends once every poll in flight is answered and committed."""

    def __init__(
        self,
        source: Source,
        spool: Spool,
        journal: Journal,
        *,
        metrics: Metrics,
        clock: Clock,
        losses: Losses | None = None,
        watch: StorageWatch | None = None,
        heartbeat: Callable[[], None] = lambda: None,
        may_have_lost: Callable[[], None] = lambda: None,
        tracing: Tracing = NO_TRACING,
        duty: Duty | None = None,
    ) -> None:
        """`may_have_lost` is called after each poll that may have removed messages that nobody will see.

        `duty` is None for a source that every daemon polls.
        """
        self.source = source
        self._spool = spool
        self._journal = journal
        self._metrics = metrics
        self._losses = losses or Losses(clock)
        self._clock = clock
        self._watch = watch or StorageWatch(clock)
        self._heartbeat = heartbeat
        self._may_have_lost = may_have_lost
        self._duty = duty
        self._ingest = Ingest(source, spool, metrics, clock=clock, tracing=tracing)
        self._memory: dict[str, bytes] = {}
        self._pace = Pace(
            min_delay=source.min_delay,
            max_delay=source.max_delay,
            max_in_flight=source.max_in_flight,
            destructive=source.destructive,
            beat=Beat.new(source.beat) if source.beat else None,
        )
        self._due = 0.0
        self._polls = 0
        self._nothing_since = 0
        self._commits: asyncio.Queue[Commit | None] = asyncio.Queue()
        self._held: dict[int, RawPage] = {}
        """Pages that are not released yet, by their number in the journal. `run` hands them back however it ends."""
        self._stopping = False
        self._lanes: set[asyncio.Task[None]] = set()
        self._fatal: StorageError | None = None
        self._log = log.bind(source=source.name, account=source.account)
        self._gate = StorageGate(
            self._watch,
            paused=lambda reason: self._log.error("polling_paused", reason=reason),
            resumed=lambda: self._log.info("polling_resumed"),
            heartbeat=heartbeat,
        )
        self.failing_since: float | None = None
        """When polls began to fail, on the monotonic clock; None after a good answer."""
        self.failure = ""
        """The outcome and the detail of the last poll that failed."""
        self.last_answer: float | None = None
        """When the last good answer came, on the monotonic clock."""
        self.stands_by = False
        """Whether another daemon polls the source, and this one waits for its turn."""
        self.emptied = asyncio.Event()
        """Set by each complete answer without a message."""

    @property
    def brought_nothing(self) -> int:
        """The number of polls that brought nothing, if the source is polled once a minute for that reason; else 0."""
        return self._pace.nothing_came if self._pace.careful else 0

    @property
    def beat_known(self) -> bool | None:
        """Whether polls follow bursts that were learned; None for a source without a beat."""
        return None if self._pace.beat is None else self._pace.beat.bursts

    @property
    def next_poll(self) -> float:
        """Seconds until the next poll is due; 0 if it is due or in flight."""
        return max(0.0, self._due - self._clock.monotonic())

    @property
    def failing(self) -> bool:
        """Whether the last poll brought no good answer."""
        return self.failing_since is not None

    @property
    def trouble(self) -> str | None:
        """Why polling is paused; None while the source is polled."""
        return self._gate.reason

    def stop(self) -> None:
        """Begin no more polls. `run` waits for the polls in flight."""
        self._stopping = True
        for lane in self._lanes:
            lane.cancel()  # ends a wait; a poll in flight is shielded

    # ------------------------------------------------------------ the polls

    async def run(self, left_over: Sequence[tuple[int, RawPage]] = ()) -> None:
        """Poll until `stop`; raises `StorageError` when the journal or the spool fails for good.

        At first, the intake checks that the spool can be written, and commits the pages that it was given from the
        journal (`left_over`: this source's pages, oldest first). It polls once it has the duty. On return, pages that
        are not committed have been handed back to the journal.
        """
        self._held |= dict(left_over)
        try:
            await self._run(left_over)
        finally:
            self._journal.hand_back(self._held)
            self._held = {}

    async def _run(self, left_over: Sequence[tuple[int, RawPage]]) -> None:
        if not await self._recover(left_over):
            return
        async with AsyncExitStack() as stack:
            if self._duty is None or await self._take_duty(stack, self._duty):
                await self._poll_until_stopped()

    async def _take_duty(self, stack: AsyncExitStack, duty: Duty) -> bool:
        """Wait for the duty of polling this source, and read its memory again. False if `stop` comes first."""
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(self._beat_forever())
            taking = group.create_task(stack.enter_async_context(duty()))
            self._add_lane(taking)
            if not (await asyncio.wait({taking}, timeout=STANDS_BY_AFTER))[0]:
                self.stands_by = True
                self._log.info("source_stands_by")
                await asyncio.wait({taking})
            beating.cancel()
        if self._stopping:
            return False
        if self.stands_by:
            self._log.info("source_taken_over")
        self.stands_by = False
        return await self._write_until_taken(self._prove)

    async def _beat_forever(self) -> None:
        while True:
            self._heartbeat()
            await asyncio.sleep(HEARTBEAT)

    async def _poll_until_stopped(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._commit_forever())
            try:
                async with asyncio.TaskGroup() as lanes:
                    self._open_lane(lanes, self._lead(lanes))
            finally:
                self._commits.put_nowait(None)
        if self._fatal is not None:
            raise self._fatal

    async def _recover(self, left_over: Sequence[tuple[int, RawPage]]) -> bool:
        if not await self._write_until_taken(self._prove):
            return False
        for number, page in left_over:
            reading = self._read(page)
            reached("recovery.read")
            if not await self._append([_with_origin(reading, None, number)]):
                return False
            reached("recovery.committed")
            self._release(number, committed=True)
            reached("recovery.released")
            self._log.info("page_recovered", events=len(reading.events), rejects=len(reading.rejects))
        return not self._stopping

    async def _prove(self) -> None:
        await self._spool.check_writable()
        reached("recovery.proved")
        self._memory = dict(await self._spool.memory(self.source.name))

    def _open_lane(self, lanes: asyncio.TaskGroup, polls: Coroutine[Any, Any, None]) -> None:
        self._add_lane(lanes.create_task(polls))

    def _add_lane(self, lane: asyncio.Task[None]) -> None:
        """Let `stop` end a wait of this task."""
        self._lanes.add(lane)
        lane.add_done_callback(self._lanes.discard)

    async def _lead(self, lanes: asyncio.TaskGroup) -> None:
        while not self._stopping:
            await self.step()
            while len(self._lanes) < self._pace.lanes and not self._stopping:
                self._open_lane(lanes, self._follow())
            await self._await_followers()
            await self._wait_until_due()

    async def _follow(self) -> None:
        while self._pace.lanes > 1 and not self._stopping:
            await self._make_ready()
            # another lane's answer may have closed this lane
            if self.source.destructive and self._pace.lanes == 1:
                self._cancel_room()
                return
            await self._step()

    async def _await_followers(self) -> None:
        """Wait for the other polls in flight while a destructive source fails: it is then polled by one lane only."""
        while self.source.destructive and self._pace.failures and not self._stopping:
            if not (others := self._lanes - {asyncio.current_task()}):
                return
            self._heartbeat()
            await asyncio.wait(others, timeout=HEARTBEAT)

    async def _wait_until_due(self) -> None:
        """Wait until the next poll is due, with heartbeats.

        The wait becomes longer when a poll of another lane fails in the meantime.
        """
        while not self._stopping and (left := self._due - self._clock.monotonic()) > 0:
            self._heartbeat()
            await asyncio.sleep(min(left, HEARTBEAT))

    async def step(self) -> ParsedPage:
        """Make one poll: wait until it is allowed, send it, keep the answer, parse it, and queue it for the commit."""
        await self._make_ready()
        return await self._step()

    async def _make_ready(self) -> None:
        while True:
            await self._wait_with_heartbeats(self._gate.wait_until_open)
            if self.source.destructive:
                await self._wait_with_heartbeats(self._journal.room)
            try:
                await self._wait_with_heartbeats(self.source.ready)
            except BaseException:
                self._cancel_room()
                raise
            if self._watch.reason is None or not self.source.destructive:
                return
            self._cancel_room()  # the files have been moved in the meantime: an answer would be lost

    async def _step(self) -> ParsedPage:
        self._polls += 1
        number, asked = self._polls, self._clock.monotonic()
        reading = await _to_the_end(self._poll())
        self._follow_pace(number, asked, reading)
        self._report(reading)
        return reading

    def _follow_pace(self, number: int, asked: float, reading: ParsedPage) -> None:
        if number < self._nothing_since and reading.outcome not in FAILURES:
            return  # this poll began before a poll that brought nothing
        before, now = self._pace, self._clock.monotonic()
        self._pace = next_pace(before, reading, asked=asked, now=now)
        self._due = now + self._pace.delay
        if self._pace.nothing_came > before.nothing_came:
            self._nothing_since = max(self._nothing_since, number)

    async def _wait_with_heartbeats(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Wait for something that may take long, with heartbeats. `wait` is cancelled and called again at each."""
        while True:
            self._heartbeat()
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await wait()
                    return
            except TimeoutError:
                continue

    async def _poll(self) -> ParsedPage:
        begun, asked_at = self._clock.monotonic(), self._clock.now()
        try:
            page = await self.source.fetch()
        except NotSent as error:
            self._cancel_room()
            return ParsedPage(events=(), rejects=(), outcome=PollOutcome.FAILED, detail=str(error))
        self._metrics.poll_seconds.labels(self.source.account, self.source.name).observe(
            self._clock.monotonic() - begun
        )
        reached("poll.answered")
        number = await self._keep(page)
        reached("page.kept")
        before = self._memory.get(page.about, b"")
        reading = self._read(page)
        reached("page.read")
        news = bool(reading.events or reading.rejects or reading.memory != before)
        if news or number is not None:
            self._commits.put_nowait((number, _with_origin(reading, asked_at, number or 0) if news else None))
        return reading

    def _cancel_room(self) -> None:
        if self.source.destructive:
            self._journal.cancel_room()

    async def _keep(self, page: RawPage) -> int | None:
        if not page.body or not self.source.destructive:
            self._cancel_room()
            return None
        try:
            number = await self._journal.keep(page)
        except StorageError as error:
            # the page is still in memory: it may be committed without the journal, then the process ends
            self._log.error("journal_failed", reason=str(error))
            self._fatal = error
            self.stop()
            return None
        self._held[number] = page
        return number

    def _read(self, page: RawPage) -> ParsedPage:
        memory = self._memory.get(page.about, b"")
        reading = self._ingest.read(page, memory)
        self._memory[page.about] = reading.memory
        return reading

    def _report(self, reading: ParsedPage) -> None:
        outcome = reading.outcome
        self._metrics.polls.labels(self.source.account, self.source.name, outcome.value).inc()
        if outcome is PollOutcome.UNCERTAIN and self.source.destructive:
            self._losses.add(f"source {self.source.name}", f"a poll without a whole answer: {reading.detail}")
            self._may_have_lost()
        if outcome in FAILURES:
            self._log.warning("poll_failed", outcome=outcome.value, detail=reading.detail)
            if self.failing_since is None:
                self.failing_since = self._clock.monotonic()
            self.failure = f"{outcome.value}: {reading.detail}"
            return
        self.last_answer = self._clock.monotonic()
        if outcome is PollOutcome.EMPTY:
            self.emptied.set()
        if self.failing:
            self.failing_since = None
            self._log.info("polling_again", outcome=outcome.value)

    # ------------------------------------------------------------ the commit

    async def _commit_forever(self) -> None:
        while (first := await self._commits.get()) is not None:
            group, ends = [first], False
            while len(group) < COMMIT_TOGETHER and not self._commits.empty() and not ends:
                if (more := self._commits.get_nowait()) is None:
                    ends = True
                else:
                    group.append(more)
            await _to_the_end(self._commit(group))
            if ends:
                return
            if self._pace.lanes > 1 and self._commits.qsize() < COMMIT_TOGETHER:
                await asyncio.sleep(GATHER)  # nothing is in hand, and the journal keeps new pages

    async def _commit(self, group: list["Commit"]) -> None:
        readings = [reading for _, reading in group if reading is not None]
        if readings and not await self._append(readings):
            return
        reached("page.committed")
        for number, reading in group:
            if number is not None:
                self._release(number, committed=reading is not None)
        reached("page.released")

    def _release(self, number: int, *, committed: bool) -> None:
        self._held.pop(number, None)
        self._journal.release(number, committed=committed)

    async def _append(self, readings: list[ParsedPage]) -> bool:
        """Commit readings, and wait while the spool is full. False if `stop` comes first: the journal has the pages."""
        return await self._write_until_taken(lambda: self._ingest.write(readings))

    async def _write_until_taken(self, write: Callable[[], Awaitable[None]]) -> bool:
        return await self._gate.write_until_taken(write, lambda: self._stopping)


Commit = tuple[int | None, ParsedPage | None]
"""The number of a page in the journal (None if the journal does not hold it), and its reading (None if the reading
changes nothing)."""


def _with_origin(reading: ParsedPage, asked_at: datetime | None, number: int) -> ParsedPage:
    """The reading with the time of its poll and the number of its page in the journal, which are committed with it."""
    return msgspec.structs.replace(reading, asked_at=asked_at, kept_as=number)


async def _to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Await work that must not be cancelled half-way. A cancellation is raised after the work has ended.

    A poll that is cancelled in flight loses its messages, because the platform hands them out only once.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                break
            # Remembered even if the work has just ended: the caller who cancels waits for this task to end.
            cancelled = error
    if cancelled is not None:
        task.result()
        raise cancelled
    return task.result()
