"""Live_Tape_GetFilelist: the segments of a channel, by pages, in every form."""

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from poller.sandbox import Answers, Customer, Sandbox

from .api_client import ask, listing, play, record, signed, tell

MINE = Customer()
OTHER = Customer(app_id=77, key="f" * 32, bucket="others")
BEIJING = timezone(timedelta(hours=8))
NOON = datetime(2016, 8, 22, 12, 0, 0, tzinfo=BEIJING).timestamp()


def listed(
    directory: Path, segments: int, *, query: str | None = None, start: float = NOON, **form: Any
) -> Any:
    """The answer of a sandbox with that form and so many segments, one a minute."""
    got: list[Any] = []

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        record(sandbox, MINE, segments, start=start)
        got.append(await ask(sandbox, session, query or listing()))

    play(directory, scene, answers=Answers(**form))
    return got[0]


def test_a_row_is_what_the_document_says(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        (vid,) = record(sandbox, MINE, 1, start=NOON + 0.9)
        answer = await ask(sandbox, session, listing())
        assert answer["output"] == {
            "all_count": 1,
            "file_list": [
                {"vid": vid, "start_time": "2016-08-22 12:00:00", "end_time": "2016-08-22 12:00:30"}
            ],
        }
        assert (sandbox.platform.queue().counts.lists, sandbox.platform.queue().counts.polls) == (1, 0)

    play(tmp_path, scene)


def test_pages_together_hold_every_segment_once_and_in_order(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        vids = record(sandbox, MINE, 437)
        for size in (None, "100", "7"):
            found: list[str] = []
            for number in range(1, 1000):
                query = listing(Param__n__page_no=str(number), Param__n__page_size=size)
                output = (await ask(sandbox, session, query))["output"]
                assert output["all_count"] == 437
                found += [row["vid"] for row in output["file_list"]]
                if len(output["file_list"]) < int(size or 10):
                    break
            assert found == vids

    play(tmp_path, scene)


def test_a_page_beyond_the_last_is_empty_and_tells_the_total(tmp_path: Path) -> None:
    for empty in ("object", "array", "null", "missing", "10003"):
        query = listing(Param__n__page_no="3", Param__n__page_size="5")
        answer = listed(tmp_path / empty, 10, query=query, empty=empty)
        assert (answer["ret"], answer["output"]) == (0, {"all_count": 10, "file_list": []})


def test_the_newest_come_first_when_asked_so(tmp_path: Path) -> None:
    answer = listed(tmp_path, 25, query=listing(Param__s__sort_type="desc", Param__n__page_size="3"))
    starts = [row["start_time"][11:] for row in answer["output"]["file_list"]]
    assert starts == ["12:24:00", "12:23:00", "12:22:00"]
    oldest = listed(tmp_path, 1, query=listing(Param__s__sort_type="asc"))["output"]["file_list"][0]
    assert oldest["start_time"] == "2016-08-22 12:00:00"


def test_a_window_holds_what_starts_in_it_both_ends_included(tmp_path: Path) -> None:
    window = {"Param__s__start_time": "2016-08-22 12:05:00", "Param__s__end_time": "2016-08-22 12:10:00"}
    answer = listed(tmp_path, 25, query=listing(**window), start=NOON + 0.7)
    starts = [row["start_time"][11:] for row in answer["output"]["file_list"]]
    assert starts == [f"12:{minute:02}:00" for minute in range(5, 11)]
    assert answer["output"]["all_count"] == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Param__s__channel_id": None}, "Param.s.channel_id is invalid"),
        ({"Param__s__channel_id": ""}, "Param.s.channel_id is invalid"),
        ({"Param__n__page_no": "0"}, "Param.n.page_no is invalid"),
        ({"Param__n__page_no": "-1"}, "Param.n.page_no is invalid"),
        ({"Param__n__page_no": "one"}, "Param.n.page_no is invalid"),
        ({"Param__n__page_no": "9" * 30}, "Param.n.page_no is invalid"),
        ({"Param__n__page_size": "0"}, "Param.n.page_size is invalid"),
        ({"Param__n__page_size": "101"}, "Param.n.page_size is invalid"),
        ({"Param__n__page_size": ""}, "Param.n.page_size is invalid"),
        ({"Param__s__sort_type": "up"}, "Param.s.sort_type is invalid"),
        ({"Param__s__start_time": "2016-12-10 00:00:00"}, "Param.s.end_time is invalid"),
        ({"Param__s__end_time": "2016-12-10 00:00:00"}, "Param.s.start_time is invalid"),
        (
            {"Param__s__start_time": "2016-12-10 23:00:00", "Param__s__end_time": "2016-12-11 01:00:00"},
            "Param.s.end_time is invalid",
        ),
        (
            {"Param__s__start_time": "2016-12-10 00:00:00", "Param__s__end_time": "2016-12-11 00:00:00"},
            "Param.s.end_time is invalid",
        ),
        (
            {"Param__s__start_time": "2016-12-10 02:00:00", "Param__s__end_time": "2016-12-10 01:00:00"},
            "Param.s.end_time is invalid",
        ),
        (
            {"Param__s__start_time": "2016-13-10 02:00:00", "Param__s__end_time": "2016-12-10 01:00:00"},
            "Param.s.start_time is invalid",
        ),
        (
            {"Param__s__start_time": "1481299200", "Param__s__end_time": "1481302800"},
            "Param.s.start_time is invalid",
        ),
    ],
)
def test_what_is_out_of_bounds_is_a_bad_parameter(
    tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    answer = listed(tmp_path, 3, query=listing(**changes))
    assert (answer["ret"], answer["message"]) == (1204, message)
    assert "output" not in answer


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cmd": "9"}, "cmd is invalid"),
        ({"cmd": None, "appid": "9"}, "appid is invalid"),
        ({"sign": "0" * 32}, "sign invalid"),
        ({"t": "1471850187"}, "time expired"),
    ],
)
def test_who_is_not_who_it_says_gets_the_documented_error(
    tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    answer = listed(tmp_path, 3, query=listing(**changes))
    assert (answer["ret"], answer["message"]) == (1, message)


def test_the_longest_window_is_a_whole_day(tmp_path: Path) -> None:
    window = {"Param__s__start_time": "2016-08-22 00:00:00", "Param__s__end_time": "2016-08-22 23:59:59"}
    assert listed(tmp_path, 3, query=listing(**window))["output"]["all_count"] == 3


def test_the_documents_slip_of_the_channel_is_accepted(tmp_path: Path) -> None:
    query = listing(Param__s__channel_id=None, Param__n__channel_id="show")
    assert listed(tmp_path, 3, query=query)["output"]["all_count"] == 3


def test_two_customers_never_see_each_others_segments(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        mine, theirs = record(sandbox, MINE, 3), record(sandbox, OTHER, 5)
        record(sandbox, MINE, 2, stream_id="another")
        record(sandbox, OTHER, 1, stream_id="only theirs")
        for customer, vids in ((MINE, mine), (OTHER, theirs)):
            answer = await ask(sandbox, session, listing(customer))
            assert [row["vid"] for row in answer["output"]["file_list"]] == vids
        answer = await ask(sandbox, session, listing(MINE, Param__s__channel_id="only theirs"))
        assert answer["output"]["all_count"] == 0
        state: Any = sandbox.state()["customers"]
        assert [state[str(one.app_id)]["lists"] for one in (MINE, OTHER)] == [2, 1]

    play(tmp_path, scene, customers=(MINE, OTHER))


def test_a_segment_still_being_written_is_not_listed(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.recordings.begin(MINE, "show", time.time())
        record(sandbox, MINE, 1)
        assert (await ask(sandbox, session, listing()))["output"]["all_count"] == 1

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("empty", "said"),
    [
        ("object", {"all_count": 0, "file_list": []}),
        ("array", []),
        ("null", None),
        ("missing", ...),
        ("10003", ...),
    ],
)
def test_a_channel_without_segments_has_five_forms(tmp_path: Path, empty: str, said: object) -> None:
    answer = listed(tmp_path, 0, empty=empty)
    assert answer.get("output", ...) == said
    assert answer["ret"] == (10003 if empty == "10003" else 0)


@pytest.mark.parametrize("place", ["vid", "url", "both"])
def test_a_later_row_names_the_file_by_vid_or_url_or_both(tmp_path: Path, place: str) -> None:
    (row,) = listed(tmp_path, 1, rows="later", place=place)["output"]["file_list"]
    assert (row["vid"] != "", row["record_file_url"] != "") == (place != "url", place != "vid")
    assert row["vid"] == "" or row["vid"].startswith(f"{MINE.biz_id}_")
    assert row["record_file_url"] == "" or row["record_file_url"].endswith(f"/{row['file_id']}/f0.flv")


def test_a_later_row_tells_the_size_of_the_real_file(tmp_path: Path) -> None:
    rows = listed(tmp_path, 5, rows="later")["output"]["file_list"]
    assert [row["file_size"] for row in rows] == ["3", "4", "5", "6", "7"]
    assert {row["expire_time"] for row in rows} == {"2038-01-19 11:14:07"}
    assert len({row["id"] for row in rows}) == 5


def test_the_output_may_be_an_array_of_one_object(tmp_path: Path) -> None:
    (output,) = listed(tmp_path, 2, file_list="array")["output"]
    assert output["all_count"] == len(output["file_list"]) == 2


@pytest.mark.parametrize(("all_count", "said"), [("int", 2), ("string", "2"), ("wrong", 9)])
def test_the_total_may_be_a_string_or_wrong(tmp_path: Path, all_count: str, said: object) -> None:
    assert listed(tmp_path, 2, all_count=all_count)["output"]["all_count"] == said


@pytest.mark.parametrize("count", ["string", "wrong"])
def test_the_queues_counter_says_nothing_of_the_total(tmp_path: Path, count: str) -> None:
    assert listed(tmp_path, 2, count=count)["output"]["all_count"] == 2


def test_the_envelope_takes_every_form_of_the_queues(tmp_path: Path) -> None:
    answer = listed(tmp_path, 2, ret="string", extra=True, success="ok", pretty=True, encoding="utf-8-bom")
    assert (answer["ret"], answer["retcode"], answer["message"], answer["errmsg"]) == ("0", 0, "ok", "ok")


def test_the_pace_is_one_over_all_three_interfaces(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        record(sandbox, MINE, 1)
        status = listing(interface="Live_Channel_GetStatus")
        sandbox.channels.begin(1234, "show")
        answers = [await ask(sandbox, session, query) for query in (signed(), listing(), status) * 2]
        assert [answer["ret"] for answer in answers] == [0, 0, 0, 1202, 1202, 1202]
        counts = sandbox.platform.queue().counts
        assert (counts.polls, counts.lists, counts.statuses, counts.refused) == (2, 2, 2, 3)

    play(tmp_path, scene, rate_limit=3)


def test_the_list_is_still_there_after_a_restart(tmp_path: Path) -> None:
    before = listed(tmp_path, 20, start=int(time.time()) - 3600)

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        assert (await ask(sandbox, session, listing())) == before

    play(tmp_path, scene)


def test_the_form_may_change_at_run_time(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        record(sandbox, MINE, 1)
        await tell(sandbox, session, "answers", rows="later", file_list="array")
        (output,) = (await ask(sandbox, session, listing()))["output"]
        assert len(output["file_list"][0]) == 19

    play(tmp_path, scene)
