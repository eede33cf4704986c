"""The notifications that the platform pushes: what they say in each year, of what, in which order, to whom."""

import asyncio
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from poller.sandbox import BadOption, Customer, Options, Sandbox, era, read_notified
from poller.sandbox.callbacks.bodies import mask_address
from poller.sandbox.callbacks.rules import signature
from poller.sandbox.media.recordings import later_url, spec_url
from poller.sandbox.options import Year

from .api_client import record, tell
from .films import film
from .on_air import on_air, over, secret
from .pushes import Studio
from .pushes import push as made_up
from .receiver import KEY, Receiver, counts, in_year, no, run_scene, settled
from .rtmp_peer import Peer

SHOW = film(range(10))
PROOF = {"t", "sign"}

# The keys of wire-samples.json: event1_2017_wild, event100_2016_doc and so on.
PUSH_2017 = {
    *(
        "app",
        "appid",
        "appname",
        "channel_id",
        "errcode",
        "errmsg",
        "event_time",
        "event_type",
        "idc_id",
        "node",
    ),
    *("sequence", "set_id", "sign", "stream_id", "stream_param", "t", "user_ip"),
}
SEGMENT_2016 = {
    *("channel_id", "end_time", "event_type", "file_format", "file_id", "file_size", "sign", "start_time"),
    *("stream_id", "t", "video_id", "video_url"),
}
SEGMENT_2018 = {
    *SEGMENT_2016,
    *("appid", "duration", "media_start_time", "record_file_id", "stream_param", "task_id"),
}
PICTURE_2016 = {"channel_id", "create_time", "event_type", "pic_url", "sign", "stream_id", "t"}
PICTURE_2018 = PICTURE_2016 | {"file_size", "width", "height", "pic_full_url"}

FORMS: dict[Year, dict[int, set[str]]] = {
    "2016": {
        1: PUSH_2017 - {"appid", "idc_id", "set_id"},
        0: PUSH_2017 - {"appid", "idc_id", "set_id"},
        100: SEGMENT_2016,
        200: PICTURE_2016,
    },
    "2017": {1: PUSH_2017, 0: PUSH_2017, 100: SEGMENT_2016, 200: PICTURE_2016},
    "2018": {1: PUSH_2017, 0: PUSH_2017 | {"push_duration"}, 100: SEGMENT_2018, 200: PICTURE_2018},
    "today": {
        1: PUSH_2017 - {"idc_id"} | {"width", "height"},
        0: PUSH_2017 - {"idc_id"} | {"width", "height", "push_duration"},
        100: SEGMENT_2018 | {"app", "appname"},
        200: PICTURE_2018 | {"app", "appname", "stream_param", "task_id"},
    },
}


async def shown(sandbox: Sandbox, receiver: Receiver, query: str = "") -> dict[int, dict[str, Any]]:
    """One body of each type, of a push that was recorded and photographed."""
    async with on_air(sandbox, "a_b@c#d", SHOW, query=query):
        await receiver.until(1, 200)
    await receiver.until(1, 0)
    await settled(sandbox)
    return {number: receiver.of(number)[0].body for number in (1, 200, 100, 0)}


@pytest.mark.parametrize("year", FORMS)
def test_every_notification_has_the_keys_of_its_year(tmp_path: Path, year: Year) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        found = await shown(sandbox, receiver)
        assert {number: set(body) for number, body in found.items()} == FORMS[year]
        for one in receiver.got:
            assert one.headers["Content-Type"] == "application/json"
            assert one.is_signed()
            assert type(one.body["t"]) is int
            assert one.body["stream_id"] == one.body["channel_id"] == "a_b@c#d"

    run_scene(tmp_path, scene, interval=1, **in_year(year))


