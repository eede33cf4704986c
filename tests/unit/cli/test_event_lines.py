"""Events, pictures and streams on a terminal and in a pipe."""

import io
import os
import re
from datetime import UTC, datetime

import msgspec
import pytest

from poller.cli.event_lines import EventPrinter, line_of
from poller.cli.picture_lines import none_found, picture_line, print_streams
from poller.cli.top_view import Rates, View, lines, press
from poller.control import EventRow
from poller.core.model import Event, new_event
from poller.testing import START, some_change, some_event

EVIL = "\x1b]0;owned\x07\x9b2J\u202eroom\r\n"
SIGNED = "https://shots.example/room_1.jpg?sign=q-sign-algorithm%3Dsha1%26q-ak%3DAKIDsecret"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def evil_event() -> Event:
    return new_event(
        id="0" * 32,
        kind="screenshot",
        account="main",
        stream_id=EVIL,
        occurred_at=START,
        received_at=START,
        url=SIGNED,
        fields={"file_name": EVIL, "state": EVIL},
        message=msgspec.Raw(b'{"pic_url":"%s"}' % SIGNED.encode()),
    )


def printed(event: Event, *, json: bool, terminal: bool) -> str:
    """What a printer writes into a terminal or a pipe."""
    ours, theirs = os.openpty() if terminal else os.pipe()
    with os.fdopen(theirs, "wb") as out:
        rows = [EventRow(number=1, event=msgspec.Raw(event.encoded)), EventRow(head=2, more=True)]
        EventPrinter(out, json=json, utc=True).show(rows)
        found = os.read(ours, 1 << 16)
    os.close(ours)
    return found.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_from_the_wire_controls_a_terminal_and_no_signature_is_shown(as_json: bool) -> None:
    shown = printed(evil_event(), json=as_json, terminal=True)
    assert CONTROL.findall(shown) == []
    assert "AKIDsecret" not in shown
    assert shown.count("\n") == 1
    assert "room" in shown


def test_a_pipe_gets_the_event_as_its_sinks_get_it() -> None:
    assert printed(evil_event(), json=True, terminal=False) == evil_event().encoded.decode() + "\n"
    assert CONTROL.findall(printed(evil_event(), json=False, terminal=False)) == []


def test_a_line_shows_when_what_whose_and_the_file_or_the_state() -> None:
    assert line_of(some_event(1), utc=True) == (
        "2026-01-02T03:04:15Z  screenshot  room              room_1700000000_1700000000_10_300_169.jpg"
    )
    assert line_of(some_change(1, "interrupted"), utc=True) == (
        "2026-01-02T03:04:15Z  channel     room              interrupted"
    )


