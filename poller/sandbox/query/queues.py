"""The platform's queues: one per customer, destructive, oldest first, every message numbered."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from poller.sandbox.bell import Bell
from poller.sandbox.clock import Clock
from poller.sandbox.options import Answers, BadOption, Customer
from poller.sandbox.oracle import Oracle, RemovedLog
from poller.sandbox.query.answers import Said, message_body, pic_url
from poller.sandbox.query.poison import POISONS, names_a_path, poisonous

_COMPACT = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message, ready to be sent (`body`) and to be logged (`head`, a JSON object without its end)."""

    n: int
    body: bytes
    head: bytes


@dataclass(kw_only=True)
class Counts:
    """What happened to one customer's queue."""

    enqueued: int = 0
    dropped: int = 0
    polls: int = 0
    refused: int = 0
    dequeues: int = 0
    removed: int = 0


class Queue:
    """One customer's queue."""

    def __init__(self, customer: Customer, log: RemovedLog, clock: Clock, form: Answers, limit: int) -> None:
        self.customer = customer
        self.counts = Counts()
        self._log = log
        self._clock = clock
        self._form = form
        self._limit = limit
        self._messages: deque[Message] = deque()
        self._n = 0

    @property
    def depth(self) -> int:
        return len(self._messages)

    @property
    def last_n(self) -> int:
        """The number of the newest message."""
        return self._n

    def resume(self, n: int, polls: int) -> None:
        """Goes on numbering after those of an earlier run."""
        self._n, self.counts.polls = n, polls

    def enqueue(self, said: Iterable[Said]) -> int:
        """Appends a message for each; returns how many."""
        before = self._n
        self._append([self._message(one) for one in said])
        return self._n - before

    def enqueue_raw(self, body: bytes, path: str | None = None, poison: str = "raw") -> None:
        """Appends one message of any bytes at all; they become an element of `data` as they are."""
        self._append([self._raw(body, path, poison)])

    def enqueue_poison(self, kinds: Sequence[str], *, first: bool = False) -> None:
        """Adds one message of each kind, at the queue's end or at its head."""
        unknown = set(kinds) - set(POISONS)
        if unknown:
            raise BadOption(f"poison: no {', '.join(sorted(unknown))}; there are {', '.join(POISONS)}")
        messages = [self._poison(kind) for kind in kinds]
        if first:
            self.counts.enqueued += len(messages)
            self._messages.extendleft(reversed(messages))
        else:
            self._append(messages)

    def take(self, count: int, *, poll: int, fault: str | None = None) -> list[Message]:
        """Removes up to `count` messages; the log knows of it before the caller does.

        `poll` is the serial number of the call among this customer's.
        """
        self.counts.dequeues += 1
        waiting = self._messages
        taken = [waiting.popleft() for _ in range(min(count, len(waiting)))]
        if taken:
            self.counts.removed += len(taken)
            heads = [message.head for message in taken]
            self._log.write(heads, poll=poll, fault=fault, at=self._clock.now())
        return taken

    def give_again(self, messages: Sequence[Message]) -> None:
        """Puts messages that were taken at the end, so that they are given a second time."""
        self._messages.extend(messages)

    def set_form(self, form: Answers) -> None:
        """From now on, and for what waits already, messages are written in this form."""
        self._form = form
        self._messages = deque(self._rewritten(message) for message in self._messages)

    def _append(self, messages: Sequence[Message]) -> None:
        self.counts.enqueued += len(messages)
        self._messages.extend(messages)
        while len(self._messages) > self._limit:
            self._messages.popleft()
            self.counts.dropped += 1

    def _message(self, said: Said) -> Message:
        self._n += 1
        return self._written(self._n, said)

    def _written(self, n: int, said: Said) -> Message:
        facts = _facts(said) | {"pic_url": pic_url(said, self._form, self.customer)}
        return Message(n=n, body=message_body(said, self._form, self.customer), head=self._head(n, facts))

    def _rewritten(self, message: Message) -> Message:
        facts = json.loads(message.head + b"}")
        if "poison" in facts:
            return message
        said = Said(stream_id=facts["stream_id"], path=facts["path"], create_time=facts["create_time"])
        return self._written(message.n, said)

    def _poison(self, kind: str) -> Message:
        path = f"poison_{self.customer.app_id}_{self._n + 1}.jpg"
        return self._raw(poisonous(kind, path), path if names_a_path(kind) else None, kind)

    def _raw(self, body: bytes, path: str | None, poison: str) -> Message:
        self._n += 1
        facts = {"stream_id": None, "path": path, "pic_url": path, "poison": poison}
        return Message(n=self._n, body=body, head=self._head(self._n, facts))

    def _head(self, n: int, facts: Mapping[str, object]) -> bytes:
        text = _COMPACT({"n": n, "customer": self.customer.app_id, **facts})
        return text[:-1].encode()


class Platform:
    """All customers' queues, and the log they share."""

    def __init__(
        self, customers: Sequence[Customer], log: RemovedLog, clock: Clock, form: Answers, limit: int
    ) -> None:
        self.clock = clock
        self.form = form
        self.bell = Bell()
        self.queues = {one.app_id: Queue(one, log, clock, form, limit) for one in customers}

    def resume(self, oracle: Oracle) -> None:
        """Goes on after the numbers found in the log of an earlier run."""
        for app_id, queue in self.queues.items():
            removed = oracle.removed(app_id)
            if removed:
                queue.resume(max(one.n for one in removed), max(one.poll for one in removed))

    def queue(self, app_id: int | None = None) -> Queue:
        """The queue of that customer, by default of the first."""
        if app_id is None:
            return next(iter(self.queues.values()))
        if app_id not in self.queues:
            raise BadOption(f"customer: there is no {app_id!r}")
        return self.queues[app_id]

    def set_form(self, form: Answers) -> None:
        self.form = form
        for queue in self.queues.values():
            queue.set_form(form)

    def state(self) -> dict[str, object]:
        """Counts per customer and over all."""
        each = {
            str(app_id): asdict(queue.counts) | {"depth": queue.depth, "last_n": queue.last_n}
            for app_id, queue in self.queues.items()
        }
        names = ("enqueued", "dropped", "polls", "refused", "dequeues", "removed", "depth")
        totals: dict[str, object] = {name: sum(one[name] for one in each.values()) for name in names}
        return totals | {"customers": each}


def _facts(said: Said) -> dict[str, object]:
    """`dataclasses.asdict` copies deeply, which costs more than all else when 10,000 are enqueued."""
    return {"stream_id": said.stream_id, "path": said.path, "create_time": said.create_time}
