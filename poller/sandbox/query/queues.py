"""The platform's queues: one per customer, destructive, oldest first, every message numbered, all durable."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Self

from poller.sandbox.clock import Clock
from poller.sandbox.database import Database
from poller.sandbox.options import Answers, BadOption, Customer
from poller.sandbox.oracle import RemovedLog
from poller.sandbox.query.messages import Facts, Message, Said, facts_of, write_message
from poller.sandbox.query.pages import Pages
from poller.sandbox.query.poison import POISONS, names_a_path, poisonous
from poller.sandbox.wakeup import Wakeup

_AHEAD = 1000
"""Poll numbers are reserved so many at a time, which costs a write less per poll and wastes some after a kill."""


@dataclass(kw_only=True)
class CallCounts:
    """What happened to one customer since the start; `polls` (of Live_Queue_Get) goes on after a restart.

    lists:    calls of Live_Tape_GetFilelist
    statuses: calls of Live_Channel_GetStatus
    refused:  calls of any interface that were answered with an error
    """

    enqueued: int = 0
    dropped: int = 0
    polls: int = 0
    refused: int = 0
    dequeues: int = 0
    removed: int = 0
    lists: int = 0
    statuses: int = 0


class Queue:
    """One customer's queue, durable and in memory. In memory each message is in its written form."""

    def __init__(
        self, customer: Customer, pages: Pages, log: RemovedLog, clock: Clock, *, form: Answers, limit: int
    ) -> None:
        self.customer = customer
        self.counts = CallCounts()
        self.limit = limit
        self._pages = pages
        self._log = log
        self._clock = clock
        self._form = form
        self._messages: deque[Message] = deque()
        self._n = 0
        self._reserved = 0

    @property
    def depth(self) -> int:
        return len(self._messages)

    @property
    def last_n(self) -> int:
        """The number of the newest message."""
        return self._n

    def resume(self) -> None:
        """Loads the state in which an earlier run ended, even by a kill."""
        self._n, self.counts.polls = self._pages.resume()
        self._reserved = self.counts.polls
        self._messages.extend(self._messages_of(self._pages.messages()))
        self._drop()

    def save(self) -> None:
        """Gives back the poll numbers that were reserved."""
        self._pages.remember(self.counts.polls)

    def next_poll(self) -> int:
        """A new poll number. No number is given twice, not even after a kill."""
        self.counts.polls += 1
        if self.counts.polls > self._reserved:
            self._reserved = self.counts.polls + _AHEAD
            self._pages.remember(self._reserved)
        return self.counts.polls

    def enqueue(self, said: Iterable[Said]) -> int:
        """Appends a message for each; returns how many. They are durable when this returns."""
        facts = [
            Facts(n=n, stream_id=one.stream_id, path=one.path, create_time=one.create_time)
            for n, one in enumerate(said, self._n + 1)
        ]
        self._append(facts)
        return len(facts)

    def enqueue_raw(self, body: bytes, path: str | None = None, poison: str = "raw") -> None:
        """Appends a message of arbitrary bytes, which become an element of `data` unchanged."""
        self._append([Facts(n=self._n + 1, stream_id=None, path=path, poison=poison, raw=body)])

    def enqueue_poison(self, kinds: Sequence[str], *, first: bool = False) -> None:
        """Adds one message of each kind, at the queue's end or at its head."""
        unknown = set(kinds) - set(POISONS)
        if unknown:
            raise BadOption(f"poison: no {', '.join(sorted(unknown))}; there are {', '.join(POISONS)}")
        facts = [self._poison(n, kind) for n, kind in enumerate(kinds, self._n + 1)]
        if not first:
            self._append(facts)
        elif facts:
            self._pages.prepend(facts, facts[-1].n)
            self._messages.extendleft(reversed(self._messages_of(facts)))
            self._count_enqueued(facts)

    def take(self, count: int, *, poll: int, fault: str | None = None) -> list[Message]:
        """Removes and returns up to `count` messages. The log has them before this returns.

        The log comes before the database: a death between the two gives messages a second time rather than never,
        and the log then names them twice, with two polls. `poll` is the call's number among this customer's.
        """
        self.counts.dequeues += 1
        taken = list(islice(self._messages, count))
        if taken:
            heads = [message.head for message in taken]
            self._log.write(heads, poll=poll, fault=fault, at=self._clock.now())
            self._remove(len(taken))
            self.counts.removed += len(taken)
        return taken

    def give_again(self, messages: Sequence[Message]) -> None:
        """Appends messages that were taken already, so that they are handed out a second time."""
        if messages:
            self._pages.append([facts_of(message) for message in messages], self._n)
            self._messages.extend(messages)

    def set_form(self, form: Answers) -> None:
        """Sets the form of messages, also of those that wait already."""
        self._form = form
        self._messages = deque(self._messages_of(facts_of(message) for message in self._messages))

    def set_limit(self, limit: int) -> None:
        """Sets the most messages that the queue holds. The oldest ones beyond it are dropped and counted."""
        self.limit = limit
        self._drop()

    def _append(self, facts: Sequence[Facts]) -> None:
        if facts:
            self._pages.append(facts, facts[-1].n)
            self._messages.extend(self._messages_of(facts))
            self._count_enqueued(facts)
            self._drop()

    def _count_enqueued(self, facts: Sequence[Facts]) -> None:
        self._n = facts[-1].n
        self.counts.enqueued += len(facts)

    def _drop(self) -> None:
        excess = self.depth - self.limit
        if excess > 0:
            self._remove(excess)
            self.counts.dropped += excess

    def _remove(self, count: int) -> None:
        self._pages.remove(count)
        for _ in range(count):
            self._messages.popleft()

    def _messages_of(self, facts: Iterable[Facts]) -> list[Message]:
        return [write_message(one, self._form, self.customer) for one in facts]

    def _poison(self, n: int, kind: str) -> Facts:
        path = f"poison_{self.customer.app_id}_{n}.jpg"
        named = path if names_a_path(kind) else None
        return Facts(n=n, stream_id=None, path=named, poison=kind, raw=poisonous(kind, path))