def test_what_was_missed_is_a_line_of_json_or_a_notice(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json, out, notice in (
        (True, b'{"missed":7}\n', ""),
        (False, b"", "7 events are missing here: deleted, or not readable\n"),
    ):
        to = io.BytesIO()
        EventPrinter(to, json=as_json, utc=True).show([EventRow(missed=7)])
        assert (to.getvalue(), capsys.readouterr().err) == (out, notice)


# ---------------------------------------------------------------- pictures and streams


def test_a_picture_is_one_line_and_its_signature_stays_off_the_terminal() -> None:
    files = [{"path": "/srv/a.jpg", "present": True}, {"path": "/mnt/\x1b.jpg", "present": False}]
    picture: dict[str, object] = {"taken": "2026-01-02T03:04:05Z", "url": SIGNED, "files": files}
    assert picture_line(picture, True, terminal=False) == (
        f"2026-01-02T03:04:05Z  {SIGNED}  /srv/a.jpg  /mnt/\\x1b.jpg (not there)"
    )
    shown = picture_line({**picture, "taken": START}, True, terminal=True)
    assert shown.startswith("2026-01-02T03:04:05Z  https://shots.example/room_1.jpg?***  /srv/a.jpg")
    assert picture_line({**picture, "url": None, "files": []}, True, terminal=True).split() == [
        "2026-01-02T03:04:05Z",
        "-",
    ]


def test_where_there_is_no_picture_the_nearest_are_named() -> None:
    row = {
        "stream": "room",
        "at": START,
        "within": 20.0,
        "before": None,
        "after": datetime(2026, 1, 3, tzinfo=UTC),
    }
    assert none_found(row, utc=True) == (
        "no picture of room within 20 s of 2026-01-02T03:04:05Z;"
        " the nearest after was taken at 2026-01-03T00:00:00Z"
    )
    assert none_found({"stream": "room"}, utc=True) == "no picture of room is kept"


def test_the_table_of_streams_fits_80_columns_and_escapes_names(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "account": "main",
        "stream": EVIL,
        "attention": "no pictures",
        "state": "interrupted",
        "cadence": 10.0,
        "last_picture": "2026-01-02T03:04:05Z",
        "age": 95.0,
        "gaps": 12,
    }
    print_streams([{**row, "stream": "a_stream_of_usual_l"}], utc=True)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "account" not in shown
    print_streams([row, {**row, "account": "other"}], utc=True)
    shown = capsys.readouterr().out
    assert CONTROL.findall(shown) == []
    assert "account" in shown


# ---------------------------------------------------------------- top


def answer(**more: object) -> dict[str, object]:
    sink = {
        "type": "webhook",
        "state": "failing",
        "why": EVIL,
        "last_error": EVIL,
        "backlog": 5,
        "retrying": 1,
        "dead": 2,
        "oldest": 61.0,
    }
    return {
        "pid": 7,
        "version": "1.0",
        "ready": False,
        "reasons": [EVIL],
        "notes": [],
        "sources": [
            {
                "name": "shots",
                "type": "screenshot_queue",
                "state": "polling",
                "last_answer": 1.0,
                "trouble": None,
            }
        ],
        "spool": {"path": EVIL, "type": "sqlite", "bytes": 5_000, "quarantined": 3},
        "journal": {"bytes": 0, "oldest": None},
        "sinks": [{"name": "hook", **sink}, {"name": "archive", **sink, "backlog": 50, "oldest": 3.0}],
        "at": 0.0,
        "head": 1,
        "polled": {"shots": 0.0},
        "delivered": {},
        **more,
    }


def shown(view: View, rates: Rates | None = None, size: tuple[int, int] = (79, 24)) -> list[str]:
    return [line.plain for line in lines(answer(), rates or Rates(), view, size)]


def pressed(*keys: str) -> View:
    view = View()
    for key in keys:
        view = press(view, key)
    return view


@pytest.mark.parametrize("size", [(1, 1), (10, 3), (79, 24), (200, 60)])
@pytest.mark.parametrize("view", [View(), View(help=True), View(typing=True, filter=EVIL)])
def test_top_fits_its_window_and_is_controlled_by_nothing_it_shows(view: View, size: tuple[int, int]) -> None:
    found = shown(view, size=size)
    assert len(found) == size[1]
    assert max(map(len, found)) <= size[0]
    assert CONTROL.findall("".join(found)) == []


def test_keys_sort_filter_help_and_quit() -> None:
    def sinks(view: View) -> list[str]:
        return [line.split()[0] for line in shown(view) if line.startswith(("hook", "archive"))]

    assert sinks(pressed()) == ["archive", "hook"]
    assert sinks(pressed("s", "s", "s")) == ["hook", "archive"]
    assert pressed("s", "s", "s", "s") == View()
    assert sinks(pressed("/", "H", "o", "x", "\x7f")) == ["hook"]
    assert pressed("/", "q", "\r") == View(filter="q")
    assert pressed("/", "q", "\x1b") == View()
    assert pressed("/", "q", "\r", "\x1b") == View()
    assert pressed("?", "q") == View()
    assert pressed("q").quit
    assert pressed("x") == View()


def test_rates_are_those_of_ten_seconds_and_of_one_process() -> None:
    rates = Rates()
    rates.add(answer())
    assert rates.of("head") is None
    for second in range(1, 30):
        rates.add(answer(at=float(second), head=1 + 20 * second, polled={"shots": 2.0 * second}))
    assert (rates.of("head"), rates.of("polled", "shots"), rates.of("delivered", "hook")) == (20, 2, 0)
    rates.add(answer(pid=8, at=1.0, head=3))
    assert rates.of("head") is None
