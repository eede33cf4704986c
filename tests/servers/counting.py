"""Members of a shared spool that append, deliver, fail, freeze, die and join at random, and what has to come of it.

The books are kept here, beside the spool: each event that a sink wants is done, dead or pending. An event is done twice
only where a session that had it ended in between. A stream of an ordered sink steps back only where a session ended.
"""

import asyncio
import itertools
import math
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from poller.core.errors import StorageError
from poller.core.model import Batch, Dead, DeadLetter, Done, Event, Outcome, ParsedPage, PollOutcome, Retry
from poller.core.replays import OPEN
from poller.core.selection import Selection
from poller.core.spool import Wants, anything
from poller.spools.places import in_log, is_replayed
from poller.spools.postgres import PostgresSpool
from poller.spools.postgres.links import StorageAway
from poller.spools.sink_queue import ticket_of
from poller.testing.factories import done, some_event
from tests.servers.members import Members, Thread, until

STREAMS: Final = 40
PAGE: Final = 100
CARRIERS: Final = 2
DRAINED_WITHIN: Final = 1200.0
"""Seconds for the delivery of all that is pending at the end: a guard against hanging only."""


def of_even_rooms(event: Event) -> bool:
    """The filter of one of the sinks."""
    return int(event.stream_id.removeprefix("room-")) % 2 == 0


class Kind(NamedTuple):
    """A sink: its filter, and whether it is ordered."""

    wants: Wants
    ordered: bool


SINKS: Final = {
    "all": Kind(anything, ordered=False),
    "even": Kind(of_even_rooms, ordered=False),
    "ordered": Kind(anything, ordered=True),
}


class Fact(NamedTuple):
    """That an event was done or dead, at a session; `since` is when it was claimed."""

    session: int
    since: int
    at: int
    dead: bool
    number: int


