"""One sink's queue over the log: what is pending, what is in hand, what waits for a retry. Shared by all engines.

The queue decides and never waits: `take_*` and `settle` are plain functions. They return `Changes`, which the engine
writes.
"""

import asyncio
import heapq
import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import assert_never

import msgspec

from poller.core.errors import LONGEST_WAIT
from poller.core.event_lines import chained, ids_of
from poller.core.history import SinkProgress, Stage
from poller.core.model import (
    Attempt,
    Batch,
    Dead,
    DeadLetter,
    Done,
    Event,
    Outcome,
    Retry,
    batch_id,
    corrected,
)
from poller.core.selection import Numbered
from poller.core.spool import Wants, anything
from poller.runtime.clock import Clock
from poller.spools import places
from poller.spools.delivered import Settled
from poller.spools.event_progress import waiting_progress
from poller.spools.lanes import key_of
from poller.spools.replayed import Entry, Replayed
from poller.spools.tail import Chunk, cut, members_of
from poller.spools.waiting import KEPT_HISTORY, Corrections, Waiting, correct_batch

MOST_RETRYING = 10_000
"""The most events that may wait for a retry. At the limit no fresh events are taken."""
SAME_WAIT = 1.25
"""Retries whose waits differ by a smaller factor are made together, at the later time."""


