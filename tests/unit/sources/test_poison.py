"""A poisoned message hurts no neighbour."""

import pytest

from poller.core.model import PollOutcome
from tests.integration.sources.pages import RECEIVED, expected, names, raw, read

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
    "null beside a full URL": (
        b'{"stream_id":"s","pic_url":null,"pic_full_url":"http://h.example/p.jpg"}',
        "s",
    ),
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
