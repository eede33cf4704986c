"""A spool over tables that one process owns: what its queues hold is all there is."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from poller.core.history import SinkProgress
from poller.core.model import Backlog, Event, unchanged
from poller.core.selection import Numbered
from poller.core.spool import Wants
from poller.runtime.failpoints import reached
from poller.spools.event_progress import settled_progress
from poller.spools.ordered_sink_queue import make_queue
from poller.spools.pages import Written
from poller.spools.sink_queue import Changes
from poller.spools.table_spool import TableSpool, TheWriter
from poller.spools.waiting import Waiting


class OwnedSpool(TableSpool[TheWriter]):
    """A spool whose queues know all positions, all waiting batches and the number of dead letters."""

    _dead: dict[str, int]
    """The number of dead letters of each sink; read at the start."""

    # ------------------------------------------------------------ the rows, which an engine reads and writes

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
    async def _received_at(self, number: int) -> datetime | None:
        """When the event of this number was received, or the first one after it."""
        ...

    @abstractmethod
    async def _stored_progress(
        self, number: int, id: str, attached: Collection[str]
    ) -> dict[str, SinkProgress]:
        """The progress at each sink that has the event as a dead letter, or that is not attached."""
        ...

    # ------------------------------------------------------------ in and out

    async def _attach(
        self, sink: str, wants: Wants, ordered: bool, start: datetime | None, replays: int
    ) -> None:
        self._keep(*self._dispatcher.release(sink))
        position, waiting, ahead, new = await self._attach_rows(sink, start)
        begin = position if new else self._dispatcher.head
        since = await self._ordered_since(sink, ordered, begin)
        self._dispatcher.queues[sink] = make_queue(
            sink, wants, position, waiting, self._clock, since=since, dead_ahead=ahead, replays=replays
        )

    async def _publish(self, written: Written) -> Counter[str]:
        for chunk in written.chunks:
            self._hand_out(chunk)
        return await super()._publish(written)

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

    def _keep(self, *changes: Changes) -> None:
        for change in changes:
            if change.dead:
                self._dead[change.sink] = self._dead.get(change.sink, 0) + len(change.dead)
        super()._keep(*changes)

    # ------------------------------------------------------------ dead letters

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

    # ------------------------------------------------------------ looking

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

    async def progress(self, number: int, id: str, event: Event | None) -> list[SinkProgress]:
        """See `SpoolHistory.progress`."""
        queues = self._dispatcher.queues
        held = {sink: queue.progress(number, id, event) for sink, queue in queues.items()}
        await self._write_pending()
        stored = await self._stored_progress(number, id, frozenset(held))
        found = {sink: one or stored.get(sink) or settled_progress(sink) for sink, one in held.items()}
        return [one for _, one in sorted((stored | found).items())]
