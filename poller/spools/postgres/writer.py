"""The one connection that writes.

Invariants
    Jobs that wait at the same time share one transaction. The state in memory (the next number, the catalogue) changes
    with a commit, and goes back with a rollback. Each transaction begins with the check of the lease and writes how
    many there were, so that after a lost connection it is known whether the last one took effect.

Failures
    While the database is away, jobs fail with `StorageAway`. A job whose commit was not answered waits until the
    database says whether it took effect. `Fenced` ends the writer for good.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar

import asyncpg
import msgspec
import structlog

from poller.core.catalogue import Catalogue
from poller.core.errors import StorageError, StorageFull
from poller.core.history import Book, Gap, LatePicture
from poller.core.model import Event, ParsedPage, corrected
from poller.core.selection import Numbered
from poller.core.spool import Pruned
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.spools.books import PossibleLoss
from poller.spools.pages import Written, came
from poller.spools.postgres import books, memories, meta, pages, quarantine, settlements
from poller.spools.postgres.catalogue_rows import CatalogueRows
from poller.spools.postgres.corrections import correct_page, correct_waiting
from poller.spools.postgres.dead_letters import dead_letters, purge_dead, requeue_dead
from poller.spools.postgres.delivered import prune_delivered
from poller.spools.postgres.gaps import prune_gaps, put_gaps
from poller.spools.postgres.lease import Fenced, check
from poller.spools.postgres.links import EndedWaits, Link, StorageAway, connect, storage_error
from poller.spools.postgres.pruning import older, prune_pages, prune_streams
from poller.spools.postgres.quarantine import purge
from poller.spools.postgres.seen import DedupIndex
from poller.spools.retention import IDS_REMEMBERED, PRUNE_STEP
from poller.spools.sink_queue import Changes
from poller.spools.tail import Chunk
from poller.spools.waiting import Corrections, Waiting

MOST_JOBS: Final = 64
CONNECT_AGAIN: Final = 0.5

log = structlog.get_logger("spool")

Result = TypeVar("Result")
Job = Callable[["Writer"], Awaitable[Result]]
_Entry = tuple[Job[object], "asyncio.Future[object]"]


class Writer:
    """Owns the connection and the log's next number. `run` serves until `stop`."""

    def __init__(self, name: str, dsn: str, schema: str, clock: Clock) -> None:
        self._name, self._dsn, self._schema = name, dsn, schema
        self._clock = clock
        self._attached: set[str] = set()
        self._jobs: deque[_Entry] = deque()
        self._bell = asyncio.Event()
        self._stopping = False
        self._transactions = 0
        self._away = False
        self._ended_waits: EndedWaits
        self.session = 0
        self.broken: StorageError | None = None
        """The reason why nothing is written any more; None while all is well."""
        self.full: str | None = None
        """Why the spool takes no more events; None while it takes them."""
        self.dirty: deque[Changes] = deque()
        self.losses: deque[PossibleLoss] = deque()
        self.whole_catalogue = False
        """Whether the next transaction writes all of the catalogue."""
        self.next: int
        self.catalogue: Catalogue
        self.catalogue_rows: CatalogueRows
        self.connection: Link
        self.seen: DedupIndex

    async def open(self, connection: Link, session: int) -> None:
        """Take over a connection and read the state. The session has the lease."""
        self.session = session
        self._use(connection)
        self.next = await meta.read_head(connection)
        self._transactions = await meta.read_number(connection, meta.TRANSACTIONS)
        self.seen = await DedupIndex.load(connection)
        self.catalogue, self.catalogue_rows = await CatalogueRows.load(connection, self._clock)

    def _use(self, connection: Link) -> None:
        self.connection = connection
        self._ended_waits = EndedWaits(connection)

    # ------------------------------------------------------------ running

    def submit(self, job: Job[Result]) -> "asyncio.Future[Result]":
        """Queue a job; the future gets its result. Cancelling the future does not stop the job."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, future))  # type: ignore[arg-type]
        self._bell.set()
        return future

    def stop(self) -> None:
        """End after all that was submitted is done, or has failed."""
        self._stopping = True
        self._bell.set()

    async def run(self) -> None:
        """Run jobs until `stop`."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            while self._jobs:
                await self._serve([self._jobs.popleft() for _ in range(min(MOST_JOBS, len(self._jobs)))])
            if self._stopping:
                return

    async def _serve(self, entries: list[_Entry]) -> None:
        results = await self._run([job for job, _ in entries])
        for (_, future), result in zip(entries, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    async def _run(self, jobs: list[Job[object]]) -> list[object | Exception]:
        """Run jobs in one transaction, or each in a transaction of its own if one fails. Returns results or errors."""
        if self.broken is not None:
            return [self.broken for _ in jobs]
        try:
            await self._connect()
            return await self._together(jobs)
        except Exception as error:  # rolled back: the other jobs are tried without the one that failed
            if len(jobs) > 1 and not self.connection.is_closed():
                return [result for job in jobs for result in await self._run([job])]
            return [self._failure(error) for _ in jobs]

    def _failure(self, error: Exception) -> Exception:
        passing = isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | OSError | TimeoutError)
        if not passing and not isinstance(error, StorageError):
            return error
        failure = storage_error(self._name, error)
        if isinstance(failure, StorageAway):
            self._note_away(failure)
        elif not isinstance(failure, StorageFull):
            self.broken = failure
        return failure

    def _note_away(self, failure: StorageError) -> None:
        if not self._away:
            log.warning("database_away", reason=str(failure))
        self._away = True

    async def _connect(self) -> None:
        if not self.connection.is_closed():
            return
        self._use(await connect(self._name, self._dsn, self._schema))
        if await meta.read_number(self.connection, meta.TRANSACTIONS) != self._transactions:
            raise Fenced(f"spool {self._name}: the database is not the one that was written to")

    async def _together(self, jobs: list[Job[object]]) -> list[object | Exception]:
        start, flushed, losses = self.next, list(self.dirty), list(self.losses)
        before = self._transactions
        transaction = self.connection.transaction()
        try:
            await transaction.start()
            await check(self.connection, self._name, self.session)
            await settlements.apply(self.connection, flushed)
            await books.count_losses(self.connection, losses)
            await self.catalogue_rows.write(self.connection, start, whole=self.whole_catalogue)
            results: list[object | Exception] = [await job(self) for job in jobs]
            await meta.put_number(self.connection, meta.TRANSACTIONS, before + 1)
            if self.next != start:
                await meta.put_head(self.connection, self.next)
            reached("transaction.written")
        except BaseException:
            self._go_back(start)
            if not self.connection.is_closed():
                await transaction.rollback()
            raise
        try:
            await self._commit(transaction, before)
        except BaseException:
            self._go_back(start)
            raise
        self._keep(start, len(flushed), len(losses))
        return results

    def _go_back(self, start: int) -> None:
        self.next = start
        self.catalogue.discard()
        self.catalogue_rows.discard()

    def _keep(self, start: int, flushed: int, losses: int) -> None:
        self._transactions += 1
        if self._away:
            self._away = False
            log.info("database_back")
        self.whole_catalogue = False
        self.catalogue_rows.keep(self.next - start)
        self.catalogue.keep()
        for _ in range(flushed):
            self.dirty.popleft()
        for _ in range(losses):
            self.losses.popleft()

    async def _commit(self, transaction: asyncpg.transaction.Transaction, before: int) -> None:
        """Commit. Returns when the transaction is as durable as the database makes it; raises if it had no effect."""
        try:
            await transaction.commit()
            await self._wait_for_standby()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            if not await self._took_effect(before, error):
                raise
        reached("transaction.committed")

    async def _took_effect(self, before: int, error: Exception) -> bool:
        """Whether a transaction took effect whose commit was not answered. Waits until the database says it."""
        self._note_away(storage_error(self._name, error))
        while not self._stopping:
            try:
                if self.connection.is_closed():
                    self._use(await connect(self._name, self._dsn, self._schema))
                if await meta.read_number(self.connection, meta.TRANSACTIONS) != before + 1:
                    return False
                await self._commit_again()
                await self._wait_for_standby()
            except (StorageAway, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await asyncio.sleep(CONNECT_AGAIN)
            else:
                return True
        raise storage_error(self._name, error)

    async def _wait_for_standby(self) -> None:
        """Where the server stopped waiting for its standby, wait until the standby has a later commit."""
        while self._ended_waits.take():
            await self._commit_again()

    async def _commit_again(self) -> None:
        await self.connection.execute("UPDATE meta SET value = value WHERE name = $1", meta.TRANSACTIONS)

    # ------------------------------------------------------------ jobs

    def _admit(self) -> None:
        if self.full is not None:
            raise StorageFull(f"spool {self._name}: {self.full}")

    async def append(self, source: str, readings: Sequence[ParsedPage]) -> Written:
        """Write the new events, the rejects and the memories of pages; raises `StorageFull`."""
        self._admit()
        written = await self._write_readings(source, readings)
        await memories.write(
            self.connection, source, {reading.about: reading.memory for reading in readings}, self._clock
        )
        reached("append.written")
        return written

    async def _write_readings(self, source: str, readings: Sequence[ParsedPage]) -> Written:
        written, now = Written(), self._clock.now()
        fresh = await self.seen.fresh(self.connection, [reading.events for reading in readings], now)
        new = list[pages.NewPage]()
        for reading, unseen in zip(readings, fresh, strict=True):
            if not reading.provisional and len(unseen) < len(reading.events):
                ids = {event.id for event in unseen}
                known = [event for event in reading.events if event.id not in ids]
                written.confirmed += await self.seen.provisional(self.connection, known)
            if news := self._news(unseen):
                chunk = Chunk(self.next, news)
                self.next = chunk.end
                new.append(pages.NewPage(chunk=chunk, came=came(source, reading)))
                written.chunks.append(chunk)
                if reading.provisional:
                    await self.seen.note_provisional(self.connection, chunk.first, news)
        await pages.write_pages(self.connection, new)
        await quarantine.write_rejects(
            self.connection, source, [reject for reading in readings for reject in reading.rejects]
        )
        taken = sum(len(chunk.events) for chunk in written.chunks)
        await books.count(self.connection, source, Book.TAKEN, taken, now)
        return written

    def _news(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        """The events that are news for the catalogue. The catalogue has noted them."""
        note, number, news = self.catalogue.note, self.next, list[Event]()
        for event in events:
            if note(event, number):
                news.append(event)
                number += 1
        return tuple(news)

    async def read_again(self, source: str, readings: Mapping[int, ParsedPage]) -> Written:
        """Replace rejects by the pages that were parsed from them. A reject that is gone is skipped."""
        numbers = await quarantine.take(self.connection, source, list(readings))
        reached("quarantine.taken")
        return await self._write_readings(source, [readings[n] for n in numbers])

    async def check_writable(self) -> None:
        """Prove by this transaction that the database can be written; raises `StorageFull`."""
        self._admit()

    async def correct(self, known: Sequence[Numbered]) -> dict[str, list[Waiting]]:
        """Correct provisional events in the log and in waiting batches. They are not provisional any more.

        Their dead letters of attached sinks become waiting batches, which are returned. Their retry is due now.
        """
        by = {event.id: event for _, event in known}
        differing = {
            event.id: event for number, event in known if await correct_page(self.connection, number, event)
        }
        if differing:
            await correct_waiting(self.connection, differing)
        found = {sink: await self._revive(sink, by) for sink in self._attached}
        await self.seen.confirm(self.connection, by.values())
        reached("correction.written")
        return found

    async def _revive(self, sink: str, by: Corrections) -> list[Waiting]:
        letters = [
            msgspec.structs.replace(letter, event=corrected(letter.event, by[letter.event.id]))
            for letter in await dead_letters(self.connection, sink, "event_id", by)
        ]
        return await requeue_dead(self.connection, sink, letters, self._clock.now())

    async def attach(self, sink: str, start: datetime | None) -> tuple[int, list[Waiting], list[int], bool]:
        """See `settlements.attach`."""
        self._attached.add(sink)
        return await settlements.attach(self.connection, sink, start, self.next)

    async def ordered_since(self, sink: str, ordered: bool, begin: int) -> int | None:
        """See `settlements.ordered_since`."""
        return await settlements.ordered_since(self.connection, sink, ordered, begin)

    async def detach(self, sink: str) -> None:
        """Detach a sink: events are no longer retained for it."""
        self._attached.discard(sink)

    async def retry_dead(
        self, sink: str, numbers: Sequence[int], together: int, room: int, rebuild: Callable[[Event], Event]
    ) -> list[Waiting]:
        """Turn dead letters into batches that wait for their retry: at most `room` letters, oldest first."""
        letters = await dead_letters(self.connection, sink, "n", numbers, room)
        now = self._clock.now()
        return await requeue_dead(self.connection, sink, letters, now, together=together, rebuild=rebuild)

    async def purge_dead(self, numbers: Sequence[int]) -> Counter[str]:
        """Delete dead letters; returns how many of each sink there were."""
        return await purge_dead(self.connection, numbers)

    async def note_gaps(
        self, source: str, readings: list[ParsedPage], gaps: Sequence[Gap], late: Sequence[LatePicture]
    ) -> Written:
        """Append readings, add gaps and fill gaps."""
        written = await self.append(source, readings)
        await put_gaps(self.connection, gaps, late)
        return written

    async def prune(self, floor: int, retain: float, dead: float, quarantine: float) -> Pruned:
        """Prune one bounded step. `more` is true when the step was full, so that there may be more.

        Only events below the number `floor` are pruned. The other arguments are ages in seconds.
        """
        connection, young = self.connection, self._clock.young
        # the written catalogue lacks the newest events: the next start reads them from the log
        saved = await meta.read_number(connection, meta.CATALOGUE)
        full = await prune_pages(connection, min(floor, saved), young(retain), PRUNE_STEP)
        full |= await prune_delivered(connection, self.next, young(retain))
        full |= await self.seen.prune(connection, young(IDS_REMEMBERED), PRUNE_STEP)
        letters = await self.purge_dead(await older(connection, "dead", "died_at", young(dead)))
        rejects = await purge(
            connection, await older(connection, "quarantine", "received_at", young(quarantine))
        )
        await prune_streams(connection, self.catalogue, self._clock)
        full |= await prune_gaps(connection, self._clock, retain)
        full |= PRUNE_STEP in (letters.total(), rejects)
        return Pruned(dead=letters, rejects=rejects, more=full)

    async def prune_early(self, floor: int) -> bool:
        """Delete one step of pages below `floor`, of any age; true if there may be more."""
        saved = await meta.read_number(self.connection, meta.CATALOGUE)
        return await prune_pages(self.connection, min(floor, saved), [], PRUNE_STEP)

    def fail(self, error: StorageError) -> None:
        """Write nothing any more."""
        self.broken = error

    def close(self) -> None:
        """Close the connection. Jobs that still wait fail."""
        self.connection.terminate()


async def flush(writer: Writer) -> None:
    """An empty job. The pending changes are written with it, as with every job."""