class Platform:
    """All customers' queues, and the log they share. Entered once the database and the log are open."""

    def __init__(
        self,
        customers: Sequence[Customer],
        database: Database,
        log: RemovedLog,
        clock: Clock,
        *,
        form: Answers,
        limit: int,
    ) -> None:
        self.clock = clock
        self.form = form
        self.wakeup = Wakeup()
        self.queues = {
            one.app_id: Queue(one, Pages(database, one.app_id), log, clock, form=form, limit=limit)
            for one in customers
        }

    def __enter__(self) -> Self:
        for queue in self.queues.values():
            queue.resume()
        return self

    def __exit__(self, *exc: object) -> None:
        for queue in self.queues.values():
            queue.save()

    def queue(self, app_id: int | None = None) -> Queue:
        """The queue of that customer, by default of the first."""
        if app_id is None:
            return next(iter(self.queues.values()))
        if app_id not in self.queues:
            raise BadOption(f"customer: there is no {app_id!r}")
        return self.queues[app_id]

    def set_form(self, form: Answers) -> None:
        """Sets the form of answers, also for messages that wait already."""
        self.form = form
        for queue in self.queues.values():
            queue.set_form(form)

    def state(self) -> dict[str, object]:
        """Counts per customer and over all."""
        each = {
            str(app_id): asdict(queue.counts) | {"depth": queue.depth, "last_n": queue.last_n}
            for app_id, queue in self.queues.items()
        }
        names = [*asdict(CallCounts()), "depth"]
        totals: dict[str, object] = {name: sum(one[name] for one in each.values()) for name in names}
        return totals | {"customers": each}
