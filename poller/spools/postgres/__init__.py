"""A spool in a PostgreSQL database. One daemon owns it at a time; others stand by and take it over.

Invariants
    All writes go through one connection (`writer`), and each transaction proves that the lease is held. So a daemon
    that was stopped, frozen or cut off writes nothing once another one has taken over.

Life cycle
    Entering checks that the database keeps what it confirms, makes the tables, and takes the lease. It raises
    `StorageLocked` while another daemon has it. Leaving writes the rest and ends the lease.
"""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Annotated, Any, Literal, Self, TypeVar

import structlog
from pydantic import Field, model_validator

from poller.core.catalogue import Stream
from poller.core.errors import StorageError
from poller.core.history import Delivery, Gap, LatePicture, Origin, SinkProgress, Tally
from poller.core.model import (
    EVERYTHING,
    Backlog,
    Batch,
    DeadLetter,
    Event,
    Filter,
    Outcome,
    ParsedPage,
    Quarantined,
    unchanged,
)
from poller.core.replays import Replays
from poller.core.selection import Numbered, Scan, Selection
from poller.core.spool import HasLimits, HasStandby, Pruned, SpoolAdmin, Wants
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
from poller.spools.books import PossibleLoss
from poller.spools.dispatcher import Dispatcher
from poller.spools.event_progress import settled_progress
from poller.spools.log_scan import scan_tail
from poller.spools.ordered_sink_queue import OrderedSinkQueue
from poller.spools.postgres import (
    books,
    delivered,
    lease,
    progress,
    quarantine,
    queries,
    replays,
    settlements,
)
from poller.spools.postgres import gaps as gap_rows
from poller.spools.postgres.links import Link, StorageAway, connect, lacks_standby, refusals, translated
from poller.spools.postgres.memories import memory
from poller.spools.postgres.page_scan import scan
from poller.spools.postgres.page_times import number_at
from poller.spools.postgres.pages import load_pages
from poller.spools.postgres.reader import Reader
from poller.spools.postgres.schema import prepare
from poller.spools.postgres.writer import Writer, Written, flush
from poller.spools.replays import ReplayChange, SpoolReplays
from poller.spools.sink_queue import Changes, SinkQueue
from poller.spools.tail import Chunk, Tail

log = structlog.get_logger("spool")

TAIL_BYTES = 8 * 1024 * 1024
"""The bytes of the newest events that are kept in memory, at least."""
TAIL_OF_A_STREAM = 1024
"""The same for each stream, so that a picture of each stream is in memory when all are taken in the same second."""
MOST_TAIL_BYTES = 96 * 1024 * 1024
"""The most of them. In memory they take about half as much again."""
FLUSH_DELAY = 0.1
FLUSH_AGAIN = 1.0
LOAD_AGAIN = 0.5
WRITTEN_WITHIN = 2.0
"""Seconds for which a question about the past waits for the newest settlements."""
LOOK_EVERY = 5.0
"""Seconds between two looks at the size of what is stored."""
ENDED_WITHIN = 5.0
"""Seconds that leaving waits for the database."""

Result = TypeVar("Result")


