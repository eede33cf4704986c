"""The queue of a sink that gets the events of each stream in the order of the log; `Spool.attach` has the promise.

Holding
    A batch holds its streams while it is in hand or waits for its retry. Fresh events of a held stream are parked. When
    the stream is released, its parked events go out next.

Restarting
    The position cannot pass an event that is parked in memory only. Once a stream waits for a retry, its parked events
    are written to disk, each as a waiting batch of its own, and the position moves on. So a stream that is stuck for
    days costs a bounded number of rows, and a restart does not repeat what other streams got in the meantime.

Replayed events
    A replayed batch holds its streams only while it is in hand. While it waits for its retry, it holds back the later
    replayed events of these streams, and no others.

Rank
    The rank of a batch is the lowest number of its events. Ranks are a total order, so batches never wait for each
    other in a circle. Two batches may have the same id: a retried dead letter, and the same event again after a crash.
    They never have the same rank.
"""

import heapq
from bisect import insort
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import takewhile
from operator import itemgetter

import msgspec

from poller.core.model import Batch, Event, Outcome, batch_id, in_order
from poller.core.selection import Numbered
from poller.core.spool import Wants
from poller.runtime.clock import Clock
from poller.spools.places import is_replayed, row_id
from poller.spools.replayed import streams_of
from poller.spools.sink_queue import MOST_RETRYING, Changes, SinkQueue, Ticket, ticket_of
from poller.spools.tail import Chunk, members_of
from poller.spools.waiting import Corrections, Waiting, correct_batch, correct_members

Key = tuple[str, str]

BATCHES_AHEAD = 10
"""The log is read ahead by this many batches. Otherwise one batch would take a few events of every stream and hold all
streams, and the other carriers would wait for it."""


KEPT_LINES = 10_000
"""The number of streams whose empty queues are kept for their next events."""


class _Line:
    """One stream: the batches that hold it, and its parked events."""

    __slots__ = ("parked", "ranks", "stuck", "waits")

    def __init__(self, parked: list[Numbered]) -> None:
        self.parked = parked
        self.ranks: list[int] = []
        """The ranks of the batches that hold the stream, lowest first; the lowest goes out first."""
        self.waits = False
        """Whether one of these batches waits for its retry."""
        self.stuck: tuple[tuple[float, int, Waiting], ...] = ()
        """Batches whose retry is due and that wait for an earlier batch of the stream."""


