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
    If messages came evenly, each bin would hold an even share of them, with some scatter. A bin that holds clearly
    more is busy. A bin that holds clearly less, and less than one message, is quiet. Messages that come evenly make no
    bin busy or quiet, and neither do fewer than three messages.
"""

import math
from itertools import accumulate
from typing import NamedTuple, Self

import msgspec

BIN = 0.25
"""Seconds in a bin, about."""
KEEP = 0.8
"""What is left of a bin each time that the clock enters it."""
LEAST = 3.0
"""The number of messages below which nothing is known."""
SMOOTH = 3
"""A bin is judged by the mean of so many bins, itself in the middle."""
BUSY_SHARE, BUSY = 1.25, 2.0
"""A bin is busy from this multiple of its even share on, and so many standard deviations more."""
QUIET = 0.8
"""How many standard deviations below its even share a bin is quiet. A false quiet bin costs little: it is short."""
QUIET_AT_MOST = 1.0
"""The number of messages from which on a bin is not quiet, however many there are elsewhere."""
SURPRISE = 0.1
"""How likely messages are where none are known, as a share of the mean bin."""
MANY = 1 / 3
"""This share of the messages of a beat is many."""


class Forecast(NamedTuple):
    """What is known of the time from now on. Nothing is known by default."""

    busy: bool = False
    """Whether a burst is on."""
    quiet_for: float = 0.0
    """The seconds to the end of the first bin in which messages may come again: a poll before would find none. 0 if
    they may come in the next bin."""
    busy_in: float = math.inf
    """The seconds until the next burst."""
    many_in: float = math.inf
    """The seconds until many messages of a beat have come, burst or not. A longer pause would not tell when they came.
    Infinite where no time is quiet."""


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
        likely, surprise = self._smooth(), SURPRISE * sum(self.bins) / len(bins) or 1.0
        shares = [
            (min(until, (number + 1) * width) - max(since, number * width))
            * (likely[number % len(bins)] + surprise)
            for number in numbers
        ]
        whole = sum(shares)
        for number, share in zip(numbers, shares, strict=True):
            bins[number % len(bins)] += count * (share / whole if whole else 1 / len(shares))

    def forecast(self, now: float) -> Forecast:
        """What is known of the time from `now` on."""
        size, known = len(self.bins), sum(self.bins)
        if known < LEAST:
            return Forecast()
        even = known / size
        deviation = math.sqrt(even / SMOOTH)
        busy_from = even * BUSY_SHARE + BUSY * deviation
        quiet_below = min(even - QUIET * deviation, QUIET_AT_MOST)
        here = int(now / self._width)
        smooth = self._smooth()
        ahead = smooth[here % size :] + smooth[: here % size]
        busy = [held >= busy_from for held in ahead]
        quiet = [held < quiet_below for held in ahead]
        return Forecast(
            busy=busy[0],
            quiet_for=self._begin(here, quiet.index(False, 1) + 1, now) if quiet[1] else 0.0,
            busy_in=self._begin(here, busy.index(True, 1), now) if any(busy[1:]) else math.inf,
            many_in=(here + _until_many(ahead)) * self._width - now if any(quiet) else math.inf,
        )

    def _smooth(self) -> list[float]:
        """For each bin the mean of the bin and its neighbours."""
        around = (self.bins[-1], *self.bins, self.bins[0])
        return [sum(around[number : number + SMOOTH]) / SMOOTH for number in range(len(self.bins))]

    def _begin(self, here: int, ahead: int, now: float) -> float:
        """The seconds until a bin begins that is so many bins ahead. One bin more undoes what the smoothing spreads."""
        return (here + ahead + 1) * self._width - now


def _until_many(ahead: list[float]) -> int:
    """The number of bins, from the first one on, that hold many of all messages."""
    many = sum(ahead) * MANY
    return next(number for number, held in enumerate(accumulate(ahead), 1) if held >= many)
