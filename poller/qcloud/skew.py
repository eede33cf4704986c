"""How far this machine's clock is from the platform's, measured from the `Date` of its answers. Pure."""

from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

NOTICEABLE = 5.0
CALM = 2.5
CORRECTABLE = 3600.0
RIGHT, CORRECTED, BEYOND = "right", "corrected", "beyond"


class Skew(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds by which the platform's clock is ahead of ours: somewhere from `low` to `high`.

    `state` is `right` (up to 5 s), `corrected` (up to 1 h) or `beyond` (an alarm, and no correction).
    """

    low: float = float("-inf")
    high: float = float("inf")
    state: str = RIGHT

    @property
    def seconds(self) -> float:
        """The measured skew: 0 unless the measurements rule 0 out."""
        if self.low <= 0.0 <= self.high:
            return 0.0
        return (self.low + self.high) / 2

    @property
    def correction(self) -> float:
        """What to add to our clock; 0 beyond one hour, so that no `Date` mints a long-lived signature."""
        return 0.0 if self.state == BEYOND else self.seconds


def measured(skew: Skew, *, sent: float, received: float, date: str | None) -> Skew:
    """Take one answer's `Date` into account; `sent` and `received` are our wall clock around the request.

    `Date` has whole seconds (RFC 9110, 5.6.7) and was written at some moment between the two, so one answer
    gives an interval. Intervals that meet sharpen each other; one that does not meet the rest is a clock
    that was set, and replaces them.
    """
    server = epoch_of(date)
    if server is None or received < sent:
        return skew
    low, high = server - received, server + 1.0 - sent
    if max(low, skew.low) <= min(high, skew.high):
        low, high = max(low, skew.low), min(high, skew.high)
    found = Skew(low=low, high=high)
    return Skew(low=low, high=high, state=_state(abs(found.seconds), skew.state))


def epoch_of(date: str | None) -> float | None:
    """Return the epoch of an HTTP date; None for a missing, unreadable or unrepresentable one."""
    if date is None or len(date) > 64:
        return None
    try:
        moment = parsedate_to_datetime(date)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _state(size: float, before: str) -> str:
    if size > CORRECTABLE:
        return BEYOND
    threshold = NOTICEABLE if before == RIGHT else CALM
    return CORRECTED if size > threshold else RIGHT
