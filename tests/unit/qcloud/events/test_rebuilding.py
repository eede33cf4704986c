"""A URL that was wrong when its event was made, built anew from the message and today's settings."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.core.model import Event, new_event, parse_event, with_url
from poller.qcloud.events.notifications import notification_event
from poller.qcloud.events.rebuilding import rebuild, rebuilder
from poller.qcloud.events.screenshots import screenshot_event
from poller.qcloud.wire.addresses import Addresses, addresses
from poller.settings import AccountSettings

RECEIVED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
NAME = "cam1_1471850187_1471850187_10_320_176.jpg"


def settings(**given: Any) -> AccountSettings:
    return AccountSettings.model_validate({"app_id": 1, "key": "k", **given})


def where(**given: Any) -> Addresses:
    return addresses(settings(**given))


def shots(bucket: str) -> dict[str, Any]:
    return {"cos": {"bucket": bucket, "app_id": 125}}


def queued(message: dict[str, Any], of: Addresses) -> Event:
    return screenshot_event(
        json.dumps(message).encode(), account="main", picture_base=of.picture_base, received_at=RECEIVED
    )


def pushed(message: dict[str, Any], of: Addresses) -> Event:
    return notification_event(
        json.dumps(message).encode(), account="main", picture_base=of.picture_base, received_at=RECEIVED
    )


RIGHT = where(**shots("right"))
BASE = "http://right-125.file.myqcloud.com/"

MISTAKES = [where(), where(**shots("wrong")), where(cos={"base_url": "http://elsewhere.example/x"})]

MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({"stream_id": "cam1", "pic_url": NAME}, BASE + NAME),
    ({"stream_id": "cam1", "pic_url": "/2026-03-04/a b#1.jpg"}, BASE + "2026-03-04/a%20b%231.jpg"),
    ({"stream_id": "直播", "pic_url": "直播.jpg?t=1&tt=2"}, BASE + "%E7%9B%B4%E6%92%AD.jpg?t=1&tt=2"),
    ({"stream_id": "cam1", "pic_full_url": BASE + NAME}, BASE + NAME),
    ({"stream_id": "cam1", "pic_url": NAME, "pic_full_url": "/" + NAME}, BASE + NAME),
    ({"event_type": 200, "pic_url": NAME, "t": 1, "sign": "***"}, BASE + NAME),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=["no cos", "a wrong bucket", "a wrong base_url"])
@pytest.mark.parametrize(("message", "url"), MESSAGES, ids=lambda given: json.dumps(given)[:60])
def test_a_picture_whose_bucket_was_named_wrongly_gets_its_right_url(
    mistake: Addresses, message: dict[str, Any], url: str
) -> None:
    make = pushed if "event_type" in message else queued
    event = make(message, mistake)
    fixed = rebuild(event, RIGHT)
    assert fixed == make(message, RIGHT)
    assert fixed.url == url
    assert fixed == parse_event(fixed.encoded)
    assert rebuild(fixed, RIGHT) is fixed


def test_only_the_url_changes_byte_for_byte() -> None:
    raw = b'{ "pic_url" : "a.jpg","create_time": 1e9, "x":1.0e-2,"big":123456789012345678901234567890 }'
    event = screenshot_event(raw, account="main", picture_base=None, received_at=RECEIVED)
    fixed = rebuild(event, RIGHT)
    url = json.dumps(BASE + "a.jpg").encode()
    assert fixed.encoded == event.encoded.replace(b'"url":null', b'"url":' + url)
    assert fixed.message == event.message == raw
    for name in ("id", "kind", "account", "stream_id", "occurred_at", "received_at", "stream", "fields"):
        assert getattr(fixed, name) == getattr(event, name)


@given(st.text(), st.text() | st.none())
def test_an_event_with_another_url_is_read_back_as_such(stream: str, url: str | None) -> None:
    event = new_event(
        id="0" * 32,
        kind="screenshot",
        account="main",
        stream_id=stream,
        occurred_at=None,
        received_at=RECEIVED,
        url="http://a.example/",
        fields={"offset": None, "width": 3},
        message=msgspec.Raw(json.dumps({"stream_id": stream}).encode()),
    )
    assert parse_event(with_url(event, url).encoded) == with_url(event, url)
    assert with_url(with_url(event, url), event.url) == event


@pytest.mark.parametrize(
    ("message", "fields", "url"),
    [
        ({"vid": "v1", "record_file_url": ""}, {"vid": "v1"}, "http://77.vod.myqcloud.com/v1.f0.flv"),
        ({"vid": "v1", "record_file_url": None}, {"vid": "v1"}, "http://77.vod.myqcloud.com/v1.f0.flv"),
        ({"vid": "v1", "record_file_url": "http://v/f.flv"}, {"vid": "v1"}, "http://v/f.flv"),
        ({"video_url": "http://v/f.flv"}, {"vid": None}, "http://v/f.flv"),
        ({"file_id": "5"}, {"vid": None, "file_id": "5"}, None),
    ],
)
def test_a_recording_gets_the_url_of_its_vid_unless_its_row_names_one(
    message: dict[str, Any], fields: dict[str, object], url: str | None
) -> None:
    event = new_event(
        id="0" * 32,
        kind="recording",
        account="main",
        stream_id="cam1",
        occurred_at=None,
        received_at=RECEIVED,
        url=None,
        fields=fields,
        message=msgspec.Raw(json.dumps(message).encode()),
    )
    assert rebuild(event, where(vod={"biz_id": 77})).url == url


def test_what_cannot_be_built_or_leads_elsewhere_leaves_the_event_as_it_is() -> None:
    event = queued({"pic_url": NAME}, RIGHT)
    assert rebuild(event, where()) is event
    own = with_url(queued({"pic_full_url": "http://evil.example/" + NAME}, RIGHT), BASE + NAME)
    assert rebuild(own, RIGHT) is own
    for message in (b"{}", b"[]", b'"x"', b"1", b'{"pic_url":7}'):
        odd = new_event(
            id="0" * 32,
            kind="screenshot",
            account="main",
            stream_id="",
            occurred_at=None,
            received_at=RECEIVED,
            url=None,
            fields={},
            message=msgspec.Raw(message),
        )
        assert rebuild(odd, RIGHT) is odd
    for kind in ("channel", "other", "moderation", "recording"):
        other = msgspec.structs.replace(event, kind=kind)
        assert rebuild(other, RIGHT) is other


def test_an_event_of_an_account_that_is_not_configured_stays_as_it_is() -> None:
    event = queued({"pic_url": NAME}, where())
    rebuilt = rebuilder({"main": settings(**shots("right")), "second": settings()})
    assert rebuilt(event).url == BASE + NAME
    gone = msgspec.structs.replace(event, account="gone")
    assert rebuilt(gone) is gone
