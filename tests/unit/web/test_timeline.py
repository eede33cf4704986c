"""One stream between two times, over a spool in a file."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from multidict import MultiDict

from poller.control import OperatorContext
from poller.core.errors import PollerError
from poller.core.history import Gap
from poller.core.model import Event, ParsedPage, PollOutcome, identity, new_event
from poller.runtime.metrics import Metrics
from poller.settings import Settings
from poller.spools.sqlite import SqliteSpool
from poller.testing import START, ManualClock, some_change, some_event
from poller.web import timeline as module
from poller.web.errors import status_of
from poller.web.filters import read_query
from poller.web.timeline import StreamQuery, Window, timeline, window_of
from tests.fakes import sqlite_spool
from tests.patience import patiently

T0 = START.timestamp()


class Town:
    """A spool, and questions about it."""

    def __init__(self, spool: SqliteSpool, clock: ManualClock) -> None:
        self.spool = spool
        self.context = OperatorContext(
            settings=Settings.model_construct(
                accounts={},
                sources={},
                spool=SqliteSpool.Settings(type="sqlite", path=Path("spool.db")),
                sinks={},
            ),
            spool=spool,
            clock=clock,
            metrics=Metrics(),
            source=lambda name: None,
        )

    async def append(self, *events: Event) -> None:
        await self.spool.append("shots", [ParsedPage(events=events, rejects=(), outcome=PollOutcome.FULL)])

    def window(self, asked: Mapping[str, str]) -> Window:
        return window_of(self.context, read_query(MultiDict(asked), StreamQuery))

    async def ask(self, budget: float = 10.0, **asked: object) -> dict[str, Any]:
        window = self.window({"id": "room"} | {name: str(value) for name, value in asked.items()})
        answer: dict[str, Any] = msgspec.json.decode(
            msgspec.json.encode(await timeline(self.context, window, budget))
        )
        return answer


def run(folder: Path, scenario: Callable[[Town], Awaitable[None]]) -> None:
    async def entered() -> None:
        clock = ManualClock()
        async with sqlite_spool(folder, clock) as spool:
            clock.pass_time(3600)
            await scenario(Town(spool, clock))

    asyncio.run(patiently(entered()))


def recording(number: int, begin: float, end: float, **fields: object) -> Event:
    """A segment between two times, in seconds after the start."""
    return new_event(
        id=identity("recording", "main", str(number)),
        kind="recording",
        account="main",
        stream_id="room",
        occurred_at=START + timedelta(seconds=end),
        received_at=START + timedelta(seconds=end + 1),
        url=None,
        fields={"start_time": START + timedelta(seconds=begin), **fields},
        message=msgspec.Raw(b"{}"),
    )


def gap(begin: float, end: float) -> Gap:
    return Gap(
        id=f"{begin}",
        account="main",
        stream_id="room",
        from_at=START + timedelta(seconds=begin),
        to_at=START + timedelta(seconds=end),
        missing=3,
        why="a hole",
    )


def test_pictures_of_the_stream_within_the_window_come_in_the_order_in_which_they_were_taken(
    tmp_path: Path,
) -> None:
    async def scenario(town: Town) -> None:
        await town.append(some_event(3), some_event(1, stream="hall"), some_event(1), some_event(2))
        await town.append(some_event(4), some_event(9))
        answer = await town.ask(since=T0 + 20, until=T0 + 41)
        assert answer["pictures"] == [[4, T0 + 20], [1, T0 + 30], [5, T0 + 40]]
        assert (answer["complete"], answer["below"]) == (True, None)
        assert (answer["account"], answer["id"]) == ("main", "room")
        assert answer["now"] == T0 + 3600

    run(tmp_path, scenario)


def test_the_window_is_the_last_hour_unless_asked_otherwise(tmp_path: Path) -> None:
    async def scenario(town: Town) -> None:
        await town.append(some_event(-1), some_event(0), some_event(359), some_event(360))
        answer = await town.ask()
        assert [taken for _, taken in answer["pictures"]] == [T0, T0 + 3590]
        assert (answer["since"], answer["until"]) == (T0, T0 + 3600)

    run(tmp_path, scenario)


def test_an_answer_that_would_take_too_long_is_partial_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEP", 2)

    async def scenario(town: Town) -> None:
        await town.append(*(some_event(number) for number in range(9)))
        found, below, answers = list[Any](), "", 0
        while True:
            answer = await town.ask(budget=-1.0, below=below)
            found = answer["pictures"] + found
            answers += 1
            if answer["complete"]:
                break
            below = answer["below"]
        assert [taken for _, taken in found] == [T0 + 10 * number for number in range(9)]
        assert answers >= 4

    run(tmp_path, scenario)


def test_an_answer_has_so_many_pictures_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PICTURES", 4)

    async def scenario(town: Town) -> None:
        await town.append(*(some_event(number) for number in range(6)))
        first = await town.ask()
        assert [number for number, _ in first["pictures"]] == [3, 4, 5, 6]
        rest = await town.ask(below=first["below"])
        assert [number for number, _ in rest["pictures"]] == [1, 2]
        assert (first["complete"], rest["complete"]) == (False, True)

    run(tmp_path, scenario)


def test_gaps_that_overlap_the_window_are_included(tmp_path: Path) -> None:
    async def scenario(town: Town) -> None:
        await town.append(some_event(1))
        gaps = [gap(0, 50), gap(90, 150), gap(160, 200), gap(500, 600)]
        await town.spool.note_gaps("audit", [], gaps)
        answer = await town.ask(since=T0 + 100, until=T0 + 200)
        assert [(one["from"] - T0, one["to"] - T0) for one in answer["gaps"]] == [(90, 150), (160, 200)]
        assert answer["gaps"][0] | {"from": 0, "to": 0} == {
            "from": 0,
            "to": 0,
            "missing": 3,
            "why": "a hole",
            "filled": 0,
        }

    run(tmp_path, scenario)


def test_states_are_those_of_the_window_and_the_last_one_before_it(tmp_path: Path) -> None:
    async def scenario(town: Town) -> None:
        await town.append(some_change(1, "live", seen_by="callbacks"), some_change(5, "interrupted"))
        await town.append(some_change(12, "live", seen_by="callbacks"), some_change(30, "disabled"))
        answer = await town.ask(since=T0 + 100, until=T0 + 200)
        assert answer["states"] == [
            {"at": T0 + 50, "state": "interrupted", "by": "channel_status"},
            {"at": T0 + 120, "state": "live", "by": "callbacks"},
        ]
        assert answer["state"] == "disabled"
        later = await town.ask(since=T0 + 400, until=T0 + 500)
        assert [one["state"] for one in later["states"]] == ["disabled"]
        earlier = await town.ask(since=T0, until=T0 + 20)
        assert [one["state"] for one in earlier["states"]] == ["live"]

    run(tmp_path, scenario)


def test_recordings_are_bars_with_all_formats_of_a_segment(tmp_path: Path) -> None:
    async def scenario(town: Town) -> None:
        await town.append(
            recording(1, 0, 90),
            recording(2, 80, 150, file_format="hls", file_size=100),
            recording(3, 80, 150, file_format="mp4", file_size=50),
            recording(4, 190, 300, file_format="flv"),
            recording(5, 200, 400),
        )
        answer = await town.ask(since=T0 + 90, until=T0 + 200)
        rows = [
            (one["from"] - T0, one["to"] - T0, one["url_kind"], one["bytes"]) for one in answer["recordings"]
        ]
        assert rows == [(80, 150, ["hls", "mp4"], 150), (190, 300, ["flv"], None)]
        assert answer["recordings"][1]["id"] == identity("recording", "main", "4")

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("fields", "begin"),
    [
        ({"start_time": None, "duration": 60.0}, 40.0),
        ({"start_time": None}, 100.0),
        ({"start_time": "2026", "duration": True}, 99.0),
        ({"start_time": datetime(2026, 1, 2)}, 100.0),  # noqa: DTZ001
        ({"start_time": START + timedelta(seconds=500)}, 100.0),
    ],
)
def test_the_begin_of_a_recording_is_told_as_well_as_it_is_known(
    fields: dict[str, object], begin: float
) -> None:
    event = recording(1, 0, 100, **fields)
    assert module.segment_of(event)[0] == START + timedelta(seconds=begin)


@pytest.mark.parametrize(
    ("asked", "status", "word"),
    [
        ({"id": "nobody"}, 404, "nobody"),
        ({"id": "room", "account": "nobody"}, 404, "nobody"),
        ({"id": "both"}, 400, "main, other"),
        ({}, 400, "id"),
        ({"id": "room", "since": "yesterday"}, 400, "since"),
        ({"id": "room", "since": "nan"}, 400, "since"),
        ({"id": "room", "until": "1e300"}, 400, "until"),
        ({"id": "room", "until": "-1"}, 400, "until"),
        ({"id": "room", "since": "20", "until": "10"}, 400, "since"),
        ({"id": "room", "below": "0"}, 400, "below"),
        ({"id": "room", "below": "9" * 19}, 400, "below"),
        ({"id": "room", "below": "٥"}, 400, "below"),
    ],
)
def test_a_bad_question_is_refused(tmp_path: Path, asked: dict[str, str], status: int, word: str) -> None:
    async def scenario(town: Town) -> None:
        await town.append(some_event(1), some_event(2, stream="both"))
        await town.append(some_event(3, stream="both", account="other"))
        with pytest.raises(PollerError, match=word) as refused:
            town.window(asked)
        assert status_of(refused.value) == status
        assert town.window({"id": "both", "account": "other"}).stream.account == "other"

    run(tmp_path, scenario)


def test_the_extremes_of_time_are_no_error(tmp_path: Path) -> None:
    async def scenario(town: Town) -> None:
        await town.append(some_event(1))
        answer = await town.ask(since=0, until=99_999_999_999)
        assert answer["pictures"] == [[1, T0 + 10]]
        assert (await town.ask(since=0, until=0.5))["pictures"] == []

    run(tmp_path, scenario)
