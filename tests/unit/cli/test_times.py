"""Times as options of commands."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import typer

from poller.cli.times import moment, show_time, span

EIGHT = datetime(2026, 11, 22, 8, tzinfo=UTC)


@pytest.fixture(autouse=True)
def in_shanghai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_time_is_local_or_utc_as_the_option_says() -> None:
    assert moment("2026-11-22 16:00", "--since", utc=False) == EIGHT
    assert moment("2026-11-22 08:00", "--since", utc=True) == EIGHT
    assert moment("2026-11-22T09:00:00+01:00", "--since", utc=False) == EIGHT
    assert show_time(EIGHT, utc=False) == "2026-11-22 16:00:00"
    assert show_time(EIGHT, utc=True) == "2026-11-22T08:00:00Z"
    assert show_time(datetime.max.replace(tzinfo=UTC), utc=False).startswith("9999-12-31T23:59:59")


@pytest.mark.parametrize("age", ["250ms", "90s", "2h", "1.5d"])
def test_an_age_is_a_time(age: str) -> None:
    seconds = {"250ms": 0.25, "90s": 90, "2h": 7_200, "1.5d": 129_600}[age]
    assert abs(
        datetime.now(UTC) - moment(age, "--since", utc=False) - timedelta(seconds=seconds)
    ) < timedelta(seconds=5)


@pytest.mark.parametrize("text", ["soon", "", "9999999d", "25:00"])
def test_a_bad_time_is_a_usage_error_that_names_the_option_and_the_forms(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"10:03.*RFC 3339.*2h") as raised:
        moment(text, "--until", utc=False)
    assert raised.value.param_hint == "--until"
    assert raised.value.exit_code == 2


def test_a_span_has_both_ends_or_either_or_none() -> None:
    assert span(None, None, utc=False) == (None, None)
    assert span("2026-11-22 16:00", None, utc=False) == (EIGHT, None)
    assert span("2026-11-22 08:00", "2026-11-22 08:00", utc=True) == (EIGHT, EIGHT)


def test_a_span_that_ends_before_it_begins_is_a_usage_error() -> None:
    with pytest.raises(typer.BadParameter, match="is after --until") as raised:
        span("1h", "2h", utc=False)
    assert raised.value.param_hint == "--since"
