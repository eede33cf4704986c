"""What `status` prints."""

from datetime import UTC, datetime
from typing import Any

import pytest

from poller.cli import tables
from poller.cli.tables import print_status, shown

SOURCE: dict[str, Any] = {
    "name": "shots",
    "type": "screenshot_queue",
    "state": "polling",
    "last_answer": 0.1,
    "beat_known": True,
    "next_poll": 0.0,
    "trouble": "error 1104: signature expired; the clock of this machine is 700 s behind the platform's",
    "taken": 123_456_789,
    "per_second": 1234.5,
}
SINK: dict[str, Any] = {
    "name": "archive-2",
    "type": "download",
    "state": "disabled",
    "why": "probed after 5 failures in a row: HTTP 503: the service is not available at the moment",
    "last_error": "HTTP 503",
    "last_error_age": 3.0,
    "backlog": 1_234_567,
    "retrying": 10_000,
    "oldest": 90_000.0,
    "dead": 12_345,
    "delivered": 123_456_789,
    "died": 12_345,
    "per_second": 1234.5,
    "catch_up": 86_400.0,
}
STATUS: dict[str, Any] = {
    "running": True,
    "version": "1",
    "pid": 7,
    "reasons": [],
    "notes": [],
    "books": [
        {"owner": "source shots", "book": "possibly_lost", "count": 3, "at": "2026-11-22T10:03:20Z"},
        {"owner": "shots", "book": "taken", "count": 9, "at": "2026-11-22T10:03:20Z"},
    ],
    "spool": {"type": "sqlite", "path": "/srv/spool.db", "bytes": 1, "quarantined": 0, "trouble": None},
    "journal": None,
    "away": None,
    "members": [],
    "sources": [SOURCE],
    "replays": [],
    "sinks": [SINK],
}


def printed(
    capsys: pytest.CaptureFixture[str], source: dict[str, Any] | None = None, **sink: Any
) -> list[str]:
    print_status({**STATUS, "sources": [{**SOURCE, **(source or {})}], "sinks": [{**SINK, **sink}]}, utc=True)
    return capsys.readouterr().out.splitlines()


def test_the_tables_of_sources_and_sinks_fit_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys)
    tables = [line for line in found if line.startswith(("source  ", "shots  ", "sink  ", "archive-2  "))]
    assert len(tables) == 4
    assert max(map(len, tables)) <= 80, tables


def test_counts_rates_and_remarks_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys)
    assert "possibly lost: source shots: 3 since the spool began, last at 2026-11-22T10:03:20Z" in found
    assert f"shots: {SOURCE['trouble']}" in found
    assert f"archive-2: {SINK['why']}" in found
    assert "archive-2: last error: HTTP 503 (3s ago)" in found
    (line,) = [line for line in found if line.startswith("archive-2  ")]
    assert line.split() == [
        "archive-2",
        "disabled",
        "1234567",
        "25h",
        "10000",
        "12345",
        "123456789",
        "1234.5",
        "24h",
    ]


@pytest.mark.parametrize(
    ("known", "due", "says"),
    [
        (True, 3.2, ["shots: polls follow the beat; the next poll is due in 3.2 s"]),
        (
            False,
            3.2,
            ["shots: no beat is known, so pauses grow while nothing comes; the next poll is due in 3.2 s"],
        ),
        (True, 0.0, ["shots: polls follow the beat; the next poll is due now, or waits for its answer"]),
        (None, 3.2, []),
    ],
)
def test_why_a_source_is_not_polled_just_now_is_shown(
    capsys: pytest.CaptureFixture[str], known: bool | None, due: float, says: list[str]
) -> None:
    found = printed(capsys, {"beat_known": known, "next_poll": due})
    assert [line for line in found if "the next poll" in line] == says


def test_a_sink_that_falls_behind_never_catches_up(capsys: pytest.CaptureFixture[str]) -> None:
    for catch_up, rate, backlog, said in ((None, 5.0, 9, "never"), (None, None, 9, "-"), (0.0, 5.0, 0, "0s")):
        found = printed(capsys, catch_up=catch_up, per_second=rate, backlog=backlog)
        assert [line.split()[-1] for line in found if line.startswith("archive-2  ")] == [said]


def test_a_time_looks_the_same_from_a_daemon_and_from_a_file() -> None:
    assert shown(datetime(2026, 11, 28, 10, 58, 1, 775127, tzinfo=UTC)) == "2026-11-28T10:58:01.775127Z"


MEMBERS: list[dict[str, Any]] = [
    {
        "number": 1041,
        "name": "poller-1.example.com, process 1234567",
        "here": True,
        "since": "2026-11-22T10:03:20Z",
        "expires": 7.4,
        "duties": ["source:shots", "audit"],
        "held": {"archive-2": 1600, "hook": 3},
    },
    {
        "number": 1042,
        "name": "poller-2",
        "here": False,
        "since": "2026-11-22T10:03:21Z",
        "expires": 9.6,
        "duties": [],
        "held": {},
    },
]


def test_the_daemons_that_share_the_spool_are_shown_in_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "WIDE", 80)
    print_status({**STATUS, "members": MEMBERS}, utc=True)
    found = capsys.readouterr().out.splitlines()
    first = next(
        number for number, line in enumerate(found) if line.startswith("daemon  ") and "expires" in line
    )
    table = found[first : found.index("1041: source:shots, audit")]
    assert max(map(len, table)) <= 80
    (here,) = (line for line in table if line.startswith("1041 (here)"))
    assert "2026-11-22T10:03:20Z  7s" in here
    (there,) = (line for line in table if line.startswith("1042 "))
    assert there.split() == ["1042", "poller-2", "2026-11-22T10:03:21Z", "10s", "-"]
    assert "archive-2" in "".join(table)
    assert "1600" in "".join(table)
    assert not [line for line in found if line.startswith("1042:")], "it does nothing alone"


def test_no_daemons_are_shown_of_a_spool_that_is_not_shared(capsys: pytest.CaptureFixture[str]) -> None:
    assert not [line for line in printed(capsys) if "expires" in line]


def test_a_source_that_another_daemon_polls_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    who = "polled by daemon 1042 (poller-2)"
    found = printed(
        capsys,
        {"state": "stands by", "trouble": None, "polled_by": who, "beat_known": None, "next_poll": None},
    )
    assert f"shots: {who}" in found
    assert any(line.startswith("shots ") and "stands by" in line for line in found)
