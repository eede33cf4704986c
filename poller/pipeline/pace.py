"""How fast a source is polled: the delay before the next poll, and the polls in flight. Pure."""

import random
from collections.abc import Callable

import msgspec

from poller.core.model import ParsedPage, PollOutcome

FAILURES = frozenset({PollOutcome.FAILED, PollOutcome.UNCERTAIN, PollOutcome.THROTTLED, PollOutcome.REFUSED})
LONGEST_FAILURE_DELAY = 60.0
REFUSED_DELAY = 5.0
ONCE_A_MINUTE = 60.0
NOTHING_CAME = 3
"""The number of polls of a destructive source that were sent and brought no message. From this number on, the source
is polled once a minute until an answer is good: each such poll may have removed messages that nobody will see."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast to poll: the seconds until the next poll, and how many polls may be in flight (`lanes`)."""

    min_delay: float
    max_delay: float
    max_in_flight: int
    delay: float = 0.0
    lanes: int = 1
    failures: int = 0
    expired: bool = False
    destructive: bool = False
    nothing_came: int = 0

    @property
    def careful(self) -> bool:
        """Whether the source is polled once a minute, because too many polls brought nothing."""
        return self.nothing_came >= NOTHING_CAME


def next_pace(pace: Pace, reading: ParsedPage, jitter: Callable[[], float] = random.random) -> Pace:
    """The pace after a reading.

    - A full answer: poll at once, with one more lane.
    - A partial answer: one lane, `min_delay`.
    - An empty answer: one lane, and the delay doubles up to `max_delay`.
    - A failure: the delay doubles from `max_delay` (from at least 5 s after a refusal) to 60 s, with full jitter above
      `min_delay`.
    - An expired signature: poll once more at once.
    - Three polls of a destructive source that were sent and brought nothing: once a minute.

    A good answer resets the failures.
    """
    outcome = reading.outcome
    if outcome in FAILURES:
        return _after_failure(pace, reading, jitter)
    calm = msgspec.structs.replace(pace, failures=0, expired=False, nothing_came=0, lanes=1)
    if outcome is PollOutcome.FULL:
        return msgspec.structs.replace(calm, delay=0.0, lanes=min(pace.lanes + 1, pace.max_in_flight))
    if outcome is PollOutcome.PARTIAL:
        return msgspec.structs.replace(calm, delay=pace.min_delay)
    doubled = max(pace.min_delay, 0.0 if pace.failures else pace.delay * 2)
    return msgspec.structs.replace(calm, delay=min(doubled, pace.max_delay))


def _after_failure(pace: Pace, reading: ParsedPage, jitter: Callable[[], float]) -> Pace:
    if reading.expired and not pace.expired:
        return msgspec.structs.replace(pace, lanes=1, delay=0.0, expired=True)
    first = pace.max_delay
    if reading.outcome is PollOutcome.REFUSED:
        first = max(first, REFUSED_DELAY)
    ceiling = min(first * 2.0 ** min(pace.failures, 32), LONGEST_FAILURE_DELAY)
    delay = pace.min_delay + jitter() * max(0.0, ceiling - pace.min_delay)
    nothing = reading.blank or (reading.outcome is PollOutcome.UNCERTAIN and not reading.events)
    nothing = nothing and pace.destructive
    after = msgspec.structs.replace(
        pace, lanes=1, failures=pace.failures + 1, nothing_came=pace.nothing_came + nothing
    )
    return msgspec.structs.replace(after, delay=ONCE_A_MINUTE if after.careful else delay)
