"""What becomes of a failed delivery: a table."""

import pytest

from poller.core.errors import Gone, Rejected, TryLater
from poller.core.model import Dead, Done, Outcome, Retry
from poller.pipeline.retry import RetryPolicy, backoff, describe, judge, judge_each
from poller.testing import some_batch, some_event

DAY = 86400.0
POLICY = RetryPolicy(give_up_after=3 * DAY, jitter=lambda: 1.0)


def asked(after: float) -> Retry:
    """A wait that the other side asked for: no attempt that failed."""
    return Retry(after=after, reason="HTTP 429", counted=False)


@pytest.mark.parametrize(
    ("error", "attempt", "age", "outcome"),
    [
        (None, 1, 0.0, Done()),
        (None, 99, 9 * DAY, Done()),
        (Rejected("HTTP 400"), 1, 0.0, Dead(reason="HTTP 400")),
        (TryLater("HTTP 503"), 1, 0.0, Retry(after=1.0, reason="HTTP 503")),
        (TryLater("HTTP 503"), 4, 10.0, Retry(after=8.0, reason="HTTP 503")),
        (TryLater("HTTP 503"), 1000, 10.0, Retry(after=300.0, reason="HTTP 503")),
        (TryLater("HTTP 429", after=7.5), 3, 10.0, asked(7.5)),
        (TryLater("HTTP 429", after=0.0), 3, 10.0, asked(0.0)),
        (TryLater("HTTP 429", after=-5.0), 3, 10.0, asked(0.0)),
        (TryLater("HTTP 429", after=10 * 365 * DAY), 3, 10.0, asked(3600.0)),
        (TryLater("HTTP 503"), 9, 3 * DAY - 1, Retry(after=256.0, reason="HTTP 503")),
        (TryLater("HTTP 503"), 9, 3 * DAY, Dead(reason="given up after 9 attempts: HTTP 503")),
        (TryLater("HTTP 429", after=7.5), 9, 3 * DAY, Dead(reason="given up after 9 attempts: HTTP 429")),
        (TimeoutError(), 2, 1.0, Retry(after=2.0, reason="timed out")),
        (ValueError("http://host/?sign=abc"), 1, 0.0, Retry(after=1.0, reason="ValueError")),
    ],
)
def test_an_attempt_has_one_outcome(
    error: Exception | None, attempt: int, age: float, outcome: Outcome
) -> None:
    assert judge(error, attempt, age, POLICY) == outcome


def test_backoff_has_full_jitter() -> None:
    low = RetryPolicy(give_up_after=1.0, jitter=lambda: 0.0)
    half = RetryPolicy(give_up_after=1.0, jitter=lambda: 0.5)
    assert backoff(7, low) == 0.0
    assert backoff(7, half) == 32.0


def test_one_backoff_holds_for_all_that_failed_in_one_batch() -> None:
    drawn = iter([0.25, 0.5, 0.75])
    policy = RetryPolicy(give_up_after=DAY, jitter=lambda: next(drawn))
    events = [some_event(number) for number in range(4)]
    failures = {event.id: TryLater("no", after=9.0 if event is events[2] else None) for event in events[1:]}
    assert judge_each(some_batch(*events).events, failures, 3, 0.0, policy) == [
        Done(),
        Retry(after=1.0, reason="no"),
        Retry(after=9.0, reason="no", counted=False),
        Retry(after=1.0, reason="no"),
    ]


def test_a_foreign_exceptions_text_is_not_reported() -> None:
    assert describe(RuntimeError("key=5d41402abc4b2a76b9719d911017c592")) == "RuntimeError"
    assert describe(Gone("HTTP 410")) == "HTTP 410"
