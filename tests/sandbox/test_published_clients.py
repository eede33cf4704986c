"""The interfaces as published clients read them, and as this project's own client side does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.core.model import PollOutcome
from poller.qcloud.wire.bodies import open_body
from poller.qcloud.wire.messages import read_message
from poller.qcloud.wire.replies import judge_answer, open_answer
from poller.sandbox import Answers, Customer, Load, Sandbox, era
from poller.sandbox.channels import Status
from poller.sandbox.query.answers import encode, file_list, page, refusal, status
from poller.sandbox.query.messages import Facts, Message, write_message

from .api_client import ask, asking_status, listing, play, record, signed

LATER = era("2018")[0]

# `wire-samples.json`, file_list_2018: a body that was published, with all of its keys and kinds of values.
FILE_LIST_2018 = json.loads("""
{"errmsg": "return successfully!", "message": "return successfully!", "ret": 0, "retcode": 0, "output": {
  "all_count": 1, "file_list": [{
    "appid": "1257046543", "create_time": "2018-11-02 13:48:12", "end_time": "2018-11-02 13:48:09",
    "err_code": "0", "expire_time": "2038-01-19 11:14:07", "file_format": "3",
    "file_id": "5285890782777207037", "file_size": "4571794", "id": "276837460",
    "record_file_id": "5285890782777207037",
    "record_file_url": "http://1257046543.vod2.myqcloud.com/c78eb187vodcq1257046543/07ef3cd35285890782777207037/f0.mp4",
    "record_type": null, "report_message": null, "start_time": "2018-11-02 13:47:40",
    "stream_id": "32810_f0403e6ebfbe1f6d2df9b4d6b0eba2f0", "task_id": null, "task_sub_type": "0",
    "vid": "210130088_4532e20cf01c42f99afbf549fe71901c", "vod2Flag": "1"}]}}
""")
STATUS_OUTPUT = [{"rate_type": 0, "recv_type": 1, "status": 0}]
"""`wire-samples.json`, channel_status_output."""


def shape(value: Any) -> Any:
    """The keys and the kinds of values, all the way down."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value]
    return type(value).__name__


# ---------------------------------------------------------------- readers of published clients


def recordings_by_url(answer: dict[str, Any]) -> list[str]:
    """A client of 2018: counts to `all_count`, plays `record_file_url`."""
    if answer["ret"] != 0:
        raise RuntimeError(answer["errmsg"])
    output = answer["output"]
    rows = range(min(output["all_count"], 10))
    return [output["file_list"][number]["record_file_url"] for number in rows]


def recordings_by_vid(answer: dict[str, Any]) -> list[str]:
    """A client of 2016: asks the VOD place for each `vid`."""
    assert answer["ret"] == 0, answer["message"]
    return [f"http://200025724.vod.myqcloud.com/{one['vid']}.f0.flv" for one in answer["output"]["file_list"]]


def seconds_recorded(answer: dict[str, Any]) -> int:
    """One that adds up clock times, by their places in the string."""

    def clock(text: str) -> int:
        hours, minutes, seconds = (int(text[at : at + 2]) for at in (11, 14, 17))
        return hours * 3600 + minutes * 60 + seconds

    rows = answer["output"]["file_list"]
    return sum(clock(row["end_time"]) - clock(row["start_time"]) for row in rows)


def is_live(answer: dict[str, Any]) -> bool:
    """The platform's own client: `output` is an array of one object."""
    return answer["ret"] == 0 and bool(answer["output"][0]["status"] == 1)


def last_of_each_stream(answer: dict[str, Any]) -> dict[str, str]:
    """A client that keys a batch by stream, and so keeps only the last shot of each."""
    return {one["stream_id"]: one["pic_url"] for one in answer["output"]["data"]}


def answer_to(directory: Path, form: Answers, query: str, before: Callable[[Sandbox], object]) -> Any:
    """The answer to a query after something was done to the sandbox."""
    got: list[Any] = []

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        before(sandbox)
        got.append(await ask(sandbox, session, query))

    play(directory, scene, answers=form)
    return got[0]


def test_a_later_file_list_has_the_keys_and_kinds_that_were_seen(tmp_path: Path) -> None:
    answer = answer_to(tmp_path, LATER, listing(), lambda sandbox: record(sandbox, Customer(), 1))
    assert shape(answer) == shape(FILE_LIST_2018)


