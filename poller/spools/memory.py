"""A spool in memory, for tests, and for installations where a stop may lose undelivered events."""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import count, islice
from operator import itemgetter
from typing import Literal

import msgspec
from pydantic import Field

from poller.core.catalogue import Catalogue, Stream
from poller.core.errors import StorageFull
from poller.core.history import (
    GAPS_KEPT,
    Book,
    Delivery,
    Gap,
    LatePicture,
    Origin,
    SinkProgress,
    Stage,
    Tally,
)
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
    Reject,
    corrected,
    unchanged,
)
from poller.core.replays import Replays
from poller.core.selection import Numbered, Scan, Selection
from poller.core.spool import HasLimits, Pruned, SpoolAdmin, Wants
from poller.runtime.clock import Clock
from poller.settings import SpoolSettings
from poller.spools.dispatcher import Dispatcher
from poller.spools.event_progress import dead_progress, settled_progress, waiting_progress
from poller.spools.log_scan import selected
from poller.spools.memory_books import MemoryBooks
from poller.spools.ordered_sink_queue import make_queue
from poller.spools.places import is_replayed
from poller.spools.replays import ReplayChange, SpoolReplays
from poller.spools.sink_queue import Changes
from poller.spools.tail import Chunk, Tail
from poller.spools.waiting import Waiting, correct_batch, revive

KEPT_SETTLED = 1_000
KEPT_REJECTS = 1_000
PRUNE_STEP = 256
SCAN_STEP = 1_000