class OrderedSinkQueue(SinkQueue):
    """A queue that holds streams. The sink has been served in order from number `since` on, over all restarts."""

    def __init__(
        self,
        sink: str,
        wants: Wants,
        position: int,
        waiting: Iterable[Waiting],
        clock: Clock,
        *,
        since: int,
        dead_ahead: Iterable[int] = (),
        replays: int = 1,
        lane: int | None = None,
    ) -> None:
        self._lines: dict[Key, _Line] = {}
        self._most_lines = KEPT_LINES
        self._holds: dict[int, list[_Line]] = {}
        self._out: set[int] = set()
        """The ranks of the batches in hand. A retried dead letter waits for these too, although its rank is lower."""
        self._fresh: set[int] = set()
        """The ranks of the batches in hand that have no row on disk: only the position remembers them."""
        self._count = 0
        self._ready: dict[_Line, None] = {}
        self._saved: set[int] = set()
        self._to_save: set[_Line] = set()
        self._unsaved: set[int] = set()
        self._taken: deque[int] = deque()
        self._since = since
        waiting = sorted(waiting, key=_first)
        self._settled_below = _lowest(waiting)
        self._replayed_to = max(self._settled_below.values(), default=0)
        again = [batch for batch in waiting if is_replayed(_first(batch))]
        batches, parked = _told_apart([batch for batch in waiting if not is_replayed(_first(batch))])
        batches += again
        super().__init__(
            sink, wants, position, batches, clock, dead_ahead=dead_ahead, replays=replays, lane=lane
        )
        for member in parked:
            if member[0] >= position:
                self._skip.add(member[0])
            self._saved.add(member[0])
            self._park(member[1].stream, [member])

    @property
    def position(self) -> int:
        """Where a restart would begin."""
        taken, unsaved = self._taken, self._unsaved
        while taken and taken[0] not in unsaved:
            taken.popleft()
        return taken[0] if taken else self.next

    def count_unsettled(self, head: int) -> int:
        """How many events are not settled, `head` being the log's next number."""
        return super().count_unsettled(head) + self._count

    def oldest_waiting(self) -> datetime | None:
        """When the oldest event was received that waits for a retry or for its stream."""
        lines = self._lines.values()
        stuck = [event for line in lines for _, _, w in line.stuck for _, event in w.members]
        first = [line.parked[0][1] for line in (*lines, *self._ready) if line.parked]
        received = [event.received_at for event in (*stuck, *first)]
        if (oldest := super().oldest_waiting()) is not None:
            received.append(oldest)
        return min(received, default=None)

    def may_take_fresh(self) -> bool:
        """Whether the number of events that wait for a retry or for their stream is below its limit."""
        return self.retrying + self._count < MOST_RETRYING

    def ahead(self, limit: int) -> int:
        """How much of the log to look at for a batch of up to `limit` events."""
        return min(BATCHES_AHEAD * limit, MOST_RETRYING - self.retrying - self._count)

    def correct(self, by: Corrections) -> None:
        """Correct the events that wait for a retry or for their stream."""
        super().correct(by)
        for line in (*self._lines.values(), *self._ready):
            line.parked = correct_members(line.parked, by)
            line.stuck = tuple([(due, order, correct_batch(w, by)) for due, order, w in line.stuck])

    def close(self) -> Changes:
        """Write the events to disk that are parked in memory."""
        put = self._save({*self._lines.values(), *self._ready})
        return Changes(sink=self.sink, key=self.key, position=self.position, put=put)

    def requeue(self, waiting: Waiting, wait: float = 0.0) -> None:
        """Take a batch whose row is on disk already. The parked events of its streams wait for it."""
        super().requeue(waiting, wait)
        if is_replayed(_first(waiting)):
            return
        for line in self._holds[_first(waiting)]:
            if line in self._ready:
                del self._ready[line]
                self.ready -= len(line.parked)

    # ------------------------------------------------------------ taking

    def take_retry(self) -> Batch | None:
        """The batch whose retry has been due longest among those whose streams no earlier batch holds."""
        while self.seconds_to_retry() == 0.0:
            rank = _first(self._due[0][2])
            lines = self._holds[rank]
            holder = next((line for line in lines if self._held_before(rank, line)), None)
            if holder is None:
                for line in lines:
                    line.waits = False
                self._out.add(rank)
                return super().take_retry()
            holder.stuck = (*holder.stuck, heapq.heappop(self._due))
        return None

    def take_replayed(self, limit: int) -> Batch | None:
        """Replayed events of streams of which nothing is in hand. They hold their streams while they are in hand."""
        batch = super().take_replayed(limit)
        if batch is not None:
            rank = ticket_of(batch).numbers[0]
            self._hold(rank, self._lines_of(batch.events))
            self._out.add(rank)
        return batch

    def _is_free(self, stream: Key) -> bool:
        line = self._lines.get(stream)
        return line is None or (line not in self._ready and self._out.isdisjoint(line.ranks))

    def _ordered_streams(self, waiting: Waiting) -> frozenset[Key]:
        return streams_of(event.stream for _, event in waiting.members)

    def pending(self) -> Iterable[Event]:
        """The events that were taken from the log and are not settled, without replayed ones."""
        yield from super().pending()
        for line in (*self._lines.values(), *self._ready):
            yield from (event for _, event in line.parked)
            yield from (event for _, _, waiting in line.stuck for _, event in waiting.members)

    def _held_before(self, rank: int, line: _Line) -> bool:
        return line.ranks[0] != rank or not self._out.isdisjoint(line.ranks)

    def take_fresh(self, log: Sequence[Chunk], limit: int) -> Batch | None:
        """Up to `limit` events of streams that no batch holds; parks a stretch of the log from `next` on first."""
        self._take_in(members_of(log))
        taken, lines = self._take_ready(limit)
        if not taken:
            return None
        taken.sort(key=_number)
        self._compact()
        numbers = tuple([number for number, _ in taken])
        events = tuple([event for _, event in taken])
        ids = [event.id for event in events]
        rows: tuple[str, ...] = ()
        if self._saved:
            rows = tuple([event.id for number, event in taken if number in self._saved])
            self._saved.difference_update(numbers)
        self._hold(numbers[0], lines)
        self._out.add(numbers[0])
        self._fresh.add(numbers[0])
        return self._batch(
            batch_id(ids), events, Ticket(numbers, None, rows, (), self._clock.monotonic()), 1, None
        )

    def _take_in(self, log: Sequence[Numbered]) -> None:
        skip, replayed_to = self._skip, self._replayed_to
        runs: defaultdict[Key | None, list[Numbered]] = defaultdict(list)
        numbers: list[int] = []
        for member in log:
            number, event = member
            if number in skip:
                skip.discard(number)
                continue
            if not self._wants(event):
                continue
            key = event.stream
            if number < replayed_to and self._was_settled(number, key):
                continue
            numbers.append(number)
            runs[key].append(member)
        self._forget_lines()
        for key, run in runs.items():
            self._park(key, run)
        if log:
            self.next = log[-1][0] + 1
        self._taken.extend(numbers)
        self._unsaved.update(numbers)

    def _was_settled(self, number: int, key: Key | None) -> bool:
        """Whether a later event of its stream waits for a retry: this event was settled before that one went out."""
        return key is not None and self._since <= number < self._settled_below.get(key, 0)

    def _take_ready(self, limit: int) -> tuple[list[Numbered], list[_Line]]:
        taken: list[Numbered] = []
        lines: list[_Line] = []
        for line in self._ready:
            room = limit - len(taken)
            if not room:
                break
            lines.append(line)
            self.ready -= len(line.parked)
            taken.extend(line.parked[:room])
            del line.parked[:room]
        for line in lines:
            del self._ready[line]
        self._count -= len(taken)
        return taken, lines

    def _park(self, key: Key | None, run: list[Numbered]) -> None:
        if key is None:  # events of no stream wait for nothing
            for member in run:
                self._ready[_Line([member])] = None
            self.ready += len(run)
        else:
            line = self._line(key)
            line.parked += run
            if not line.ranks:
                self._ready[line] = None
                self.ready += len(run)
            elif line.waits:
                self._to_save.add(line)
        self._count += len(run)

    def _compact(self) -> None:
        # a batch that is in hand for long must not let settled numbers pile up behind it
        if len(self._taken) > 2 * len(self._unsaved) + 1000:
            self._taken = deque(sorted(self._unsaved))

    # ------------------------------------------------------------ holding streams

    def _line(self, key: Key) -> _Line:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line([])
        return line

    def _forget_lines(self) -> None:
        # only while no stream is about to be held: a stream must never have two queues
        if len(self._lines) >= self._most_lines:
            self._lines = {key: line for key, line in self._lines.items() if line.parked or line.ranks}
            self._most_lines = max(KEPT_LINES, 2 * len(self._lines))

    def _lines_of(self, events: Iterable[Event]) -> list[_Line]:
        return [self._line(key) for key in {event.stream for event in events} if key is not None]

    def _hold(self, rank: int, lines: list[_Line]) -> None:
        self._holds[rank] = lines
        for line in lines:
            insort(line.ranks, rank)

    def _release(self, rank: int) -> None:
        self._out.remove(rank)
        self._fresh.discard(rank)
        for line in self._holds.pop(rank):
            line.ranks.remove(rank)

    def _let_go(self, lines: Iterable[_Line]) -> None:
        """Let the events go on that waited for these streams."""
        for line in lines:
            for entry in line.stuck:
                heapq.heappush(self._due, entry)
            line.stuck = ()
            if line.parked and not line.ranks:
                self._ready[line] = None
                self.ready += len(line.parked)
        self.wakeup.set()

    def _queue(self, waiting: Waiting, wait: float) -> None:
        if is_replayed(_first(waiting)):
            self._queue_replayed(waiting, wait)
            return
        lines = self._lines_of(event for _, event in waiting.members)
        self._hold(_first(waiting), lines)
        for line in lines:
            line.waits = True
        super()._queue(waiting, wait)

    # ------------------------------------------------------------ settling

    def split(self, batch: Batch) -> tuple[tuple[Batch, Batch], Changes]:
        """Two halves of a batch in hand. Where they share a stream, the first half holds the second."""
        ticket = ticket_of(batch)
        middle = len(batch.events) // 2
        halves = (
            self._part(batch, ticket, slice(0, middle)),
            self._part(batch, ticket, slice(middle, None)),
        )
        self._release(ticket.numbers[0])
        for half in halves:
            self._hold(ticket_of(half).numbers[0], self._lines_of(half.events))
            self._out.add(ticket_of(half).numbers[0])
        self._unsaved.difference_update(ticket.numbers)
        put = tuple(self._unsettled(half) for half in halves)
        if is_replayed(ticket.numbers[0]):
            self.replayed.split(ticket.numbers[0], ticket.numbers[middle])
        return halves, Changes(
            sink=self.sink, key=self.key, position=self.position, put=put, dropped=ticket.rows
        )

    def _part(self, batch: Batch, ticket: Ticket, part: slice) -> Batch:
        half = super()._part(batch, ticket, part)
        half = msgspec.structs.replace(
            half,
            ticket=Ticket(
                ticket.numbers[part],
                None,
                (row_id(ticket.numbers[0], half.id),),
                ticket.history,
                ticket.claimed,
            ),
        )
        self._carried[ticket_of(half).numbers[0]] = half
        return half

    def settle(self, batch: Batch, outcomes: Sequence[Outcome]) -> Changes:
        """Apply the outcomes of a batch in hand, and say what to write."""
        batch, outcomes = self._revise(batch, outcomes)
        lines = self._holds[ticket_of(batch).numbers[0]]
        changes = super().settle(batch, in_order(batch.events, outcomes))
        put = (*changes.put, *self._save(line for line in self._to_save.union(lines) if line.waits))
        self._to_save.clear()
        self._let_go(lines)
        return msgspec.structs.replace(changes, put=put, position=self.position)

    def _all_waiting(self) -> Iterable[Waiting]:
        return [*super()._all_waiting(), *(w for line in self._lines.values() for _, _, w in line.stuck)]

    def _is_ahead(self, number: int) -> bool:
        parked = (line.parked for line in (*self._lines.values(), *self._ready))
        return super()._is_ahead(number) or any(number == one for line in parked for one, _ in line)

    def _put_down(self, batch: Batch, ticket: Ticket) -> None:
        super()._put_down(batch, ticket)
        self._unsaved.difference_update(ticket.numbers)
        self._release(ticket.numbers[0])

    def _save(self, lines: Iterable[_Line]) -> tuple[Waiting, ...]:
        """The parked events of these streams as waiting batches of one event each, without an attempt.

        Events behind a batch that only the position remembers are left out: after a crash that batch would count as
        settled.
        """
        members: list[Numbered] = []
        for line in lines:
            if not self._fresh.isdisjoint(line.ranks):
                continue
            members.extend(takewhile(lambda member: member[0] in self._unsaved, reversed(line.parked)))
        members.sort(key=_number)
        numbers = [number for number, _ in members]
        self._unsaved.difference_update(numbers)
        self._saved.update(numbers)
        now = self._clock.now()
        return tuple(_untried(member, now) for member in members)


