"""The desk of a sink that gets each stream's events in the order of the log; see `Spool.attach`.

A batch in hand or waiting for its retry holds its streams. Fresh events of a held stream are parked; when the
stream is let go, they are the next to go out. A parked event keeps the position back until it is written as a
waiting batch of its own, which happens once its stream waits for a retry: so a stream that is stuck for
days costs rows, at most as many as may be parked, and no restart repeats what others got meanwhile.
"""

import heapq
from bisect import insort
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import takewhile

import msgspec

from poller.clock import Clock
from poller.model import Batch, Event, Outcome, batch_id
from poller.ports import Wants
from poller.retry import in_order
from poller.spools.desk import MOST_RETRYING, Changes, Desk, Member, Ticket, Waiting, ticket_of

Key = tuple[str, str]


class OrderedDesk(Desk):
    """A desk that holds streams. `since` is the first number that was served in order by all lives until now."""

    def __init__(
        self,
        sink: str,
        wants: Wants,
        position: int,
        waiting: Iterable[Waiting],
        clock: Clock,
        *,
        since: int,
    ) -> None:
        # a holder's rank is the lowest number of its batch: a total order, so nobody waits in a circle; two batches
        # may have one id (a dead letter that is retried, and the same event again after a crash), never one rank
        self._held: dict[Key, list[int]] = {}
        self._keys: dict[int, set[Key]] = {}
        self._out: set[int] = set()
        """The ranks of batches in hand: a letter that is retried waits for those too, though its rank is lower."""
        self._stuck: dict[Key, list[tuple[float, int, Waiting]]] = {}
        self._waits: set[Key] = set()
        self._parked: dict[Key, deque[Member]] = {}
        self._count = 0
        self._ready: dict[Key, None] = {}
        self._saved: set[int] = set()
        self._to_save: set[Key] = set()
        self._unsaved: set[int] = set()
        self._taken: deque[int] = deque()
        self._since = since
        waiting = sorted(waiting, key=lambda batch: batch.members[0][0])
        self._settled_below = _lowest(waiting)
        self._replayed_to = max(self._settled_below.values(), default=0)
        batches, parked = _told_apart(waiting)
        super().__init__(sink, wants, position, batches, clock)
        for number, event in parked:
            if number >= position:
                self._skip.add(number)
            self._saved.add(number)
            self._park(event.stream, (number, event))
        self._let_go(list(self._parked))

    @property
    def position(self) -> int:
        """Where a restart would begin."""
        taken = self._taken
        while taken and taken[0] not in self._unsaved:
            taken.popleft()
        return taken[0] if taken else self.next

    def owed(self, head: int) -> int:
        """How many events are not settled, `head` being the log's next number."""
        return super().owed(head) + self._count

    def oldest_waiting(self) -> datetime | None:
        """When the oldest event that waits, for a retry or for its stream, was received."""
        stuck = [event for some in self._stuck.values() for _, _, w in some for _, event in w.members]
        first = [run[0][1] for run in self._parked.values()]
        received = [event.received_at for event in (*stuck, *first)]
        if (oldest := super().oldest_waiting()) is not None:
            received.append(oldest)
        return min(received, default=None)

    def may_take_fresh(self) -> bool:
        """Whether few enough events wait for a retry or for their stream."""
        return self.retrying + self._count < MOST_RETRYING

    def leave(self) -> Changes:
        """Park on disk what is parked in memory, but not behind a batch that only the position remembers."""
        put = self._save(key for key in self._parked if key in self._waits or key not in self._held)
        return Changes(sink=self.sink, position=self.position, put=put)

    def owe(self, waiting: Waiting) -> None:
        """Take a batch that is owed already; what was the next of its streams to go out waits for it."""
        super().owe(waiting)
        for key in self._keys[waiting.members[0][0]] & self._ready.keys():
            del self._ready[key]
            self.ready -= len(self._parked[key])

    # ------------------------------------------------------------ taking

    def take_retry(self) -> Batch | None:
        """The batch whose retry is due for the longest time and whose streams no earlier batch holds."""
        while self.seconds_to_retry() == 0.0:
            waiting = self._due[0][2]
            rank = waiting.members[0][0]
            keys = self._keys[rank]
            holder = next((key for key in keys if self._held_before(rank, key)), None)
            if holder is None:
                self._waits -= keys
                self._out.add(rank)
                return super().take_retry()
            self._stuck.setdefault(holder, []).append(heapq.heappop(self._due))
        return None

    def _held_before(self, rank: int, key: Key) -> bool:
        return self._held[key][0] != rank or not self._out.isdisjoint(self._held[key])

    def take_fresh(self, log: Sequence[Member], limit: int) -> Batch | None:
        """Up to `limit` events: those whose stream was let go, then wanted ones of the log from `next` on."""
        taken, own = self._take_ready(limit)
        rows = tuple([event.id for number, event in taken if number in self._saved])
        self._saved.difference_update([number for number, _ in taken])
        self._take_from(log, limit, taken, own)
        if not taken:
            return None
        taken.sort(key=_number)
        self._compact()
        events = [event for _, event in taken]
        id = batch_id([event.id for event in events])
        numbers = tuple([number for number, _ in taken])
        self._hold(numbers[0], own)
        self._out.add(numbers[0])
        return self._batch(id, events, Ticket(numbers, None, rows, ()), 1, None)

    def _take_from(self, log: Sequence[Member], limit: int, taken: list[Member], own: set[Key]) -> None:
        skip = self._skip
        for number, event in log:
            if len(taken) == limit:
                break
            self.next = number + 1
            if number in skip:
                skip.discard(number)
                continue
            key = event.stream
            if not self._wants(event) or (number < self._replayed_to and self._was_settled(number, key)):
                continue
            self._taken.append(number)
            self._unsaved.add(number)
            if key is None:
                taken.append((number, event))
            elif key in own or key not in self._held:
                taken.append((number, event))
                own.add(key)
            else:
                self._park(key, (number, event))

    def _was_settled(self, number: int, key: Key | None) -> bool:
        """Whether a later event of its stream waits for a retry: then this one was settled before that went out."""
        return key is not None and self._since <= number < self._settled_below.get(key, 0)

    def _take_ready(self, limit: int) -> tuple[list[Member], set[Key]]:
        taken: list[Member] = []
        own: set[Key] = set()
        while self._ready and len(taken) < limit:
            key = next(iter(self._ready))
            del self._ready[key]
            own.add(key)
            run = self._parked[key]
            self.ready -= len(run)
            count = min(len(run), limit - len(taken))
            taken.extend([run.popleft() for _ in range(count)])
            self._count -= count
            if not run:
                del self._parked[key]
        return taken, own

    def _park(self, key: Key | None, member: Member) -> None:
        assert key is not None
        self._parked.setdefault(key, deque()).append(member)
        self._count += 1
        if key in self._waits:
            self._to_save.add(key)

    def _compact(self) -> None:
        # one batch in hand for long must not make the others' settled numbers pile up behind it
        if len(self._taken) > 2 * len(self._unsaved) + 1000:
            self._taken = deque(sorted(self._unsaved))

    # ------------------------------------------------------------ holding streams

    def _hold(self, rank: int, keys: set[Key]) -> None:
        self._keys[rank] = keys
        for key in keys:
            insort(self._held.setdefault(key, []), rank)

    def _release(self, rank: int) -> None:
        self._out.remove(rank)
        for key in self._keys.pop(rank):
            ranks = self._held[key]
            ranks.remove(rank)
            if not ranks:
                del self._held[key]

    def _let_go(self, keys: Iterable[Key]) -> None:
        """Look again at what waits for these streams."""
        for key in keys:
            for entry in self._stuck.pop(key, ()):
                heapq.heappush(self._due, entry)
            if key in self._parked and key not in self._held and key not in self._ready:
                self._ready[key] = None
                self.ready += len(self._parked[key])
        self.bell.set()

    def _queue(self, waiting: Waiting) -> None:
        keys = _streams(event for _, event in waiting.members)
        self._hold(waiting.members[0][0], keys)
        self._waits |= keys
        super()._queue(waiting)

    # ------------------------------------------------------------ settling

    def split(self, batch: Batch) -> tuple[tuple[Batch, Batch], Changes]:
        """Two halves of a batch in hand, the second held by the first where they share a stream."""
        ticket = ticket_of(batch)
        middle = len(batch.deliveries) // 2
        halves = (
            self._part(batch, ticket, slice(0, middle)),
            self._part(batch, ticket, slice(middle, None)),
        )
        self._release(ticket.numbers[0])
        for half in halves:
            self._hold(ticket_of(half).numbers[0], _streams(half.events))
            self._out.add(ticket_of(half).numbers[0])
        self._unsaved.difference_update(ticket.numbers)
        put = tuple(self._unsettled(half) for half in halves)
        return halves, Changes(sink=self.sink, position=self.position, put=put, dropped=ticket.rows)

    def _part(self, batch: Batch, ticket: Ticket, part: slice) -> Batch:
        half = super()._part(batch, ticket, part)
        return msgspec.structs.replace(
            half, ticket=Ticket(ticket.numbers[part], None, (half.id,), ticket.history)
        )

    def settle(self, batch: Batch, outcomes: Sequence[Outcome]) -> Changes:
        """Apply the outcomes of a batch in hand, and say what to write."""
        keys = self._keys[ticket_of(batch).numbers[0]]
        changes = super().settle(batch, in_order(batch.deliveries, outcomes))
        # never behind a batch that only the position remembers: after a crash it would pass for settled
        put = (*changes.put, *self._save((self._to_save | keys) & self._waits))
        self._to_save.clear()
        self._let_go(keys)
        return msgspec.structs.replace(changes, put=put, position=self.position)

    def _put_down(self, batch: Batch, ticket: Ticket) -> None:
        super()._put_down(batch, ticket)
        self._unsaved.difference_update(ticket.numbers)
        self._release(ticket.numbers[0])

    def _save(self, keys: Iterable[Key]) -> tuple[Waiting, ...]:
        """What is parked for these streams, as waiting batches of one that nobody has tried yet."""
        members: list[Member] = []
        for key in keys:
            fresh = takewhile(lambda member: member[0] in self._unsaved, reversed(self._parked.get(key, ())))
            members.extend(fresh)
        members.sort(key=_number)
        numbers = [number for number, _ in members]
        self._unsaved.difference_update(numbers)
        self._saved.update(numbers)
        now = self._clock.now()
        return tuple(_untried(member, now) for member in members)


