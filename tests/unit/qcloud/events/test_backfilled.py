"""A picture that was found in the bucket is the same event as the one that the queue would have brought."""

from datetime import UTC, datetime
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.qcloud.events.screenshots import event_of_key, screenshot_event

NOW = datetime(2016, 8, 22, 8, 0, tzinfo=UTC)
BASE = "http://shots-1250000000.file.myqcloud.com/"
STREAMS = ["room-7", "3891_@v_tls#3pfnm5fw35qt", "直播 1", "a_b_1471850187", "x+y", "100%"]


def queued(pic_url: str, stream: str, **more: object) -> str:
    raw = msgspec.json.encode({"stream_id": stream, "pic_url": pic_url, **more})
    return screenshot_event(raw, account="main", picture_base=BASE, received_at=NOW).id


def keys_of(stream: str) -> list[str]:
    return [
        f"{stream}_1471850187_1471850190_120_300_169.jpg",
        f"{stream}_1471850187_0_120_300_169.jpg",
        f"2016-08-22/{stream}-screenshot-15-32-54-960x540.jpg",
        f"live/2016-08-22/{stream}-screenshot-15-32-54-960x540.jpg",
    ]


@pytest.mark.parametrize("stream", STREAMS)
def test_its_id_is_the_one_that_every_message_of_the_queue_gives_it(stream: str) -> None:
    for key in keys_of(stream):
        event = event_of_key(key, account="main", picture_base=BASE, received_at=NOW)
        assert event is not None
        for written in (key, f"/{key}", BASE + quote(key), f"https://cdn.example.com/{quote(key)}?sign=x"):
            assert queued(written, stream) == event.id, written
            assert queued(written, stream, create_time=1471850307) == event.id


def test_it_says_that_it_was_found_in_the_bucket() -> None:
    key = "room-7_1471850187_1471850190_120_300_169.jpg"
    event = event_of_key(key, account="main", picture_base=BASE, received_at=NOW)
    assert event is not None
    assert event.occurred_at == datetime.fromtimestamp(1471850187 + 120, UTC)
    assert event.received_at == NOW
    assert event.stream_id == "room-7"
    assert event.url == BASE + key
    assert event.fields["backfilled"] is True
    assert msgspec.json.decode(event.message) == {"stream_id": "room-7", "pic_url": key}


@pytest.mark.parametrize(
    "key",
    [
        "cover.jpg",
        "room-7-screenshot-10-32-54-960x540.jpg",
        "a_0_0_1_300_169.jpg",
        "2016-08-22/",
        "",
        "2016-08-22/x.flv",
    ],
)
def test_a_key_that_does_not_say_its_moment_is_no_event(key: str) -> None:
    assert event_of_key(key, account="main", picture_base=BASE, received_at=NOW) is None


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_no_key_raises(key: str) -> None:
    event_of_key(f"{key}_1471850187_0_120_300_169.jpg", account="main", picture_base=BASE, received_at=NOW)
