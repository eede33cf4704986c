"""What the engines share that keep their log in tables: queues in memory over rows that a writer writes.

Invariants
    The queues change at once, and what they change (`Changes`) is written with the next commit, or with one of its own
    a tenth of a second later. Fresh events reach the queues once they are durable.
"""

import asyncio
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from poller.core.catalogue import Catalogue, Stream
from poller.core.errors import StorageError
from poller.core.history import SinkProgress
from poller.core.model import Backlog, Batch, Event, Outcome, unchanged
from poller.core.replays import Replays
from poller.core.selection import Numbered, Scan, Selection
from poller.core.spool import SpoolAdmin, Wants
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.spools.books import PossibleLoss
from poller.spools.dispatcher import Dispatcher
from poller.spools.event_progress import settled_progress
from poller.spools.log_scan import scan_tail
from poller.spools.ordered_sink_queue import OrderedSinkQueue
from poller.spools.pages import Written
from poller.spools.replays import ReplayChange, SpoolReplays
from poller.spools.sink_queue import Changes, SinkQueue
from poller.spools.tail import Chunk, Tail
from poller.spools.waiting import Waiting

TAIL_BYTES = 8 * 1024 * 1024
"""The bytes of the newest events that are kept in memory, at least."""
TAIL_OF_A_STREAM = 1024
"""The same for each stream, so that a picture of each stream is in memory when all are taken in the same second."""
MOST_TAIL_BYTES = 96 * 1024 * 1024
"""The most of them. In memory they take about half as much again."""
FLUSH_DELAY = 0.1
FLUSH_AGAIN = 1.0
WRITTEN_WITHIN = 2.0
"""Seconds for which a question about the past waits for the newest settlements."""


class Rounds(Protocol):
    """What writes the catalogue."""

    @property
    def unfinished(self) -> bool:
        """Whether a round has begun and not ended."""
        ...


class WriterState(Protocol):
    """What a writer shows of itself."""

    broken: StorageError | None
    dirty: deque[Changes]
    losses: deque[PossibleLoss]
    catalogue: Catalogue

    @property
    def catalogue_rows(self) -> Rounds:
        """What writes the catalogue."""
        ...


TheWriter = TypeVar("TheWriter", bound=WriterState)


