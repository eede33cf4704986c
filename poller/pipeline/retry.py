"""The decision after an attempt: done, retry or dead letter. Pure functions."""

import random
from collections.abc import Callable, Mapping, Sequence

import msgspec

from poller.core.errors import LONGEST_WAIT, Rejected, SinkError, TryLater
from poller.core.model import Dead, Done, Event, Outcome, Retry


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait and when to give up; all in seconds.

    `longest_wait` is the upper limit for a `Retry-After`. `jitter` returns a factor from 0 to 1.
    """

    give_up_after: float
    first_wait: float = 1.0
    longest_backoff: float = 300.0
    longest_wait: float = LONGEST_WAIT
    jitter: Callable[[], float] = random.random


def judge(error: Exception | None, attempt: int, age: float, policy: RetryPolicy) -> Outcome:
    """The outcome of an attempt. `attempt` counts from 1; `age` is the time in seconds since the first attempt."""
    if error is None:
        return Done()
    reason = describe(error)
    if isinstance(error, Rejected):
        return Dead(reason=reason)
    if age >= policy.give_up_after:
        return Dead(reason=f"given up after {attempt} attempts: {reason}")
    if isinstance(error, TryLater) and error.after is not None:
        return Retry(after=min(max(error.after, 0.0), policy.longest_wait), reason=reason, counted=False)
    return Retry(after=backoff(attempt, policy), reason=reason)


def judge_each(
    events: Sequence[Event],
    failures: Mapping[str, Exception],
    attempt: int,
    age: float,
    policy: RetryPolicy,
) -> list[Outcome]:
    """The outcomes of a batch whose deliveries partly failed, each from its own error. All share one random backoff."""
    drawn = policy.jitter()
    policy = msgspec.structs.replace(policy, jitter=lambda: drawn)
    return [judge(failures.get(event.id), attempt, age, policy) for event in events]


def backoff(attempt: int, policy: RetryPolicy) -> float:
    """Seconds before the next attempt: exponential, with full jitter (AWS Architecture Blog, 2015)."""
    ceiling = min(policy.longest_backoff, policy.first_wait * 2.0 ** min(attempt - 1, 32))
    return policy.jitter() * ceiling


def describe(error: Exception) -> str:
    """An error in one short line. Only the type of a foreign exception is shown, because its text may hold a URL."""
    if isinstance(error, SinkError):
        return error.reason[:300]
    if isinstance(error, TimeoutError):
        return "timed out"
    return type(error).__name__
