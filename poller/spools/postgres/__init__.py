"""A spool in a PostgreSQL database that several daemons share.

Invariants
    Each daemon has a session (`desk`). It writes over two connections (`writer`, `claims`), and each transaction proves
    that the session goes on. So a daemon that was stopped, frozen or cut off writes nothing once others have taken over
    what it held.

Life cycle
    Entering checks that the database keeps what it confirms, makes the tables, and begins a session. Leaving writes the
    rest and ends the session.
"""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import structlog
from pydantic import Field, model_validator

from poller.core.errors import StorageError, StorageFull
from poller.core.history import Delivery, Gap, LatePicture, Origin, SinkProgress, Stage, Tally
from poller.core.model import (
    EVERYTHING,
    Backlog,
    Batch,
    DeadLetter,
    Event,
    Filter,
    ParsedPage,
    Quarantined,
    unchanged,
)
from poller.core.moving import SpoolMoved
from poller.core.selection import Numbered, Scan, Selection
from poller.core.spool import HasLimits, Member, Pruned, Shared, Wants
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.settings import (
    Duration,
    Secret,
    SecretFile,
    Size,
    SpoolSettings,
    duration_between,
    size_between,
    wrong,
)
from poller.spools.event_progress import settled_progress
from poller.spools.ordered_sink_queue import OrderedSinkQueue
from poller.spools.postgres import (
    books,
    correction_log,
    delivered,
    duties,
    progress,
    quarantine,
    queries,
    replays,
    sessions,
)
from poller.spools.postgres import gaps as gap_rows
from poller.spools.postgres.desk import Desk
from poller.spools.postgres.links import Link, StorageAway, connect, lacks_standby, refusals, translated
from poller.spools.postgres.memories import memory
from poller.spools.postgres.modes import Mode
from poller.spools.postgres.moving import MovableSchema, refuse_moved
from poller.spools.postgres.page_scan import scan
from poller.spools.postgres.page_sizes import PageSizes
from poller.spools.postgres.page_times import number_at
from poller.spools.postgres.pages import load_pages
from poller.spools.postgres.reader import Reader
from poller.spools.postgres.schema import prepare
from poller.spools.postgres.served_sinks import ServedSinks
from poller.spools.postgres.shared_replays import SharedReplays, Unsettled
from poller.spools.postgres.transactions import Transactions, nothing
from poller.spools.postgres.writer import Writer, flush
from poller.spools.replays import ReplayChange
from poller.spools.retention import STREAMS_KEPT
from poller.spools.share_queue import ShareQueue
from poller.spools.sink_queue import SinkQueue
from poller.spools.table_spool import WRITTEN_WITHIN, TableSpool
from poller.spools.tail import Chunk

log = structlog.get_logger("spool")

LOAD_AGAIN = 0.5
ATTEND_EVERY = 1.0
"""Seconds between two looks at what nobody holds."""
ENTER_EVERY = 5
"""How many of these looks until one at sinks that could not be served. The others say when that may have changed."""
LOOK_EVERY = 5.0
"""Seconds between two looks at the size of what is stored."""
ENDED_WITHIN = 5.0
"""Seconds that leaving waits for the database."""

Result = TypeVar("Result")


