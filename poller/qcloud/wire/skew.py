"""Measures the skew between the platform's clock and ours, from the `Date` headers of answers. Pure.

A `Date` may come from a proxy. So every answer is measured, and a single one is not trusted. Three answers
that agree raise an alarm. The clock is corrected only after an answer `time expired` that the measured skew
explains. A correction that leads to a refusal is dropped, and tried again only if our own clock fares no better.
"""

from functools import lru_cache

import msgspec

from poller.runtime.http_head import read_date

NOTICEABLE = 5.0
CALM = 2.5
AHEAD = 300.0
"""Seconds by which our clock may be ahead without an alarm: signatures live a little longer then, and nothing fails."""
CORRECTABLE = 3600.0
AGREEING = 3
"""The number of answers in a row that must agree before they raise an alarm or change a correction."""
EXPLAINS = 30.0
"""Seconds behind the platform at which a signature that lives for a minute may come too late."""
OLDEST = 86_400 * 366
RIGHT, OFF, CORRECTED, BEYOND = "right", "off", "corrected", "beyond"


class Skew(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds by which the platform's clock is ahead of ours: somewhere from `low` to `high`.

    `state` is `right`, `off` (an alarm, and no correction), `corrected` (up to 1 h) or `beyond` (an alarm, and too
    far for a correction). `correction` is what to add to our clock. A correction that brought a refusal is not
    tried again before `untried` more answers `time expired`: our own clock is then no better.
    """

    low: float = float("-inf")
    high: float = float("inf")
    state: str = RIGHT
    correction: float = 0.0
    agreeing: int = 0
    untried: int = 0

    @property
    def seconds(self) -> float:
        """The measured skew: 0 unless the measurements rule 0 out."""
        if self.low <= 0.0 <= self.high:
            return 0.0
        return (self.low + self.high) / 2


def learn_date(skew: Skew, *, sent: float, received: float, date: str | None, age: str | None = None) -> Skew:
    """The skew after one answer's `Date`. `sent` and `received` are our wall clock around the request.

    `Date` has whole seconds (RFC 9110, 5.6.7) and was written at some moment between the two, so one answer
    gives an interval. Intervals that meet sharpen each other; one that does not meet the rest is a clock
    that was set, and replaces them. `Age` tells how long ago a stored answer was written (RFC 9111, 5.1).
    """
    server, old = epoch_of(date), _seconds_of(age)
    if server is None or old is None or received < sent:
        return skew
    low, high = server + old - received, server + old + (2.0 if age else 1.0) - sent
    if max(low, skew.low) <= min(high, skew.high):
        low, high = max(low, skew.low), min(high, skew.high)
        found = msgspec.structs.replace(skew, low=low, high=high, agreeing=skew.agreeing + 1)
    else:
        found = msgspec.structs.replace(skew, low=low, high=high, agreeing=1, untried=0)
    return _settle(found) if found.agreeing >= AGREEING else found


def learn_refusal(skew: Skew, *, expired: bool) -> Skew:
    """The skew after a refusal. `expired`: the refusal says that the signature has expired.

    The `Date` of the refusal has been taken into account before.
    """
    missing = skew.seconds - skew.correction
    if expired and missing > EXPLAINS and 0 < skew.seconds <= CORRECTABLE:
        if skew.untried:
            return msgspec.structs.replace(skew, untried=skew.untried - 1)
        return msgspec.structs.replace(skew, correction=skew.seconds, state=CORRECTED)
    if not skew.correction:
        return skew
    return _settle(msgspec.structs.replace(skew, correction=0.0, untried=AGREEING))


def _settle(skew: Skew) -> Skew:
    """Derive the state from several answers. A correction follows the measured skew, but never beyond an hour."""
    seconds = skew.seconds
    correction = seconds if skew.correction and CALM < seconds <= CORRECTABLE else 0.0
    return msgspec.structs.replace(skew, correction=correction, state=_state(seconds, correction, skew.state))


def _state(seconds: float, correction: float, before: str) -> str:
    if abs(seconds) > CORRECTABLE:
        return BEYOND
    if correction:
        return CORRECTED
    calm = before == RIGHT
    behind = seconds > (NOTICEABLE if calm else CALM)
    ahead = seconds < -(AHEAD if calm else AHEAD - NOTICEABLE)
    return OFF if behind or ahead else RIGHT


def _seconds_of(age: str | None) -> int | None:
    """The seconds of an `Age` header; 0 without a header, None for an unreadable one."""
    if age is None:
        return 0
    text = age.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= OLDEST else None


@lru_cache(16)  # all answers of a second have the same text
def epoch_of(date: str | None) -> float | None:
    """Return the epoch of an HTTP date; None for a missing, unreadable or unrepresentable one."""
    moment = None if date is None else read_date(date)
    return None if moment is None else moment.timestamp()
