"""The screenshot queue's answers: every form, every cut, every poison."""

import gzip
import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from poller.model import Event, Page, PollOutcome, Reading, parse_event
from poller.qcloud.account import Account
from poller.settings import AccountSettings, CosSettings
from poller.sources.screenshot_queue import ScreenshotQueue

KEY = "c0ffee00c0ffee00c0ffee00c0ffee00"
RECEIVED = datetime(2016, 8, 22, 8, tzinfo=UTC)
PUSH = 1471850187

Object = dict[str, object]


def source(count: int = 100) -> ScreenshotQueue:
    cos = CosSettings(bucket="shots", app_id=1250000000)
    account = Account("main", AccountSettings.model_validate({"app_id": 1234, "key": KEY, "cos": cos}))
    chosen = ScreenshotQueue.Settings(type="screenshot_queue", account="main", count=count)
    return ScreenshotQueue("shots", chosen, {"main": account})


def read(body: bytes, *, status: int = 200, whole: bool = True, encoding: str = "", count: int = 100) -> Reading:
    page = Page(
        source="shots", received_at=RECEIVED, status=status, encoding=encoding, whole=whole, body=body
    )
    return source(count).read(page, b"memory")


def message(n: int, **more: object) -> Object:
    return {"stream_id": f"5000_live_{n}", "pic_url": f"5000_live_{n}_{PUSH}_{PUSH}_{n * 10}_300_169.jpg", **more}


def raw(n: int, **more: object) -> bytes:
    return json.dumps(message(n, **more)).encode()


def names(reading: Reading) -> list[object]:
    return [event.fields["file_name"] for event in reading.events]


def expected(count: int) -> list[object]:
    return [message(n)["pic_url"] for n in range(count)]


# ---------------------------------------------------------------- every form, alone and mixed

OUTPUTS: dict[str, Callable[[list[Object]], Object]] = {
    "object": lambda data: {"output": {"count": len(data), "data": data}},
    "array of one": lambda data: {"output": [{"count": len(data), "data": data}]},
    "array of several": lambda data: {"output": [{"data": data[:2]}, {"data": data[2:]}]},
    "bare list": lambda data: {"output": data},
    "beside": lambda data: {"data": data, "output": None},
    "instead": lambda data: {"data": data},
    "text": lambda data: {"output": json.dumps({"count": len(data), "data": data})},
    "data as text": lambda data: {"output": {"data": json.dumps(data)}},
    "texts": lambda data: {"output": {"data": [json.dumps(one) for one in data]}},
    "text in text": lambda data: {"output": json.dumps(json.dumps({"data": data}))},
    "by number": lambda data: {"output": {"data": {str(n): one for n, one in enumerate(data)}}},
    "other words": lambda data: {"response": {"list": data}},
    "deeper": lambda data: {"result": {"output": {"data": data}}},
    "lists in lists": lambda data: {"output": {"data": [[one] for one in data]}},
}
ENVELOPES: dict[str, Object] = {
    "2016": {"ret": 0, "message": "return successfully!"},
    "text": {"ret": "0", "message": "ok"},
    "float": {"ret": 0.0},
    "missing": {},
    "null": {"ret": None, "message": None},
    "extra": {"ret": 0, "retcode": 0, "errmsg": "query data successfully", "count": "7"},
    "huge": {"ret": 2**63, "request": 10**400},
    "failing": {"ret": 1201, "message": "internal error"},
    "odd": {"ret": [], "message": {"a": ["}"]}},
}
BYTES: dict[str, Callable[[str], bytes]] = {
    "utf-8": str.encode,
    "bom": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "utf-16-be-bom": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "gzip": lambda text: gzip.compress(text.encode()),
    "padded": lambda text: b"\r\n \t" + text.encode() + b"\r\n\r\n",
    "call": lambda text: b"callback(" + text.encode() + b");\n",
    "garbage": lambda text: text.encode() + b"<!-- served by 10.0.0.1 -->",
    "zeros": lambda text: text.encode() + b"\0\0\0",
}
LAYOUTS: dict[str, Callable[[Object], str]] = {
    "dense": lambda body: json.dumps(body, separators=(",", ":")),
    "pretty": lambda body: json.dumps(body, indent=4),
    "ascii": lambda body: json.dumps(body, ensure_ascii=True),
    "unicode": lambda body: json.dumps(body, ensure_ascii=False),
}