class PostgresSpool(TableSpool[Writer], MovableSchema, HasLimits, Shared):
    """A spool in a PostgreSQL database."""

    _replays: SharedReplays

    class Settings(SpoolSettings):
        """Settings of the PostgreSQL spool."""

        shared: ClassVar[bool] = True

        type: Literal["postgres"]
        dsn: Secret | None = Field(
            default=None,
            description="The database: postgresql://user:password@host:5432/name; several hosts are parted by commas.",
        )
        dsn_file: SecretFile | None = Field(default=None, description="A file with the dsn.")
        schema_name: str = Field(
            default="poller",
            alias="schema",
            pattern="^[a-z_][a-z0-9_]{0,62}$",
            description="The schema with the tables of this spool. A missing schema is created.",
        )
        lease: Annotated[Duration, duration_between("2s", "60s")] = Field(
            default=10.0,
            description="How long after the last sign of life of a daemon others take over what it held.",
        )
        pollers: Literal["one", "all"] = Field(
            default="one",
            description="Who polls a queue: one daemon at a time while the others stand by, or all, with the rate of "
            "the account divided among them.",
        )
        max_bytes: Annotated[Size, size_between("64MiB", "16TiB")] = Field(
            default=10 * 2**30,
            description="Polling pauses when more than this is stored, and resumes below nine tenths of it.",
        )

        @model_validator(mode="after")
        def _one_dsn(self) -> Self:
            if (self.dsn is None) == (self.dsn_file is None):
                raise wrong("give dsn or dsn_file, one of them", at="dsn")
            return self

        @property
        def competing(self) -> bool:
            """See `SpoolSettings.competing`."""
            return self.pollers == "all"

        @property
        def address(self) -> str:
            """Where the database is, with its password."""
            given = self.dsn or self.dsn_file
            assert given is not None
            return given.get_secret_value()

    def __init__(
        self, name: str, settings: Settings, accounts: Mapping[str, object], clock: Clock | None = None
    ) -> None:
        clock = clock or Clock()
        clock.begin(None)
        where, lease = (name, settings.address, settings.schema_name), settings.lease
        self._where, self._lease = where, lease
        self._settings = settings
        self._claims = Transactions(where, lease, self._fail)
        self._desk = Desk(
            where,
            lease,
            outage=self._claims.outage,
            outlast=self._outlast,
            hear=self._hear,
            fail=self._fail,
        )
        self._reader = Reader(*where)
        writer = Writer(
            where,
            lease,
            clock,
            publish=self._hand_out,
            keeps_up=partial(self._desk.holds, duties.UPKEEP),
            failed=self._fail,
        )
        writer.outage = self._claims.outage
        super().__init__(name, writer, clock)
        self._sinks = ServedSinks(
            self._dispatcher,
            self._claims,
            self._desk,
            clock,
            keep=self._keep,
            flush=self._flushing,
            joined=self._replays.join,
        )
        self._replays.sinks = self._sinks
        self.proven = self._dispatcher.proven = self._desk.proven
        self._lanes: dict[str, int] = {}
        self._looks = 0
        self._said = set[str]()
        self._rung = asyncio.Event()
        self._grown = asyncio.Event()
        self._changed = asyncio.Event()
        self._corrected = 0
        self._size = 0
        self._knows_sinks = False
        """Whether all sinks are attached that will be: somebody is about to append, or to prune."""
        self._page_sizes = PageSizes()
        self._failure: asyncio.Future[StorageError]
        self._tasks: list[asyncio.Task[None]] = []
        self._keepers: list[asyncio.Task[None]] = []
        """Those tasks that submit jobs."""

    def _make_replays(self, **terms: Any) -> SharedReplays:
        return SharedReplays(
            read=lambda: self._reader.read(replays.stored),
            next_number=lambda: self._reader.read(replays.next_number),
            served=self._served,
            **terms,
        )

    # ------------------------------------------------------------ opening and closing

    async def __aenter__(self) -> Self:
        self._failure = asyncio.get_running_loop().create_future()
        try:
            async with translated(self.name):
                await self._open(await connect(*self._where))
        except BaseException:
            await self._end_tasks()
            self._close()
            raise
        self._tasks += [asyncio.create_task(part.run()) for part in (self._writer, self._claims)]
        keep = (self._watch_size, self._follow, self._attend)
        self._keepers = [asyncio.create_task(work()) for work in keep]
        for task in (*self._tasks, *self._keepers):
            task.add_done_callback(self._ended)
        return self

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A task that fails takes the daemon with it: nobody would do its work any more."""
        if not task.cancelled() and (error := task.exception()) is not None:
            failure = StorageError(f"spool {self.name}: {type(error).__name__} in one of its tasks")
            failure.__cause__ = error
            self._fail(failure)

    async def _open(self, link: Link) -> None:
        try:
            if found := await refusals(link):
                raise StorageError(f"spool {self.name}: {'; '.join(found)}")
            await prepare(link, self._settings.schema_name)
            if await lacks_standby(link):
                log.warning("standby_missing", means="a server that is lost takes with it what it confirmed")
        finally:
            link.terminate()
        if not self.visits:
            self._desk.want(duties.UPKEEP)
        await self._desk.begin(f"{socket.gethostname()}, process {os.getpid()}", visits=self.visits)
        await self._refuse_moved()
        # from here on: reading the state may take longer than the lease
        self._tasks = [asyncio.create_task(self._desk.run())]
        await self._claims.open(await self._claims.link(), self._desk.session)
        await self._writer.open(await self._writer.link(), self._desk.session)
        self._dispatcher.head = self._writer.next
        self._corrected = await self._reader.read(correction_log.last)
        self._replays.load(await self._reader.read(replays.stored))

    async def _refuse_moved(self) -> None:
        """End the session and raise `SpoolMoved` if the spool is not in force."""
        try:
            await self._reader.read(partial(refuse_moved, self.name))
        except SpoolMoved:
            await self._desk.end()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._end_keepers()  # a job that they submit after `stop` is never done
        await self._sinks.end()
        self._keep(*self._dispatcher.close())
        if self._flush is not None:
            self._flush.cancel()
        with suppress(StorageError, TimeoutError):
            async with asyncio.timeout(ENDED_WITHIN):
                self._writer.whole_catalogue = True
                await self._flushing()
        for part in (self._writer, self._claims, self._desk):
            part.stop()
        await self._end_tasks()
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDED_WITHIN):
                await self._desk.end()
        self._close()

    async def _end_keepers(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=ENDED_WITHIN)

    async def _end_tasks(self) -> None:
        self._desk.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ENDED_WITHIN)
        for task in self._tasks:
            task.cancel()

    def _close(self) -> None:
        for part in (self._writer, self._claims, self._reader, self._desk):
            part.close()

    def _fail(self, error: StorageError) -> None:
        """Write nothing any more: this daemon's session has ended, or the database cannot be used."""
        self._desk.stop()
        self.proven.clear()
        self._writer.fail(error)
        self._claims.fail(error)
        if not self._failure.done():
            self._failure.set_result(error)

    async def failed(self) -> StorageError:
        """See `Shared.failed`."""
        return await asyncio.shield(self._failure)

    # ------------------------------------------------------------ the other daemons

    async def _outlast(self) -> None:
        """Return once all that was committed before can be lost no more, on whichever connection."""
        await self._claims.submit(nothing)

    def divide(self, sink: str, lanes: int) -> None:
        """See `Shared.divide`."""
        self._lanes[sink] = lanes

    @property
    def member(self) -> int:
        """See `Shared.member`."""
        return self._desk.session

    @property
    def live_members(self) -> int:
        """See `Shared.live_members`."""
        return self._desk.live

    def duty(self, name: str) -> AbstractAsyncContextManager[None]:
        """See `Shared.duty`."""
        return self._desk.duty(name)

    async def members(self) -> Sequence[Member]:
        """See `Shared.members`."""
        return await self._reader.read(sessions.members)

    async def wait_for_change(self) -> None:
        """See `Shared.wait_for_change`."""
        await self._changed.wait()
        self._changed.clear()

    def _hear(self, word: str) -> None:
        kind, _, number = word.partition(" ")
        if kind == "head":
            if not self._is_known(int(number)):
                self._grown.set()
            return
        self._said.add(word)
        self._rung.set()
        if word == sessions.CHANGED:
            self._changed.set()

    def _is_known(self, head: int) -> bool:
        """Whether the log up to this number is known here; 0 stands for a number that was not heard."""
        return 0 < head <= self._dispatcher.head

    async def _follow(self) -> None:
        """Hand out what other daemons append."""
        while True:
            await self._grown.wait()
            self._grown.clear()
            try:
                await self._writer.follow(lambda start: self._reader.read(partial(load_pages, start)))
            except StorageError:
                self._grown.set()
                await asyncio.sleep(LOAD_AGAIN)

    async def _attend(self) -> None:
        """Do what other daemons say, and look now and then in case that something was not heard."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(ATTEND_EVERY):
                    await self._rung.wait()
            said, self._said = self._said | {sessions.FREED}, set()
            self._rung.clear()
            self._keep(*self._sinks.advances())
            try:
                await self._heed(said)
            except StorageError:
                self._said |= said
                await asyncio.sleep(LOAD_AGAIN)

    async def _heed(self, said: set[str]) -> None:
        if sessions.CORRECTED in said:
            found = await self._reader.read(
                partial(correction_log.since, self._corrected, self._desk.session)
            )
            self._dispatcher.correct(found.known)
            self._corrected = found.last
        if sessions.CHANGED in said:
            await self._replays.refresh()
        freed, waiting = await self._reader.read(queries.freed)
        self._sinks.look_for_freed(freed)
        await self._sinks.adopt(waiting)
        if sessions.CHANGED in said or self._looks % ENTER_EVERY == 0:
            await self._sinks.enter_more()
        self._looks += 1

    async def _watch_size(self) -> None:
        while True:
            with suppress(StorageError):
                await self._look()
            await asyncio.sleep(LOOK_EVERY)

    async def _look(self) -> None:
        """Measure what is stored, and say whether the spool is full. A full spool is pruned until it has room."""
        while True:
            self._size = await self._reader.read(partial(queries.size, self._page_sizes))
            self._writer.full = self._why_full()
            if self._writer.full is None or not await self._prune_early():
                return

    def _why_full(self) -> str | None:
        most = self._settings.max_bytes
        if self._size <= (most if self._writer.full is None else most * 9 // 10):
            return None
        return (
            f"full: {self._size >> 20} MiB in use, max_bytes is {most >> 20} MiB, taken again under"
            f" {most * 9 // 10 >> 20} MiB: let the sinks deliver, or raise max_bytes"
        )

    async def _prune_early(self) -> bool:
        """Delete some events that all sinks have settled, of any age; true if there may be more.

        Not while sinks are missing that will be attached.
        """
        if not (self._knows_sinks and self._desk.holds(duties.UPKEEP)):
            return False
        self._keep(*self._sinks.advances())
        self._writer.whole_catalogue = True  # only events that the written catalogue covers can be pruned
        await self._write(flush)
        return await self._write(partial(Writer.prune_early, floor=self._replays.floor()), alone=True)

    # ------------------------------------------------------------ in

    async def check_writable(self) -> None:
        """See `Spool.check_writable`."""
        self._knows_sinks = True
        await self._look()
        await self._write(Writer.check_writable)

    async def _attach(
        self, sink: str, wants: Wants, ordered: bool, start: datetime | None, replays: int
    ) -> None:
        mode = Mode(ordered=ordered, lanes=self._lanes.get(sink, 1) if ordered else 1)
        await self._sinks.attach(sink, wants, mode, start=start, replays=replays)
        await self._replays.count()

    async def detach(self, sink: str) -> None:
        """See `Spool.detach`."""
        async with self._replays.attaching(sink):
            await self._sinks.detach(sink)

    async def memory(self, source: str) -> Mapping[str, bytes]:
        """See `Spool.memory`."""
        return await self._reader.read(lambda reader: memory(reader, source))

    async def append(self, source: str, readings: Sequence[ParsedPage]) -> Counter[str]:
        """See `Spool.append`."""
        return await self._publish(
            await self._write(partial(Writer.append, source=source, readings=list(readings)))
        )

    async def read_again(self, source: str, readings: Mapping[int, ParsedPage]) -> Counter[str]:
        """See `Spool.read_again`."""
        return await self._publish(
            await self._write(partial(Writer.read_again, source=source, readings=dict(readings)), alone=True)
        )

    async def _correct(self, known: list[Numbered]) -> None:
        """Correct provisional events in the queues and in the tables.

        The events stay provisional until the tables are corrected, so that the same page corrects them after a crash.
        """
        self._dispatcher.correct(known)
        await self._write(partial(Writer.correct, known=known), alone=True)
        self._dispatcher.correct(known)  # for a sink that was attached again in the meantime
        await self._adopt()

    # ------------------------------------------------------------ out

    def _flushing(self) -> "asyncio.Future[None]":
        return self._writer.submit(flush)

    async def _extend(self, queue: SinkQueue, limit: int) -> None:
        await self._sinks.extend(queue, limit)

    async def claim(self, sink: str, limit: int, linger: float = 0.0) -> Batch:
        """See `Spool.claim` and `Shared`."""
        return await self._sinks.claim(sink, limit, linger)

    def _key_of(self, batch: Batch) -> str:
        return self._sinks.key_of(batch)

    async def retry_now(self, sink: str) -> None:
        """See `Spool.retry_now`. Works on what this daemon holds."""
        for queue in self._dispatcher.queues.values():
            if queue.sink == sink:
                queue.retry_now()

    async def retry_dead(
        self, sink: str, numbers: Sequence[int], together: int, rebuild: Callable[[Event], Event] = unchanged
    ) -> int:
        """See `SpoolAdmin.retry_dead`."""
        terms: Any = {"sink": sink, "numbers": list(numbers), "together": together, "rebuild": rebuild}
        count = await self._write(partial(Writer.retry_dead, **terms), alone=True)
        reached("dead.owed")
        await self._adopt()
        return count

    async def _adopt(self) -> None:
        """Take waiting batches that nobody holds; what cannot be taken now is taken soon."""
        with suppress(StorageFull):
            await self._sinks.adopt((await self._reader.read(queries.freed))[1])

    async def purge_dead(self, numbers: Sequence[int]) -> int:
        """See `SpoolAdmin.purge_dead`."""
        return (await self._write(partial(Writer.purge_dead, numbers=list(numbers)), alone=True)).total()

    async def _load(self, start: int) -> list[Chunk]:
        """Read pages for a claim, which waits while the database is away."""
        while True:
            try:
                return await self._reader.read(partial(load_pages, start))
            except StorageAway:
                if self._writer.broken is not None:
                    raise self._writer.broken from None
                await asyncio.sleep(LOAD_AGAIN)

    async def _write_replay(self, change: ReplayChange) -> None:
        before = self._replays.known(change.replay.number)

        async def write(writer: Writer) -> None:
            await replays.write(change, writer.session, before, writer.connection)
            if before is None or before.state is not change.replay.state:
                await sessions.notify(writer.connection, sessions.CHANGED)

        await self._write(write, alone=True)

    async def _served(self, sink: str) -> Unsettled:
        """How far a sink is served at all daemons, and the ids of the events that wait for it."""
        await self._write(flush)
        return await self._reader.read(partial(queries.unsettled, sink))

    async def _dead_ids(self, sink: str) -> frozenset[str]:
        await self._write(flush)  # the newest dead letters may not be written yet
        return await self._reader.read(partial(replays.dead_ids, sink))

    async def _count_replayed(self, sink: str) -> int:
        await self._write(flush)  # the newest settlements may not be written yet
        return await self._reader.read(partial(replays.count_waiting, sink))

    async def pause(self, sink: str, paused: bool) -> None:
        """See `Spool.pause`."""
        await self._write(partial(Writer.pause, sink=sink, paused=paused), alone=True)

    async def paused(self) -> frozenset[str]:
        """See `Spool.paused`."""
        return await self._reader.read(queries.paused)

    async def resumed(self) -> Mapping[str, int]:
        """See `Shared.resumed`."""
        return await self._reader.read(queries.resumed)

    # ------------------------------------------------------------ queries and pruning

    async def backlog(self, sink: str) -> Backlog:
        """See `Spool.backlog`."""
        self._keep(*self._sinks.advances())
        await self._write_pending()
        dead = await self._reader.read(partial(queries.count_dead, sink))
        if sink not in self._sinks:
            return Backlog(events=0, retrying=0, dead=dead, oldest=None)
        with suppress(TimeoutError):  # while the database hangs, the answer may lack what is being taken
            async with asyncio.timeout(WRITTEN_WITHIN):
                await self._sinks.all_taken(sink)
        there = await self._reader.read(partial(queries.elsewhere, sink, self._desk.session))
        queues = [queue for queue in self._dispatcher.queues.values() if queue.sink == sink]
        received = [there.oldest]
        if there.lowest is not None:
            received.append(await self._reader.read(partial(queries.received_at, there.lowest)))
        retrying = there.retrying + sum(queue.retrying for queue in queues)
        return Backlog(
            events=self._count_unsettled(queues, there),
            retrying=retrying,
            dead=dead,
            oldest=max((at for at in received if at is not None), key=self._clock.age, default=None),
            replaying=there.replayed + sum(queue.replayed.events for queue in queues),
        )

    def _count_unsettled(self, queues: Sequence[SinkQueue], there: queries.Elsewhere) -> int:
        """The events of a sink that are not settled, from the queues here and what is elsewhere.

        The lanes of a sink have the same log before them: it counts once, from where the slowest lane is.
        """
        match queues:
            case [OrderedSinkQueue() as queue] if queue.key == queue.sink:
                return queue.count_unsettled(self._dispatcher.head) + there.retrying
            case [ShareQueue() as queue]:
                here = queue.count_unsettled(self._dispatcher.head)
                return here + there.ahead + there.shared + there.retrying
            case _:
                return there.ahead + there.shared + there.retrying + sum(queue.retrying for queue in queues)

    async def progress(self, number: int, id: str, event: Event | None) -> list[SinkProgress]:
        """See `SpoolHistory.progress`."""
        stream = None if event is None else event.stream
        queues = {
            sink: queue for sink, queue in self._dispatcher.queues.items() if self._has_lane_of(queue, stream)
        }
        held = {queue: queue.progress(number, id, event) for queue in queues.values()}
        await self._write_pending()
        stored = await self._reader.read(partial(progress.stored, number, id, stream))
        for queue, one in held.items():
            sink = queue.sink
            if one is not None:
                stored[sink] = one
            elif isinstance(queue, ShareQueue) and queue.covers(number) and not _is_dead(stored.get(sink)):
                stored[sink] = settled_progress(sink)
        return [one for _, one in sorted(stored.items())]

    def _has_lane_of(self, queue: SinkQueue, stream: tuple[str, str] | None) -> bool:
        return queue.key == self._sinks.queue_of(queue.sink, stream)

    async def _scan_rows(self, chosen: Selection, start: int | None, limit: int, newest_first: bool) -> Scan:
        return await self._reader.read(partial(scan, chosen, start, limit, newest_first))

    async def origin(self, number: int) -> Origin | None:
        """See `SpoolHistory.origin`."""
        return await self._reader.read(partial(queries.origin, number))

    async def number_at(self, moment: datetime) -> int:
        """See `SpoolHistory.number_at`."""
        return await self._reader.read(partial(number_at, moment, self.head))

    async def deliveries(self, number: int, id: str) -> list[Delivery]:
        """See `SpoolHistory.deliveries`."""
        await self._write_pending()
        return await self._reader.read(partial(delivered.deliveries, number, id))

    async def remembers(self, id: str) -> bool:
        """See `SpoolHistory.remembers`."""
        return await self._reader.read(partial(self._knows, id))

    async def tallies(self) -> list[Tally]:
        """See `SpoolHistory.tallies`."""
        await self._write_pending()
        return await self._reader.read(books.tallies)

    async def gaps(self, chosen: Selection, limit: int) -> list[Gap]:
        """See `SpoolHistory.gaps`."""
        return await self._reader.read(partial(gap_rows.gaps, chosen, limit))

    async def note_gaps(
        self,
        source: str,
        readings: Sequence[ParsedPage],
        gaps: Sequence[Gap],
        late: Sequence[LatePicture] = (),
    ) -> Counter[str]:
        """See `SpoolHistory.note_gaps`."""
        note = partial(Writer.note_gaps, source=source, readings=list(readings), gaps=gaps, late=late)
        return await self._publish(await self._write(note))

    async def dead(self, limit: int, chosen: Filter = EVERYTHING) -> list[DeadLetter]:
        """See `Spool.dead`."""
        await self._write(flush)  # the newest dead letters may not be written yet
        return await self._reader.read(partial(queries.dead_letters, limit, chosen))

    async def quarantined(self, limit: int, chosen: Filter = EVERYTHING) -> list[Quarantined]:
        """See `Spool.quarantined`."""
        return await self._reader.read(partial(queries.quarantined, limit, chosen))

    async def purge_quarantine(self, numbers: Sequence[int]) -> int:
        """See `Spool.purge_quarantine`."""
        return await self._write(
            lambda writer: quarantine.purge(writer.connection, list(numbers)), alone=True
        )

    async def quarantine_size(self) -> int:
        """See `Spool.quarantine_size`."""
        return await self._reader.read(queries.quarantine_size)

    async def prune(self) -> Pruned:
        """See `Spool.prune` and `Shared`."""
        self._knows_sinks = True
        self._keep(*self._sinks.advances())
        if not self._desk.holds(duties.UPKEEP):
            self._writer.catalogue.forget(lambda stream: self._clock.age(stream.last_seen) > STREAMS_KEPT)
            return Pruned(dead={}, rejects=0, more=False)
        step = partial(
            Writer.prune,
            floor=self._replays.floor(),
            retain=self._settings.retain,
            dead=self._settings.retain_dead,
            quarantine=self._settings.retain_quarantine,
        )
        return await self._write(step, alone=True)

    async def size(self) -> int:
        """See `Spool.size`."""
        return self._size

    @property
    def fullness(self) -> dict[str, float]:
        """See `HasLimits.fullness`."""
        return {"max_bytes": self._size / self._settings.max_bytes}

    async def _knows(self, id: str, reader: Link) -> bool:
        return await self._writer.seen.knows(reader, id)

    async def _write(self, job: Callable[[Writer], Awaitable[Result]], *, alone: bool = False) -> Result:
        return await self._writer.submit(job, alone=alone)


def _is_dead(progress: SinkProgress | None) -> bool:
    return progress is not None and progress.stage is Stage.DEAD
