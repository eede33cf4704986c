"""What the engines share that keep their log in tables: queues in memory over rows that a writer writes.

Invariants
    The queues change at once, and what they change (`Changes`) is written with the next commit, or with one of its own
    a tenth of a second later. Fresh events reach the queues once they are durable.
"""

import asyncio
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from poller.core.catalogue import Catalogue, Stream
from poller.core.errors import StorageError
from poller.core.model import Batch, Outcome
from poller.core.replays import Replays
from poller.core.selection import Numbered, Scan, Selection
from poller.core.spool import SpoolAdmin, Wants
from poller.runtime.clock import Clock
from poller.spools.books import PossibleLoss
from poller.spools.dispatcher import Dispatcher
from poller.spools.log_scan import scan_tail
from poller.spools.pages import Written
from poller.spools.replays import ReplayChange, SpoolReplays
from poller.spools.sink_queue import Changes, SinkQueue
from poller.spools.tail import Chunk, Tail

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
        self._dispatcher = Dispatcher(self._load, Tail(TAIL_BYTES), self._extend)
        self._flush: asyncio.TimerHandle | None = None
        self._replays = self._make_replays(
            dispatcher=self._dispatcher,
            clock=clock,
            scan=self.scan,
            number_at=self.number_at,
            dead_ids=self._dead_ids,
            count_waiting=self._count_replayed,
            write=self._write_replay,
            keep=self._keep,
        )

    def _make_replays(self, **terms: Any) -> SpoolReplays:
        return SpoolReplays(**terms)

    # ------------------------------------------------------------ the rows, which an engine reads and writes

    @abstractmethod
    def _flushing(self) -> "asyncio.Future[Any]":
        """Write all that waits to be written."""
        ...

    @abstractmethod
    async def _load(self, start: int) -> list[Chunk]:
        """See `dispatcher.Load`."""
        ...

    async def _extend(self, queue: SinkQueue, limit: int) -> None:
        """See `dispatcher.Extend`."""

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
    async def _scan_rows(self, chosen: Selection, start: int | None, limit: int, newest_first: bool) -> Scan:
        """See `SpoolHistory.scan`."""
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

    @abstractmethod
    async def _attach(
        self, sink: str, wants: Wants, ordered: bool, start: datetime | None, replays: int
    ) -> None:
        """See `Spool.attach`."""
        ...

    @abstractmethod
    async def _correct(self, known: list[Numbered]) -> None:
        """Correct provisional events in the queues and in the tables."""
        ...

    def _hand_out(self, chunk: Chunk) -> None:
        """Hand fresh events to the queues. They are durable."""
        wanted = TAIL_OF_A_STREAM * len(self._writer.catalogue)
        self._dispatcher.tail.most_bytes = min(max(TAIL_BYTES, wanted), MOST_TAIL_BYTES)
        self._dispatcher.publish(chunk)

    async def _publish(self, written: Written) -> Counter[str]:
        """Take over what was appended. Returns the number of new events of each kind."""
        if written.confirmed:
            await self._correct(written.confirmed)
        if self._writer.catalogue_rows.unfinished:
            self._flush_in(FLUSH_DELAY)
        return Counter([event.kind for chunk in written.chunks for event in chunk.events])

    # ------------------------------------------------------------ out

    async def claim(self, sink: str, limit: int, linger: float = 0.0) -> Batch:
        """See `Spool.claim`."""
        return await self._dispatcher.claim(sink, limit, linger)

    async def settle(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """See `Spool.settle`."""
        if self._writer.broken is not None:
            raise self._writer.broken  # nothing is written any more: the next process delivers the batch again
        self._keep(self._dispatcher.settle(self._key_of(batch), batch, outcomes))

    async def split(self, batch: Batch) -> tuple[Batch, ...]:
        """See `Spool.split`."""
        if self._writer.broken is not None:
            raise self._writer.broken
        halves, changes = self._dispatcher.split(self._key_of(batch), batch)
        self._keep(changes)
        return halves

    def _key_of(self, batch: Batch) -> str:
        """The name of the queue that gave a batch out."""
        return batch.sink

    async def retry_now(self, sink: str) -> None:
        """See `Spool.retry_now`."""
        self._dispatcher.queues[sink].retry_now()

    def _keep(self, *changes: Changes) -> None:
        """Write changes with the next commit, or with a commit of their own a tenth of a second later."""
        for change in changes:
            self._writer.dirty.append(change)
            self._flush_in(FLUSH_DELAY)

    # ------------------------------------------------------------ replays

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
        if not self._writer.dirty:
            return
        with suppress(StorageError, TimeoutError):
            async with asyncio.timeout(WRITTEN_WITHIN):
                await self._flushing()

    # ------------------------------------------------------------ looking

    def streams(self) -> list[Stream]:
        """See `Spool.streams`."""
        return self._writer.catalogue.streams()

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

    def count_loss(self, where: str, count: int) -> None:
        """See `SpoolHistory.count_loss`."""
        self._writer.losses.append(PossibleLoss(where=where, count=count, at=self._clock.now()))
        self._flush_in(FLUSH_DELAY)