def assert_public(event: Event) -> None:
    """An event's public form says what the event says."""
    back = parse_event(event.encoded)
    assert (back.id, back.stream_id, back.occurred_at, back.url) == (
        event.id,
        event.stream_id,
        event.occurred_at,
        event.url,
    )
    assert bytes(back.message) == bytes(event.message)


def assert_all_read(reading: Reading, count: int) -> None:
    assert sorted(map(str, names(reading))) == sorted(map(str, expected(count)))
    assert reading.outcome is (PollOutcome.FULL if count == 3 else PollOutcome.PARTIAL)
    for event in reading.events:
        assert b"\n" not in event.encoded
        assert_public(event)
        assert json.loads(bytes(event.message))["stream_id"] == event.stream_id


@pytest.mark.parametrize("coding", BYTES)
@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_messages_are_read_from_every_form(output: str, envelope: str, coding: str) -> None:
    body = {**ENVELOPES[envelope], **OUTPUTS[output]([message(n) for n in range(3)])}
    assert_all_read(read(BYTES[coding](LAYOUTS["dense"](body)), count=3), 3)


@given(
    output=st.sampled_from(sorted(OUTPUTS)),
    envelope=st.sampled_from(sorted(ENVELOPES)),
    coding=st.sampled_from(sorted(BYTES)),
    layout=st.sampled_from(sorted(LAYOUTS)),
    count=st.integers(1, 6),
    status=st.sampled_from([200, 302, 403, 404, 500]),
    first=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_messages_are_read_from_mixed_forms(
    output: str, envelope: str, coding: str, layout: str, count: int, status: int, first: bool
) -> None:
    held = OUTPUTS[output]([message(n, title='直播 {"x"}') for n in range(count)])
    body = {**held, **ENVELOPES[envelope]} if first else {**ENVELOPES[envelope], **held}
    reading = read(BYTES[coding](LAYOUTS[layout](body)), status=status, count=3)
    assert sorted(map(str, names(reading))) == sorted(map(str, expected(count)))
    assert reading.outcome is (PollOutcome.FULL if count >= 3 else PollOutcome.PARTIAL)


def test_a_list_alone_and_a_message_alone_are_answers() -> None:
    assert names(read(b"[" + raw(0) + b"," + raw(1) + b"]")) == expected(2)
    assert names(read(raw(0))) == expected(1)


def test_two_answers_in_one_body_are_both_read() -> None:
    one = b'{"ret":0,"output":{"data":[%s]}}'
    assert names(read(one % raw(0) + one % raw(1))) == expected(2)
    both = b'{"ret":0,"output":{"data":[%s]},"output":{"data":[%s]}}'
    assert names(read(both % (raw(0), raw(1)))) == expected(2)


def test_the_order_is_the_queue_s() -> None:
    body = json.dumps({"output": {"data": [message(n) for n in range(100)]}}).encode()
    assert names(read(body)) == expected(100)


def test_deflate_is_undone_with_and_without_its_header() -> None:
    body = json.dumps({"output": {"data": [message(0)]}}).encode()
    bare = zlib.compressobj(wbits=-15)
    for packed in (zlib.compress(body), bare.compress(body) + bare.flush(), body):
        assert names(read(packed, encoding="deflate")) == expected(1)


def test_an_encoding_nobody_asked_for_ends_in_quarantine_as_it_came() -> None:
    reading = read(b"\x8b\x07\x80not brotli", encoding="br")
    assert reading.outcome is PollOutcome.FAILED
    assert reading.rejects[0].body == b"\x8b\x07\x80not brotli"


def test_a_bomb_is_opened_within_bounds() -> None:
    packed = gzip.compress(b'{"output":{"data":[' + raw(0) + b"," + b" " * 40_000_000, compresslevel=9)
    reading = read(packed, encoding="gzip")
    assert names(reading) == expected(1)
    assert reading.outcome is PollOutcome.UNCERTAIN
    assert sum(len(reject.body) for reject in reading.rejects) <= 8 * 2**20


# ---------------------------------------------------------------- every cut


def nested(n: int) -> Object:
    return message(n, extra={"pic_url": "inner.jpg", "data": [{"pic_url": "x"}]})


def page_of(count: int, form: str) -> bytes:
    data = [nested(n) for n in range(count)]
    return LAYOUTS["dense"]({"ret": 0, "message": "ok", **OUTPUTS[form](data), "z": [1]}).encode()


@pytest.mark.parametrize("form", ["object", "array of one", "bare list", "instead", "deeper"])
def test_whole_messages_before_any_cut_are_events_and_the_rest_is_kept(form: str) -> None:
    body = page_of(5, form)
    parts = [LAYOUTS["dense"](nested(n)).encode() for n in range(5)]
    ends = [body.index(part) + len(part) for part in parts]
    for cut in range(len(body)):
        reading = read(body[:cut], whole=False)
        done = sum(end <= cut for end in ends)
        assert names(reading) == expected(done), (form, cut)
        assert reading.outcome is PollOutcome.UNCERTAIN
        kept = sum(len(bytes(event.message)) - 4 for event in reading.events)
        kept += sum(len(reject.body) for reject in reading.rejects)
        assert kept == cut, (form, cut)


@pytest.mark.parametrize("coding", ["gzip", "utf-16", "utf-16-be", "call", "bom", "padded"])
def test_a_cut_in_any_coding_invents_nothing(coding: str) -> None:
    body = BYTES[coding](page_of(4, "object").decode())
    before = 0
    for cut in range(len(body)):
        reading = read(body[:cut], whole=False)
        assert names(reading) == expected(len(reading.events))
        assert len(reading.events) >= before
        before = len(reading.events)
        assert reading.outcome is PollOutcome.UNCERTAIN
    assert before == 4


@pytest.mark.parametrize("form", ["text", "data as text", "texts", "text in text", "by number", "other words"])
def test_a_cut_in_any_form_invents_nothing(form: str) -> None:
    body = page_of(4, form)
    for cut in range(len(body)):
        reading = read(body[:cut], whole=False)
        assert set(names(reading)) <= set(expected(4)), (form, cut)
        assert reading.outcome is PollOutcome.UNCERTAIN
        assert reading.events or not body[:cut].strip() or reading.rejects


def test_a_cut_that_http_did_not_notice_is_uncertain_too() -> None:
    body = page_of(3, "object")
    reading = read(body[:-10])
    assert reading.outcome is PollOutcome.UNCERTAIN
    assert names(reading) == expected(3)


@given(cut=st.integers(0, 600), junk=st.binary(max_size=40))
@settings(max_examples=300, deadline=None)
def test_bytes_written_over_a_page_never_raise_and_never_invent(cut: int, junk: bytes) -> None:
    body = page_of(4, "object")
    reading = read(body[:cut] + junk + body[cut + len(junk) :])
    for event in reading.events:
        assert_public(event)


@given(st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_read_without_an_error(body: bytes) -> None:
    for encoding in ("", "gzip", "deflate", "br"):
        read(body, encoding=encoding)


# ---------------------------------------------------------------- poison

POISON = {
    "lone surrogate": rb'{"stream_id":"\ud800","pic_url":"p.jpg"}',
    "lone surrogate elsewhere": rb'{"stream_id":"s","pic_url":"p.jpg","x":"\udfff"}',
    "NaN": b'{"stream_id":"s","pic_url":"p.jpg","x":NaN}',
    "infinity": b'{"stream_id":"s","pic_url":"p.jpg","create_time":-Infinity}',
    "invalid UTF-8": b'{"stream_id":"s","pic_url":"p.jpg","x":"\xff\xfe"}',
    "surrogate in UTF-8": b'{"stream_id":"s","pic_url":"\xed\xa0\x80.jpg"}',
    "5,000 digits": b'{"stream_id":"s","pic_url":"p.jpg","x":' + b"9" * 5000 + b"}",
    "too deep": b'{"stream_id":"s","pic_url":"p.jpg","x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "deep enough to hurt receivers": b'{"pic_url":"p.jpg","x":' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}",
    "no picture": b'{"stream_id":"s"}',
    "no fields": b"{}",
    "picture a number": b'{"stream_id":"s","pic_url":17}',
    "picture null": b'{"stream_id":"s","pic_url":null}',
    "picture empty": b'{"stream_id":"s","pic_url":"","pic_full_url":""}',
    "trailing comma": b'{"stream_id":"s","pic_url":"p.jpg",}',
    "single quotes": b"{'stream_id':'s','pic_url':'p.jpg'}",
    "control character": b'{"stream_id":"s","pic_url":"p\x01.jpg"}',
    "bad escape": rb'{"stream_id":"s","pic_url":"\x70.jpg"}',
    "leading zero": b'{"stream_id":"s","pic_url":"p.jpg","x":01}',
    "wrong bracket": b'{"stream_id":"s","pic_url":"p.jpg","x":[1}',
    "comment": b'{"stream_id":"s","pic_url":"p.jpg"/* x */}',
    "a number": b"5",
    "true": b"true",
    "a word": b'"word"',
    "undefined": b"undefined",
    "NaN alone": b"NaN",
    "no end": b'{"stream_id":"s","pic_url":"p.jpg"',
}


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("output", ["object", "bare list"])
@pytest.mark.parametrize("poison", POISON)
def test_a_poisoned_message_hurts_no_neighbour_and_is_kept(poison: str, output: str, place: int) -> None:
    parts = [raw(0), raw(1)]
    parts.insert(place, POISON[poison])
    lead = b'{"ret":0,"output":{"count":3,"data":[' if output == "object" else b'{"ret":0,"output":['
    tail = b"]}}" if output == "object" else b"]}"
    reading = read(lead + b",".join(parts) + tail)
    assert names(reading) == expected(2)
    assert reading.outcome is PollOutcome.PARTIAL
    assert len(reading.rejects) == 1
    assert POISON[poison] in reading.rejects[0].body


def test_many_poisons_in_one_page_are_rejected_each_alone() -> None:
    closed = [poison for name, poison in POISON.items() if name != "no end" and poison[:1] == b"{"]
    body = b'{"output":{"data":[' + b",".join(part for poison in closed for part in (poison, raw(1))) + b"]}}"
    reading = read(body)
    assert len(reading.events) == len(reading.rejects) == len(closed)


READABLE = {
    "stream a number": (b'{"stream_id":17,"pic_url":"p.jpg"}', "17"),
    "stream null": (b'{"stream_id":null,"pic_url":"p.jpg"}', ""),
    "stream true": (b'{"stream_id":true,"pic_url":"p.jpg"}', ""),
    "stream an object": (b'{"stream_id":{"a":1},"pic_url":"p.jpg"}', ""),
    "stream huge": (b'{"stream_id":%s,"pic_url":"p.jpg"}' % (b"9" * 30), "9" * 30),
    "stream twice": (b'{"stream_id":"a","stream_id":"b","pic_url":"q.jpg","pic_url":"p.jpg"}', "b"),
    "2^63": (b'{"stream_id":"s","pic_url":"p.jpg","create_time":9223372036854775808}', "s"),
    "2^63 elsewhere": (b'{"stream_id":"s","pic_url":"p.jpg","x":9223372036854775808}', "s"),
    "1e999": (b'{"stream_id":"s","pic_url":"p.jpg","create_time":1e999}', "s"),
    "null beside a full URL": (b'{"stream_id":"s","pic_url":null,"pic_full_url":"http://h.example/p.jpg"}', "s"),
    "a number beside a full URL": (b'{"stream_id":"s","pic_url":5,"pic_full_url":"//h.example/p.jpg"}', "s"),
    "escaped key": (rb'{"stream\u005fid":"s","pic\u005furl":"p.jpg"}', "s"),
    "null byte": (rb'{"stream_id":"a\u0000b","pic_url":"p.jpg"}', "a\0b"),
    "pair of surrogates": (rb'{"stream_id":"\ud83d\ude00","pic_url":"p.jpg"}', "😀"),
}


@pytest.mark.parametrize("case", READABLE)
def test_a_strange_message_with_its_needed_fields_is_an_event(case: str) -> None:
    body, stream = READABLE[case]
    reading = read(b'{"output":{"data":[' + raw(0) + b"," + body + b"]}}")
    assert not reading.rejects
    assert [event.stream_id for event in reading.events] == ["5000_live_0", stream]
    assert names(reading)[1] == "p.jpg"
    assert reading.events[1].occurred_at == RECEIVED


# ---------------------------------------------------------------- what an event says


def test_a_message_becomes_an_event_with_all_that_its_name_says() -> None:
    (event,) = read(b'{"output":{"data":[' + raw(12) + b"]}}").events
    push = datetime.fromtimestamp(PUSH, UTC)
    assert (event.kind, event.account, event.stream_id) == ("screenshot", "main", "5000_live_12")
    assert event.url == f"http://shots-1250000000.file.myqcloud.com/{message(12)['pic_url']}"
    assert event.occurred_at == push + timedelta(seconds=120)
    assert event.received_at == RECEIVED
    assert event.fields == {
        "file_name": message(12)["pic_url"],
        "width": 300,
        "height": 169,
        "push_started_at": push,
        "task_started_at": push,
        "offset": 120,
    }


@pytest.mark.parametrize(
    ("created", "moment"),
    [
        (1545030273, datetime(2018, 12, 17, 7, 4, 33, tzinfo=UTC)),
        ("1545030273", datetime(2018, 12, 17, 7, 4, 33, tzinfo=UTC)),
        (1545030273000, datetime(2018, 12, 17, 7, 4, 33, tzinfo=UTC)),
        (1545030273.9, datetime(2018, 12, 17, 7, 4, 33, tzinfo=UTC)),
        ("2018-12-17 15:04:33", datetime(2018, 12, 17, 7, 4, 33, tzinfo=UTC)),
        ("2018-99-99 15:04:33", RECEIVED),
        ("soon", RECEIVED),
        (0, RECEIVED),
        (-5, RECEIVED),
        (10**30, RECEIVED),
    ],
)
def test_the_platform_s_own_time_of_a_shot_is_taken_first(created: object, moment: datetime) -> None:
    (event,) = read(json.dumps({"data": [{"pic_url": "p.jpg", "create_time": created}]}).encode()).events
    assert event.occurred_at == moment


def test_the_stream_is_read_from_the_name_where_the_message_has_none() -> None:
    (event,) = read(b'{"data":[{"pic_url":"/2016-09-12/a_b-screenshot-10-03-08-1280x720.jpg"}]}').events
    assert event.stream_id == "a_b"
    assert event.occurred_at == datetime(2016, 9, 12, 2, 3, 8, tzinfo=UTC)


def ids(*messages: Object) -> list[str]:
    return [event.id for event in read(json.dumps({"data": messages}).encode()).events]


def test_one_picture_named_in_many_ways_is_one_event() -> None:
    name = f"a@b_{PUSH}_{PUSH}_10_300_169.jpg"
    ways: list[Object] = [
        {"pic_url": name},
        {"pic_url": "/" + name},
        {"pic_full_url": "http://elsewhere.example/" + name.replace("@", "%40")},
        {"pic_full_url": "http://elsewhere.example/" + name + "?x=1"},
        {"pic_url": name, "pic_full_url": "https://third.example/other.jpg"},
        {"pic_url": name, "create_time": 1545030273, "stream_id": "b"},
    ]
    assert len(set(ids(*ways))) == 1


def test_where_the_name_fixes_no_moment_the_time_or_the_query_tells_events_apart() -> None:
    same = "s-screenshot-10-03-08-1280x720.jpg"
    assert len(set(ids({"pic_url": same, "create_time": 1545030273}, {"pic_url": same, "create_time": 1545116673}))) == 2
    assert len(set(ids({"pic_url": "c.jpg?t=1"}, {"pic_url": "c.jpg?t=2"}, {"pic_url": "/c.jpg?t=1"}))) == 2
    dated = "2016-09-12/" + same
    assert len(set(ids({"pic_url": dated}, {"pic_url": dated, "create_time": 1545116673}))) == 1


def test_a_full_url_is_the_event_s_url() -> None:
    full = "http://testbucket-1.cos.region.myqcloud.com/2018-12-17/s-screenshot-19-06-59-640x352.jpg"
    body = {"data": [{"pic_url": "/2018-12-17/s-screenshot-19-06-59-640x352.jpg", "pic_full_url": full}]}
    assert read(json.dumps(body).encode()).events[0].url == full


def test_push_secrets_do_not_pass_into_events() -> None:
    body = raw(0, stream_param="bizid=1&txSecret=0123456789abcdef&txTime=5AB5247F", sign="0123456789abcdef")
    (event,) = read(b'{"data":[' + body + b"]}").events
    assert b"0123456789abcdef" not in event.encoded
    assert json.loads(bytes(event.message))["stream_param"] == "***"


# ---------------------------------------------------------------- what the poll came to

EMPTY, REFUSED, THROTTLED = PollOutcome.EMPTY, PollOutcome.REFUSED, PollOutcome.THROTTLED
FAILED, UNCERTAIN = PollOutcome.FAILED, PollOutcome.UNCERTAIN


@pytest.mark.parametrize(
    ("status", "body", "outcome", "rejects"),
    [
        (200, '{"ret":0,"message":"ok","output":{"count":0,"data":[]}}', EMPTY, 0),
        (200, '{"ret":"0","output":[]}', EMPTY, 0),
        (200, '{"ret":0,"output":null}', EMPTY, 0),
        (200, '{"ret":0}', EMPTY, 0),
        (200, '{"ret":0,"output":{"count":7,"data":null}}', EMPTY, 0),
        (200, '{"ret":0,"output":[{"count":0,"data":[]}]}', EMPTY, 0),
        (200, '{"ret":0,"output":""}', EMPTY, 0),
        (200, '{"output":{"count":"0","data":[]}}', EMPTY, 0),
        (200, '{"ret":10003,"message":"no rows"}', EMPTY, 0),
        (200, '{"ret":"10003"}', EMPTY, 0),
        (200, '{"ret":1202,"message":"too frequent"}', THROTTLED, 0),
        (200, '{"ret":0,"retcode":1202}', THROTTLED, 0),
        (200, '{"ret":77,"errmsg":"call too frequent"}', THROTTLED, 0),
        (429, "", THROTTLED, 0),
        (200, '{"ret":1000,"message":"x"}', REFUSED, 0),
        (200, '{"ret":1001.0}', REFUSED, 0),
        (200, '{"ret":4,"message":"cmd is invalid"}', REFUSED, 0),
        (200, '{"message":"appid is invalid"}', REFUSED, 1),
        (200, '{"ret":-1,"errmsg":"sign invalid"}', REFUSED, 0),
        (200, "sign invalid", REFUSED, 1),
        (403, "", REFUSED, 0),
        (403, "<html>403</html>", REFUSED, 1),
        (401, "{}", REFUSED, 1),
        (200, '{"ret":1201,"message":"internal"}', FAILED, 0),
        (200, '{"ret":1204}', FAILED, 0),
        (200, '{"ret":20601}', FAILED, 0),
        (200, "{}", FAILED, 1),
        (200, "[]", FAILED, 1),
        (200, "null", FAILED, 1),
        (200, "", FAILED, 0),
        (200, " \r\n", FAILED, 0),
        (200, "request failed.no returnData", FAILED, 1),
        (200, "<html><style>a{b}</style>don't \" {</html>", FAILED, 1),
        (500, '{"ret":0,"output":{"data":[]}}', FAILED, 1),
        (502, "<html>Bad Gateway</html>", FAILED, 1),
        (404, "", FAILED, 0),
        (302, "<a href='/login?sign=x'>", FAILED, 1),
        (200, '{"ret":0,"output":{"cou', UNCERTAIN, 1),
    ],
)
def test_nothing_there_too_frequent_not_allowed_and_broken_are_four_things(
    status: int, body: str, outcome: PollOutcome, rejects: int
) -> None:
    reading = read(body.encode(), status=status)
    assert (reading.outcome, len(reading.rejects), reading.events) == (outcome, rejects, ())
    assert bool(reading.detail) == (outcome is not EMPTY)
    assert reading.memory == b"memory"
    assert not reading.expired


@pytest.mark.parametrize("body", ['{"ret":9,"message":"time expired"}', '{"errmsg":"Time  Expired!"}', "time expired"])
def test_an_expired_signature_is_told_from_other_refusals(body: str) -> None:
    reading = read(body.encode())
    assert (reading.outcome, reading.expired) == (REFUSED, True)


def test_silence_is_uncertain_and_leaves_nothing() -> None:
    reading = read(b"", status=0, whole=False)
    assert (reading.outcome, reading.rejects, reading.events) == (UNCERTAIN, (), ())


def test_an_error_page_is_kept_up_to_64_kib_and_without_secrets() -> None:
    page = f"<html>/common_access?cmd=1&sign=0123456789abcdef&t=1 {KEY}" + "x" * 100_000
    (reject,) = read(page.encode(), status=502).rejects
    assert len(reject.body) <= 64 * 1024
    assert b"0123456789abcdef" not in reject.body
    assert KEY.encode() not in reject.body


def test_a_refusal_s_detail_is_short_redacted_and_one_line() -> None:
    said = "cmd is invalid\n\x00 sign=0123456789abcdef&" + "x" * 5000
    detail = read(json.dumps({"ret": 5, "message": said}).encode()).detail
    assert "0123456789abcdef" not in detail
    assert "\n" not in detail
    assert len(detail) < 300


def test_a_page_without_any_brackets_closed_takes_linear_time() -> None:
    for bait in (b"[" * 500_000, b'{"a":' * 200_000, b'"\\"' * 300_000, b"[" * 256 + b"}" * 500_000):
        read(b'{"output":{"data":[' + raw(0) + b"," + bait)


def test_reading_is_the_same_again() -> None:
    body = page_of(3, "object")
    assert msgspec.json.encode(read(body).events[0].encoded) == msgspec.json.encode(read(body).events[0].encoded)


def test_settings_refuse_a_least_delay_above_the_longest() -> None:
    with pytest.raises(ValidationError):
        ScreenshotQueue.Settings(type="screenshot_queue", account="a", min_delay=6.0, max_delay=5.0)
    for wrong in ({"count": 0}, {"count": 101}, {"max_in_flight": 0}, {"max_in_flight": 65}):
        with pytest.raises(ValidationError):
            ScreenshotQueue.Settings.model_validate({"type": "x", "account": "a", **wrong})
    chosen = ScreenshotQueue.Settings(type="screenshot_queue", account="a")
    assert (chosen.queue_id, chosen.count, chosen.min_delay, chosen.max_delay, chosen.max_in_flight) == (
        100,
        100,
        0.25,
        5.0,
        4,
    )
