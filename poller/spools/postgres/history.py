"""What a PostgreSQL spool answers to questions. All of it is read on one connection that writes nothing.

Invariants
    An answer about deliveries includes the newest settlements of this daemon, if the database takes them in time. What
    other daemons hold is read from their rows.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Final

from poller.core.history import Delivery, Gap, Origin, SinkProgress, Stage, Tally
from poller.core.model import EVERYTHING, Backlog, DeadLetter, Event, Filter, Quarantined
from poller.core.selection import Scan, Selection
from poller.spools.event_progress import settled_progress
from poller.spools.ordered_sink_queue import OrderedSinkQueue
from poller.spools.postgres import (
    books,
    delivered,
    gaps,
    memories,
    page_times,
    progress,
    queries,
    replays,
)
from poller.spools.postgres.links import StorageAway
from poller.spools.postgres.page_scan import scan
from poller.spools.postgres.pages import load_known
from poller.spools.postgres.reader import Reader
from poller.spools.postgres.served_sinks import ServedSinks
from poller.spools.postgres.shared_replays import Unsettled
from poller.spools.postgres.writer import Writer
from poller.spools.share_queue import ShareQueue
from poller.spools.sink_queue import SinkQueue
from poller.spools.table_spool import WRITTEN_WITHIN, TableSpool
from poller.spools.tail import Chunk

READ_AGAIN: Final = 0.5


class PostgresHistory(TableSpool[Writer]):
    """The part of the spool that reads."""

    _reader: Reader
    _sinks: ServedSinks

    # ------------------------------------------------------------ what is pending

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
        there = await self._reader.read(partial(queries.elsewhere, sink, self._writer.session))
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

    # ------------------------------------------------------------ what was

    async def _scan_rows(self, chosen: Selection, start: int | None, limit: int, newest_first: bool) -> Scan:
        return await self._reader.read(partial(scan, chosen, start, limit, newest_first))

    async def origin(self, number: int) -> Origin | None:
        """See `SpoolHistory.origin`."""
        return await self._reader.read(partial(queries.origin, number))

    async def number_at(self, moment: datetime) -> int:
        """See `SpoolHistory.number_at`."""
        return await self._reader.read(partial(page_times.number_at, moment, self.head))

    async def deliveries(self, number: int, id: str) -> list[Delivery]:
        """See `SpoolHistory.deliveries`."""
        await self._write_pending()
        return await self._reader.read(partial(delivered.deliveries, number, id))

    async def remembers(self, id: str) -> bool:
        """See `SpoolHistory.remembers`."""
        return await self._reader.read(lambda reader: self._writer.seen.knows(reader, id))

    async def tallies(self) -> list[Tally]:
        """See `SpoolHistory.tallies`."""
        await self._write_pending()
        return await self._reader.read(books.tallies)

    async def gaps(self, chosen: Selection, limit: int) -> list[Gap]:
        """See `SpoolHistory.gaps`."""
        return await self._reader.read(partial(gaps.gaps, chosen, limit))

    # ------------------------------------------------------------ what operators look at

    async def dead(self, limit: int, chosen: Filter = EVERYTHING) -> list[DeadLetter]:
        """See `Spool.dead`."""
        await self._flushing()  # the newest dead letters may not be written yet
        return await self._reader.read(partial(queries.dead_letters, limit, chosen))

    async def quarantined(self, limit: int, chosen: Filter = EVERYTHING) -> list[Quarantined]:
        """See `Spool.quarantined`."""
        return await self._reader.read(partial(queries.quarantined, limit, chosen))

    async def quarantine_size(self) -> int:
        """See `Spool.quarantine_size`."""
        return await self._reader.read(queries.quarantine_size)

    async def paused(self) -> frozenset[str]:
        """See `Spool.paused`."""
        return await self._reader.read(queries.paused)

    async def resumed(self) -> Mapping[str, int]:
        """See `Shared.resumed`."""
        return await self._reader.read(queries.resumed)

    # ------------------------------------------------------------ what daemons need

    async def memory(self, source: str) -> Mapping[str, bytes]:
        """See `Spool.memory`."""
        return await self._reader.read(lambda reader: memories.memory(reader, source))

    async def _load(self, start: int) -> list[Chunk]:
        """Read pages for a claim, which waits while the database is away.

        What was taken is in the log, or was pruned. A server that has never had it is one that was replaced.
        """
        while True:
            try:
                return await self._reader.read(partial(load_known, start))
            except StorageAway:
                if self._writer.broken is not None:
                    raise self._writer.broken from None
                await asyncio.sleep(READ_AGAIN)

    async def _served(self, sink: str) -> Unsettled:
        """How far a sink is served at all daemons, and the ids of the events that wait for it."""
        await self._flushing()
        return await self._reader.read(partial(queries.unsettled, sink))

    async def _dead_ids(self, sink: str) -> frozenset[str]:
        await self._flushing()  # the newest dead letters may not be written yet
        return await self._reader.read(partial(replays.dead_ids, sink))

    async def _count_replayed(self, sink: str) -> int:
        await self._flushing()  # the newest settlements may not be written yet
        return await self._reader.read(partial(replays.count_waiting, sink))


def _is_dead(progress: SinkProgress | None) -> bool:
    return progress is not None and progress.stage is Stage.DEAD
