"""What becomes of a failed delivery: a table."""

import pytest

from poller.errors import Gone, Rejected, TryLater
from poller.model import Dead, Done, Outcome, Retry
from poller.retry import RetryPolicy, backoff, describe, judge

DAY = 86400.0
POLICY = RetryPolicy(give_up_after=3 * DAY, jitter=lambda: 1.0)


@pytest.mark.parametrize(
    ("error", "attempt", "age", "outcome"),
    [
        (None, 1, 0.0, Done()),
        (None, 99, 9 * DAY, Done()),
        (Rejected("HTTP 400"), 1, 0.0, Dead(reason="HTTP 400")),
        (TryLater("HTTP 503"), 1, 0.0, Retry(after=1.0, reason="HTTP 503")),
        (TryLater("HTTP 503"), 4, 10.0, Retry(after=8.0, reason="HTTP 503")),
        (TryLater("HTTP 503"), 1000, 10.0, Retry(after=300.0, reason="HTTP 503")),
        (TryLater("HTTP 429", after=7.5), 3, 10.0, Retry(after=7.5, reason="HTTP 429")),
        (TryLater("HTTP 429", after=0.0), 3, 10.0, Retry(after=0.0, reason="HTTP 429")),
        (TryLater("HTTP 429", after=-5.0), 3, 10.0, Retry(after=0.0, reason="HTTP 429")),
        (TryLater("HTTP 429", after=10 * 365 * DAY), 3, 10.0, Retry(after=3600.0, reason="HTTP 429")),
        (TryLater("HTTP 503"), 9, 3 * DAY - 1, Retry(after=256.0, reason="HTTP 503")),
        (TryLater("HTTP 503"), 9, 3 * DAY, Dead(reason="given up after 9 attempts: HTTP 503")),
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


def test_a_foreign_exceptions_text_is_not_told() -> None:
    assert describe(RuntimeError("key=5d41402abc4b2a76b9719d911017c592")) == "RuntimeError"
    assert describe(Gone("HTTP 410")) == "HTTP 410"