class TableSpool(SpoolAdmin, Generic[TheWriter]):
    """A spool over tables. An engine reads and writes the rows, and calls `_publish` for what it has appended."""

    def __init__(self, name: str, writer: TheWriter, clock: Clock) -> None:
        self.name = name
        self._clock = clock
        self._writer = writer
        self._dispatcher = Dispatcher(self._load, Tail(TAIL_BYTES))
        self._flush: asyncio.TimerHandle | None = None
        self._dead: dict[str, int] = {}
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

    # ------------------------------------------------------------ the rows, which an engine reads and writes

    @abstractmethod
    def _flushing(self) -> "asyncio.Future[Any]":
        """Write all that waits to be written."""
        ...

    @abstractmethod
    async def _load(self, start: int) -> list[Chunk]:
        """See `dispatcher.Load`."""
        ...

    @abstractmethod
    async def _attach_rows(
        self, sink: str, start: datetime | None
    ) -> tuple[int, list[Waiting], list[int], bool]:
        """A sink's position, its waiting batches, its dead letters ahead of the position, and whether it is new."""
        ...

    @abstractmethod
    async def _ordered_since(self, sink: str, ordered: bool, begin: int) -> int | None:
        """The number from which on an ordered sink has been served in order; None for a sink without ordering."""
        ...

    @abstractmethod
    async def _correct_rows(self, known: list[Numbered]) -> Mapping[str, list[Waiting]]:
        """Correct provisional events. Returns the dead letters that are pending again, by sink."""
        ...

    @abstractmethod
    async def _requeue_rows(
        self, sink: str, numbers: list[int], together: int, room: int, rebuild: Callable[[Event], Event]
    ) -> list[Waiting]:
        """Turn at most `room` dead letters into waiting batches."""
        ...

    @abstractmethod
    async def _purge_dead_rows(self, numbers: list[int]) -> Counter[str]:
        """Delete dead letters; returns how many of each sink there were."""
        ...

    @abstractmethod
    async def _write_replay(self, change: ReplayChange) -> None:
        """Write a change of a replay in one transaction."""
        ...

    @abstractmethod
    async def _dead_ids(self, sink: str) -> frozenset[str]:
        """The ids of a sink's dead letters, including the newest."""
        ...

    @abstractmethod
    async def _count_replayed(self, sink: str) -> int:
        """The number of replayed events that wait for a sink, including the newest."""
        ...

    @abstractmethod
    async def _received_at(self, number: int) -> datetime | None:
        """When the event of this number was received, or the first one after it."""
        ...

    @abstractmethod
    async def _scan_rows(self, chosen: Selection, start: int | None, limit: int, newest_first: bool) -> Scan:
        """See `SpoolHistory.scan`."""
        ...

    @abstractmethod
    async def _stored_progress(
        self, number: int, id: str, attached: Collection[str]
    ) -> dict[str, SinkProgress]:
        """The progress at each sink that has the event as a dead letter, or that is not attached."""
        ...

    # ------------------------------------------------------------ in

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
        position, waiting, ahead, new = await self._attach_rows(sink, start)
        begin = position if new else self._dispatcher.head
        since = await self._ordered_since(sink, ordered, begin)
        more: Any = {"dead_ahead": ahead, "replays": replays}
        self._dispatcher.queues[sink] = (
            SinkQueue(sink, wants, position, waiting, self._clock, **more)
            if since is None
            else OrderedSinkQueue(sink, wants, position, waiting, self._clock, since=since, **more)
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
        """Correct provisional events in the queues and in the tables.

        The queues are corrected first. Their earlier changes are written when the tables are corrected, and
        their later changes are correct. The events stay provisional until the tables are corrected, so that the
        same page corrects them after a crash.
        """
        self._dispatcher.correct(known)
        found = await self._correct_rows(known)
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

    def _keep(self, *changes: Changes) -> None:
        """Write changes with the next commit, or with a commit of their own a tenth of a second later."""
        for change in changes:
            if change.dead:
                self._dead[change.sink] = self._dead.get(change.sink, 0) + len(change.dead)
            self._writer.dirty.append(change)
            self._flush_in(FLUSH_DELAY)

    # ------------------------------------------------------------ dead letters and replays

    async def retry_dead(
        self, sink: str, numbers: Sequence[int], together: int, rebuild: Callable[[Event], Event] = unchanged
    ) -> int:
        """See `Spool.retry_dead`."""
        queue = self._dispatcher.queues[sink]
        found = await self._requeue_rows(sink, list(numbers), together, queue.room_to_retry(), rebuild)
        reached("dead.owed")
        for waiting in found:
            queue.requeue(waiting)
        count = sum(len(waiting.members) for waiting in found)
        self._not_dead(Counter({sink: count}))
        return count

    async def purge_dead(self, numbers: Sequence[int]) -> int:
        """See `Spool.purge_dead`."""
        gone = await self._purge_dead_rows(list(numbers))
        self._not_dead(gone)
        return gone.total()

    def _not_dead(self, gone: Mapping[str, int]) -> None:
        for sink, count in gone.items():
            self._dead[sink] = self._dead.get(sink, 0) - count

    @property
    def replays(self) -> Replays:
        """See `SpoolAdmin.replays`."""
        return self._replays

    # ------------------------------------------------------------ writing

    def _flush_in(self, seconds: float) -> None:
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(seconds, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        if self._writer.dirty or self._writer.losses or self._writer.catalogue_rows.unfinished:
            self._flushing().add_done_callback(self._flushed)

    def _flushed(self, future: "asyncio.Future[Any]") -> None:
        if not future.cancelled() and future.exception() is not None:
            self._flush_in(FLUSH_AGAIN)  # a full disk: settled events stay settled, and are written later
        elif self._writer.catalogue_rows.unfinished:
            self._flush_in(FLUSH_DELAY)

    async def _write_pending(self) -> None:
        """Write the newest settlements, unless the storage is full or hangs: questions are answered meanwhile."""
        with suppress(StorageError, TimeoutError):
            async with asyncio.timeout(WRITTEN_WITHIN):
                await self._flushing()

    # ------------------------------------------------------------ looking

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
                received.append(await self._received_at(position))
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
        return await self._scan_rows(chosen, start, limit, newest_first)

    async def progress(self, number: int, id: str, event: Event | None) -> list[SinkProgress]:
        """See `SpoolHistory.progress`."""
        queues = self._dispatcher.queues
        held = {sink: queue.progress(number, id, event) for sink, queue in queues.items()}
        await self._write_pending()
        stored = await self._stored_progress(number, id, frozenset(held))
        found = {sink: one or stored.get(sink) or settled_progress(sink) for sink, one in held.items()}
        return [one for _, one in sorted((stored | found).items())]

    def count_loss(self, where: str, count: int) -> None:
        """See `SpoolHistory.count_loss`."""
        self._writer.losses.append(PossibleLoss(where=where, count=count, at=self._clock.now()))
        self._flush_in(FLUSH_DELAY)
