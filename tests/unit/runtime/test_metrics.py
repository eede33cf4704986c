"""The metrics beyond those of the library: delays of whole pages, streams by state, series that begin at 0."""

import time
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from poller.runtime.delay_histogram import DelayHistogram
from poller.runtime.metrics import Metrics

BOUNDS = (0.5, 1, 10)
MICROSECOND = 1e-6


def delays(*seconds: float) -> list[timedelta]:
    return [timedelta(seconds=one) for one in seconds]


def test_a_whole_page_is_counted_as_if_each_delay_came_alone() -> None:
    registry = CollectorRegistry()
    whole = DelayHistogram("whole", "All at once.", BOUNDS, "account", registry)
    single = Histogram("single", "One by one.", ["account"], registry=registry, buckets=BOUNDS)
    for page in ((3.0, 0.25, 0.5, 20.0, 1.0, 0.875), (), (10.0, 10.5), (0.0,)):
        whole.observe("main", delays(*page))
        for one in page:
            single.labels("main").observe(one)
    lines = generate_latest(registry).decode().splitlines()
    assert [line for line in lines if line.startswith("whole_")]
    assert [line.removeprefix("whole_") for line in lines if line.startswith("whole_")] == [
        line.removeprefix("single_")
        for line in lines
        if line.startswith("single_") and not line.startswith("single_created")
    ]


def test_a_picture_of_a_fast_clock_is_not_older_than_now() -> None:
    registry = CollectorRegistry()
    whole = DelayHistogram("whole", "All at once.", BOUNDS, "account", registry)
    whole.observe("main", delays(-5.0, 2.0, -1.0))
    assert registry.get_sample_value("whole_sum", {"account": "main"}) == 2.0
    assert registry.get_sample_value("whole_count", {"account": "main"}) == 3
    assert registry.get_sample_value("whole_bucket", {"account": "main", "le": "0.5"}) == 2


def test_the_delays_of_a_page_cost_less_than_half_a_microsecond_each() -> None:
    """A tenth of a microsecond on a machine that is free: `docs/figures.md`."""
    whole = DelayHistogram("whole", "All at once.", BOUNDS, "account", CollectorRegistry())
    page = delays(*(number * 37 % 100 / 7 for number in range(100)))
    best = min(_cost(whole, page) for _ in range(20))
    assert best / len(page) < 0.5 * MICROSECOND


def _cost(whole: DelayHistogram, page: list[timedelta]) -> float:
    begun = time.thread_time()
    for _ in range(100):
        whole.observe("main", page)
    return (time.thread_time() - begun) / 100


def test_series_begin_at_0_and_none_says_when_it_was_created() -> None:
    metrics = Metrics()
    metrics.declare_account("main")
    metrics.declare_source("main", "shots")
    metrics.declare_sink("hook")
    page = generate_latest(metrics.registry).decode()
    for series in (
        'poller_picture_lag_seconds_count{account="main"} 0.0',
        'poller_poll_seconds_count{account="main",source="shots"} 0.0',
        'poller_delivery_seconds_count{sink="hook"} 0.0',
    ):
        assert series in page.splitlines()
    assert "_created" not in page


@pytest.mark.parametrize("gone", [("main", "live"), ("other", "late")])
def test_a_state_that_is_not_counted_any_more_is_forgotten(gone: tuple[str, str]) -> None:
    metrics = Metrics()
    metrics.count_streams({("main", "live"): 3, ("other", "late"): 1})
    metrics.count_streams({labels: 2 for labels in (("main", "live"), ("other", "late")) if labels != gone})
    found = {
        (sample.labels["account"], sample.labels["state"]): sample.value
        for family in metrics.streams.collect()
        for sample in family.samples
    }
    assert found == {labels: 2 for labels in (("main", "live"), ("other", "late")) if labels != gone}