class Books:
    """What happened, in the order in which it did."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moment = 0
        self.facts: dict[str, dict[str, list[Fact]]] = {sink: defaultdict(list) for sink in SINKS}
        self.again: dict[str, set[str]] = {sink: set() for sink in SINKS}
        """The events that were retried as dead letters, by sink."""
        self.refused_again: dict[str, set[str]] = {sink: set() for sink in SINKS}
        """The events that were refused when they were replayed."""
        self.streams: dict[str, list[tuple[Fact, str]]] = defaultdict(list)
        """What the ordered sink got, by stream."""
        self.ended: dict[int, tuple[float, float]] = {}
        """From when on sessions may have ended, and when they had."""
        self.events: dict[str, Event] = {}

    def tick(self) -> int:
        """The next moment."""
        with self._lock:
            self._moment += 1
            return self._moment

    def end(self, session: int) -> None:
        """From now on, a session may have ended: what its member does meanwhile may count, or not."""
        self.ended.setdefault(session, (self.tick(), math.inf))

    def gone(self, session: int) -> None:
        """The member of a session does nothing any more."""
        self.ended[session] = (self.ended[session][0], self.tick())

    def note(self, session: int, since: int, batch: Batch, outcomes: Iterable[Outcome]) -> None:
        """Enter what became of a batch."""
        held = set[str]()
        for number, event, outcome in zip(ticket_of(batch).numbers, batch.events, outcomes, strict=True):
            if isinstance(outcome, Retry):
                held.add(event.stream_id)
                continue
            if is_replayed(number):
                if isinstance(outcome, Dead):
                    self.refused_again[batch.sink].add(event.id)
                continue
            if SINKS[batch.sink].ordered and event.stream_id in held:
                continue  # it comes again, behind the other
            fact = Fact(session, since, self.tick(), isinstance(outcome, Dead), number)
            with self._lock:
                self.facts[batch.sink][event.id].append(fact)
                if SINKS[batch.sink].ordered and in_log(number) is not None:
                    self.streams[event.stream_id].append((fact, event.id))

    # ------------------------------------------------------------ what has to be true

    def owed(self, sink: str) -> set[str]:
        """The ids of the events that a sink wants and has not settled."""
        return {
            id for id, event in self.events.items() if SINKS[sink].wants(event) and id not in self.facts[sink]
        }

    def check_counts(self) -> None:
        """Nothing came twice, but where a session ended, and nothing that was not wanted."""
        for sink, facts in self.facts.items():
            for id, found in facts.items():
                assert SINKS[sink].wants(self.events[id]), f"{sink} does not want {id}"
                for one, other in itertools.pairwise(found):
                    again = id in self.again[sink] and (one.dead or id in self.refused_again[sink])
                    assert again or self._between(one, other), f"{sink} has {id} twice: {found}, {self.ended}"

    def _between(self, one: Fact, other: Fact) -> bool:
        """Whether a session of one of them ended after the first was claimed and before the second was settled."""
        begin, end = min(one.since, other.since), max(one.at, other.at)
        ends = [self.ended[fact.session] for fact in (one, other) if fact.session in self.ended]
        return any(begin < gone and may <= end for may, gone in ends)

    def check_order(self) -> None:
        """No stream of the ordered sink steps back, but where a session ended, and none has a gap."""
        for stream, found in self.streams.items():
            numbers = sorted({fact.number for fact, _ in found})
            place = {number: at for at, number in enumerate(numbers)}
            done = set[int]()
            complete = highest = since = 0
            for fact, _ in found:
                if fact.number <= highest:
                    ends = [one for one in self.ended.values() if since < one[1] and one[0] <= fact.at]
                    assert ends, f"{stream} steps back from {highest} to {fact.number}"
                assert place[fact.number] <= complete, f"{stream}: {numbers[complete]} was left out"
                done.add(fact.number)
                while complete < len(numbers) and numbers[complete] in done:
                    complete += 1
                highest, since = fact.number, fact.since


async def attach_all(spool: PostgresSpool) -> None:
    """Attach the sinks."""
    for sink, kind in SINKS.items():
        await spool.attach(sink, kind.wants, kind.ordered)


class Life:
    """The work of one member: it appends pages, and delivers for each sink."""

    def __init__(
        self, thread: Thread, books: Books, pages: "deque[list[Event]]", seed: int, pause: float
    ) -> None:
        self.thread = thread
        self._books = books
        self._pages = pages
        self._random = random.Random(seed)
        self._pause = pause
        self._held: list[Event] = []
        self._ending = False
        self._work: list[Any] = []

    def begin(self) -> None:
        """Attach the sinks, and work."""
        self.thread.do(attach_all)
        self._work = [self.thread.begin(self._append), self.thread.begin(self._replay)]
        for sink in SINKS:
            for _ in range(CARRIERS):
                self._work.append(self.thread.begin(partial(self._carry, sink=sink)))

    def end(self) -> None:
        """Claim and append no more; what is in hand is settled."""
        self._ending = True
        for work in self._work:
            with suppress(StorageError):
                work.result()

    def give_back(self) -> None:
        """What it was appending when it died is appended by another one."""
        if self._held:
            self._pages.append(self._held)

    async def _until_end(self, work: Any) -> Any:
        """The result of some work; None if it has not come when the member is to end."""
        task = asyncio.ensure_future(work)
        while not self._ending:
            await asyncio.wait({task}, timeout=0.1)
            if task.done():
                return task.result()
        task.cancel()
        with suppress(asyncio.CancelledError):
            return await task
        return None

    async def _append(self, spool: PostgresSpool) -> None:
        while not self._ending:
            if not self._pages:
                await asyncio.sleep(0.02)
                continue
            with suppress(IndexError):
                self._held = self._pages.popleft()
                page = ParsedPage(events=tuple(self._held), rejects=(), outcome=PollOutcome.FULL)
                await spool.append("queue", [page])
                if self._random.random() < 0.05:
                    self._pages.append(self._held)  # the platform delivers it again
                self._held = []
            await asyncio.sleep(self._random.random() * self._pause)

    async def _replay(self, spool: PostgresSpool) -> None:
        while not self._ending:
            if await self._until_end(spool.replays.ready()) is not None:
                return
            for sink in SINKS:
                if not self._ending:
                    await spool.replays.fill(sink)
            await asyncio.sleep(0.01)

    async def _carry(self, spool: PostgresSpool, sink: str) -> None:
        while not self._ending:
            limit = self._random.choice((1, 20, 100, 400))
            batch = await self._until_end(spool.claim(sink, limit))
            if batch is None:
                return
            since = self._books.tick()
            if self._random.random() < 0.5:
                await asyncio.sleep(self._random.random() * 0.02)
            if not spool.proven.is_set():
                outcomes: list[Outcome] = [Retry(after=0.0, reason="the lease is not proven", counted=False)]
                outcomes *= len(batch.events)
            else:
                outcomes = self._outcomes(len(batch.events))
            self._books.note(spool.member, since, batch, outcomes)
            await spool.settle(batch, outcomes)

    def _outcomes(self, count: int) -> list[Outcome]:
        chance = self._random.random()
        if chance < 0.85:
            return [Done()] * count
        again = Retry(after=self._random.random() * 0.3, reason="busy")
        if chance < 0.93:
            return [again] * count
        some = (Done(), Done(), again, Dead(reason="refused"))
        return [self._random.choice(some) for _ in range(count)]


def numbers_of(thread: Thread) -> list[int]:
    """The numbers of all members."""
    return [member.number for member in thread.do(lambda spool: spool.members())]


class Simulation:
    """Members that come and go until `count` events are appended. All that is random follows from the seed.

    Each member waits for up to `pause` seconds between two pages: so the faults come while events do.
    """

    def __init__(self, members: Members, count: int, seed: int, pause: float) -> None:
        self._members = members
        self._between_pages = pause
        self._random = random.Random(seed)
        self.books = Books()
        self._pages: deque[list[Event]] = deque()
        self._lives: list[Life] = []
        self.faults: dict[str, int] = defaultdict(int)
        events = [some_event(n, stream=f"room-{self._random.randrange(STREAMS)}") for n in range(count)]
        self.books.events = {event.id: event for event in events}
        for start in range(0, count, PAGE):
            self._pages.append(events[start : start + PAGE])

    def run(self, least_faults: int) -> None:
        """Append everything, with `least_faults` faults or more."""
        for _ in range(3):
            self._join()
        while self._pages or sum(self.faults.values()) < least_faults:
            time.sleep(self._random.random() * 0.6)
            self._random.choice(
                (
                    self._kill,
                    self._freeze,
                    self._freeze,
                    self._leave,
                    self._join,
                    self._retry_dead,
                    self._order,
                )
            )()
        for life in self._lives:
            life.end()
            self.books.end(life.thread.number)
            life.thread.leave()
            self.books.gone(life.thread.number)

    def _any(self) -> Life:
        return self._random.choice(self._lives)

    def _join(self) -> None:
        if len(self._lives) == 4:
            return
        seed = self._random.randrange(10**9)
        life = Life(self._members.join(), self.books, self._pages, seed, self._between_pages)
        self._lives.append(life)
        life.begin()

    def _part(self) -> Life | None:
        if len(self._lives) < 3:
            return None
        life = self._any()
        self._lives.remove(life)
        return life

    def _kill(self) -> None:
        if (life := self._part()) is not None:
            self.faults["kill"] += 1
            self.books.end(life.thread.number)
            life.thread.kill()
            self.books.gone(life.thread.number)
            life.give_back()
            self._join()

    def _leave(self) -> None:
        if (life := self._part()) is not None:
            self.faults["leave"] += 1
            life.end()
            self.books.end(life.thread.number)
            life.thread.leave()
            self.books.gone(life.thread.number)
            life.give_back()

    def _freeze(self) -> None:
        """One freezes until the others have ended its session."""
        if (life := self._part()) is None:
            return
        self.faults["freeze"] += 1
        number = life.thread.number
        self.books.end(number)
        watch = self._any().thread
        with life.thread.frozen():
            until(lambda: number not in numbers_of(watch), what="for the end of a session")
        until(life.thread.spool._failure.done, what="for the frozen member to hear of it")
        life.end()
        self.books.gone(number)
        life.give_back()
        self._join()

    def _retry_dead(self) -> None:
        sink = self._random.choice(list(SINKS))
        thread = self._any().thread
        letters = [one for one in thread.do(lambda spool: spool.dead(500)) if one.sink == sink]
        self.books.again[sink].update(letter.event.id for letter in letters)
        with suppress(StorageAway):  # the server ends a transaction that stands still for half a lease
            thread.do(lambda spool: spool.retry_dead(sink, [letter.number for letter in letters], 10))

    def _order(self) -> None:
        """Deliver again some of what a sink got: one of its streams."""
        sink, room = self._random.choice(list(SINKS)), f"room-{self._random.randrange(STREAMS)}"
        thread = self._any().thread
        if any(one.state in OPEN for one in thread.spool.replays.all()):
            return

        async def order(spool: PostgresSpool) -> None:
            planned = await spool.replays.plan(sink, Selection(stream=room))
            await spool.replays.order(planned, 0, planned.pending | planned.dead)

        with suppress(StorageAway):
            thread.do(order)
            self.faults["replay"] += 1

    # ------------------------------------------------------------ the end

    def drain(self) -> None:
        """Deliver what is pending; it is what the backlog says, and what the books say."""
        thread = self._members.join()
        thread.do(attach_all)
        for sink, kind in SINKS.items():
            before = thread.do(partial(PostgresSpool.backlog, sink=sink))
            missing = self.books.owed(sink)
            came = thread.do(partial(self._drain, sink=sink), DRAINED_WITHIN)
            assert missing <= came, f"{sink} lost {len(missing - came)} of {len(missing)} that were pending"
            if kind.wants is anything:
                assert before.events == len(came), sink
            after = thread.do(partial(PostgresSpool.backlog, sink=sink))
            assert (after.events, after.retrying, after.replaying) == (0, 0, 0), (sink, after)
            assert not self.books.owed(sink)
            self._check_dead(sink, thread.do(lambda spool: spool.dead(len(self.books.events))))

    def _check_dead(self, sink: str, letters: list[DeadLetter]) -> None:
        """A dead letter is what was refused, and what was refused and not delivered since is a dead letter."""
        dead = {letter.event.id for letter in letters if letter.sink == sink}
        facts = self.books.facts[sink]
        refused = {id for id, found in facts.items() if any(fact.dead for fact in found)}
        done = {id for id, found in facts.items() if not all(fact.dead for fact in found)}
        assert dead <= refused | self.books.refused_again[sink]
        assert refused - done <= dead

    async def _drain(self, spool: PostgresSpool, sink: str) -> set[str]:
        came = set[str]()
        while (await spool.backlog(sink)).events or (await spool.backlog(sink)).replaying:
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    batch = await spool.claim(sink, 1000)
                    since = self.books.tick()
                    self.books.note(spool.member, since, batch, done(batch))
                    if not is_replayed(ticket_of(batch).numbers[0]):
                        came.update(event.id for event in batch.events)
                    await spool.settle(batch, done(batch))
        return came
