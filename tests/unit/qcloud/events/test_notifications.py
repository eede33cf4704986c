"""Bodies that the platform pushes: opened within limits, judged, masked, and read as events."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.core.model import Event, identity, parse_event
from poller.qcloud.events.files import read_row, recording_key
from poller.qcloud.events.notifications import notification_event
from poller.qcloud.events.screenshots import screenshot_event
from poller.qcloud.wire.messages import UnreadableMessage
from poller.qcloud.wire.signed_bodies import flaw, is_signed, mask, open_body
from tests.integration.sources.pushes import (
    INTERRUPTED_2017,
    KEY,
    PUSH_SECRET,
    RECORDING_2016,
    RECORDING_2018,
    SAMPLES,
    SCREENSHOT_2016,
    SCREENSHOT_2018,
    STARTED_2017,
    STREAM_PARAM,
    signature,
    signed,
)
from tests.unit.qcloud.events.test_files import SAMPLE as ROW_2018

RECEIVED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BASE = "http://shots-1250000000.file.myqcloud.com/"
NOW = 1_500_000_000.0


def event_of(fields: object) -> Event:
    return notification_event(
        json.dumps(fields).encode(), account="main", picture_base=BASE, received_at=RECEIVED
    )


def at(epoch: int) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


# ---------------------------------------------------------------- events


@pytest.mark.parametrize("name", SAMPLES)
def test_every_published_notification_is_an_event_of_its_stream_whose_message_is_kept(name: str) -> None:
    fields = {**SAMPLES[name], "t": 1509673029, "sign": "x" * 32}
    event = notification_event(mask(fields, [KEY]), account="main", picture_base=BASE, received_at=RECEIVED)
    assert event.kind == name.split(maxsplit=1)[0].replace("started", "channel").replace(
        "interrupted", "channel"
    )
    assert event.stream_id == fields["stream_id"]
    assert event.received_at == RECEIVED
    kept = json.loads(event.message)
    assert kept == {name: "***" if name in ("sign", "stream_param") else fields[name] for name in fields}
    back = parse_event(event.encoded)
    assert (back.id, back.kind, back.occurred_at, back.url) == (
        event.id,
        event.kind,
        event.occurred_at,
        event.url,
    )


@pytest.mark.parametrize("fields", [SCREENSHOT_2016, SCREENSHOT_2018])
def test_a_screenshot_is_the_very_event_that_the_queue_makes_of_it(fields: dict[str, Any]) -> None:
    pushed = event_of(fields)
    message = {name: fields[name] for name in fields if name not in ("event_type", "channel_id")}
    queued = screenshot_event(
        json.dumps(message).encode(), account="main", picture_base=BASE, received_at=RECEIVED
    )
    assert (pushed.id, pushed.fields, pushed.url) == (queued.id, queued.fields, queued.url)
    assert (pushed.stream_id, pushed.occurred_at) == (queued.stream_id, queued.occurred_at)
    assert pushed.id == identity("screenshot", "main", fields["pic_url"].lstrip("/"))


def test_a_recording_says_where_it_is_and_what_it_is() -> None:
    event = event_of(RECORDING_2018)
    assert (event.kind, event.url) == ("recording", RECORDING_2018["video_url"])
    assert event.id == identity("recording", "main", "7447398155134540229")
    assert event.occurred_at == at(1521690118)
    assert event.fields == {
        "vid": "210032122_7f4828cfe7df49dfbe1ba2a262878b12",
        "file_id": "7447398155134540229",
        "start_time": "2018-03-22T03:37:44Z",
        "end_time": "2018-03-22T03:41:58Z",
        "duration": 183,
        "file_format": "flv",
        "file_size": 16041914,
    }


def test_a_recording_without_a_file_id_goes_by_its_vid_and_else_by_its_address() -> None:
    def id_without(*names: str) -> str:
        return event_of({k: v for k, v in RECORDING_2016.items() if k not in names}).id

    vid = RECORDING_2016["video_id"]
    assert id_without() == identity("recording", "main", RECORDING_2016["file_id"])
    assert id_without("file_id") == identity("recording", "main", vid)
    path = RECORDING_2016["video_url"].split("/", 3)[3]
    assert id_without("file_id", "video_id") == identity("recording", "main", path)
    assert event_of({**RECORDING_2016, "file_id": "0"}).id == identity("recording", "main", vid)
    assert event_of({"event_type": 100, "stream_id": "a", "vid": vid}).id == identity(
        "recording", "main", vid
    )


def test_a_push_that_starts_and_one_that_ends_are_two_changes_of_a_channel() -> None:
    started, ended = event_of(STARTED_2017), event_of(INTERRUPTED_2017)
    assert (started.kind, ended.kind) == ("channel", "channel")
    assert started.id != ended.id, "they share their sequence"
    assert (started.occurred_at, ended.occurred_at) == (at(1509672428), at(1509672432))
    assert started.fields == {
        "state": "live",
        "seen_by": "callbacks",
        "sequence": "653434696377249304",
        "errcode": 0,
        "errmsg": "ok",
        "push_duration": None,
        "node": "100.119.17.9",
    }
    assert (ended.fields["state"], ended.fields["errcode"]) == ("interrupted", 1)
    assert ended.fields["push_duration"] == 4012


def test_a_change_is_identified_by_its_sequence_else_by_its_time() -> None:
    def id_of(**more: object) -> str:
        return event_of({"event_type": 1, "stream_id": "a", **more}).id

    assert id_of(sequence="7", event_time=1) == id_of(sequence="7", event_time=2, t=5)
    assert id_of(sequence="7") != id_of(sequence="8")
    assert id_of(event_time=1509672428) != id_of(event_time=1509672429)
    assert id_of(sequence="7") != id_of(sequence="7", stream_id="b")
    assert id_of(x=1) != id_of(x=2)


@pytest.mark.parametrize("event_type", [341, 314, 315, 999, "341", None, 1.5, [], True])
def test_every_other_type_is_passed_on_with_its_body(event_type: object) -> None:
    fields = {"event_type": event_type, "stream_id": "a", "event_time": 1509672428, "more": {"a": [1]}}
    event = event_of(fields)
    assert (event.kind, event.stream_id, event.occurred_at) == ("other", "a", at(1509672428))
    assert event.fields == {
        "event_type": event_type if isinstance(event_type, int | str) and event_type is not True else None
    }
    assert json.loads(event.message) == fields


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"streamId": "a", "type": [1, 2], "score": 99},
        {"event_type": 200, "stream_id": "a"},
        {"event_type": 200, "pic_url": ["a.jpg"]},
        {"event_type": 100, "stream_id": "a"},
        {"event_type": "", "event_time": {"a": 1}},
        {"event_type": 10**200, "stream_id": 10**30, "end_time": True},
    ],
)
def test_what_is_not_understood_is_kept_too(fields: dict[str, Any]) -> None:
    event = event_of(fields)
    assert event.kind == "other"
    assert json.loads(event.message) == fields
    assert event.occurred_at == RECEIVED
    assert event.stream_id == str(fields.get("streamId") or fields.get("stream_id") or "")


AUDIT: dict[str, Any] = {
    "event_type": 317,
    "streamId": "room",
    "channelId": "room",
    "img": BASE + "2026-01-02/room.jpg",
    "type": [1, 4],
    "score": 91,
    "suggestion": "block",
    "screenshotTime": 1575514654,
    "ocrMsg": "words",
    "unknown": {"deep": [1]},
}


@pytest.mark.parametrize(
    ("more", "url", "score"),
    [
        ({}, AUDIT["img"], 91),
        ({"event_type": "317"}, AUDIT["img"], 91),
        ({"event_type": 317.0}, AUDIT["img"], 91),
        ({"event_type": None}, AUDIT["img"], 91),
        ({"event_type": None, "eventType": 317}, AUDIT["img"], 91),
        ({"streamId": None, "stream_id": "room"}, AUDIT["img"], 91),
        ({"img": "/2026-01-02/room.jpg"}, AUDIT["img"], 91),
        ({"img": "2026-01-02/room.jpg", "score": "91.5"}, AUDIT["img"], 91.5),
        ({"img": "http://elsewhere.example/a.jpg", "score": "91"}, "http://elsewhere.example/a.jpg", 91),
        ({"img": None, "score": None}, None, None),
        ({"img": "", "score": "much"}, None, None),
        ({"img": ["a.jpg"], "score": 10**40}, None, None),
        ({"event_type": None, "suggestion": None, "score": -1}, AUDIT["img"], -1),
    ],
)
def test_an_image_audit_is_a_moderation_event_with_its_picture(
    more: dict[str, Any], url: str | None, score: float | None
) -> None:
    fields = {name: value for name, value in {**AUDIT, **more}.items() if value is not None}
    event = event_of(fields)
    assert (event.kind, event.stream_id, event.occurred_at) == ("moderation", "room", at(1575514654))
    assert (event.url, event.fields["score"], event.fields["type"]) == (url, score, [1, 4])
    assert event.fields["suggestion"] == fields.get("suggestion")
    assert json.loads(event.message) == fields
    assert parse_event(event.encoded).kind == "moderation"
    assert b'"type":"com.qcloud.live.moderation"' in event.encoded
    repeats = {event_of({**fields, "t": t, "sign": signature(KEY, t)}).id for t in (1, 2)}
    assert repeats == {event.id}


@pytest.mark.parametrize(
    ("type", "score"), [(10**40, 1), (True, 1), ([10**40, {"a": 1}, "x"], 1), ({"a": 1}, 1)]
)
def test_an_audit_with_strange_members_is_a_moderation_event(type: object, score: object) -> None:
    event = event_of({**AUDIT, "type": type, "score": score})
    assert event.kind == "moderation"
    assert event.fields["type"] in (None, ["x"])


@pytest.mark.parametrize(
    ("event_type", "kind"),
    [
        (332, "recording_status"),
        ("332", "recording_status"),
        (332.0, "recording_status"),
        (321, "push_exception"),
        ("321", "push_exception"),
    ],
)
@pytest.mark.parametrize("stream", ["stream_id", "streamId", "channel_id", "channelId"])
def test_a_recordings_status_and_a_pushs_exception_have_kinds_of_their_own(
    event_type: object, kind: str, stream: str
) -> None:
    fields = {"event_type": event_type, stream: "a", "event_time": 1509672428, "record_event": "x", "b": [1]}
    event = event_of(fields)
    assert (event.kind, event.stream_id, event.occurred_at, event.url) == (kind, "a", at(1509672428), None)
    assert json.loads(event.message) == fields
    assert event_of({**fields, "t": 5, "sign": "x"}).id == event.id


def test_a_repeat_with_a_fresh_t_is_the_same_event() -> None:
    for fields in (*SAMPLES.values(), {"event_type": 332, "a": 1}, {"no": "type"}):
        ids = {event_of({**fields, "t": t, "sign": signature(KEY, t)}).id for t in (1509673029, 1509673089)}
        assert len(ids) == 1
        again = dict(reversed({**fields, "t": 1}.items()))
        assert event_of(again).id in ids, "nor does the order of its members matter"


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "event_type",
                "stream_id",
                "pic_url",
                "create_time",
                "file_id",
                "event_time",
                "sequence",
                "x",
                *AUDIT,
            ]
        ),
        st.recursive(
            st.sampled_from(
                [
                    0,
                    1,
                    100,
                    200,
                    317,
                    321,
                    332,
                    None,
                    True,
                    -1,
                    1.5,
                    10**40,
                    "",
                    "0",
                    "a\x00b",
                    "\ud800",
                    "🎥",
                ]
            ),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    )
)
def test_any_notification_is_an_event(fields: dict[str, Any]) -> None:
    line = mask(open_body(json.dumps(fields).encode()), [KEY])
    event = notification_event(line, account="main", picture_base=BASE, received_at=RECEIVED)
    assert event == notification_event(line, account="main", picture_base=BASE, received_at=RECEIVED)
    assert b"\n" not in event.encoded
    assert parse_event(event.encoded).id == event.id
    json.loads(event.encoded)


# ---------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"a=1&b=2", "not JSON"),
        (b"{}{}", "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'{"t":01473646392}', "not JSON"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b'"{}"', "not an object"),
        (b"12", "not an object"),
        (b'{"a":1,"a":2}', "a name stands twice"),
        (b'{"a":{"b":1,"b":1}}', "a name stands twice"),
        (b'{"a":1,"\\u0061":2}', "a name stands twice"),
        (b'{"a":NaN}', "holds NaN"),
        (b'{"a":-Infinity}', "holds -Infinity"),
        (b'{"a":1e999}', "a number is too long"),
        (b'{"a":' + b"9" * 5000 + b"}", "a number is too long"),
        (b'{"a":0.' + b"9" * 5000 + b"}", "a number is too long"),
        (b'{"a":' + b"[" * 65 + b"]" * 65 + b"}", "too deep"),
        (b'{"a":' * 50_000, "too deep"),
        (b'{"a":"\xff"}', "not UTF-8"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
    ],
)
def test_what_no_two_readers_would_read_alike_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(UnreadableMessage, match=f"^{reason}$"):
        open_body(body)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,0129eE.-\\u aNI\x00', max_size=60).map(str.encode))
def test_any_bytes_are_a_notification_or_unreadable(body: bytes) -> None:
    try:
        fields = open_body(body)
    except UnreadableMessage:
        return
    assert isinstance(fields, dict)


def test_a_byte_order_mark_and_blanks_are_passed_over() -> None:
    assert open_body(b'\xef\xbb\xbf {"a": "\xe7\x94\xb5"}\r\n') == {"a": "电"}


# ---------------------------------------------------------------- signatures


@pytest.mark.parametrize("t", [1_500_000_600, "1500000600", 1_500_000_900, 1_499_996_400])
def test_a_good_signature_is_good(t: object) -> None:
    assert flaw({"t": t, "sign": signature(KEY, t)}, [KEY], NOW) is None


def test_the_platforms_own_example_is_good() -> None:
    sample = {"t": 1471850187, "sign": "b17971b51ba0fe5916ddcd96692e9fb3"}
    assert flaw(sample, ["5d41402abc4b2a76b9719d911017c592"], 1471850187 - 600) is None


@pytest.mark.parametrize(
    ("t", "reason"),
    [
        (None, "t is not ten digits"),
        (True, "t is not ten digits"),
        (1_500_000_600.0, "t is not ten digits"),
        ([1_500_000_600], "t is not ten digits"),
        ("", "t is not ten digits"),
        ("150000060", "t is not ten digits"),
        ("15000006000", "t is not ten digits"),
        (1_500_000_600_000, "t is not ten digits"),
        (-1_500_000_600, "t is not ten digits"),
        ("+150000060", "t is not ten digits"),
        (" 1500000600", "t is not ten digits"),
        ("1500000600\n", "t is not ten digits"),
        ("1500000600 ", "t is not ten digits"),
        ("1500000600abc", "t is not ten digits"),
        ("1500000600\x80\x00\x00", "t is not ten digits"),
        ("0x59682f00", "t is not ten digits"),
        ("1_50000060", "t is not ten digits"),
        ("١٥٠٠٠٠٠٦٠٠", "t is not ten digits"),
        (1_500_000_901, "t is 901 s ahead"),
        (9_999_999_999, "t is 8499999999 s ahead"),
        (1_499_996_399, "t was 3601 s ago"),
        ("0000000001", "t was 1499999999 s ago"),
    ],
)
def test_a_t_of_any_other_form_or_time_is_refused_whatever_its_signature(t: object, reason: str) -> None:
    assert flaw({"t": t, "sign": signature(KEY, t)}, [KEY], NOW) == reason
    assert is_signed({"t": t})


@pytest.mark.parametrize(
    "given",
    [
        "",
        "0" * 32,
        signature(KEY, 1_500_000_600).upper(),
        signature(KEY, 1_500_000_600)[:-1],
        signature(KEY, 1_500_000_600) + "0",
        " " + signature(KEY, 1_500_000_600),
        signature("another key", 1_500_000_600),
        signature("", 1_500_000_600),
        "ｂ17971b51ba0fe5916ddcd96692e9fb3",
        "\ud800" * 32,
        None,
        0,
        [signature(KEY, 1_500_000_600)],
    ],
)
def test_any_other_signature_is_refused(given: object) -> None:
    fields = {"t": 1_500_000_600, "sign": given}
    expected = "wrong signature" if isinstance(given, str) else "no signature"
    assert flaw(fields, [KEY], NOW) == expected
    assert flaw({"t": 1_500_000_600}, [KEY], NOW) == "no signature"
    assert flaw({"t": 1_500_000_600, "sign": signature(KEY, 1_500_000_600)}, [], NOW) == "wrong signature"


def test_each_of_several_keys_is_good() -> None:
    for key in ("old", "new"):
        assert flaw({"t": 1_500_000_600, "sign": signature(key, 1_500_000_600)}, ["new", "old"], NOW) is None


# ---------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_param": STREAM_PARAM},
        {"stream_param": {"a": [PUSH_SECRET]}},
        {"stream_param": [PUSH_SECRET]},
        {"streamParam": PUSH_SECRET},
        {"StreamParam": PUSH_SECRET},
        {"sign": PUSH_SECRET},
        {"a": [{"txSecret": PUSH_SECRET}]},
        {"TxSecret": PUSH_SECRET},
        {"url": f"rtmp://push.example.com/live/room?{STREAM_PARAM}"},
        {"url": f"rtmp://push.example.com/live/room?txTime=5AB5247F&txSecret={PUSH_SECRET}"},
        {"a": f"x%3Fbizid%3D1%26txSecret%3D{PUSH_SECRET}%26txTime%3D5AB5247F"},
        {"a": json.dumps({"stream_param": STREAM_PARAM})},
        {"a": json.dumps({"txSecret": PUSH_SECRET})},
        {f"txSecret={PUSH_SECRET}": 1},
    ],
)
def test_nothing_that_opens_a_stream_or_signs_is_kept(fields: dict[str, Any]) -> None:
    escaped = json.dumps({**fields, "event_type": 332}).replace("S", "\\u0053").replace("_", "\\u005f")
    for body in (json.dumps({**fields, "event_type": 332}), escaped, json.dumps(fields, indent=2)):
        line = mask(open_body(body.encode()), [KEY])
        assert PUSH_SECRET.encode() not in line
        assert b"\n" not in line
        assert isinstance(json.loads(line), dict)


def test_a_key_of_ours_is_masked_wherever_it_stands() -> None:
    fields = {"a": f"the key is {KEY}", KEY: [{"b": KEY}]}
    assert json.loads(mask(fields, ["", KEY])) == {
        "a": "the key is " + "*" * 32,
        "*" * 32: [{"b": "*" * 32}],
    }


def test_what_is_no_secret_stays_as_it_was() -> None:
    fields = {
        "pic_full_url": "http://h/a.jpg?sign=q-sign-algorithm&x=1",
        "design": "kept",
        "n": [1, -2, 1.5, 10**40, True, None, ""],
        "text": '电影 "quoted" \\ / \u2028',
    }
    assert json.loads(mask(open_body(json.dumps(fields).encode()), [KEY])) == fields


def test_a_body_signed_by_the_tests_is_what_it_should_be() -> None:
    fields = open_body(signed(SCREENSHOT_2016, t=1473646392))
    assert flaw(fields, [KEY], 1473645792) is None


def test_a_segment_is_the_same_event_whether_it_is_listed_or_pushed() -> None:
    row = ROW_2018
    facts = {
        "event_type": 100,
        "stream_id": row["stream_id"],
        "file_id": row["file_id"],
        "video_id": row["vid"],
        "video_url": row["record_file_url"],
    }
    for without in ((), ("file_id", "record_file_id"), ("file_id", "record_file_id", "vid", "video_id")):
        listed = read_row(json.dumps({k: v for k, v in row.items() if k not in without}).encode())
        pushed = event_of({k: v for k, v in facts.items() if k not in without})
        key = recording_key(listed.file_id, listed.vid, listed.url)
        assert pushed.id == identity("recording", "main", key), without


@pytest.mark.parametrize("event_type", [0, 1])
@pytest.mark.parametrize(
    "event_time", [4070908800, "4070908800", 4070908800000, "2099-01-01 00:00:00", 0, -5, "x", None, 10**17]
)
def test_a_change_is_dated_no_further_ahead_than_it_was_received(event_type: int, event_time: object) -> None:
    line = json.dumps({"event_type": event_type, "stream_id": "a", "event_time": event_time}).encode()
    received = datetime(2026, 1, 2, tzinfo=UTC)
    event = notification_event(line, account="main", picture_base=None, received_at=received)
    assert (event.kind, event.occurred_at) == ("channel", received)