def test_a_push_is_reported_with_its_secret_and_with_one_sequence(tmp_path: Path) -> None:
    query = secret("push key", "show", time.time() + 60)
    customer = Customer(push_key="push key", callback_key=KEY)

    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        before = int(time.time())
        for _ in range(2):
            async with on_air(sandbox, "show", SHOW, query=f"{query}&who=a%26b"):
                await receiver.until(1, 1)
            await over(sandbox, "show")
        await receiver.until(2, 0)
        begun, ended = ([one.body for one in receiver.of(number)] for number in (1, 0))
        assert [one["sequence"] for one in begun] == [one["sequence"] for one in ended]
        assert begun[0]["sequence"] != begun[1]["sequence"]
        for one in (*begun, *ended):
            assert one["sequence"].isdigit()
            assert before <= one["event_time"] <= time.time()
            assert (one["app"], one["appname"], one["appid"]) == ("h", "live", 1234)
            assert one["stream_param"] == f"{query[1:]}&who=a%26b"
            assert one["user_ip"] == "127.0.0.0"
        assert [(one["errcode"], one["errmsg"]) for one in begun] == [(0, "ok")] * 2
        assert all(0 <= int(one["push_duration"]) < 20_000 for one in ended)

    run_scene(tmp_path, scene, customer, **in_year("2018"))


@pytest.mark.parametrize(
    ("peer", "shown"),
    [
        ("203.0.113.77:5000", "203.0.113.0"),
        ("2001:db8:1:2::3:5000", "2001:db8:1::"),
        ("fe80::1%eth0:5000", "fe80::"),
        ("?:0", ""),
    ],
)
def test_a_pushers_address_is_masked(peer: str, shown: str) -> None:
    assert mask_address(peer) == shown