class MovedShare(msgspec.Struct, frozen=True):
    """The first number of a share that is not settled; `ended` says that all of it is, and that it does not grow."""

    id: int
    first: int
    ended: bool


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What a settlement changes, to be written in one transaction.

    `key` names the queue: the sink, or one of its lanes. `position` is 0 for a queue over shares, which has `shares`
    instead.
    """

    sink: str
    key: str
    position: int
    shares: tuple[MovedShare, ...] = ()
    put: tuple[Waiting, ...] = ()
    dropped: tuple[str, ...] = ()
    dead: tuple[DeadLetter, ...] = ()
    dead_ahead: tuple[int, ...] = ()
    """The numbers of those dead letters that the position has not passed: the log must not hand them out again."""
    settled: Settled | None = None
    """What was delivered."""


class _Span:
    """A stretch of the log that was claimed together. `open` counts the batches that are still in hand."""

    __slots__ = ("open", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.open = 1


class Ticket(msgspec.Struct, frozen=True):
    """What the queue remembers of a batch in hand. `rows` are the waiting rows that bring it back after a crash.

    `claimed` is when it was claimed, on the monotonic clock.
    """

    numbers: tuple[int, ...]
    span: _Span | None
    rows: tuple[str, ...]
    history: tuple[Attempt, ...]
    claimed: float


class SinkQueue:
    """The claims of one sink. `next` is the first number not yet claimed, `position` the first not settled."""

    def __init__(
        self,
        sink: str,
        wants: Wants,
        position: int,
        waiting: Iterable[Waiting],
        clock: Clock,
        *,
        dead_ahead: Iterable[int] = (),
        replays: int = 1,
        lane: int | None = None,
    ) -> None:
        self.sink = sink
        self.key = sink if lane is None else key_of(sink, lane)
        self.next = position
        self.wakeup = asyncio.Event()
        self.wants = self._wants = wants
        self._clock = clock
        self._spans: set[int] = set()
        self._due: list[tuple[float, int, Waiting]] = []
        self._order = 0
        self.retrying = 0
        self.ready = 0
        """The number of events that were taken from the log earlier and may go out now."""
        self.replayed: Replayed[Waiting] = Replayed(replays)
        self._in_hand = 0
        """The number of events in hand, without replayed ones."""
        self._carried: dict[int, Batch] = {}
        """The batches in hand, by the number of their first event."""
        self._corrections: dict[str, Event] = {}
        """Corrections of events in hand that arrived since they were claimed."""
        self._skip = {number for number in dead_ahead if number >= position}
        for batch in waiting:
            self._skip.update(number for number, _ in batch.members if number >= position)
            self._queue(batch, clock.wait_for(batch.due, LONGEST_WAIT))

    @property
    def position(self) -> int:
        """Where a restart would begin."""
        return min(self._spans, default=self.next)

    @property
    def idle(self) -> bool:
        """Whether no batch is in hand."""
        return not self._carried

    def count_unsettled(self, head: int) -> int:
        """How many events are not settled, `head` being the log's next number."""
        # an event that waits for a retry and also lies ahead of `next` counts once
        return head - self.next - len(self._skip) + self._in_hand + self.retrying

    def oldest_waiting(self) -> datetime | None:
        """When the oldest event that waits for a retry was received."""
        return min((e.received_at for _, _, w in self._due for _, e in w.members), default=None)

    def seconds_to_retry(self) -> float | None:
        """Seconds until the next retry is due; 0 when one is due, None when nothing waits."""
        if not self._due:
            return None
        return max(0.0, self._due[0][0] - self._clock.monotonic())

    def seconds_to_claim(self) -> float | None:
        """Seconds until a retry is due, or a replayed batch; None when a claim must wait for `wakeup`."""
        waits = (self.seconds_to_retry(), self.replayed.next_due(self._clock.monotonic()))
        return min((wait for wait in waits if wait is not None), default=None)

    def end(self, head: int) -> int:
        """The number up to which fresh events may be taken, `head` being the log's next number."""
        return head

    def at_hand(self, head: int) -> int:
        """How many events could go out now or soon."""
        return self.ready + head - self.next

    def wants_share(self, head: int, limit: int) -> bool:
        """Whether a batch of `limit` fresh events needs another share of the log first."""
        return False

    def skip_to_end(self, head: int) -> None:
        """Pass what the log does not hold any more."""
        self.next = head

    def may_take_fresh(self) -> bool:
        """Whether the number of events that wait for a retry is below its limit."""
        return self.retrying < MOST_RETRYING

    def ahead(self, limit: int) -> int:
        """How many events of the log to read for a batch of up to `limit` events."""
        return limit

    def room_to_retry(self) -> int:
        """How many more events may wait for a retry."""
        return max(0, MOST_RETRYING - self.retrying)

    def requeue(self, waiting: Waiting, wait: float = 0.0) -> None:
        """Take a batch whose row is on disk already. It is due in `wait` seconds."""
        self._queue(waiting, wait)

    def adopt(self, waiting: Waiting) -> None:
        """Take a batch that waited in another process. Its retry is due when it was due there."""
        self.requeue(waiting, self._clock.wait_for(waiting.due, LONGEST_WAIT))

    def retry_now(self) -> None:
        """Make all retries due."""
        now = self._clock.monotonic()
        self._due = [(min(due, now), order, waiting) for due, order, waiting in self._due]
        heapq.heapify(self._due)
        self.replayed.make_due(now)
        self.wakeup.set()

    def advance(self) -> Changes:
        """How far the sink is served."""
        return Changes(sink=self.sink, key=self.key, position=self.position)

    def close(self) -> Changes:
        """What to write at an orderly stop, so that fewer events are repeated."""
        return self.advance()

    def correct(self, by: Corrections) -> None:
        """Correct the events that wait for a retry."""
        self._due = [(due, order, correct_batch(waiting, by)) for due, order, waiting in self._due]
        self.replayed.replace(lambda waiting: correct_batch(waiting, by))

    def correct_in_hand(self, by: Corrections) -> None:
        """Remember corrections of events in hand, for those that fail."""
        for batch in self._carried.values():
            self._corrections.update((e.id, by[e.id]) for e in batch.events if e.id in by)

    # ------------------------------------------------------------ taking

    def take_retry(self) -> Batch | None:
        """The batch whose retry has been due longest."""
        if self.seconds_to_retry() != 0.0:
            return None
        _, _, waiting = heapq.heappop(self._due)
        numbers = tuple(number for number, _ in waiting.members)
        self.retrying -= len(numbers)
        return self._batch(
            waiting.id,
            tuple([event for _, event in waiting.members]),
            Ticket(numbers, None, (waiting.id,), waiting.history, self._clock.monotonic()),
            waiting.failed + 1,
            waiting.first_attempt_at,
        )

    def take_fresh(self, log: Sequence[Chunk], limit: int) -> Batch | None:
        """Up to `limit` events that the sink wants, from a stretch of the log that begins at `next`."""
        start = self.next
        if self._wants is anything and not self._skip:
            numbers, events = self._take_all(cut(log, start, limit))
        else:
            numbers, events = self._take_wanted(log, limit)
        if not numbers:
            return None
        self._spans.add(start)
        ticket = Ticket(numbers, _Span(start), (), (), self._clock.monotonic())
        return self._batch(batch_id(ids_of(events)), events, ticket, 1, None)

    def _take_all(self, log: Sequence[Chunk]) -> tuple[tuple[int, ...], Sequence[Event]]:
        """All of a stretch, without a look at its events."""
        if not log:
            return (), ()
        self.next = log[-1].end
        return tuple(range(log[0].first, self.next)), chained([chunk.events for chunk in log])

    def _take_wanted(self, log: Sequence[Chunk], limit: int) -> tuple[tuple[int, ...], Sequence[Event]]:
        numbers, events = list[int](), list[Event]()
        for number, event in members_of(log):
            if len(numbers) == limit:
                break
            self.next = number + 1
            if number in self._skip:
                self._skip.discard(number)
            elif self._wants(event):
                numbers.append(number)
                events.append(event)
        return tuple(numbers), tuple(events)

    def take_replayed(self, limit: int) -> Batch | None:
        """Up to `limit` replayed events, or a replayed batch whose retry is due."""
        taken = self.replayed.take(self._clock.monotonic(), limit, self._is_free)
        if not taken:
            return None
        members = [member for waiting in taken for member in waiting.members]
        numbers = tuple([number for number, _ in members])
        rows = tuple([waiting.id for waiting in taken])
        ticket = Ticket(numbers, None, rows, taken[0].history, self._clock.monotonic())
        tried = taken[0].is_tried
        self.replayed.carry(numbers[0])
        return self._batch(
            batch_id([event.id for _, event in members]),
            tuple([event for _, event in members]),
            ticket,
            taken[0].failed + 1,
            taken[0].first_attempt_at if tried else None,
        )

    def _is_free(self, stream: tuple[str, str]) -> bool:
        """Whether no event of an ordered stream is in hand."""
        return True

    def cancel_replay(self) -> Changes:
        """Forget the replayed events that wait. Those in hand are not retried."""
        dropped = tuple([waiting.id for waiting in self.replayed.batches])
        self.replayed.cancel()
        return Changes(sink=self.sink, key=self.key, position=self.position, dropped=dropped)

    def _batch(
        self, id: str, events: Sequence[Event], ticket: Ticket, attempt: int, first: datetime | None
    ) -> Batch:
        if not places.is_replayed(ticket.numbers[0]):
            self._in_hand += len(events)
        batch = Batch(
            id=id,
            sink=self.sink,
            events=events,
            attempt=attempt,
            first_attempt_at=first,
            ticket=ticket,
        )
        self._carried[ticket.numbers[0]] = batch
        return batch

    def split(self, batch: Batch) -> tuple[tuple[Batch, Batch], Changes]:
        """Two halves of a batch in hand, and what to write before either is settled."""
        ticket = ticket_of(batch)
        middle = len(batch.events) // 2
        halves = (
            self._part(batch, ticket, slice(0, middle)),
            self._part(batch, ticket, slice(middle, None)),
        )
        if ticket.span is not None:  # still below the position's guard
            ticket.span.open += 1
            return halves, Changes(sink=self.sink, key=self.key, position=self.position)
        put = tuple(self._unsettled(half) for half in halves)
        if places.is_replayed(ticket.numbers[0]):
            self.replayed.split(ticket.numbers[0], ticket.numbers[middle])
        return halves, Changes(
            sink=self.sink, key=self.key, position=self.position, put=put, dropped=ticket.rows
        )

    def _part(self, batch: Batch, ticket: Ticket, part: slice) -> Batch:
        events = batch.events[part]
        id = batch_id([event.id for event in events])
        rows = (places.row_id(ticket.numbers[0], id),) if ticket.rows else ()
        half = Ticket(ticket.numbers[part], ticket.span, rows, ticket.history, ticket.claimed)
        self._carried[half.numbers[0]] = batch = msgspec.structs.replace(
            batch, id=id, events=events, ticket=half
        )
        return batch

    def _unsettled(self, half: Batch) -> Waiting:
        ticket = ticket_of(half)
        now = self._clock.now()
        return Waiting(
            id=places.row_id(ticket.numbers[0], half.id),
            members=tuple(zip(ticket.numbers, half.events, strict=True)),
            failed=half.attempt - 1,
            first_attempt_at=half.first_attempt_at or now,
            due=now,
            history=ticket.history,
        )

    # ------------------------------------------------------------ settling

    def settle(self, batch: Batch, outcomes: Sequence[Outcome]) -> Changes:
        """Apply the outcomes of a batch in hand, and say what to write."""
        batch, outcomes = self._revise(batch, outcomes)
        ticket = ticket_of(batch)
        settled = self._settled(batch, outcomes)
        if self.replayed.is_last_try(ticket.numbers[0]):
            outcomes = [Done() if isinstance(outcome, Retry) else outcome for outcome in outcomes]
        now = self._clock.now()
        again: dict[tuple[int, bool], list[tuple[Numbered, Retry]]] = {}
        dead: list[DeadLetter] = []
        gone: list[int] = []
        for number, event, outcome in _not_done(batch, ticket, outcomes):
            match outcome:
                case Done():
                    pass
                case Retry(after=after, counted=counted):
                    group = again.setdefault((step_of(after), counted), [])
                    group.append(((number, event), outcome))
                case Dead(reason=reason):
                    dead.append(self._dead_letter(batch, ticket, event, reason, now))
                    gone.append(number)
                case _:
                    assert_never(outcome)
        self._put_down(batch, ticket)
        put = tuple([self._wait(batch, ticket, group, now) for group in again.values()])
        kept = {waiting.id for waiting in put}
        dropped = tuple([row for row in ticket.rows if row not in kept])
        position = self.position
        return Changes(
            sink=self.sink,
            key=self.key,
            position=position,
            put=put,
            dropped=dropped,
            dead=tuple(dead),
            dead_ahead=tuple([number for number in gone if number >= position]),
            settled=settled,
        )

    def _settled(self, batch: Batch, outcomes: Sequence[Outcome]) -> Settled | None:
        """What the sink has delivered."""
        ticket = ticket_of(batch)
        numbers, ids = ticket.numbers, tuple[str, ...]()
        if not all_done(outcomes):
            done = [place for place, outcome in enumerate(outcomes) if type(outcome) is Done]
            numbers = tuple([numbers[place] for place in done])
            batch = msgspec.structs.replace(batch, events=tuple([batch.events[place] for place in done]))
        if not numbers:
            return None
        if places.is_replayed(numbers[0]):
            numbers = tuple([number for place in numbers if (number := places.in_log(place)) is not None])
        elif numbers[0] <= 0:  # dead letters that were retried: their place in the log is gone
            numbers, ids = (), tuple([event.id for event in batch.events])
        return Settled(
            numbers=numbers,
            ids=ids,
            at=self._clock.now(),
            attempt=batch.attempt,
            took=self._clock.monotonic() - ticket.claimed,
            history=ticket.history,
        )

    # ------------------------------------------------------------ looking

    def progress(self, number: int, id: str, event: Event | None) -> SinkProgress | None:
        """The progress of an event; None for one that this queue does not hold. `number` is 0 where there is none."""
        for batch in self._carried.values():
            if any(one.id == id for one in batch.events):
                return _in_hand(batch)
        for waiting in (*self._all_waiting(), *self.replayed.batches):
            if any(one.id == id for _, one in waiting.members):
                return waiting_progress(self.sink, waiting)
        if event is not None and not self._wants(event):
            return SinkProgress(sink=self.sink, stage=Stage.UNWANTED)
        return SinkProgress(sink=self.sink, stage=Stage.PENDING) if self._is_ahead(number) else None

    def _all_waiting(self) -> Iterable[Waiting]:
        return [waiting for _, _, waiting in self._due]

    def _is_ahead(self, number: int) -> bool:
        return number >= self.next and number not in self._skip

    def _put_down(self, batch: Batch, ticket: Ticket) -> None:
        if places.is_replayed(ticket.numbers[0]):
            self.replayed.put_down(ticket.numbers[0], len(batch.events))
            self.wakeup.set()
        else:
            self._in_hand -= len(batch.events)
        self._carried.pop(ticket.numbers[0], None)
        if ticket.span is not None:
            ticket.span.open -= 1
            if ticket.span.open == 0:
                self._spans.remove(ticket.span.start)

    def _revise(self, batch: Batch, outcomes: Sequence[Outcome]) -> tuple[Batch, Sequence[Outcome]]:
        """A batch and its outcomes as they are in the light of what came in meanwhile.

        What failed is tried again as it is corrected, even if it was refused; what was delivered is delivered.
        """
        found = (
            {
                event.id: by
                for event in batch.events
                if (by := self._corrections.pop(event.id, None)) is not None
            }
            if self._corrections
            else {}
        )
        if not found:
            return batch, outcomes
        revised: list[Outcome] = [
            Retry(after=0.0, reason=outcome.reason)
            if isinstance(outcome, Dead) and event.id in found
            else outcome
            for event, outcome in zip(batch.events, outcomes, strict=True)
        ]
        events = tuple(
            [corrected(event, found[event.id]) if event.id in found else event for event in batch.events]
        )
        return msgspec.structs.replace(batch, events=events), revised

    def _wait(
        self, batch: Batch, ticket: Ticket, group: Sequence[tuple[Numbered, Retry]], now: datetime
    ) -> Waiting:
        members = tuple([member for member, _ in group])
        longest = max([retry for _, retry in group], key=lambda retry: retry.after)
        waiting = Waiting(
            id=places.row_id(members[0][0], batch_id([event.id for _, event in members])),
            members=members,
            failed=batch.attempt if longest.counted else batch.attempt - 1,
            first_attempt_at=batch.first_attempt_at or now,
            due=now + timedelta(seconds=longest.after),
            history=_extended(ticket.history, now, longest.reason),
        )
        self._queue(waiting, longest.after)
        return waiting

    def _queue(self, waiting: Waiting, wait: float) -> None:
        if places.is_replayed(waiting.members[0][0]):
            self._queue_replayed(waiting, wait)
            return
        self._order += 1
        heapq.heappush(self._due, (self._clock.monotonic() + wait, self._order, waiting))
        self.retrying += len(waiting.members)
        self.wakeup.set()

    def _queue_replayed(self, waiting: Waiting, wait: float) -> None:
        entry = Entry(
            rank=waiting.members[0][0],
            due=self._clock.monotonic() + wait,
            size=len(waiting.members),
            streams=self._ordered_streams(waiting),
            tried=waiting.is_tried,
            batch=waiting,
        )
        self.replayed.add(entry)
        self.wakeup.set()

    def _ordered_streams(self, waiting: Waiting) -> frozenset[tuple[str, str]]:
        """The streams whose order the sink keeps."""
        return frozenset()

    def pending(self) -> Iterable[Event]:
        """The events that were taken from the log and are not settled, without replayed ones."""
        carried = [batch for rank, batch in self._carried.items() if not places.is_replayed(rank)]
        yield from (event for batch in carried for event in batch.events)
        yield from (event for _, _, waiting in self._due for _, event in waiting.members)

    def _dead_letter(
        self, batch: Batch, ticket: Ticket, event: Event, reason: str, now: datetime
    ) -> DeadLetter:
        return DeadLetter(
            event=event,
            sink=self.sink,
            attempts=batch.attempt,
            first_attempt_at=batch.first_attempt_at or now,
            died_at=now,
            reason=reason,
            history=_extended(ticket.history, now, reason),
        )