def _untried(member: Member, now: datetime) -> Waiting:
    return Waiting(id=member[1].id, members=(member,), failed=0, first_attempt_at=now, due=now, history=())


def _streams(events: Iterable[Event]) -> set[Key]:
    return {key for event in events if (key := event.stream) is not None}


def _lowest(waiting: Iterable[Waiting]) -> dict[Key, int]:
    lowest: dict[Key, int] = {}
    for batch in waiting:
        for number, event in batch.members:
            if (key := event.stream) is not None and number > 0:  # not a dead letter that is owed again
                lowest[key] = min(number, lowest.get(key, number))
    return lowest


def _told_apart(waiting: Sequence[Waiting]) -> tuple[list[Waiting], list[Member]]:
    """The batches that were tried, and the events parked behind them, as a crash or a stop left both."""
    tried = [batch for batch in waiting if batch.failed or len(batch.members) > 1]
    last: dict[Key, int] = {}
    for batch in tried:
        for number, event in batch.members:
            if (key := event.stream) is not None:
                last[key] = max(number, last.get(key, number))
    batches, parked = tried, []
    for batch in waiting:
        number, event = batch.members[0]
        if batch.failed or len(batch.members) > 1:
            continue
        if event.stream is not None and number > last.get(event.stream, 0):
            parked.append((number, event))
        else:
            batches.append(batch)
    return batches, parked


def _number(member: Member) -> int:
    return member[0]
