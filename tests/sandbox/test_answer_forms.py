"""Every form in which the platform was seen, or suspected, to answer."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from poller.sandbox import Answers, BadOption, Load, Naming, Sandbox, era
from poller.sandbox.query.messages import Said

from .api_client import ask, loaded, play, raw, signed, tell


def answered(directory: Path, waiting: int = 2, naming: Naming | None = None, **form: Any) -> Any:
    """The decoded answer of a sandbox with that form and that many messages waiting."""
    got: list[Any] = []

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        if waiting:
            loaded(sandbox, waiting)
        got.append(await ask(sandbox, session))

    play(directory, scene, answers=Answers(**form), naming=naming or Naming())
    return got[0]


def test_output_is_an_object(tmp_path: Path) -> None:
    answer = answered(tmp_path)
    assert list(answer) == ["ret", "message", "output"]
    assert answer["output"]["count"] == len(answer["output"]["data"]) == 2
    assert list(answer["output"]["data"][0]) == ["stream_id", "pic_url"]


def test_output_is_an_array_of_one_object(tmp_path: Path) -> None:
    (output,) = answered(tmp_path, output="array")["output"]
    assert output["count"] == len(output["data"]) == 2


def test_output_is_the_bare_list(tmp_path: Path) -> None:
    assert [set(one) for one in answered(tmp_path, output="list")["output"]] == [{"stream_id", "pic_url"}] * 2


@pytest.mark.parametrize("output", ["object", "array", "list"])
@pytest.mark.parametrize(
    ("empty", "said"),
    [("object", {"count": 0, "data": []}), ("array", []), ("null", None), ("missing", ...), ("10003", ...)],
)
def test_an_empty_answer_has_five_forms(tmp_path: Path, output: str, empty: str, said: object) -> None:
    answer = answered(tmp_path, waiting=0, output=output, empty=empty)
    assert answer.get("output", ...) == said
    assert answer["ret"] == (10003 if empty == "10003" else 0)


def test_the_count_may_be_a_string_or_wrong(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        for count, said in (("int", 2), ("string", "2"), ("wrong", 9)):
            await tell(sandbox, session, "answers", count=count)
            loaded(sandbox, 2)
            assert (await ask(sandbox, session))["output"]["count"] == said

    play(tmp_path, scene)


def test_ret_may_be_a_string_and_have_a_twin(tmp_path: Path) -> None:
    answer = answered(tmp_path, ret="string", extra=True, success="ok")
    assert (answer["ret"], answer["retcode"], answer["message"], answer["errmsg"]) == ("0", 0, "ok", "ok")


def test_a_message_may_carry_its_time(tmp_path: Path) -> None:
    message = answered(tmp_path, fields="create_time")["output"]["data"][0]
    assert set(message) == {"stream_id", "pic_url", "create_time"}
    *_, push, _, offset, _, _ = message["pic_url"].split("_")
    assert message["create_time"] == int(push) + int(offset)


def test_the_last_version_has_a_full_url_instead(tmp_path: Path) -> None:
    message = answered(tmp_path, fields="pic_full_url")["output"]["data"][0]
    assert set(message) == {"stream_id", "pic_full_url", "create_time"}
    assert message["pic_full_url"].startswith("http://shots-1250000000.file.myqcloud.com/load_1234_1_")


@pytest.mark.parametrize(
    ("url", "pattern"),
    [
        ("bare", r"load_1234_1_\d+_\d+_10_300_169\.jpg"),
        ("slash", r"/load_1234_1_\d+_\d+_10_300_169\.jpg"),
        ("full", r"http://shots-1250000000\.file\.myqcloud\.com/load_1234_1_\d+_\d+_10_300_169\.jpg"),
        ("query", r"http://shots-1250000000\.file\.myqcloud\.com/load_\S+_169\.jpg\?t=\d+&tt=\d+"),
    ],
)
def test_a_picture_url_has_four_forms_and_one_path(tmp_path: Path, url: str, pattern: str) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        loaded(sandbox)
        answer = await ask(sandbox, session)
        assert re.fullmatch(pattern, answer["output"]["data"][0]["pic_url"])
        removed = sandbox.oracle.removed()[0]
        assert removed.pic_url == answer["output"]["data"][0]["pic_url"]
        assert removed.path is not None
        assert re.fullmatch(r"load_1234_1_\d+_\d+_10_300_169\.jpg", removed.path)

    play(tmp_path, scene, answers=Answers(url=url))  # type: ignore[arg-type]


def test_names_may_lie_in_folders(tmp_path: Path) -> None:
    answer = answered(tmp_path, naming=Naming(folder="live/shots"))
    assert answer["output"]["data"][0]["pic_url"].startswith("live/shots/load_1234_1_")


def test_grammar_b_dates_by_beijing(tmp_path: Path) -> None:
    answer = answered(
        tmp_path, naming=Naming(grammar="B", folder="{date}"), url="slash", fields="create_time"
    )
    pattern = r"/\d{4}-\d\d-\d\d/load_1234_1-screenshot-\d\d-\d\d-\d\d-300x169\.jpg"
    assert re.fullmatch(pattern, answer["output"]["data"][0]["pic_url"])


@pytest.mark.parametrize(
    ("encoding", "codec", "mark"),
    [
        ("utf-8", "utf-8", b"{"),
        ("utf-8-bom", "utf-8-sig", b"\xef\xbb\xbf"),
        ("utf-16", "utf-16", b"\xff\xfe"),
    ],
)
def test_the_text_comes_in_three_encodings(tmp_path: Path, encoding: str, codec: str, mark: bytes) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        loaded(sandbox)
        _, body, _ = await raw(str(sandbox.endpoints["api"]), signed())
        assert body.startswith(mark)
        assert len(json.loads(body.decode(codec))["output"]["data"]) == 3

    play(tmp_path, scene, answers=Answers(encoding=encoding))  # type: ignore[arg-type]


def test_gzip_comes_even_unasked(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        loaded(sandbox)
        head, body, _ = await raw(str(sandbox.endpoints["api"]), signed())
        assert b"Content-Encoding: gzip" in head
        assert len(json.loads(gzip.decompress(body))["output"]["data"]) == 3

    play(tmp_path, scene, answers=Answers(gzip=True))


@pytest.mark.parametrize(
    ("framing", "present", "absent"),
    [
        ("length", b"Content-Length", b"Transfer-Encoding"),
        ("chunked", b"Transfer-Encoding: chunked", b"Content-Length"),
        ("close", b"Connection: close", b"Content-Length"),
    ],
)
def test_the_bodys_end_is_marked_in_three_ways(
    tmp_path: Path, framing: str, present: bytes, absent: bytes
) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.enqueue(Load(count=100))
        head, _, ended = await raw(str(sandbox.endpoints["api"]), signed())
        assert present in head
        assert absent not in head
        assert ended is None
        sandbox.enqueue(Load(count=100))
        assert (await ask(sandbox, session))["output"]["count"] == 100

    play(tmp_path, scene, answers=Answers(framing=framing))  # type: ignore[arg-type]


def test_the_text_may_be_pretty_and_of_any_type(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        loaded(sandbox)
        async with session.get(f"{sandbox.endpoints['api']}?{signed()}") as response:
            text = await response.text()
            assert response.headers["Content-Type"] == "text/plain"
        assert text.count("\n") > 10
        assert len(json.loads(text)["output"]["data"]) == 3

    play(tmp_path, scene, answers=Answers(pretty=True, content_type="text/plain"))


def test_the_form_may_change_while_messages_wait(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        loaded(sandbox)
        await tell(sandbox, session, "answers", fields="pic_full_url", output="list")
        assert "pic_full_url" in (await ask(sandbox, session))["output"][0]
        assert [one.n for one in sandbox.oracle.removed()] == [1, 2, 3]

    play(tmp_path, scene)


@pytest.mark.parametrize("fields", ["pic_url", "create_time", "pic_full_url"])
def test_a_hostile_name_is_written_as_json_and_as_a_url(tmp_path: Path, fields: str) -> None:
    said = Said(stream_id='直播 "1"\n@#', path="a b/直播#1@.jpg", create_time=1471850187)

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.platform.queue().enqueue([said, said])
        await tell(sandbox, session, "answers", pretty=True)
        message = (await ask(sandbox, session))["output"]["data"][1]
        assert message["stream_id"] == said.stream_id
        quoted = "http://shots-1250000000.file.myqcloud.com/a%20b/%E7%9B%B4%E6%92%AD%231%40.jpg"
        place = {"pic_full_url": quoted} if fields == "pic_full_url" else {"pic_url": said.path}
        assert place.items() <= message.items()
        assert sandbox.oracle.removed()[0].path == said.path

    play(tmp_path, scene, answers=Answers(fields=fields))  # type: ignore[arg-type]


def test_each_era_has_its_form() -> None:
    assert era("2016") == (Answers(count="string"), Naming())
    assert era("2017")[1].grammar == "B"
    assert era("2018")[0].fields == "pic_full_url"
    with pytest.raises(BadOption):
        Answers(output="heap")  # type: ignore[arg-type]
