"""Events and their public form."""

import json
import re
from datetime import UTC, datetime

import msgspec
import pytest

from poller.core.model import batch_id, identity, new_event, parse_event
from poller.testing import some_event

NOW = datetime(2026, 3, 4, 5, 6, 7, 890000, tzinfo=UTC)


def test_an_events_id_is_that_of_its_path() -> None:
    id = identity("screenshot", "main", "a/b.jpg")
    assert re.fullmatch("[0-9a-f]{32}", id)
    assert id == identity("screenshot", "main", "a/b.jpg")
    others = [
        ("recording", "main", "a/b.jpg"),
        ("screenshot", "other", "a/b.jpg"),
        ("screenshot", "main", "a/c.jpg"),
    ]
    assert len({id, *(identity(*other) for other in others)}) == 4


def test_the_public_form_is_one_cloudevent_on_one_line() -> None:
    event = some_event(3)
    public = json.loads(event.encoded)
    assert b"\n" not in event.encoded
    assert public["specversion"] == "1.0"
    assert public["type"] == "com.qcloud.live.screenshot"
    assert public["source"] == "/qcloud/live/main"
    assert public["subject"] == "room"
    assert public["id"] == event.id
    assert datetime.fromisoformat(public["time"]) == event.occurred_at
    assert public["data"]["url"] == event.url
    assert public["data"]["width"] == 300
    assert public["data"]["message"]["stream_id"] == "room"


def test_an_event_is_read_back_from_its_public_form() -> None:
    for number in range(3):
        event = some_event(number)
        assert parse_event(event.encoded) == event


@pytest.mark.parametrize(
    ("stream", "subject"),
    [("a\x00b\nc\x7fd\x85", "a b c d "), ("", None), ("直播#1", "直播#1"), ("\u202e", "\u202e")],
)
def test_control_characters_are_cleaned_from_the_subject_only(stream: str, subject: str | None) -> None:
    event = new_event(
        id="0" * 32,
        kind="screenshot",
        account="main",
        stream_id=stream,
        occurred_at=None,
        received_at=NOW,
        url=None,
        fields={},
        message=msgspec.Raw(b"{}"),
    )
    public = json.loads(event.encoded)
    assert public.get("subject") == subject
    assert public["data"]["stream_id"] == stream
    assert datetime.fromisoformat(public["time"]) == NOW
    assert event.occurred_at == NOW
    assert parse_event(event.encoded) == event


def test_a_batchs_id_is_its_members_and_holds_no_dot() -> None:
    assert batch_id(["ab"]) == "ab"
    several = batch_id(["ab", "cd"])
    assert re.fullmatch("[0-9a-f]{32}", several)
    assert several == batch_id(["ab", "cd"])
    assert several != batch_id(["cd", "ab"])
