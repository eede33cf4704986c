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
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Annotated, Any, Literal, Self, TypeVar

import structlog
from pydantic import Field, model_validator

from poller.core.errors import StorageError
from poller.core.history import Delivery, Gap, LatePicture, Origin, SinkProgress, Tally
from poller.core.model import (
    EVERYTHING,
    DeadLetter,
    Event,
    Filter,
    ParsedPage,
    Quarantined,
)
from poller.core.selection import Numbered, Scan, Selection
from poller.core.spool import HasLimits, HasStandby, Pruned
from poller.runtime.clock import Clock
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
from poller.spools.postgres.writer import Writer, flush
from poller.spools.replays import ReplayChange
from poller.spools.table_spool import TableSpool
from poller.spools.tail import Chunk
from poller.spools.waiting import Waiting

log = structlog.get_logger("spool")

LOAD_AGAIN = 0.5
LOOK_EVERY = 5.0
"""Seconds between two looks at the size of what is stored."""
ENDED_WITHIN = 5.0
"""Seconds that leaving waits for the database."""

Result = TypeVar("Result")


class PostgresSpool(TableSpool[Writer], HasLimits, HasStandby):
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
            description="Polling pauses when more than this is stored, and resumes below nine tenths of it.",
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
        clock = clock or Clock()
        clock.begin(None)
        self._where = (name, settings.address, settings.schema_name)
        super().__init__(name, Writer(*self._where, clock), clock)
        self._settings = settings
        self._reader = Reader(*self._where)
        self._size = 0
        self._stopped = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

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
                self._writer.whole_catalogue = True
                await self._flushing()
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

    async def _attach_rows(
        self, sink: str, start: datetime | None
    ) -> tuple[int, list[Waiting], list[int], bool]:
        return await self._write(partial(Writer.attach, sink=sink, start=start))

    async def _ordered_since(self, sink: str, ordered: bool, begin: int) -> int | None:
        return await self._write(partial(Writer.ordered_since, sink=sink, ordered=ordered, begin=begin))

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

    async def _correct_rows(self, known: list[Numbered]) -> Mapping[str, list[Waiting]]:
        return await self._write(partial(Writer.correct, known=known))

    # ------------------------------------------------------------ out

    def _flushing(self) -> "asyncio.Future[None]":
        return self._writer.submit(flush)

    async def _requeue_rows(
        self, sink: str, numbers: list[int], together: int, room: int, rebuild: Callable[[Event], Event]
    ) -> list[Waiting]:
        terms: Any = {
            "sink": sink,
            "numbers": numbers,
            "together": together,
            "room": room,
            "rebuild": rebuild,
        }
        return await self._write(partial(Writer.retry_dead, **terms))

    async def _purge_dead_rows(self, numbers: list[int]) -> Counter[str]:
        return await self._write(partial(Writer.purge_dead, numbers=numbers))

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
        await self._write(lambda writer: replays.write(change, writer.connection))

    async def _dead_ids(self, sink: str) -> frozenset[str]:
        await self._write(flush)  # the newest dead letters may not be in the file yet
        return await self._reader.read(partial(replays.dead_ids, sink))

    async def _count_replayed(self, sink: str) -> int:
        await self._write(flush)  # the newest settlements may not be in the file yet
        return await self._reader.read(partial(replays.count_waiting, sink))

    async def pause(self, sink: str, paused: bool) -> None:
        """See `Spool.pause`."""
        await self._write(lambda writer: settlements.pause(writer.connection, sink, paused))

    async def paused(self) -> frozenset[str]:
        """See `Spool.paused`."""
        return await self._reader.read(queries.paused)

    # ------------------------------------------------------------ queries and pruning

    async def _received_at(self, number: int) -> datetime | None:
        return await self._reader.read(partial(queries.received_at, number))

    async def _scan_rows(self, chosen: Selection, start: int | None, limit: int, newest_first: bool) -> Scan:
        return await self._reader.read(partial(scan, chosen, start, limit, newest_first))

    async def _stored_progress(
        self, number: int, id: str, attached: Collection[str]
    ) -> dict[str, SinkProgress]:
        return await self._reader.read(partial(progress.stored, number, id, attached))

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