def test_a_status_has_the_keys_and_kinds_that_were_seen(tmp_path: Path) -> None:
    def once(sandbox: Sandbox) -> None:
        sandbox.channels.begin(1234, "show")
        sandbox.channels.end(1234, "show")

    answer = answer_to(tmp_path, LATER, asking_status(), once)
    assert answer["output"] == STATUS_OUTPUT
    assert shape(answer) == {"ret": "int", "retcode": "int", "message": "str", "errmsg": "str"} | {
        "output": shape(STATUS_OUTPUT)
    }


@pytest.mark.parametrize("year", ["2016", "2017", "2018"])
def test_published_clients_read_the_answers_of_their_years(tmp_path: Path, year: Any) -> None:
    form = era(year)[0]

    def busy(sandbox: Sandbox) -> None:
        record(sandbox, Customer(), 3)
        sandbox.channels.begin(1234, "show")

    files = answer_to(tmp_path / "files", form, listing(), busy)
    assert seconds_recorded(files) == 90
    if year != "2016":
        assert all(url.endswith("/f0.flv") for url in recordings_by_url(files))
    assert len(set(recordings_by_vid(files))) == 3
    assert is_live(answer_to(tmp_path / "status", form, asking_status(), busy))
    assert not is_live(answer_to(tmp_path / "never", form, asking_status(), lambda sandbox: None))


def test_a_client_that_keys_by_stream_keeps_the_last_shot_of_each(tmp_path: Path) -> None:
    answer = answer_to(
        tmp_path, Answers(), signed(), lambda sandbox: sandbox.enqueue(Load(count=20, streams=4))
    )
    found = last_of_each_stream(answer)
    assert len(found) == 4
    assert {name.split("_")[5] for name in found.values()} == {"50"}


# ---------------------------------------------------------------- the project's own client side

_forms = st.builds(
    Answers,
    output=st.sampled_from(["object", "array", "list"]),
    file_list=st.sampled_from(["object", "array"]),
    status=st.sampled_from(["array", "object"]),
    empty=st.sampled_from(["object", "array", "null", "missing", "10003"]),
    count=st.sampled_from(["int", "string", "wrong"]),
    ret=st.sampled_from(["int", "string"]),
    extra=st.booleans(),
    success=st.sampled_from(["return successfully!", "query data successfully", "ok"]),
    fields=st.sampled_from(["pic_url", "create_time", "pic_full_url"]),
    url=st.sampled_from(["bare", "slash", "full", "query"]),
    encoding=st.sampled_from(["utf-8", "utf-8-bom", "utf-16"]),
    gzip=st.booleans(),
    pretty=st.booleans(),
)


def messages(count: int, form: Answers) -> list[Message]:
    facts = [
        Facts(n=n, stream_id=f'直播"{n}', path=f"a b/{n}#.jpg", create_time=1471850187 + n)
        for n in range(count)
    ]
    return [write_message(one, form, Customer()) for one in facts]


@given(form=_forms, count=st.integers(0, 5))
@settings(max_examples=300)
def test_the_client_side_reads_every_form_of_the_queue(form: Answers, count: int) -> None:
    body = encode(page(messages(count, form), form), form)
    answer = open_answer(body, "gzip" if form.gzip else "")
    assert (answer.size, answer.rejects, answer.cut) == (count, (), False)
    assert [read_message(one).stream_id for one in answer.messages] == [f'直播"{n}' for n in range(count)]
    outcome = judge_answer(answer, status=200, whole=True, asked=5).outcome
    expected = PollOutcome.EMPTY if not count else PollOutcome.FULL if count == 5 else PollOutcome.PARTIAL
    assert outcome is expected


@given(form=_forms, message=st.sampled_from(["cmd is invalid", "sign invalid", "time expired"]))
@settings(max_examples=50)
def test_the_client_side_knows_a_refusal_in_every_form(form: Answers, message: str) -> None:
    answer = open_answer(encode(refusal(1, message, form), form), "gzip" if form.gzip else "")
    verdict = judge_answer(answer, status=200, whole=True, asked=5)
    assert verdict.outcome is PollOutcome.REFUSED
    assert verdict.expired == (message == "time expired")


@given(form=_forms, state=st.sampled_from(Status), total=st.integers(0, 3))
@settings(max_examples=100)
def test_the_client_side_opens_every_form_of_the_other_two(form: Answers, state: Status, total: int) -> None:
    rows = [{"vid": f"v{n}", "task_id": None} for n in range(total)]
    for text in (file_list(total, rows, form), status(state, form)):
        opened = open_body(encode(text, form), "gzip" if form.gzip else "")
        assert opened.whole
        answer = json.loads(opened.text)
        assert int(answer["ret"]) in (0, 10003)
    output = answer["output"] if form.status == "object" else answer["output"][0]
    assert output == {"rate_type": 0, "recv_type": 1, "status": int(state)}