def _untried(member: Numbered, now: datetime) -> Waiting:
    return Waiting(id=member[1].id, members=(member,), failed=0, first_attempt_at=now, due=now, history=())


def _lowest(waiting: Iterable[Waiting]) -> dict[Key, int]:
    lowest: dict[Key, int] = {}
    for batch in waiting:
        for number, event in batch.members:
            if (key := event.stream) is not None and number > 0:  # not a dead letter that is owed again
                lowest[key] = min(number, lowest.get(key, number))
    return lowest


def _told_apart(waiting: Sequence[Waiting]) -> tuple[list[Waiting], list[Numbered]]:
    """The waiting rows of an earlier process: batches that were attempted, and events that were parked behind them."""
    tried = [batch for batch in waiting if _was_tried(batch)]
    last: dict[Key, int] = {}
    for batch in tried:
        for number, event in batch.members:
            if (key := event.stream) is not None:
                last[key] = max(number, last.get(key, number))
    batches, parked = tried, []
    for batch in waiting:
        number, event = batch.members[0]
        if _was_tried(batch):
            continue
        if event.stream is not None and number > last.get(event.stream, 0):
            parked.append((number, event))
        else:
            batches.append(batch)
    return batches, parked


def _was_tried(batch: Waiting) -> bool:
    return bool(batch.failed or batch.history) or len(batch.members) > 1


def _first(waiting: Waiting) -> int:
    return waiting.members[0][0]


_number = itemgetter(0)


def make_queue(
    sink: str,
    wants: Wants,
    position: int,
    waiting: Iterable[Waiting],
    clock: Clock,
    *,
    since: int | None,
    dead_ahead: Iterable[int],
    replays: int,
) -> SinkQueue:
    """The queue of a sink that one process serves. `since` is None for a sink without ordering."""
    if since is None:
        return SinkQueue(sink, wants, position, waiting, clock, dead_ahead=dead_ahead, replays=replays)
    return OrderedSinkQueue(
        sink, wants, position, waiting, clock, since=since, dead_ahead=dead_ahead, replays=replays
    )
