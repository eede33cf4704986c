"""How fast a source is polled: the delay before the next poll, and the polls in flight. Pure."""

import random
from collections.abc import Callable

import msgspec

from poller.core.model import ParsedPage, PollOutcome
from poller.pipeline.beat import Beat

FAILURES = frozenset({PollOutcome.FAILED, PollOutcome.UNCERTAIN, PollOutcome.THROTTLED, PollOutcome.REFUSED})
LONGEST_FAILURE_DELAY = 60.0
REFUSED_DELAY = 5.0
LONGEST_STEP = 0.45
"""The most seconds between two polls in a burst, unless `min_delay` is longer. Half of its messages then wait for less
than a quarter of a second, the time of an answer included."""
ONCE_A_MINUTE = 60.0
NOTHING_CAME = 3
"""The number of polls of a destructive source that were sent and brought no message. From this number on, the source
is polled once a minute until an answer is good: each such poll may have removed messages that nobody will see."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast to poll: the seconds until the next poll, and how many polls may be in flight (`lanes`).

    `backoff` is what the next empty answer doubles. It is the delay, except where the beat says how long to wait.
    """

    min_delay: float
    max_delay: float
    max_in_flight: int
    delay: float = 0.0
    backoff: float = 0.0
    beat: Beat | None = None
    lanes: int = 1
    failures: int = 0
    expired: bool = False
    destructive: bool = False
    nothing_came: int = 0

    @property
    def careful(self) -> bool:
        """Whether the source is polled once a minute, because too many polls brought nothing."""
        return self.nothing_came >= NOTHING_CAME

    @property
    def step(self) -> float:
        """The seconds from one poll to the next in a burst: twice `min_delay`, but at most `LONGEST_STEP`."""
        return min(max(self.min_delay, min(2 * self.min_delay, LONGEST_STEP)), self.max_delay)


def next_pace(
    pace: Pace,
    reading: ParsedPage,
    jitter: Callable[[], float] = random.random,
    *,
    asked: float,
    now: float,
) -> Pace:
    """The pace after a reading of the answer to a poll that was sent at `asked`. Both times are of the monotonic clock.

    - A full answer: poll at once, with one more lane.
    - A partial answer: one lane, `min_delay`.
    - An empty answer: one lane, and the delay doubles up to `max_delay`.
    - A failure: the delay doubles from `max_delay` (from at least 5 s after a refusal) to 60 s, with full jitter above
      `min_delay`.
    - An expired signature: poll once more at once.
    - Three polls of a destructive source that were sent and brought nothing: once a minute.

    A good answer resets the failures. If messages come in bursts, `_follow_beat` corrects the pace after it.
    """
    outcome = reading.outcome
    if outcome in FAILURES:
        return _after_failure(pace, reading, jitter)
    calm = msgspec.structs.replace(pace, failures=0, expired=False, nothing_came=0, lanes=1)
    if outcome is PollOutcome.FULL:
        lanes = min(pace.lanes + 1, pace.max_in_flight)
        after = msgspec.structs.replace(calm, delay=0.0, backoff=0.0, lanes=lanes)
    elif outcome is PollOutcome.PARTIAL:
        after = msgspec.structs.replace(calm, delay=pace.min_delay, backoff=pace.min_delay)
    else:
        doubled = max(pace.min_delay, 0.0 if pace.failures else pace.backoff * 2)
        doubled = min(doubled, pace.max_delay)
        after = msgspec.structs.replace(calm, delay=doubled, backoff=doubled)
    return _follow_beat(after, reading, asked, now, again=pace.delay == 0.0)


def _follow_beat(pace: Pace, reading: ParsedPage, asked: float, now: float, *, again: bool) -> Pace:
    """The pace after a good answer, corrected by what is known of the beat, if messages come in bursts.

    - A partial answer: a `step` after the last poll. Later delays double from there.
    - An empty answer: when the beat says that a poll is due, but at least a `step` after the last poll.
    - A full answer during a burst: poll at once, with the same lane. What it left is often no more than the next answer
      holds, and another lane would come back empty. A second full answer (`again`) opens lanes as without a beat.
    """
    if pace.beat is None:
        return pace
    full = reading.outcome is PollOutcome.FULL
    beat = pace.beat.note(asked, len(reading.events) + len(reading.rejects), full=full)
    pace = msgspec.structs.replace(pace, beat=beat)
    due = beat.due(asked)
    if due is None:
        return pace
    if full:
        return pace if again or due > pace.step else msgspec.structs.replace(pace, lanes=1)
    pause = pace.step if reading.outcome is PollOutcome.PARTIAL else max(pace.step, due)
    delay = min(max(pace.min_delay, asked + pause - now), pace.max_delay)
    return msgspec.structs.replace(pace, delay=delay, backoff=pace.step)


def _after_failure(pace: Pace, reading: ParsedPage, jitter: Callable[[], float]) -> Pace:
    if reading.expired and not pace.expired:
        return msgspec.structs.replace(pace, lanes=1, delay=0.0, backoff=0.0, expired=True)
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
