"""What the demo prints: lines of a terminal of 80 columns, paths that open, numbers that add up."""

import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from poller.demo.summary import Summary, line_of, link, print_summary, recording_of, sums

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
    line = shown(line_of(event(kind)))
    assert line.count("\n") == 1
    assert len(line.rstrip("\n")) <= 80
    assert line.startswith("03:09:51 live_64 ")
    assert "http" not in line


def test_states_have_colours_on_a_terminal_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[33minterrupted" in shown(line_of(event("channel")), terminal=True)
    assert "\x1b" not in shown(line_of(event("channel")))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in shown(line_of(event("channel")), terminal=True)


def test_a_recordings_path_opens(tmp_path: Path) -> None:
    (tmp_path / "platform" / "vod").mkdir(parents=True)
    (tmp_path / "recordings").mkdir()
    (tmp_path / "platform" / "vod" / f"200025724_{'a' * 32}.flv").write_bytes(b"FLV")
    found = recording_of(event("recording"))
    assert found is not None
    for _ in range(2):
        link(tmp_path, *found)
    path = re.findall(r"recordings/\S+", shown(line_of(event("recording"))))[0]
    assert (tmp_path / path).read_bytes() == b"FLV"


def test_the_summarys_numbers_add_up() -> None:
    events = Counter({"screenshot": 120, "channel": 8, "recording": 5})
    summary = Summary(
        taken=120, notified=133, events=events, lost=0, printed=131, pictures=117, dead=1, segments=()
    )
    for line in sums(summary):
        whole, parts = re.sub(r"\[[^]]*\]", "", line).split("=")
        numbers = [int(one) for one in re.findall(r"\d+", parts)]
        assert int(whole.split()[0]) == sum(numbers), line
    console = Console(file=io.StringIO(), width=80)
    print_summary(console, summary, Path("/tmp/x"))
    assert isinstance(console.file, io.StringIO)
    assert "120 screenshots = 117 pictures + 1 dead + 2 waiting" in console.file.getvalue()
    assert max(map(len, console.file.getvalue().splitlines())) <= 80
