"""A queue that messages come into at given times, and a poller that drains it at a pace, by a clock of its own."""

import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from poller.core.model import ParsedPage, PollOutcome, Reject
from poller.pipeline.beat import Beat
from poller.pipeline.pace import Pace, next_pace
from poller.testing import START

MOST = 100
"""Messages in an answer."""
TRAVEL = 0.006
"""Seconds that a poll takes to the queue, an answer back, and a timer until it fires, on average."""
MESSAGE = Reject(received_at=START, reason="", encoding="", body=b"")


def answer(count: int, outcome: PollOutcome | None = None) -> ParsedPage:
    """A reading with a number of messages."""
    good = PollOutcome.FULL if count >= MOST else PollOutcome.PARTIAL if count else PollOutcome.EMPTY
    return ParsedPage(events=(), rejects=(MESSAGE,) * count, outcome=outcome or good)


def pace(beat: float | None, *, min_delay: float = 0.25, max_delay: float = 5.0) -> Pace:
    """The pace of a queue, with the delays of a source by default, and four lanes."""
    known = None if beat is None else Beat.new(beat)
    return Pace(min_delay=min_delay, max_delay=max_delay, max_in_flight=4, destructive=True, beat=known)


@dataclass
class Poller:
    """Polls a queue, with lanes as the intake has them. An answer takes some milliseconds, and so does a timer to fire.

    `waits` has how long each message waited, with the time when it came, in the order in which they were taken.
    """

    pace: Pace
    now: float = 1_000.0
    polls: list[float] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)
    refused: Callable[[float], bool] = lambda now: False
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    followers: int = 0

    def drain(self, arrivals: Sequence[float], until: float) -> "Poller":
        """Poll until a time; the arrivals are in order, and none of them was taken before."""
        taken, due = 0, self.now
        asking = [(self.now, True)]  # when each lane polls, and whether it is the leading one
        answers: list[
            tuple[float, float, bool, ParsedPage]
        ] = []  # when it is there, when asked, whether leading, it
        while min(_first(asking, until), _first(answers, until)) < until:
            if answers and (not asking or answers[0][0] <= asking[0][0]):
                self.now, asked, leading, reading = heappop(answers)
                self.pace = next_pace(self.pace, reading, lambda: 0.5, asked=asked, now=self.now)
                due = self.now + self.pace.delay
                self._go_on(asking, leading, due)
                continue
            asked, leading = heappop(asking)
            if leading and asked < due:  # the answer of another lane has come in the meantime
                heappush(asking, (due + self._late(), True))
            elif leading or self._stays():
                self.polls.append(asked)
                there = asked + self._late()
                ends = min(bisect_right(arrivals, there), taken + MOST)
                reading = answer(ends - taken)
                if self.refused(asked):
                    reading, ends = answer(0, PollOutcome.THROTTLED), taken
                self.waits += [(came, there - came) for came in arrivals[taken:ends]]
                taken = ends
                heappush(answers, (there + self._late(), asked, leading, reading))
        return self

    def _go_on(self, asking: list[tuple[float, bool]], leading: bool, due: float) -> None:
        """Let a lane poll again after its answer, and open those that the pace wants."""
        if not leading:
            heappush(asking, (self.now, False))
            return
        heappush(asking, (due + (self._late() if due > self.now else 0.0), True))
        while self.followers + 1 < self.pace.lanes:
            self.followers += 1
            heappush(asking, (self.now, False))

    def _stays(self) -> bool:
        """Whether a following lane polls again; else it closes."""
        if self.pace.lanes > 1:
            return True
        self.followers -= 1
        return False

    def _late(self) -> float:
        return TRAVEL / 2 + self.dice.expovariate(2 / TRAVEL)

    def measure(self, since: float, until: float) -> "Measured":
        """How late messages were taken that came between two times, and how many polls it took."""
        waits = sorted(wait for came, wait in self.waits if since <= came < until)
        polls = sum(since <= poll < until for poll in self.polls)
        return Measured(
            polls=polls / (until - since),
            mean=sum(waits) / len(waits) if waits else 0.0,
            p50=_quantile(waits, 0.5),
            p99=_quantile(waits, 0.99),
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Polls a second, and how late messages were taken, in seconds."""

    polls: float
    mean: float
    p50: float
    p99: float


def _first(heap: Sequence[tuple[float, *tuple[object, ...]]], otherwise: float) -> float:
    """The least time in a heap, or another one if it is empty."""
    return heap[0][0] if heap else otherwise


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


# ---------------------------------------------------------------- when messages come

Arrivals = list[float]


def bursts(
    dice: random.Random,
    streams: int,
    begin: float,
    end: float,
    *,
    period: float = 10.0,
    spread: tuple[float, float] = (0.2, 2.0),
) -> Arrivals:
    """A picture of each stream at each beat, whose message comes up to so much later. The phase is random."""
    first = begin + dice.uniform(0.0, period)
    beats = int((end - first) / period)
    return sorted(
        first + beat * period + dice.uniform(*spread) for beat in range(beats) for _ in range(streams)
    )


def poisson(dice: random.Random, rate: float, begin: float, end: float) -> Arrivals:
    """So many messages a second, each independent of the others."""
    found, now = [], begin
    while (now := now + dice.expovariate(rate)) < end:
        found.append(now)
    return found


def uniform(dice: random.Random, rate: float, begin: float, end: float) -> Arrivals:
    """So many messages a second at the most even distances, with some scatter."""
    return sorted(begin + (number + dice.random()) / rate for number in range(int((end - begin) * rate)))


def merge(*some: Iterable[float]) -> Arrivals:
    """All arrivals in order."""
    return sorted(time for one in some for time in one)