class MemorySpool(SpoolAdmin, HasLimits):
    """Keeps the events that are not settled, and the newest thousand settled ones for display."""

    class Settings(SpoolSettings):
        """Settings of the memory spool."""

        type: Literal["memory"]
        max_events: int = Field(
            100_000, ge=1, description="Polling pauses when this number of events is pending."
        )

    def __init__(
        self, name: str, settings: Settings, accounts: Mapping[str, object], clock: Clock | None = None
    ) -> None:
        self.name = name
        self._settings = settings
        self._clock = clock or Clock()
        self._clock.begin(None)
        self._dispatcher = Dispatcher(_nothing_more, Tail(None))
        self._seen: set[str] = set()
        self._provisional: dict[str, int] = {}
        """The numbers of provisional events, by id."""
        self._catalogue = Catalogue()
        self._origins: deque[tuple[int, Origin]] = deque()
        """Where the events came from that are held, each with the number of its first event."""
        self._memories: dict[str, dict[str, bytes]] = {}
        self._numbers = count(1)
        self._dead: dict[int, DeadLetter] = {}
        self._rejects: dict[tuple[str, Reject], int] = {}
        self._paused: set[str] = set()
        self._positions: dict[str, int] = {}
        self._waiting: dict[str, dict[str, Waiting]] = {}
        self._dead_ahead: dict[str, set[int]] = {}
        self._books = MemoryBooks()
        self._since: dict[str, int] = {}
        """The number from which on each ordered sink has been served in order."""
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

    async def check_writable(self) -> None:
        """See `Spool.check_writable`."""
        waiting = self._waiting_events()
        if waiting >= self._settings.max_events:
            raise StorageFull(f"{self.name}: {waiting} events wait")

    @property
    def fullness(self) -> Mapping[str, float]:
        """See `HasLimits.fullness`."""
        return {"max_events": self._waiting_events() / self._settings.max_events}

    def _waiting_events(self) -> int:
        return self._dispatcher.head - self._dispatcher.floor()

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
            self._keep(*self._dispatcher.release(sink))
            new = sink not in self._positions
            if new:
                self._positions[sink] = (
                    self._dispatcher.head if start is None else await self.number_at(start)
                )
            position = self._positions[sink]
            self._dispatcher.queues[sink] = make_queue(
                sink,
                wants,
                position,
                self._waiting.setdefault(sink, {}).values(),
                self._clock,
                since=self._ordered_since(sink, ordered, position if new else self._dispatcher.head),
                dead_ahead=self._dead_ahead.get(sink, ()),
                replays=replays,
            )

    def _ordered_since(self, sink: str, ordered: bool, begin: int) -> int | None:
        if ordered:
            return self._since.setdefault(sink, begin)
        self._since.pop(sink, None)
        return None

    async def detach(self, sink: str) -> None:
        """See `Spool.detach`."""
        self._keep(*self._dispatcher.forget(sink))

    async def memory(self, source: str) -> Mapping[str, bytes]:
        """See `Spool.memory`."""
        return {about: memory for about, memory in self._memories.get(source, {}).items() if memory}

    async def append(self, source: str, readings: Sequence[ParsedPage]) -> Counter[str]:
        """See `Spool.append`."""
        await self.check_writable()
        for reading in readings:
            self._memories.setdefault(source, {})[reading.about] = reading.memory
        return self._take(source, readings)

    def _take(self, source: str, readings: Iterable[ParsedPage]) -> Counter[str]:
        readings = tuple(readings)
        news, known = list[Event](), list[Numbered]()
        for reading in readings:
            self._take_events(source, reading, news, known)
            for reject in reading.rejects:
                self._rejects.setdefault((source, reject), next(self._numbers))
        self._catalogue.keep()
        for old in list(self._rejects)[:-KEPT_REJECTS]:
            del self._rejects[old]
        self._forget_settled()
        self._books.count(source, Book.TAKEN, len(news), self._clock.now())
        if news:
            self._dispatcher.publish(Chunk(self._dispatcher.head, tuple(news)))
        if known:
            self._correct(known)
        return Counter(event.kind for event in news)

    def _forget_settled(self) -> None:
        tail = self._dispatcher.tail
        needed = min(self._dispatcher.floor(), self._replays.floor())
        tail.forget_before(needed - KEPT_SETTLED)
        while len(self._origins) > 1 and self._origins[1][0] <= tail.first:
            self._origins.popleft()
        self._books.forget_before(tail.first, KEPT_SETTLED)

    def _take_events(
        self, source: str, reading: ParsedPage, news: list[Event], known: list[Numbered]
    ) -> None:
        first = self._dispatcher.head + len(news)
        for event in reading.events:
            if not self._is_fresh(event):
                if not reading.provisional and event.id in self._provisional:
                    known.append((self._provisional.pop(event.id), event))
            elif self._catalogue.note(event, number := self._dispatcher.head + len(news)):
                if reading.provisional:
                    self._provisional[event.id] = number
                news.append(event)
        if count := self._dispatcher.head + len(news) - first:
            self._origins.append((first, _origin(source, reading, news[-count].received_at, count)))

    def _correct(self, known: Sequence[Numbered]) -> None:
        self._dispatcher.correct(known)
        by = {event.id: event for _, event in known}
        for waiting in self._waiting.values():
            waiting.update({id: correct_batch(batch, by) for id, batch in waiting.items()})
        for number, letter in list(self._dead.items()):
            if letter.event.id in by and letter.sink in self._dispatcher.queues:
                event = corrected(letter.event, by[letter.event.id])
                self._owe(letter.sink, [msgspec.structs.replace(letter, event=event)], 1)
                del self._dead[number]

    def _owe(
        self,
        sink: str,
        letters: Sequence[DeadLetter],
        together: int,
        rebuild: Callable[[Event], Event] = unchanged,
    ) -> None:
        for waiting in revive(letters, together, self._clock.now(), rebuild):
            self._waiting[sink][waiting.id] = waiting
            self._dispatcher.queues[sink].requeue(waiting)

    def _is_fresh(self, event: Event) -> bool:
        fresh = self._seen.isdisjoint(event.ids)
        self._seen.update(event.ids)
        return fresh

    async def claim(self, sink: str, limit: int, linger: float = 0.0) -> Batch:
        """See `Spool.claim`."""
        return await self._dispatcher.claim(sink, limit, linger)

    async def settle(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """See `Spool.settle`."""
        self._keep(self._dispatcher.settle(batch.sink, batch, outcomes))

    async def split(self, batch: Batch) -> tuple[Batch, ...]:
        """See `Spool.split`."""
        halves, changes = self._dispatcher.split(batch.sink, batch)
        self._keep(changes)
        return halves

    async def retry_now(self, sink: str) -> None:
        """See `Spool.retry_now`."""
        self._dispatcher.queues[sink].retry_now()

    def _keep(self, *changes: Changes) -> None:
        """Keep what an engine with a disk would write: dead letters, and what a sink attached again needs."""
        for change in changes:
            self._keep_one(change)

    def _keep_one(self, changes: Changes) -> None:
        self._positions[changes.sink] = changes.position
        ahead = self._dead_ahead.get(changes.sink, set()).union(changes.dead_ahead)
        self._dead_ahead[changes.sink] = {number for number in ahead if number >= changes.position}
        waiting = self._waiting[changes.sink]
        for id in changes.dropped:
            waiting.pop(id, None)
        waiting.update((batch.id, batch) for batch in changes.put)
        for letter in changes.dead:
            number = next(self._numbers)
            self._dead[number] = msgspec.structs.replace(letter, number=number)
            self._books.count(changes.sink, Book.DEAD, 1, letter.died_at)
        if (done := changes.settled) is not None:
            self._books.record(changes.sink, done)

    async def backlog(self, sink: str) -> Backlog:
        """See `Spool.backlog`."""
        dead = sum(letter.sink == sink for letter in self._dead.values())
        if (queue := self._dispatcher.queues.get(sink)) is None:
            return Backlog(events=0, retrying=0, dead=dead, oldest=None)
        oldest = [queue.oldest_waiting()]
        if first := self._dispatcher.tail.members(queue.position, 1):
            oldest.append(first[0][1].received_at)
        return Backlog(
            events=queue.count_unsettled(self._dispatcher.head),
            retrying=queue.retrying,
            dead=dead,
            oldest=min((at for at in oldest if at is not None), default=None),
            replaying=queue.replayed.events,
        )

    def streams(self) -> list[Stream]:
        """See `Spool.streams`."""
        return self._catalogue.streams()

    @property
    def replays(self) -> Replays:
        """See `SpoolAdmin.replays`. A replay ends with the process."""
        return self._replays

    async def _write_replay(self, change: ReplayChange) -> None:
        waiting = self._waiting.setdefault(change.replay.sink, {})
        if change.drop:
            gone = [id for id, batch in waiting.items() if is_replayed(batch.members[0][0])]
            for id in gone:
                del waiting[id]
        waiting.update((batch.id, batch) for batch in change.put)

    async def _count_replayed(self, sink: str) -> int:
        waiting = self._waiting.get(sink, {}).values()
        return sum(len(batch.members) for batch in waiting if is_replayed(batch.members[0][0]))

    async def _dead_ids(self, sink: str) -> frozenset[str]:
        return frozenset(letter.event.id for letter in self._dead.values() if letter.sink == sink)

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
        tail, head = self._dispatcher.tail, self._dispatcher.head
        if newest_first:
            last = head - 1 if start is None else min(start, head - 1)
            first = max(last - SCAN_STEP + 1, tail.first)
            members = (tail.members(first, last - first + 1) or []) if first <= last else []
            return selected(chosen, members[::-1], limit, first - 1 if first > tail.first else None)
        first = tail.first if start is None else max(start, tail.first)
        members = tail.members(first, SCAN_STEP) or []
        following = first + len(members)
        return selected(chosen, members, limit, following if following < head else None)

    async def origin(self, number: int) -> Origin | None:
        """See `SpoolHistory.origin`."""
        if not self._dispatcher.tail.members(number, 1):
            return None
        place = bisect_right(self._origins, number, key=itemgetter(0)) - 1
        return self._origins[place][1]

    async def number_at(self, moment: datetime) -> int:
        """See `SpoolHistory.number_at`."""
        tail, head = self._dispatcher.tail, self._dispatcher.head
        members = tail.members(tail.first, head) or []
        earlier = [number for number, event in members if event.received_at < moment]
        return earlier[-1] + 1 if earlier else tail.first

    async def deliveries(self, number: int, id: str) -> list[Delivery]:
        """See `SpoolHistory.deliveries`."""
        return self._books.deliveries(number, id)

    async def progress(self, number: int, id: str, event: Event | None) -> list[SinkProgress]:
        """See `SpoolHistory.progress`."""
        return [self._progress(sink, number, id, event) for sink in sorted(self._positions)]

    def _progress(self, sink: str, number: int, id: str, event: Event | None) -> SinkProgress:
        queue = self._dispatcher.queues.get(sink)
        if queue is not None and (held := queue.progress(number, id, event)) is not None:
            return held
        letters = [one for one in self._dead.values() if (one.sink, one.event.id) == (sink, id)]
        if letters:
            return dead_progress(letters[0])
        if queue is not None:
            return settled_progress(sink)
        for batch in self._waiting[sink].values():
            if any(one.id == id for _, one in batch.members):
                return waiting_progress(sink, batch)
        if number < self._positions[sink] or number in self._dead_ahead.get(sink, ()):
            return settled_progress(sink)
        return SinkProgress(sink=sink, stage=Stage.PENDING)

    async def remembers(self, id: str) -> bool:
        """See `SpoolHistory.remembers`."""
        return id in self._seen

    async def tallies(self) -> list[Tally]:
        """See `SpoolHistory.tallies`."""
        return self._books.tallies()

    def count_loss(self, where: str, count: int) -> None:
        """See `SpoolHistory.count_loss`."""
        self._books.count(where, Book.POSSIBLY_LOST, count, self._clock.now())

    async def gaps(self, chosen: Selection, limit: int) -> list[Gap]:
        """See `SpoolHistory.gaps`."""
        return self._books.gaps(chosen)[:limit]

    async def note_gaps(
        self,
        source: str,
        readings: Sequence[ParsedPage],
        gaps: Sequence[Gap],
        late: Sequence[LatePicture] = (),
    ) -> Counter[str]:
        """See `SpoolHistory.note_gaps`."""
        new = await self.append(source, readings)
        self._books.note_gaps(gaps, late)
        return new

    async def dead(self, limit: int, chosen: Filter = EVERYTHING) -> list[DeadLetter]:
        """See `Spool.dead`."""
        return list(islice(filter(chosen.letter, reversed(self._dead.values())), limit))

    async def retry_dead(
        self, sink: str, numbers: Sequence[int], together: int, rebuild: Callable[[Event], Event] = unchanged
    ) -> int:
        """See `Spool.retry_dead`."""
        queue = self._dispatcher.queues[sink]
        letters = [self._dead[number] for number in sorted(set(numbers)) if number in self._dead]
        letters = [letter for letter in letters if letter.sink == sink][: queue.room_to_retry()]
        self._owe(sink, letters, together, rebuild)
        return await self.purge_dead([letter.number for letter in letters])

    async def purge_dead(self, numbers: Sequence[int]) -> int:
        """See `Spool.purge_dead`."""
        return sum(self._dead.pop(number, None) is not None for number in numbers)

    async def quarantined(self, limit: int, chosen: Filter = EVERYTHING) -> list[Quarantined]:
        """See `Spool.quarantined`."""
        return list(islice(filter(chosen.reject, reversed(self._quarantine())), limit))

    def _quarantine(self) -> list[Quarantined]:
        return [
            Quarantined(number=number, source=source, reject=reject)
            for (source, reject), number in self._rejects.items()
        ]

    async def read_again(self, source: str, readings: Mapping[int, ParsedPage]) -> Counter[str]:
        """See `Spool.read_again`."""
        await self.check_writable()
        there = {kept.number for kept in self._quarantine() if kept.source == source}
        await self.purge_quarantine([number for number in readings if number in there])
        return self._take(source, [reading for number, reading in readings.items() if number in there])

    async def purge_quarantine(self, numbers: Sequence[int]) -> int:
        """See `Spool.purge_quarantine`."""
        gone = [key for key, number in self._rejects.items() if number in set(numbers)]
        for key in gone:
            del self._rejects[key]
        return len(gone)

    async def quarantine_size(self) -> int:
        """See `Spool.quarantine_size`."""
        return len(self._rejects)

    async def pause(self, sink: str, paused: bool) -> None:
        """See `Spool.pause`. The pause ends with the process."""
        (self._paused.add if paused else self._paused.discard)(sink)

    async def paused(self) -> frozenset[str]:
        """See `Spool.paused`."""
        return frozenset(self._paused)

    async def prune(self) -> Pruned:
        """See `Spool.prune`. Settled events are forgotten without it; ids stay until the process ends."""
        age, settings = self._clock.age, self._settings
        letters = [one for one in self._dead.values() if age(one.died_at) > settings.retain_dead]
        rejects = [
            one for one in self._quarantine() if age(one.reject.received_at) > settings.retain_quarantine
        ]
        self._books.drop_gaps(lambda gap: age(gap.to_at) > max(settings.retain, GAPS_KEPT))
        await self.purge_dead([letter.number for letter in letters[:PRUNE_STEP]])
        gone = await self.purge_quarantine([kept.number for kept in rejects[:PRUNE_STEP]])
        return Pruned(
            dead=Counter(letter.sink for letter in letters[:PRUNE_STEP]),
            rejects=gone,
            more=len(letters) > PRUNE_STEP or len(rejects) > PRUNE_STEP,
        )

    async def size(self) -> int:
        """See `Spool.size`."""
        return self._dispatcher.tail.bytes


def _origin(source: str, reading: ParsedPage, received_at: datetime, events: int) -> Origin:
    return Origin(
        source=source,
        about=reading.about,
        asked_at=reading.asked_at,
        received_at=received_at,
        outcome=reading.outcome.value,
        events=events,
    )


async def _nothing_more(start: int) -> list[Chunk]:
    """All of the log is in memory: what is not there any more was settled."""
    return []