def _in_hand(batch: Batch) -> SinkProgress:
    history = ticket_of(batch).history
    return SinkProgress(
        sink=batch.sink,
        stage=Stage.IN_HAND,
        attempts=batch.attempt - 1,
        history=history,
        reason=history[-1].reason if history else "",
    )


def all_done(outcomes: Sequence[Outcome]) -> bool:
    """Whether everything was delivered."""
    return set(map(type, outcomes)) == {Done}


def _not_done(
    batch: Batch, ticket: Ticket, outcomes: Sequence[Outcome]
) -> Iterable[tuple[int, Event, Outcome]]:
    """Numbers, events and outcomes, unless all is done: then no event need be looked at."""
    if all_done(outcomes) and len(outcomes) == len(ticket.numbers):
        return ()
    return zip(ticket.numbers, batch.events, outcomes, strict=True)


def ticket_of(batch: Batch) -> Ticket:
    """The ticket of a batch that a queue gave out."""
    assert isinstance(batch.ticket, Ticket), "not a batch of this spool"
    return batch.ticket


def _extended(history: tuple[Attempt, ...], at: datetime, reason: str) -> tuple[Attempt, ...]:
    return (*history, Attempt(at=at, reason=reason))[-KEPT_HISTORY:]


def step_of(wait: float) -> int:
    """The group of a wait. Retries of one group are made together; a thousand different waits make about 40 groups."""
    return 0 if wait < 1.0 else 1 + math.floor(math.log(wait, SAME_WAIT))
