"""What is written: appends, settlements, and all that operators change.

Invariants
    The state in memory (the next number, the catalogue) changes with a commit, and goes back with a rollback. A
    transaction that takes numbers locks the row of the log first, and then reads what other daemons have appended. So
    the catalogue knows all earlier events when it says what is news.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from poller.core.catalogue import Catalogue
from poller.core.errors import StorageError, StorageFull
from poller.core.history import Gap, LatePicture
from poller.core.model import Event, ParsedPage, corrected
from poller.core.selection import Numbered
from poller.core.spool import Pruned
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.spools.books import PossibleLoss
from poller.spools.pages import Written, came
from poller.spools.postgres import (
    books,
    correction_log,
    memories,
    meta,
    pages,
    quarantine,
    replays,
    serving,
    sessions,
    settlements,
    shares,
    waiting_rows,
)
from poller.spools.postgres.catalogue_rows import CatalogueRows
from poller.spools.postgres.corrections import correct_page, correct_waiting
from poller.spools.postgres.dead_letters import dead_letters, purge_dead, requeue_dead
from poller.spools.postgres.delivered import prune_delivered
from poller.spools.postgres.gaps import prune_gaps, put_gaps
from poller.spools.postgres.links import Address, Link, Outage
from poller.spools.postgres.pruning import older, prune_pages, prune_settled_ahead, prune_streams
from poller.spools.postgres.quarantine import purge
from poller.spools.postgres.seen import DedupIndex
from poller.spools.postgres.transactions import Job, Transactions
from poller.spools.retention import IDS_REMEMBERED, PRUNE_STEP
from poller.spools.sink_queue import MOST_RETRYING, Changes
from poller.spools.tail import Chunk, cut, members_of
from poller.spools.waiting import Corrections


class Writer(Transactions):
    """The connection that writes the log.

    `publish` gets what was appended, in order, once it is durable. `keeps_up` says whether this session has the duty of
    upkeep: it writes the catalogue.
    """

    place = "writer"
    most_jobs = 64

    def __init__(
        self,
        address: Address,
        lease: float,
        clock: Clock,
        *,
        outage: Outage,
        publish: Callable[[Chunk], None],
        keeps_up: Callable[[], bool],
        failed: Callable[[StorageError], None],
    ) -> None:
        super().__init__(address, lease, outage=outage, failed=failed)
        self._clock = clock
        self._publish = publish
        self._keeps_up = keeps_up
        self._turn = asyncio.Lock()
        self._appended: list[Chunk] = []
        self._start: int
        """What `next` is without the transaction that is running."""
        self._flushed = self._counted = 0
        self._has_log = False
        self.full: str | None = None
        """Why the spool takes no more events; None while it takes them."""
        self.dirty: deque[Changes] = deque()
        self.losses: deque[PossibleLoss] = deque()
        self.whole_catalogue = self._writes_whole = False
        """Whether the next transaction writes all of the catalogue, and whether this one does."""
        self.next: int
        """The first number whose event is not known here: other daemons may have appended more."""
        self.catalogue: Catalogue
        self.catalogue_rows: CatalogueRows
        self.seen: DedupIndex

    async def open(self, connection: Link, session: int) -> None:
        """Take over a connection of a session that has begun, and read the state."""
        await super().open(connection, session)
        self.seen = await DedupIndex.load(connection)
        self.catalogue, self.catalogue_rows, self.next = await CatalogueRows.load(connection, self._clock)
        self._start = self.next

    # ------------------------------------------------------------ the log

    async def follow(self, load: Callable[[int], Awaitable[list[Chunk]]]) -> None:
        """Learn what other daemons have appended; `load` reads it."""
        async with self._turn:
            while chunks := await load(self.next):
                self._learn(chunks)

    def _learn(self, chunks: Sequence[Chunk]) -> None:
        """Take over committed events from the number `next` on."""
        for chunk in chunks:
            for number, event in members_of(cut([chunk], self.next, len(chunk.events))):
                self.catalogue.note(event, number)
            self.catalogue.keep()
            if chunk.end > self.next:
                self.next = self._start = chunk.end
                self._publish(chunk)

    async def _together(self, jobs: list[Job]) -> list[object | Exception]:
        async with self._turn:
            return await super()._together(jobs)

    async def _take_log(self) -> None:
        """Lock the log until the end of the transaction, and learn what others have appended."""
        if self._has_log:
            return
        head = await meta.lock_head(self.connection)
        while self.next < head and (chunks := await pages.load_pages(self.next, self.connection)):
            self._learn(chunks)
        self.next = self._start = head  # the last pages may have been pruned
        self._has_log = True

    async def _begin(self, *, alone: bool) -> None:
        await sessions.pass_gate(self.connection, alone=alone)
        self._has_log = False
        flushed, losses = list(self.dirty), list(self.losses)
        self._flushed, self._counted = len(flushed), len(losses)
        await settlements.apply(self.connection, self.session, flushed)
        await books.count_losses(self.connection, self.session, losses)
        if self._keeps_up():
            self._writes_whole = self.whole_catalogue
            await self.catalogue_rows.write(self.connection, self.next, whole=self._writes_whole)

    async def _end(self) -> None:
        if self.next != self._start:
            await meta.put_head(self.connection, self.next)
            await sessions.notify(self.connection, f"{sessions.HEAD} {self.next}")

    def _undo(self) -> None:
        self.next = self._start
        self._appended.clear()
        self.catalogue.discard()
        self.catalogue_rows.discard()

    def _keep(self) -> None:
        if self._writes_whole:
            self.whole_catalogue = self._writes_whole = False
        self.catalogue_rows.keep(self.next - self._start)
        self._start = self.next
        self.catalogue.keep()
        for _ in range(self._flushed):
            self.dirty.popleft()
        for _ in range(self._counted):
            self.losses.popleft()
        for chunk in self._appended:
            self._publish(chunk)
        self._appended.clear()

    # ------------------------------------------------------------ jobs

    def _admit(self) -> None:
        if self.full is not None:
            raise StorageFull(f"{self._name}: {self.full}")

    async def append(self, source: str, readings: Sequence[ParsedPage]) -> Written:
        """Write the new events, the rejects and the memories of pages; raises `StorageFull`."""
        self._admit()
        await self._take_log()
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
                self._appended.append(chunk)
                new.append(pages.NewPage(chunk=chunk, came=came(source, reading)))
                written.chunks.append(chunk)
                if reading.provisional:
                    await self.seen.note_provisional(self.connection, chunk.first, news)
        await pages.write_pages(self.connection, new)
        await quarantine.write_rejects(
            self.connection, source, [reject for reading in readings for reject in reading.rejects]
        )
        taken = sum(len(chunk.events) for chunk in written.chunks)
        await books.count_taken(self.connection, self.session, source, taken, now)
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
        await self._take_log()
        numbers = await quarantine.take(self.connection, source, list(readings))
        reached("quarantine.taken")
        return await self._write_readings(source, [readings[n] for n in numbers])

    async def check_writable(self) -> None:
        """Prove by this transaction that the database can be written; raises `StorageFull`."""
        self._admit()

    async def correct(self, known: Sequence[Numbered]) -> None:
        """Correct provisional events in the log and in waiting batches. They are not provisional any more.

        Their dead letters of attached sinks become waiting batches that nobody holds. Their retry is due now.
        """
        by = {event.id: event for _, event in known}
        differing = {
            event.id: event for number, event in known if await correct_page(self.connection, number, event)
        }
        if differing:
            await correct_waiting(self.connection, differing)
        for sink in await serving.served(self.connection):
            await self._revive(sink, by)
        await self.seen.confirm(self.connection, by.values())
        await correction_log.put(self.connection, self.session, known, self._clock.now())
        await sessions.notify(self.connection, sessions.CORRECTED)
        await sessions.notify(self.connection, sessions.FREED)
        reached("correction.written")

    async def _revive(self, sink: str, by: Corrections) -> None:
        letters = [
            msgspec.structs.replace(letter, event=corrected(letter.event, by[letter.event.id]))
            for letter in await dead_letters(self.connection, sink, "event_id", by)
        ]
        await requeue_dead(self.connection, sink, letters, self._clock.now())

    async def retry_dead(
        self, sink: str, numbers: Sequence[int], together: int, rebuild: Callable[[Event], Event]
    ) -> int:
        """Turn dead letters into batches that wait for their retry, oldest first, as far as there is room.

        Nobody holds them yet. Returns how many dead letters there were.
        """
        room = max(0, MOST_RETRYING - await waiting_rows.count(self.connection, sink))
        letters = await dead_letters(self.connection, sink, "n", numbers, room)
        now = self._clock.now()
        await requeue_dead(self.connection, sink, letters, now, together=together, rebuild=rebuild)
        await sessions.notify(self.connection, sessions.FREED)
        return len(letters)

    async def pause(self, sink: str, paused: bool) -> None:
        """Record that the operator paused a sink, or resumed it, and tell the other daemons."""
        await settlements.pause(self.connection, sink, paused)
        await sessions.notify(self.connection, sessions.CHANGED)

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
        served = await shares.floor(connection)
        full = await prune_pages(connection, await self._floor(floor, served), young(retain), PRUNE_STEP)
        full |= await prune_delivered(connection, self.next, young(retain))
        full |= await self.seen.prune(connection, young(IDS_REMEMBERED), PRUNE_STEP)
        letters = await self.purge_dead(await older(connection, "dead", "died_at", young(dead)))
        rejects = await purge(
            connection, await older(connection, "quarantine", "received_at", young(quarantine))
        )
        await prune_streams(connection, self.catalogue, self._clock)
        await prune_settled_ahead(connection)
        await correction_log.prune(connection, self._clock)
        full |= await prune_gaps(connection, self._clock, retain)
        full |= PRUNE_STEP in (letters.total(), rejects)
        return Pruned(dead=letters, rejects=rejects, more=full)

    async def prune_early(self, floor: int) -> bool:
        """Delete one step of pages below `floor`, of any age; true if there may be more."""
        served = await shares.floor(self.connection)
        if served is None:
            return False  # no daemon knows a sink, so nobody knows what is settled
        return await prune_pages(self.connection, await self._floor(floor, served), [], PRUNE_STEP)

    async def _floor(self, floor: int, served: int | None) -> int:
        """The number below which nobody needs events: neither a sink (`served`) nor a replay.

        The written catalogue lacks the newest events: the next start reads them from the log.
        """
        saved = await meta.read_number(self.connection, meta.CATALOGUE)
        needed = await replays.floor(self.connection)
        return min(at for at in (floor, saved, served, needed) if at is not None)


async def flush(writer: Writer) -> None:
    """An empty job. The pending changes are written with it, as with every job."""
