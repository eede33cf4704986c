"""When messages come within a beat, as learned from the answers of polls. Pure.

Purpose
    The platform takes the pictures of all streams at the same moments, such as every 10 seconds. Messages come in a
    burst at each beat, and hardly any come in between. A poller whose polls slow down while nothing comes is late for
    the next burst. `Beat` learns where in the beat the bursts are, so that the pace can sleep up to them.

What is known
    The beat is divided into bins of a quarter of a second. Each bin holds how many messages came in that part of the
    beat. The messages of an answer came at an unknown time since the answer before: they are spread over the bins of
    that time, in proportion to what is known of each; evenly, while nothing is. When the clock enters a bin, a fifth
    of the bin is forgotten: messages of the last five beats are most of what is known, and a night without messages
    leaves nothing.

What follows
    If messages came evenly, about as many would come in each second of the beat. Messages come in bursts if these
    numbers differ clearly more than chance would have it; fewer than three messages tell nothing. With bursts, a poll
    is due once the messages that are expected since the poll before have waited for long enough, all taken together:
    soon where many come, late where few do, and not at all where none do.
"""

import math
from itertools import accumulate
from typing import Self

import msgspec

BIN = 0.25
"""Seconds in a bin, about."""
KEEP = 0.8
"""What is left of a bin each time that the clock enters it."""
LEAST = 3.0
"""The number of messages below which nothing is known."""
SURPRISE = 0.02
"""How likely messages are where none are known, as a share of the mean bin."""
PART = 1.0
"""Bursts are told from chance by the numbers of messages in stretches of this many seconds, or of a quarter of the beat
if that is shorter."""
CHANCE = 0.6
"""The variance of these numbers, in their means, that chance may have made. It makes some 0.56, because older messages
count less."""
UNEVEN = 0.3
"""The variance beyond that, in squares of their mean, from which on messages come in bursts."""
WAIT = 0.02
"""A poll is due when the expected messages have waited, all together, this many seconds times the messages known."""
MORE = 16.0
"""Added to the number of messages known. This makes polls rarer where few messages are known."""


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one source. All times are seconds of one monotonic clock."""

    period: float
    """The seconds from one beat to the next."""
    bins: tuple[float, ...]
    """How many messages came in each part of the beat. Bin 0 begins at each multiple of `period` on the clock."""
    entered: int = 0
    """The last bin that the clock entered, counted from the clock's zero."""
    since: float | None = None
    """When the last poll was sent that emptied the queue; None before the first."""
    unplaced: int = 0
    """The messages of full answers since then. They wait for the poll that empties the queue."""

    @classmethod
    def new(cls, period: float) -> Self:
        """A beat of which nothing is known but its period, in seconds."""
        return cls(period=period, bins=(0.0,) * max(1, round(period / BIN)))

    @property
    def _width(self) -> float:
        return self.period / len(self.bins)

    def note(self, asked: float, count: int, *, full: bool) -> "Beat":
        """What is known after a good answer with `count` messages to a poll that was sent at `asked`.

        `full` says that more messages may be left. Nothing is learned from messages that may have come at any time
        within a beat: those of the first answer, and those after a pause as long as the beat.
        """
        if full:
            return msgspec.structs.replace(self, unplaced=self.unplaced + count)
        entered = max(self.entered, int(asked / self._width))
        bins = self._fade(entered)
        if self.since is not None and asked - self.since < self.period:
            self._spread(bins, self.since, asked, self.unplaced + count)
        return msgspec.structs.replace(self, bins=tuple(bins), entered=entered, since=asked, unplaced=0)

    def _fade(self, entered: int) -> list[float]:
        """The bins after the clock has entered all up to this one."""
        whole, more = divmod(entered - self.entered, len(self.bins))
        bins = [held * KEEP**whole for held in self.bins]
        for number in range(entered - more + 1, entered + 1):
            bins[number % len(bins)] *= KEEP
        return bins

    def _spread(self, bins: list[float], since: float, until: float, count: int) -> None:
        """Add messages that came between two times. The first may be the later one, where lanes overtook each other.

        A bin gets a share for the time that is its own, and for the messages that are known in it and around it.
        """
        since, width = min(since, until), self._width
        numbers = range(int(since / width), int(until / width) + 1)
        surprise = SURPRISE * sum(self.bins) / len(bins) or 1.0
        shares = [
            (min(until, (number + 1) * width) - max(since, number * width))
            * (self._likely(number) + surprise)
            for number in numbers
        ]
        whole = sum(shares)
        for number, share in zip(numbers, shares, strict=True):
            bins[number % len(bins)] += count * (share / whole if whole else 1 / len(shares))

    def due(self, asked: float) -> float | None:
        """How many seconds after a poll at `asked` that emptied the queue the next poll is due; None without bursts."""
        if not self.bursts:
            return None
        enough, width = WAIT * (sum(self.bins) + MORE), self._width
        number, after, came, waited = int(asked / width), 0.0, 0.0, 0.0
        while True:  # ends within two beats, because there are messages
            length = (number + 1) * width - asked - after
            rate = self._likely(number) / width
            more = came * length + rate * length**2 / 2
            if waited + more >= enough:
                return after + _until(enough - waited, came, rate)
            number, after = number + 1, after + length
            came, waited = came + rate * length, waited + more

    @property
    def bursts(self) -> bool:
        """Whether messages come in bursts, as far as is known."""
        size, known = len(self.bins), sum(self.bins)
        part = max(1, min(round(PART / self._width), size // 4))
        mean = known * part / size
        sums = list(accumulate((*self.bins, *self.bins[:part]), initial=0.0))
        parts = zip(sums[:size], sums[part:-1], strict=True)
        variance = sum([(end - begin - mean) ** 2 for begin, end in parts]) / size
        return known >= LEAST and variance >= CHANCE * mean + UNEVEN * mean**2

    def _likely(self, number: int) -> float:
        """How likely messages are in a bin, which may be of a later beat: the mean of it and its two neighbours."""
        bins, at = self.bins, number % len(self.bins)
        return (bins[at - 1] + bins[at] + bins[at + 1 - len(bins)]) / 3


def _until(wait: float, came: float, rate: float) -> float:
    """The seconds until messages have waited for so long in all: those that came, and those that come at a rate."""
    if not rate:
        return wait / came
    return (math.sqrt(came**2 + 2 * rate * wait) - came) / rate