class PostgresSpool(SpoolAdmin, HasLimits, HasStandby):
    """A spool in a PostgreSQL database."""

    class Settings(SpoolSettings):
        """Settings of the PostgreSQL spool."""

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
            description="How long after the last sign of life of a daemon another one takes the spool over.",
        )
        max_bytes: Annotated[Size, size_between("64MiB", "16TiB")] = Field(
            default=10 * 2**30,
            description="Polling pauses when the tables use more than this, and resumes below nine tenths of it.",
        )

        @model_validator(mode="after")
        def _one_dsn(self) -> Self:
            if (self.dsn is None) == (self.dsn_file is None):
                raise wrong("give dsn or dsn_file, one of them", at="dsn")
            return self

        @property
        def address(self) -> str:
            """Where the database is, with its password."""
            given = self.dsn or self.dsn_file
            assert given is not None
            return given.get_secret_value()

    def __init__(
        self, name: str, settings: Settings, accounts: Mapping[str, object], clock: Clock | None = None
    ) -> None:
        self.name = name
        self._settings = settings
        self._clock = clock or Clock()
        self._clock.begin(None)
        self._where = (name, settings.address, settings.schema_name)
        self._writer = Writer(*self._where, self._clock)
        self._reader = Reader(*self._where)
        self._dispatcher = Dispatcher(self._load, Tail(TAIL_BYTES))
        self._flush: asyncio.TimerHandle | None = None
        self._dead: dict[str, int] = {}
        self._size = 0
        self._stopped = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._replays = SpoolReplays(
            self._dispatcher,
            self._clock,
            scan=self.scan,
            number_at=self.number_at,
            dead_ids=self._dead_ids,
            count_waiting=self._count_replayed,
            write=self._write_replay,
            keep=self._keep,
        )

    # ------------------------------------------------------------ opening and closing

    async def __aenter__(self) -> Self:
        link = await connect(*self._where)
        try:
            async with translated(self.name):
                await self._open(link)
            self._dead = dict(await self._reader.read(queries.count_dead))
            self._replays.load(await self._reader.read(replays.stored))
        except BaseException:
            link.terminate()
            await self._end_tasks()
            raise
        self._dispatcher.head = self._writer.next
        self._tasks += [asyncio.create_task(self._writer.run()), asyncio.create_task(self._watch_size())]
        return self

    async def _open(self, link: Link) -> None:
        if found := await refusals(link):
            raise StorageError(f"spool {self.name}: {'; '.join(found)}")
        await prepare(link, self._settings.schema_name)
        holder = f"{socket.gethostname()}, process {os.getpid()}"
        session = await lease.take(link, self.name, holder, self._settings.lease)
        # from here on: reading the state may take longer than the lease
        self._tasks = [asyncio.create_task(self._beat(session))]
        await self._writer.open(link, session)
        if await lacks_standby(link):
            log.warning("standby_missing", means="a server that is lost takes with it what it confirmed")

    async def wait_for_turn(self) -> None:
        """See `HasStandby.wait_for_turn`."""
        async with translated(self.name):
            link = await connect(*self._where)
            try:
                await lease.wait_until_free(link, self._settings.schema_name)
            finally:
                link.terminate()

    async def _beat(self, session: int) -> None:
        """Prove that this daemon lives, on a connection of its own, four times within a lease."""
        link: Link | None = None
        every = self._settings.lease / 4
        while not self._stopped.is_set():
            try:
                async with asyncio.timeout(every), translated(self.name):
                    if link is None or link.is_closed():
                        link = await connect(*self._where)
                    await lease.renew(link, self.name, session, self._settings.lease)
            except lease.Fenced as error:
                self._writer.fail(error)
                break
            except (StorageError, TimeoutError):
                if link is not None:
                    link.terminate()
            await self._pause(every)
        if link is not None:
            link.terminate()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._keep(*self._dispatcher.close())
        if self._flush is not None:
            self._flush.cancel()
        self._stopped.set()
        with suppress(StorageError, TimeoutError):
            async with asyncio.timeout(ENDED_WITHIN):
                await self._write(Writer.write_all)
                await self._write(lambda writer: lease.release(writer.connection, writer.session))
        self._writer.stop()
        await self._end_tasks()
        self._writer.close()
        self._reader.close()

    async def _end_tasks(self) -> None:
        self._stopped.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ENDED_WITHIN)
        for task in self._tasks:
            task.cancel()

    async def _watch_size(self) -> None:
        while not self._stopped.is_set():
            with suppress(StorageError):
                await self._look()
            await self._pause(LOOK_EVERY)

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until the spool is left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def _look(self) -> None:
        """Measure what is stored, and say whether the spool is full. A full spool is pruned until it has room."""
        while True:
            self._size = await self._reader.read(queries.size)
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
        """Delete some events that all attached sinks have settled, of any age; true if there may be more."""
        self._writer.whole_catalogue = True  # only events that the written catalogue covers can be pruned
        await self._write(flush)
        floor = min(self._dispatcher.floor(), self._replays.floor())
        return await self._write(partial(Writer.prune_early, floor=floor))

    # ------------------------------------------------------------ in

    async def check_writable(self) -> None:
        """See `Spool.check_writable`."""
        await self._look()
        await self._write(Writer.check_writable)

    async def attach(
        self,
        sink: str,
        wants: Wants,
        ordered: bool = False,
        *,
        start: datetime | None = None,
        replays: int = 1,
    ) -> None:
        """See `Spool.attach`."""
        async with self._replays.attaching(sink):
            await self._attach(sink, wants, ordered, start, replays)

    async def _attach(
        self, sink: str, wants: Wants, ordered: bool, start: datetime | None, replays: int
    ) -> None:
        self._keep(*self._dispatcher.release(sink))
        position, waiting, ahead, new = await self._write(partial(Writer.attach, sink=sink, start=start))
        begin = position if new else self._dispatcher.head
        since = await self._write(partial(Writer.ordered_since, sink=sink, ordered=ordered, begin=begin))
        more: Any = {"dead_ahead": ahead, "replays": replays}
        self._dispatcher.queues[sink] = (
            SinkQueue(sink, wants, position, waiting, self._clock, **more)
            if since is None
            else OrderedSinkQueue(sink, wants, position, waiting, self._clock, since=since, **more)
        )

    async def detach(self, sink: str) -> None:
        """See `Spool.detach`."""
        self._keep(*self._dispatcher.forget(sink))
        await self._write(partial(Writer.detach, sink=sink))

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
            await self._write(partial(Writer.read_again, source=source, readings=dict(readings)))
        )

    async def _publish(self, written: Written) -> Counter[str]:
        wanted = TAIL_OF_A_STREAM * len(self._writer.catalogue)
        self._dispatcher.tail.most_bytes = min(max(TAIL_BYTES, wanted), MOST_TAIL_BYTES)
        for chunk in written.chunks:
            self._dispatcher.publish(chunk)
        if written.confirmed:
            await self._correct(written.confirmed)
        if self._writer.catalogue_rows.unfinished:
            self._flush_in(FLUSH_DELAY)
        return Counter([event.kind for chunk in written.chunks for event in chunk.events])

    async def _correct(self, known: list[Numbered]) -> None:
        """Correct provisional events in the queues and in the file.

        The queues are corrected first. Their earlier changes are in the file when the file is corrected, and
        their later changes are correct. The events stay provisional until the file is corrected, so that the
        same page corrects them after a crash.
        """
        self._dispatcher.correct(known)
        found = await self._write(partial(Writer.correct, known=known))
        self._dispatcher.correct(known)  # for a sink that was attached again in the meantime
        for sink, batches in found.items():
            self._not_dead(Counter({sink: len(batches)}))
            if (queue := self._dispatcher.queues.get(sink)) is not None:
                for waiting in batches:
                    queue.requeue(waiting)

    # ------------------------------------------------------------ out

    async def claim(self, sink: str, limit: int, linger: float = 0.0) -> Batch:
        """See `Spool.claim`."""
        return await self._dispatcher.claim(sink, limit, linger)

    async def settle(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """See `Spool.settle`."""
        if self._writer.broken is not None:
            raise self._writer.broken  # nothing is written any more: the next process delivers the batch again
        self._keep(self._dispatcher.settle(batch, outcomes))

    async def split(self, batch: Batch) -> tuple[Batch, ...]:
        """See `Spool.split`."""
        halves, changes = self._dispatcher.split(batch)
        self._keep(changes)
        return halves

    async def retry_now(self, sink: str) -> None:
        """See `Spool.retry_now`."""
        self._dispatcher.queues[sink].retry_now()

    async def _load(self, start: int) -> list[Chunk]:
        """Read pages for a claim, which waits while the database is away."""
        while True:
            try:
                return await self._reader.read(partial(load_pages, start))
            except StorageAway:
                if self._writer.broken is not None:
                    raise self._writer.broken from None
                await asyncio.sleep(LOAD_AGAIN)

    def _keep(self, *changes: Changes) -> None:
        """Write changes with the next commit, or with a commit of their own a tenth of a second later."""
        for change in changes:
            if change.dead:
                self._dead[change.sink] = self._dead.get(change.sink, 0) + len(change.dead)
            self._writer.dirty.append(change)
            self._flush_in(FLUSH_DELAY)

    async def retry_dead(
        self, sink: str, numbers: Sequence[int], together: int, rebuild: Callable[[Event], Event] = unchanged
    ) -> int:
        """See `Spool.retry_dead`."""
        queue = self._dispatcher.queues[sink]
        retry = partial(
            Writer.retry_dead,
            sink=sink,
            numbers=list(numbers),
            together=together,
            room=queue.room_to_retry(),
            rebuild=rebuild,
        )
        found = await self._write(retry)
        reached("dead.owed")
        for waiting in found:
            queue.requeue(waiting)
        count = sum(len(waiting.members) for waiting in found)
        self._not_dead(Counter({sink: count}))
        return count

    @property
    def replays(self) -> Replays:
        """See `SpoolAdmin.replays`."""
        return self._replays

    async def _write_replay(self, change: ReplayChange) -> None:
        await self._write(lambda writer: replays.write(change, writer.connection))

    async def _dead_ids(self, sink: str) -> frozenset[str]:
        await self._write(flush)  # the newest dead letters may not be in the file yet
        return await self._reader.read(partial(replays.dead_ids, sink))

    async def _count_replayed(self, sink: str) -> int:
        await self._write(flush)  # the newest settlements may not be in the file yet
        return await self._reader.read(partial(replays.count_waiting, sink))

    async def purge_dead(self, numbers: Sequence[int]) -> int:
        """See `Spool.purge_dead`."""
        gone = await self._write(partial(Writer.purge_dead, numbers=list(numbers)))
        self._not_dead(gone)
        return gone.total()

    def _not_dead(self, gone: Mapping[str, int]) -> None:
        for sink, count in gone.items():
            self._dead[sink] = self._dead.get(sink, 0) - count

    async def pause(self, sink: str, paused: bool) -> None:
        """See `Spool.pause`."""
        await self._write(lambda writer: settlements.pause(writer.connection, sink, paused))

    async def paused(self) -> frozenset[str]:
        """See `Spool.paused`."""
        return await self._reader.read(queries.paused)

    def _flush_in(self, seconds: float) -> None:
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(seconds, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        if self._writer.dirty or self._writer.losses or self._writer.catalogue_rows.unfinished:
            self._writer.submit(flush).add_done_callback(self._flushed)

    def _flushed(self, future: "asyncio.Future[None]") -> None:
        if not future.cancelled() and future.exception() is not None:
            self._flush_in(FLUSH_AGAIN)  # a full disk: settled events stay settled, and are written later
        elif self._writer.catalogue_rows.unfinished:
            self._flush_in(FLUSH_DELAY)

    # ------------------------------------------------------------ queries and pruning

    def streams(self) -> list[Stream]:
        """See `Spool.streams`."""
        return self._writer.catalogue.streams()

    async def backlog(self, sink: str) -> Backlog:
        """See `Spool.backlog`."""
        if (queue := self._dispatcher.queues.get(sink)) is None:
            return Backlog(events=0, retrying=0, dead=self._dead.get(sink, 0), oldest=None)
        received = [queue.oldest_waiting()]
        position = queue.position
        if position < self._dispatcher.head:
            if first := self._dispatcher.tail.members(position, 1):
                received.append(first[0][1].received_at)
            else:
                received.append(await self._reader.read(partial(queries.received_at, position)))
        return Backlog(
            events=queue.count_unsettled(self._dispatcher.head),
            retrying=queue.retrying,
            dead=self._dead.get(sink, 0),
            oldest=max((at for at in received if at is not None), key=self._clock.age, default=None),
            replaying=queue.replayed.events,
        )

    @property
    def head(self) -> int:
        """See `SpoolHistory.head`."""
        return self._dispatcher.head

    async def wait_beyond(self, number: int) -> None:
        """See `SpoolHistory.wait_beyond`."""
        await self._dispatcher.wait_beyond(number)

    async def scan(
        self, chosen: Selection, start: int | None, limit: int, *, newest_first: bool = False
    ) -> Scan:
        """See `SpoolHistory.scan`."""
        if not newest_first and (step := scan_tail(self._dispatcher.tail, self.head, chosen, start, limit)):
            return step
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

    async def progress(self, number: int, id: str, event: Event | None) -> list[SinkProgress]:
        """See `SpoolHistory.progress`."""
        queues = self._dispatcher.queues
        held = {sink: queue.progress(number, id, event) for sink, queue in queues.items()}
        await self._write_pending()
        stored = await self._reader.read(partial(progress.stored, number, id, frozenset(held)))
        found = {sink: one or stored.get(sink) or settled_progress(sink) for sink, one in held.items()}
        return [one for _, one in sorted((stored | found).items())]

    async def remembers(self, id: str) -> bool:
        """See `SpoolHistory.remembers`."""
        return await self._reader.read(partial(self._knows, id))

    async def tallies(self) -> list[Tally]:
        """See `SpoolHistory.tallies`."""
        await self._write_pending()
        return await self._reader.read(books.tallies)

    def count_loss(self, where: str, count: int) -> None:
        """See `SpoolHistory.count_loss`."""
        self._writer.losses.append(PossibleLoss(where=where, count=count, at=self._clock.now()))
        self._flush_in(FLUSH_DELAY)

    async def _write_pending(self) -> None:
        """Write the newest settlements, unless the disk is full or hangs: questions are answered meanwhile."""
        with suppress(StorageError, TimeoutError):
            async with asyncio.timeout(WRITTEN_WITHIN):
                await self._write(flush)

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
        await self._write(flush)  # the newest dead letters may not be in the file yet
        return await self._reader.read(partial(queries.dead_letters, limit, chosen))

    async def quarantined(self, limit: int, chosen: Filter = EVERYTHING) -> list[Quarantined]:
        """See `Spool.quarantined`."""
        return await self._reader.read(partial(queries.quarantined, limit, chosen))

    async def purge_quarantine(self, numbers: Sequence[int]) -> int:
        """See `Spool.purge_quarantine`."""
        return await self._write(lambda writer: quarantine.purge(writer.connection, list(numbers)))

    async def quarantine_size(self) -> int:
        """See `Spool.quarantine_size`."""
        return await self._reader.read(queries.quarantine_size)

    async def prune(self) -> Pruned:
        """See `Spool.prune`."""
        step = partial(
            Writer.prune,
            floor=min(self._dispatcher.floor(), self._replays.floor()),
            retain=self._settings.retain,
            dead=self._settings.retain_dead,
            quarantine=self._settings.retain_quarantine,
        )
        pruned = await self._write(step)
        self._not_dead(pruned.dead)
        return pruned

    async def size(self) -> int:
        """See `Spool.size`."""
        return self._size

    @property
    def fullness(self) -> dict[str, float]:
        """See `HasLimits.fullness`."""
        return {"max_bytes": self._size / self._settings.max_bytes}

    async def _knows(self, id: str, reader: Link) -> bool:
        return await self._writer.seen.knows(reader, id)

    async def _write(self, job: Callable[[Writer], Awaitable[Result]]) -> Result:
        return await self._writer.submit(job)
