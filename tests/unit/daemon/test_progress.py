"""How a backlog that is worked off is reported."""

import asyncio
from collections.abc import Mapping

import structlog

from poller.daemon.progress import progress, report_progress
from tests.patience import patiently


def test_a_backlog_that_shrinks_has_a_rate_and_an_end() -> None:
    assert progress(3_000, 1_000, 10.0, 1) == {"left": 1_000, "per_second": 200.0, "seconds_left": 5}


def test_a_backlog_that_grows_or_stands_or_is_small_is_not_reported() -> None:
    assert progress(1_000, 1_000, 10.0, 1) == progress(1_000, 2_000, 10.0, 1) == {}
    assert progress(1_000, 0, 10.0, 1) == progress(12_000, 9_999, 10.0, 10_000) == {}


async def test_each_sink_that_catches_up_has_a_line() -> None:
    looks = iter([{"hook": 900, "archive": 5}, {"hook": 600, "archive": 7}])
    over = asyncio.Event()

    async def backlogs() -> Mapping[str, int]:
        try:
            return next(looks)
        except StopIteration:
            over.set()
            return {}

    with structlog.testing.capture_logs() as lines:
        reporting = asyncio.ensure_future(report_progress(backlogs, 0.001, 1))
        await patiently(over.wait())
        reporting.cancel()
    assert [(line["event"], line["sink"], line["left"]) for line in lines] == [("catching_up", "hook", 600)]
