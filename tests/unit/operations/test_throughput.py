"""Rates and the time to catch up, from samples."""

import pytest

from poller.core.history import Book, Tally
from poller.core.model import Backlog
from poller.operations.throughput import Throughput
from poller.testing import START, ManualClock


def sample(throughput: Throughput, taken: int, pending: int) -> None:
    tallies = [
        Tally(owner="shots", book=Book.TAKEN, count=taken, at=START),
        Tally(owner="hook", book=Book.DELIVERED, count=taken - pending, at=START),
    ]
    throughput.sample(tallies, {"hook": Backlog(events=pending, retrying=0, dead=0, oldest=None)})


def test_a_rate_is_that_of_the_last_minute() -> None:
    clock = ManualClock()
    throughput = Throughput(clock)
    sample(throughput, 1_000, 0)
    assert throughput.per_second("shots", Book.TAKEN) is None
    for second in range(10, 200, 10):
        clock.pass_time(10)
        sample(throughput, 1_000 + 100 * second if second <= 100 else 11_000 + 5 * (second - 100), 0)
    assert throughput.per_second("shots", Book.TAKEN) == pytest.approx(5)
    assert throughput.per_second("another", Book.TAKEN) == 0


def test_samples_that_come_fast_are_not_kept() -> None:
    clock = ManualClock()
    throughput = Throughput(clock)
    for taken in range(100):
        sample(throughput, taken, 0)
        clock.pass_time(0.1)
    assert throughput.per_second("shots", Book.TAKEN) == pytest.approx(10)


def test_the_time_to_catch_up_is_the_backlog_by_what_it_shrinks() -> None:
    clock = ManualClock()
    throughput = Throughput(clock)
    sample(throughput, 10_000, 9_000)
    assert throughput.catch_up("hook", 9_000) is None
    clock.pass_time(10)
    sample(throughput, 11_000, 8_000)
    assert throughput.catch_up("hook", 8_000) == pytest.approx(80)
    assert throughput.per_second("hook", Book.DELIVERED) == pytest.approx(200)
    assert throughput.catch_up("hook", 0) == 0
    assert throughput.catch_up("new", 5) is None
    clock.pass_time(10)
    sample(throughput, 15_000, 9_500)
    assert throughput.catch_up("hook", 9_500) is None, "it grows"


def test_a_small_steady_backlog_is_no_falling_behind() -> None:
    """A download waits up to 15 s for each upload, so some pictures are always pending."""
    clock = ManualClock()
    throughput = Throughput(clock)
    sample(throughput, 1_000, 15)
    clock.pass_time(10)
    sample(throughput, 1_010, 15)
    assert throughput.catch_up("hook", 15) == pytest.approx(15)
    clock.pass_time(10)
    sample(throughput, 1_020, 40)
    assert throughput.catch_up("hook", 40) is None, "more than half a minute's deliveries"
