"""What becomes of a delivery that failed: one pure function."""

import math
import random
from collections.abc import Callable, Mapping, Sequence

import msgspec

from poller.core.errors import Rejected, SinkError, TryLater
from poller.core.model import Dead, Delivery, Done, Outcome, Retry

LONGEST_WAIT = 3600.0
"""Seconds that a `Retry-After` may ask for at most."""
SAME_WAIT = 1.25
"""Waits that differ by a smaller factor may end together, at the later of them."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait and when to give up; all in seconds.

    `longest_wait` bounds what a `Retry-After` may ask for. `jitter` gives a factor from 0 to 1.
    """

    give_up_after: float
    first_wait: float = 1.0
    longest_backoff: float = 300.0
    longest_wait: float = LONGEST_WAIT
    jitter: Callable[[], float] = random.random


def judge(error: Exception | None, attempt: int, age: float, policy: RetryPolicy) -> Outcome:
    """Make one outcome of an attempt: its error, its number from 1, and the seconds since the first one."""
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
    deliveries: Sequence[Delivery],
    failures: Mapping[str, Exception],
    attempt: int,
    age: float,
    policy: RetryPolicy,
) -> list[Outcome]:
    """The outcomes of a batch of which some failed, each by its own error. One backoff holds for all of them."""
    drawn = policy.jitter()
    policy = msgspec.structs.replace(policy, jitter=lambda: drawn)
    return [judge(failures.get(delivery.event.id), attempt, age, policy) for delivery in deliveries]


def step_of(wait: float) -> int:
    """Waits of one step end together, so that a thousand different ones in a batch are some forty groups."""
    return 0 if wait < 1.0 else 1 + math.floor(math.log(wait, SAME_WAIT))


def in_order(deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes of a batch for a sink that keeps streams in order: behind a retry, all of its stream is retried.

    So what is settled of a stream is all that comes before something; a refusal is heard again then.
    """
    if Retry not in set(map(type, outcomes)):
        return list(outcomes)
    waits: dict[tuple[str, str], Retry] = {}
    kept: list[Outcome] = []
    for delivery, outcome in zip(deliveries, outcomes, strict=True):
        stream = delivery.event.stream
        if stream is None:
            kept.append(outcome)
            continue
        if isinstance(outcome, Retry):
            waits.setdefault(stream, outcome)
        kept.append(waits.get(stream, outcome))
    return kept


def backoff(attempt: int, policy: RetryPolicy) -> float:
    """Seconds before the next attempt: exponential, with full jitter (AWS Architecture Blog, 2015)."""
    ceiling = min(policy.longest_backoff, policy.first_wait * 2.0 ** min(attempt - 1, 32))
    return policy.jitter() * ceiling


def describe(error: Exception) -> str:
    """An error in one short line. A foreign exception's text may hold a URL, so only its type is told."""
    if isinstance(error, SinkError):
        return error.reason[:300]
    if isinstance(error, TimeoutError):
        return "timed out"
    return type(error).__name__