def test_the_error_says_how_a_push_ended(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        url = str(sandbox.endpoints["rtmp"])
        peers = {
            name: await Peer.publish(url, name) for name in ("told", "left", "cut", "odd", "kicked", "mute")
        }
        await peers["told"].call("FCUnpublish", 9, None, "told")
        await peers["left"].close()
        peers["cut"].reset()
        peers["odd"].send(b"\x02\0\0\0\x00\x00\x04\x01\0\0\0\0\0\0\0\0")  # a chunk size of 0
        sandbox.live.kick(1234, "kicked")
        ended = [one.body for one in await receiver.until(6, 0)]
        assert {one["stream_id"]: (one["errcode"], one["errmsg"]) for one in ended} == {
            "told": (1, "recv rtmp deleteStream"),
            "left": (3, "recv() return 0"),
            "cut": (4, "recv() return error"),
            "odd": (7, "rtmp message large than 1M"),
            "kicked": (100, "internal error"),
            "mute": (4, "recv() return error"),
        }

    run_scene(tmp_path, scene, silence=2.0)


def test_a_segment_is_reported_as_the_lists_have_it_and_can_be_fetched(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        (vid,) = record(sandbox, sandbox.options.customers[0], 1)
        (got,) = await receiver.until(1, 100)
        recording = sandbox.recordings.find(vid=vid)
        assert recording is not None
        body = got.body
        assert (body["video_id"], body["file_id"], body["file_format"]) == (vid, recording.file_id, "flv")
        assert (body["start_time"], body["end_time"], body["file_size"]) == (1471850187, 1471850217, 3)
        assert body["video_url"] == spec_url(recording, sandbox.options.customers[0])
        name = body["video_url"].rpartition("/")[2]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{sandbox.endpoints['vod']}/{name}") as response:
                assert (response.status, await response.read()) == (200, b"FLV")
            await tell(sandbox, session, "answers", callbacks="2018")
        (vid,) = record(sandbox, sandbox.options.customers[0], 1, start=1471860000.0)
        recording = sandbox.recordings.find(vid=vid)
        assert recording is not None
        body = (await receiver.until(2, 100))[1].body
        assert body["video_url"] == later_url(recording, sandbox.options.customers[0])
        assert (body["record_file_id"], body["duration"], body["appid"]) == (recording.file_id, 30, 1234)

    run_scene(tmp_path, scene)


def test_every_segment_of_a_push_is_reported_before_its_end(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        async with on_air(sandbox, "show", made_up(5, gop=25)):
            await receiver.until(1, 100)
        await receiver.until(1, 0)
        types = [one.body["event_type"] for one in receiver.got]
        assert types[0] == 1
        assert types[-1] == 0
        assert set(types[1:-1]) == {100}
        total, listed = sandbox.recordings.page(1234, "show", offset=0, limit=100)
        assert total >= 3
        assert [one.body["video_id"] for one in receiver.of(100)] == [one.vid for one in listed]
        assert {one.body["task_id"] for one in receiver.of(100)} == {receiver.got[0].body["sequence"]}

    run_scene(tmp_path, scene, segment=2.0, **in_year("2018"))


def test_a_segment_that_a_kill_left_open_is_reported_by_the_next_sandbox(tmp_path: Path) -> None:
    with Studio(tmp_path) as studio:
        studio.now = time.time()
        recorder = studio.recorder(1800)
        for tag in made_up(5, gop=25):
            recorder.tag(*tag)

    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        (got,) = await receiver.until(1)
        (listed,) = sandbox.recordings.page(1234, "live_1", offset=0, limit=10)[1]
        assert got.body["video_id"] == listed.vid
        assert (got.body["stream_param"], got.body["task_id"]) == ("", "0")

    run_scene(tmp_path, scene, **in_year("2018"))


def test_a_picture_is_reported_once_it_can_be_fetched(tmp_path: Path) -> None:
    fetched: list[tuple[int, int]] = []
    sandboxes: list[Sandbox] = []

    async def fetch(body: dict[str, Any]) -> int:
        if body["event_type"] == 200:
            url = f"{sandboxes[0].endpoints['cos']}/shots-1250000000{body['pic_url']}"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                fetched.append((response.status, len(await response.read())))
        return 200

    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        sandboxes.append(sandbox)
        async with on_air(sandbox, "show", SHOW):
            await sandbox.until(lambda: sandbox.pictures.on_the_way > 0)
            assert receiver.of(200) == []
            found = await receiver.until(2, 200)
        queued = [one.body for one in found]
        assert fetched[:2] == [(200, one["file_size"]) for one in queued[:2]]
        taken = sandbox.platform.queue().take(2, poll=1)
        for body, message, removed in zip(queued, taken, sandbox.oracle.removed(), strict=False):
            assert message.n == removed.n
            assert body["pic_url"] == f"/{removed.path}"
            assert body["pic_full_url"] == removed.pic_url
            assert body["create_time"] == removed.create_time
            assert (body["width"], body["height"]) == (300, 169)

    run_scene(tmp_path, scene, answer=fetch, interval=1, upload_delay=(0.3, 0.3), **in_year("2018"))


def test_a_picture_that_is_lost_is_not_reported(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        async with on_air(sandbox, "show", SHOW):
            await sandbox.until(lambda: sandbox.pictures.lost >= 2)
        await receiver.until(1, 0)
        await settled(sandbox)
        assert receiver.of(200) == []

    run_scene(tmp_path, scene, interval=0.5, upload_faults={"lost": 1.0})


def test_a_customer_without_a_key_gets_them_unsigned(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        found = await shown(sandbox, receiver)
        assert {number: set(body) for number, body in found.items()} == {
            number: keys - PROOF for number, keys in FORMS["2018"].items()
        }

    run_scene(tmp_path, scene, key=None, interval=1, **in_year("2018"))


def test_a_customer_without_a_url_gets_none(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Sandbox(Options(directory=tmp_path, upload_delay=(0, 0), interval=0.5)) as sandbox:
            async with on_air(sandbox, "show", SHOW):
                await sandbox.until(lambda: sandbox.pictures.stored == 1)
            await over(sandbox, "show")
            assert set(counts(sandbox).values()) == {0}

    asyncio.run(scene())


def test_the_expiry_is_ten_minutes_ahead_of_the_platforms_clock(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        for offset in (0, -1000, 5000):
            sandbox.clock.offset = offset
            sandbox.callbacks.send(1234, {"event_type": 332})
            expected = time.time() + offset + 600
            got = (await receiver.until(len(receiver.got) + 1))[-1]
            assert abs(got.body["t"] - expected) <= 2
            assert got.is_signed()

    run_scene(tmp_path, scene)


def test_the_signature_is_the_known_one() -> None:
    """`wire-samples.json`, signature."""
    assert signature("5d41402abc4b2a76b9719d911017c592", 1471850187) == "b17971b51ba0fe5916ddcd96692e9fb3"


def test_two_customers_never_get_each_others(tmp_path: Path) -> None:
    one = Customer(app_id=1, bucket="one", callback_key="key of one")
    two = Customer(app_id=2, bucket="two", callback_key="key of two")

    async def scene(sandbox: Sandbox, first: Receiver, second: Receiver) -> None:
        async with (
            on_air(sandbox, "same", SHOW, query=f"?bizid={one.biz_id}"),
            on_air(sandbox, "same", SHOW, query=f"?bizid={two.biz_id}"),
        ):
            for receiver in (first, second):
                await receiver.until(2, 200)
        for receiver, customer in ((first, one), (second, two)):
            await receiver.until(1, 0)
            assert customer.callback_key is not None
            assert all(got.is_signed(customer.callback_key) for got in receiver.got)
            assert {got.body["appid"] for got in receiver.got if got.body["event_type"] != 200} == {
                customer.app_id
            }
            assert all(customer.bucket in got.body["pic_full_url"] for got in receiver.of(200))
        await settled(sandbox)
        state: Any = sandbox.state()["callbacks"]
        for receiver, customer in ((first, one), (second, two)):
            assert len(receiver.got) == state["customers"][str(customer.app_id)]["answered"]
            assert len(read_notified(tmp_path, customer.app_id)) == len(receiver.got)

    run_scene(tmp_path, scene, one, two, interval=1, **in_year("2018"))


def test_no_secret_is_ever_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    query = secret("push key", "show", time.time() + 60)
    customer = Customer(push_key="push key", callback_key=KEY)

    async def scene(sandbox: Sandbox, receiver: Receiver) -> None:
        async with on_air(sandbox, "show", SHOW, query=query):
            await receiver.until(2)
        await receiver.until(4)
        assert "secret-path" not in repr(sandbox.options)
        assert KEY not in repr(sandbox.options)
        assert query.split("&")[0][1:] not in str(sandbox.state())

    with caplog.at_level(logging.DEBUG):
        run_scene(tmp_path, scene, customer, answer=no, **in_year("2018"))
    for text in ("secret-path", KEY, query[10:30]):
        assert text not in caplog.text
    assert "callbacks of 1234 are not answered: status 500" in caplog.text
    assert query[10:30] not in (tmp_path / "notified.ndjson").read_text()


@pytest.mark.parametrize(
    "url", ["ftp://host/secret", "secret", "http:///secret", "http://host:x/secret", "", 5, "http://[/secret"]
)
def test_a_url_that_is_none_is_refused_and_not_repeated(url: Any) -> None:
    with pytest.raises(BadOption, match="callback_url: not an http or https URL") as caught:
        Customer(callback_url=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"callback_pace": -1},
        {"callback_pace": float("inf")},
        {"callback_fresh": 1.1},
        {"callback_timeout": 0},
        {"callback_limit": 0},
    ],
)
def test_an_option_of_callbacks_that_makes_no_sense_is_refused(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    (name,) = options
    with pytest.raises(BadOption, match=name):
        Options(directory=tmp_path, **options)
    with pytest.raises(BadOption, match="callback_key"):
        Customer(callback_key=5)  # type: ignore[arg-type]


def test_todays_queries_are_answered_as_those_of_2018() -> None:
    (answers, naming), (before, same) = era("today"), era("2018")
    assert (replace(answers, callbacks="2018"), naming) == (before, same)
