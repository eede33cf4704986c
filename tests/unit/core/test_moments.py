"""Moments as people write them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from poller.core.moments import parse_end, parse_moment

NOW = datetime(2026, 11, 22, 12, 30, 15, 500_000, UTC)
SHANGHAI = ZoneInfo("Asia/Shanghai")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10:03", datetime(2026, 11, 22, 10, 3, tzinfo=UTC)),
        ("10:03:20", datetime(2026, 11, 22, 10, 3, 20, tzinfo=UTC)),
        ("23:00", datetime(2026, 11, 21, 23, 0, tzinfo=UTC)),
        ("12:30:15", datetime(2026, 11, 22, 12, 30, 15, tzinfo=UTC)),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-22 10:03", datetime(2026, 11, 22, 10, 3, tzinfo=UTC)),
        ("2026-11-22T10:03:04Z", datetime(2026, 11, 22, 10, 3, 4, tzinfo=UTC)),
        ("2026-11-22T10:03:04.25+08:00", datetime(2026, 11, 22, 2, 3, 4, 250_000, UTC)),
        ("2h", NOW - timedelta(hours=2)),
        (" 1.5d ", NOW - timedelta(days=1.5)),
        ("250ms", NOW - timedelta(milliseconds=250)),
        ("0s", NOW),
    ],
)
def test_each_form_means_one_moment(text: str, expected: datetime) -> None:
    assert parse_moment(text, NOW, UTC) == expected


def test_a_bare_time_is_in_the_zone_and_never_in_the_future() -> None:
    assert parse_moment("20:30", NOW, SHANGHAI) == datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
    assert parse_moment("20:31", NOW, SHANGHAI) == datetime(2026, 11, 21, 12, 31, tzinfo=UTC)
    assert parse_moment("2026-11-22 08:00", NOW, SHANGHAI) == datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "10",
        "1003",
        "25:00",
        "10:60",
        "2026-13-01",
        "2h ago",
        "-2h",
        "2w",
        "9999999999s",
        "999999999d",
        "nan",
    ],
)
def test_any_other_text_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="10:03"):
        parse_moment(text, NOW, UTC)


@pytest.mark.parametrize(
    ("now", "since", "until", "expected"),
    [
        ("10:15", "10:00", "10:30", "2026-11-22 10:30"),  # still ahead
        ("11:00", "10:00", "10:30", "2026-11-22 10:30"),
        ("10:15", None, "10:30", "2026-11-21 10:30"),
        ("09:00", "11:00", "10:00", "2026-11-22 10:00"),
        ("12:00", "11:00", "10:00", "2026-11-22 10:00"),  # before the beginning, which the caller refuses
        ("10:15", "10:00", "1h", "2026-11-22 09:15"),
    ],
)
def test_a_time_of_day_that_ends_a_span_may_be_ahead_today(
    now: str, since: str | None, until: str, expected: str
) -> None:
    at = parse_moment(f"2026-11-22 {now}", datetime.now(UTC), UTC)
    begin = None if since is None else parse_moment(since, at, UTC)
    assert parse_end(until, begin, at, UTC) == parse_moment(expected, at, UTC)
