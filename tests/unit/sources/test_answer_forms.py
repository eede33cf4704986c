"""The queue's answers in every form, alone and mixed, and cut anywhere."""

import gzip
import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.core.model import PollOutcome
from tests.integration.sources.pages import (
    BYTES,
    ENVELOPES,
    LAYOUTS,
    OUTPUTS,
    assert_all_read,
    assert_public,
    expected,
    message,
    names,
    nested,
    page_of,
    raw,
    read,
)


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_messages_are_read_from_every_form(output: str, envelope: str) -> None:
    body = LAYOUTS["dense"]({**ENVELOPES[envelope], **OUTPUTS[output]([message(n) for n in range(3)])})
    for coding, written in BYTES.items():
        print(coding)  # a failure shows the last one
        assert_all_read(read(written(body), count=3), 3)


@given(
    output=st.sampled_from(sorted(OUTPUTS)),
    envelope=st.sampled_from(sorted(ENVELOPES)),
    coding=st.sampled_from(sorted(BYTES)),
    layout=st.sampled_from(sorted(LAYOUTS)),
    count=st.integers(1, 6),
    status=st.sampled_from([200, 302, 403, 404, 500]),
    first=st.booleans(),
)
@settings(max_examples=300)
def test_messages_are_read_from_mixed_forms(
    *, output: str, envelope: str, coding: str, layout: str, count: int, status: int, first: bool
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
    assert 2**20 < sum(len(reject.body) for reject in reading.rejects) <= 8 * 2**20


# ---------------------------------------------------------------- every cut


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


@pytest.mark.parametrize(
    "form", ["text", "data as text", "texts", "text in text", "by number", "other words"]
)
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
@settings(max_examples=300)
def test_bytes_written_over_a_page_never_raise_and_never_invent(cut: int, junk: bytes) -> None:
    body = page_of(4, "object")
    reading = read(body[:cut] + junk + body[cut + len(junk) :])
    for event in reading.events:
        assert_public(event)


@given(st.binary(max_size=300))
@settings(max_examples=500)
def test_any_bytes_are_read_without_an_error(body: bytes) -> None:
    for encoding in ("", "gzip", "deflate", "br"):
        read(body, encoding=encoding)
