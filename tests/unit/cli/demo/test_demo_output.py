"""What the demo prints: lines of a terminal of 80 columns, paths that open, numbers that add up."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from poller.cli.demo import CONFIGURATION
from poller.cli.demo.summary import Row, Summary, line_of, link, print_summary

FOLDER = Path("/tmp/poller-demo-ltok2lzt")
AT = "2026-11-28T03:09:51Z"
EVENTS: dict[str, dict[str, Any]] = {
    "screenshot": {
        "file_name": "live_64_1795835391_1795835391_3600_300_169.jpg",
        "width": 300,
        "height": 169,
    },
    "channel": {"state": "interrupted", "seen_by": "channel_status"},
    "recording": {
        "duration": 1800.0,
        "start_time": AT,
        "url": f"http://200025724.vod.myqcloud.com/200025724_{'a' * 32}.f0.flv",
    },
    "other": {},
}


def event(kind: str) -> dict[str, Any]:
    data = {"stream_id": "live_64", **EVENTS[kind]}
    return {"type": f"com.qcloud.live.{kind}", "time": AT, "data": data}


def shown(markup: str, *, terminal: bool = False) -> str:
    kept = io.StringIO()
    Console(
        file=kept,
        width=80,
        force_terminal=terminal,
        color_system="standard" if terminal else None,
        highlight=False,
    ).print(markup, soft_wrap=True)
    return kept.getvalue()


@pytest.mark.parametrize("kind", EVENTS)
def test_an_event_is_one_line_of_80_columns(kind: str) -> None:
    line = shown(line_of(event(kind), FOLDER))
    assert line.count("\n") == 1
    assert len(line.rstrip("\n")) <= 80
    assert line.startswith("03:09:51 live_64 ")
    assert "http" not in line


def test_states_have_colours_on_a_terminal_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[33minterrupted" in shown(line_of(event("channel"), FOLDER), terminal=True)
    assert "\x1b" not in shown(line_of(event("channel"), FOLDER))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in shown(line_of(event("channel"), FOLDER), terminal=True)


def test_a_recordings_path_opens(tmp_path: Path) -> None:
    (tmp_path / "platform" / "vod").mkdir(parents=True)
    (tmp_path / "recordings").mkdir()
    (tmp_path / "platform" / "vod" / f"200025724_{'a' * 32}.flv").write_bytes(b"FLV")
    for _ in range(2):
        link(tmp_path, event("recording"))
    path = shown(line_of(event("recording"), tmp_path)).split()[-1]
    assert Path(path).read_bytes() == b"FLV"


def test_a_pictures_path_opens(tmp_path: Path) -> None:
    for name in "archive", "pictures":
        (tmp_path / name).mkdir()
    (tmp_path / "archive" / EVENTS["screenshot"]["file_name"]).write_bytes(b"JPEG")
    link(tmp_path, event("screenshot"))
    path = shown(line_of(event("screenshot"), tmp_path)).split()[-1]
    assert Path(path).read_bytes() == b"JPEG"


def test_a_demo_whose_daemon_died_at_once_is_no_success() -> None:
    nothing = Row(kind="screenshot", queue=0, notified=0, events=0, printed=0, stored=0)
    assert not Summary(rows=(nothing,), lost=0, dead=0, cut_short=True, segments=()).good


def summary(**changes: Any) -> Summary:
    shots = {"queue": 120, "notified": 120, "events": 120, "printed": 120, "stored": 120} | changes
    rows = (
        Row(kind="screenshot", **shots),
        Row(kind="channel", queue=None, notified=8, events=9, printed=9, stored=None),
        Row(kind="recording", queue=None, notified=5, events=5, printed=5, stored=None),
    )
    return Summary(rows=rows, lost=0, dead=120 - shots["stored"], cut_short=False, segments=())


def summed_up(what: Summary) -> str:
    console = Console(file=io.StringIO(), width=80)
    print_summary(console, what, FOLDER)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_column_of_the_summary_adds_up_to_its_last_line() -> None:
    said = summed_up(summary(printed=118))
    rows = [re.findall(r"(?<=\s)(?:\d+|-)(?=\s)", line) for line in said.splitlines() if "│" in line]
    *kinds, total = [[int(n) if n != "-" else 0 for n in row] for row in rows if len(row) == 5]
    assert len(kinds) == 3
    assert [sum(column) for column in zip(*kinds, strict=True)] == total == [120, 133, 134, 132, 120]


def test_the_summary_says_in_words_whether_all_arrived_and_what_may_be_deleted() -> None:
    good, bad = summed_up(summary()), summed_up(summary(stored=119, printed=118))
    assert "All events were printed (134), and all screenshots are stored as pictures (120)." in good
    for line in (
        "Not everything arrived:",
        "events not printed: 2",
        "screenshots not stored: 1",
        "dead letters: 1",
    ):
        assert line in bad
    for said in good, bad:
        assert f"rm -r {FOLDER}" in said
        assert max(map(len, said.splitlines())) <= 80


def test_the_demos_own_configuration_does_not_claim_to_be_enough_for_a_real_account() -> None:
    comment = " ".join(line for line in CONFIGURATION.splitlines() if line.startswith("#"))
    assert "README.md" in comment
    assert "all that the daemon needs" not in comment
