"""How much is taken and delivered a second, over the last minute, and the time to catch up. Counts are sampled."""

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from poller.core.history import Book, Tally
from poller.core.model import Backlog
from poller.runtime.clock import Clock

WINDOW = 60.0
APART = 1.0
"""The least seconds between two samples."""
KEEPS_UP = 30.0
"""Seconds of deliveries that may be pending for a sink that keeps up. A picture may take 15 s until it is uploaded."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """The counts as the spool gave them at a moment."""

    at: datetime
    tallies: Sequence[Tally]
    backlogs: Mapping[str, Backlog]


class _Sample(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    counts: Mapping[tuple[str, Book], int]
    pending: Mapping[str, int]


class Throughput:
    """The samples of the last minute. A daemon samples about every ten seconds, so nothing is done for each event."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: deque[_Sample] = deque()
        self.known: Known | None = None
        """What was sampled last, for as long as the database of a shared spool is away."""

    def sample(self, tallies: Sequence[Tally], backlogs: Mapping[str, Backlog]) -> None:
        """Take a sample, unless the last one is younger than a second."""
        now, samples = self._clock.monotonic(), self._samples
        self.known = Known(at=self._clock.now(), tallies=tallies, backlogs=backlogs)
        if samples and now - samples[-1].at < APART:
            return
        samples.append(
            _Sample(
                at=now,
                counts={(one.owner, one.book): one.count for one in tallies},
                pending={sink: backlog.events for sink, backlog in backlogs.items()},
            )
        )
        while len(samples) > 2 and now - samples[1].at >= WINDOW:
            samples.popleft()

    def per_second(self, owner: str, book: Book) -> float | None:
        """By how much a count grew each second; None before the second sample."""
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        more = last.counts.get((owner, book), 0) - first.counts.get((owner, book), 0)
        return max(0.0, more / (last.at - first.at))

    def catch_up(self, sink: str, pending: int) -> float | None:
        """Seconds until what is pending for a sink is delivered, if it goes on as in the last minute.

        None if the sink falls behind: its backlog does not shrink, and is more than it delivers in half a minute.
        """
        if pending == 0:
            return 0.0
        if len(self._samples) < 2 or sink not in self._samples[0].pending:
            return None
        first, last = self._samples[0], self._samples[-1]
        fewer = first.pending[sink] - last.pending.get(sink, 0)
        if fewer > 0:
            return pending * (last.at - first.at) / fewer
        rate = self.per_second(sink, Book.DELIVERED) or 0.0
        return pending / rate if pending <= rate * KEEPS_UP else None
