"""The published JSON Schema fits the events that the program makes, and knows all their fields."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from docs.generate.event_fields import COMMON, KINDS
from docs.generate.events import example
from poller.core.model import TYPE_PREFIX, Event, RawPage
from poller.qcloud.events.notifications import notification_event
from poller.qcloud.wire.account import Account
from poller.settings import AccountSettings
from poller.sources.channel_status import ChannelStatus
from poller.sources.recordings import Recordings
from tests.integration.sources import pages, pushes

SCHEMA: Final = Path(__file__).parents[2] / "docs" / "reference" / "events.schema.json"
VALID: Final = jsonschema.Draft202012Validator(
    json.loads(SCHEMA.read_text()), format_checker=jsonschema.FormatChecker()
)
AT: Final = datetime(2018, 11, 2, 6, tzinfo=UTC)
ACCOUNTS: Final = {"main": Account("main", AccountSettings(app_id=1234, key=pages.KEY))}
SEGMENT: Final = {
    "create_time": "2018-11-02 13:48:12",
    "end_time": "2018-11-02 13:48:09",
    "file_format": "3",
    "file_id": "5285890782777207037",
    "file_size": "4571794",
    "record_file_url": "http://1257046543.vod2.myqcloud.com/c78eb187vodcq1257046543/07ef3cd35285890782777207037/f0.mp4",
    "start_time": "2018-11-02 13:47:40",
    "stream_id": "32810_f0403e6ebfbe1f6d2df9b4d6b0eba2f0",
    "vid": "210130088_4532e20cf01c42f99afbf549fe71901c",
}


def fits(event: Event) -> None:
    told = json.loads(event.encoded)
    VALID.validate(told)
    known = {*COMMON, *KINDS[told["type"].removeprefix(TYPE_PREFIX)].fields}
    assert set(told["data"]) <= known, "add the field to docs/generate/event_fields.py"


def page(output: object, about: str) -> RawPage:
    body = json.dumps({"ret": 0, "message": "ok", "output": output}).encode()
    return RawPage(source="x", received_at=AT, status=200, encoding="", whole=True, body=body, about=about)


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_a_kind_fits(kind: str) -> None:
    event = example(kind)
    assert event.kind == kind
    fits(event)


@pytest.mark.parametrize(
    "more", [{}, {"create_time": 1471850187}, {"file_size": "7520", "width": "640"}, {"pic_url": "odd"}]
)
def test_a_picture_of_the_queue_fits(more: dict[str, Any]) -> None:
    found = pages.read(json.dumps({"ret": 0, "output": {"data": [pages.message(1, **more)]}}).encode()).events
    assert len(found) == 1
    fits(found[0])


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_change_of_a_channel_fits(status: int) -> None:
    settings = ChannelStatus.Settings(type="channel_status", account="main", channels=("room-7",), confirm=1)
    source = ChannelStatus("states", settings, ACCOUNTS)
    (event,) = source.read(page([{"rate_type": 0, "recv_type": 1, "status": status}], "room-7"), b"").events
    fits(event)


@pytest.mark.parametrize("left_out", [None, "vid", "file_id", "start_time", "file_size"])
def test_a_listed_segment_fits(left_out: str | None) -> None:
    source = Recordings(
        "files", Recordings.Settings(type="recordings", account="main", channels=("r",)), ACCOUNTS
    )
    row = {name: value for name, value in SEGMENT.items() if name != left_out}
    (event,) = source.read(page({"all_count": 1, "file_list": [row]}, "r"), b"").events
    fits(event)


@pytest.mark.parametrize(
    "name", [name for name, value in vars(pushes).items() if name.isupper() and isinstance(value, dict)]
)
def test_a_notification_fits(name: str) -> None:
    line = json.dumps(vars(pushes)[name]).encode()
    fits(notification_event(line, account="main", picture_base=None, received_at=AT))


@pytest.mark.parametrize(
    ("member", "value"),
    [("id", "x"), ("type", "screenshot"), ("time", "yesterday"), ("data", {}), ("specversion", "0.3")],
)
def test_what_is_no_event_does_not_fit(member: str, value: object) -> None:
    told = json.loads(example("screenshot").encoded) | {member: value}
    with pytest.raises(jsonschema.ValidationError):
        VALID.validate(told)


def test_a_field_of_another_type_does_not_fit() -> None:
    told = json.loads(example("screenshot").encoded)
    told["data"]["width"] = "wide"
    with pytest.raises(jsonschema.ValidationError):
        VALID.validate(told)
