"""What must not be kept or said is masked."""

import gzip
import json
import random
import re
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.core.model import ParsedPage, RawPage
from poller.pipeline.ingest import Ingest
from poller.qcloud.events.channels import read_status
from poller.qcloud.events.files import read_files
from poller.qcloud.wire.redaction import (
    blank,
    may_hold_secret,
    redact,
    redact_message,
    redact_text,
    redact_value,
)
from poller.qcloud.wire.replies import open_answer
from poller.runtime.metrics import Metrics
from poller.spools.memory import MemorySpool
from tests.fakes import ScriptedSource

from .spellings import NUMBER, SECRET, all_messages

SPELLINGS = all_messages()


@pytest.mark.parametrize(
    "text",
    [
        "GET /common_access?cmd=1&sign={}&t=2",
        "sign={}",
        "SIGN={} x",
        "?a=1&amp;sign={}&amp;t=1",
        "sign%3D{}%26t%3D1",
        "txSecret={}&txTime=5AB5247F",
        '{{"sign":"{}"}}',
        '{{"sign" : "{}"',
        '{{"sign":"{}',
        '{{"stream_param":"bizid=1&txSecret={}&x"}}',
        '"{{\\"sign\\":\\"{}\\"}}"',
        '<a href="?sign={}">',
        "Sign={};",
    ],
)
def test_signatures_and_push_secrets_are_masked_wherever_they_stand(text: str) -> None:
    masked = redact_text(text.format(SECRET))
    assert SECRET not in masked
    assert "***" in masked


def test_words_that_only_look_alike_stay() -> None:
    for text in (b"design=1", b'{"assign":"x"}', b"the sign is invalid", b'{"message":"sign invalid"}'):
        assert redact(text) == text


def test_a_secret_of_ours_is_masked_in_any_encoding() -> None:
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        text = f"x{SECRET}y".encode(encoding)
        assert SECRET.encode(encoding) not in redact(text, SECRET)
        assert len(blank(text, SECRET)) == len(text)


def test_a_message_stays_json_and_its_picture_url_works_still() -> None:
    raw = msgspec.json.encode(
        {
            "sign": SECRET,
            "stream_param": f'b"=1&txSecret={SECRET}&txTime=5AB',
            "pic_full_url": "http://h/a.jpg?sign=q-sign",
            "design": "kept",
        }
    )
    masked = redact_message(raw)
    assert SECRET.encode() not in masked
    assert msgspec.json.decode(masked) == {
        "sign": "***",
        "stream_param": "***",
        "pic_full_url": "http://h/a.jpg?sign=q-sign",
        "design": "kept",
    }


MORE_BAIT = (
    b"%25" * 300_000,
    b"%" + b"25" * 500_000,
    b'txSecret":"' + b'\\"' * 400_000,
    b'"stream_param":{' + b'"{' * 400_000,
    b"tx" + b"_" * 1_000_000,
    b"\\u0074" * 150_000,
    b"txSecret=" * 100_000,
    b"&#" + b"0" * 1_000_000,
    b'"txSecret":[' * 80_000,
)


def test_masking_is_quick_on_a_megabyte_of_bait(soak: bool) -> None:
    """Ordinarily on a fifth of it: a search that begins anew at every byte would take minutes of that, too."""
    for whole in (
        b"sign" * 250_000,
        b"sign=" * 200_000,
        b'"sign":"' * 100_000,
        b"sign" + b"\\" * 1_000_000,
        *MORE_BAIT,
    ):
        bait, begun = whole if soak else whole[: len(whole) // 5], time.process_time()
        redact(bait)
        redact_message(bait)
        redact_message(json.dumps({"a": bait.decode()}).encode())
        assert time.process_time() - begun < 20, bait[:20]


def holds_secret(text: bytes) -> bool:
    return any(each.encode() in text for each in (SECRET, NUMBER))


@pytest.mark.parametrize("form", SPELLINGS)
def test_a_push_secret_is_masked_however_a_message_spells_it(form: str) -> None:
    for name, raw in SPELLINGS[form].items():
        message = raw.encode()
        assert may_hold_secret(message), name
        masked = redact_message(message)
        assert not holds_secret(_decoded(masked)), name
        found = json.loads(masked)
        assert (found["stream_id"], found["pic_url"]) == ("s", "a.jpg")
        assert redact_message(masked) == masked
        value = redact_value(json.loads(raw))
        assert not holds_secret(_decoded(json.dumps(value).encode())), name


@pytest.mark.parametrize("form", SPELLINGS)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda message: message,
        lambda message: message[:-1],
        lambda message: b"\xff" + message,
        lambda message: b"{" + message,
    ],
    ids=["whole", "torn", "no UTF-8", "broken"],
)
def test_a_push_secret_is_masked_in_what_is_quarantined(form: str, spoil: Any) -> None:
    for name, raw in SPELLINGS[form].items():
        assert not holds_secret(_decoded(redact(spoil(raw.encode())))), name


def _decoded(text: bytes) -> bytes:
    """With every escape of JSON and of URLs undone, however often, so that none can hide the secret."""
    text = text.replace(b"\\/", b"/")
    for _ in range(14):
        text = re.sub(rb"\\+u00([0-9a-fA-F]{2})", lambda found: bytes.fromhex(found[1].decode()), text)
        text = re.sub(rb"%([0-9a-fA-F]{2})", lambda found: bytes.fromhex(found[1].decode()), text)
    return text


def test_what_is_no_secret_stays_byte_for_byte() -> None:
    for raw in (
        b'{"a":1.50,"a":1e400,"b":12345678901234567890, "c" : "\\u4e2d\\/\\ud800"}',
        b'{"pic_full_url":"http://h/a.jpg?q-sign-algorithm=sha1&sign=x%3D&q-signature=y"}',
        b'{"pic_url":"/shots/a.jpg?sign=abc&t=1"}',
        b'{"stream_id":"design","assign":"x","signal":"y","text":"time: 5, param=1, stream: x"}',
        b'{"create_time":1,"texttime":"x","monkey":"x","key":"x"}',
    ):
        assert redact_message(raw) == raw


def test_only_the_secrets_value_is_replaced() -> None:
    raw = b'{ "a":1.50, "TxSecret" : {"x":[1,"}"]} , "u":"?a=1\\u0026txSecret=S&b=2", "a":2}'
    assert redact_message(raw) == b'{ "a":1.50, "TxSecret" : "***" , "u":"?a=1&txSecret=***&b=2", "a":2}'


@pytest.mark.parametrize(
    "wrap",
    [
        lambda message: b'{"ret":0,"message":"ok","output":{"count":1,"data":[' + message + b"]}}",
        lambda message: b'[{"output":[{"data":[' + message + b"]}]}]",
        lambda message: json.dumps({"output": {"data": [message.decode()]}}).encode(),
        lambda message: b'cb({"output":{"data":[' + message + b"]}});",
        lambda message: b'{"ret":0,"output":{"data":[' + message + b",",
    ],
)
def test_no_message_of_an_answer_keeps_its_push_secret(wrap: Any) -> None:
    for form, spelled in SPELLINGS.items():
        for name, raw in list(spelled.items())[::5]:
            answer = open_answer(wrap(raw.encode()))
            assert answer.messages, (form, name)
            for message in answer.messages:
                assert not holds_secret(_decoded(bytes(message))), (form, name)


def test_no_row_of_a_list_and_no_state_of_a_channel_keeps_its_push_secret() -> None:
    for form, spelled in SPELLINGS.items():
        for name, raw in list(spelled.items())[::5]:
            row = '{"vid":"v","end_time":"2016-08-22 15:16:27",' + raw[1:]
            listed, _ = read_files(
                f'{{"ret":0,"output":{{"all_count":1,"file_list":[{row}]}}}}'.encode(),
                "",
                status=200,
                whole=True,
            )
            assert listed is not None, (form, name)
            status, _ = read_status(
                b'{"ret":0,"output":[{"status":1,' + raw[1:].encode() + b"]}", "", status=200, whole=True
            )
            assert status is not None, (form, name)
            for message in (listed.segments[0].message, status.message):
                assert not holds_secret(_decoded(message)), (form, name)


class Buggy(ScriptedSource):
    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        raise LookupError


def test_a_page_that_a_bug_leaves_unread_is_masked_in_quarantine() -> None:
    page = RawPage(
        source="shots",
        received_at=datetime.now(UTC),
        status=200,
        encoding="gzip",
        whole=True,
        body=gzip.compress(SPELLINGS["Go"]["txSecret"].encode()),
    )
    spool = MemorySpool("spool", MemorySpool.Settings(type="memory"), {})
    reading = Ingest(Buggy(), spool, Metrics()).read(page, b"")
    (reject,) = reading.rejects
    assert reject.encoding == ""
    assert b"pic_url" in reject.body
    assert not holds_secret(reject.body)


NAME = st.sampled_from(["txSecret", "stream_param", "sign", "txTime"])
LEAF = st.text(max_size=8) | st.none() | st.integers() | st.booleans()


@st.composite
def written_somehow(draw: st.DrawFn) -> str:
    """A message with a secret in it, under layers of JSON, lists, strings and random escapes."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    name = "".join(rng.choice((each, each.upper(), each + "_", each)) for each in draw(NAME))
    value: Any = {name: draw(st.sampled_from([SECRET, [SECRET], {"a": SECRET}, [{"b": [SECRET]}]]))}
    for layer in draw(st.lists(st.integers(0, 3), max_size=5)):
        if layer == 0:
            value = [draw(LEAF), value, draw(LEAF)]
        elif layer == 1:
            value = {"a": draw(LEAF), "b": value}
        elif layer == 2:
            value = {"ext": json.dumps(value, ensure_ascii=rng.random() < 0.5)}
        else:
            value = {"ext": value, "c": {"d": draw(LEAF)}}
    text = json.dumps({"pic_url": "a.jpg", "x": value})
    return "".join(
        f"\\u{ord(each):04x}" if each.isalpha() and before == "_" else each
        for before, each in zip("{" + text, text, strict=False)
    )


@settings(max_examples=300, deadline=None)
@given(written_somehow())
def test_no_layer_hides_a_push_secret(raw: str) -> None:
    masked = redact_message(raw.encode())
    assert not holds_secret(_decoded(masked))
    json.loads(masked)


@pytest.mark.parametrize("name", ["ｔｘＳｅｃｒｅｔ", "tx\u200bSecret", "\ufefftxSecret", "tx\u2060Secret"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_name_in_letters_of_full_width_or_with_unseen_characters_is_folded(
    name: str, ascii_only: bool
) -> None:
    message = json.dumps({name: "5ec4e7", "pic_url": "a.jpg"}, ensure_ascii=ascii_only).encode()
    masked = json.loads(redact_message(message))
    assert masked == {name: "***", "pic_url": "a.jpg"}


@pytest.mark.parametrize(
    "name",
    ["ｔｘＳｅｃｒｅｔ", "tx\u200bSecret", "tx\u00adSecret", "tx\u00a0Secret", "\U0001d42d\U0001d431Secret"],
)
@pytest.mark.parametrize("sign", ["=", "＝", "：", "%3D"])
def test_a_text_in_letters_of_full_width_is_folded_too(name: str, sign: str) -> None:
    text = f"rtmp://h/live/s?a=1&{name}{sign}{SECRET}"
    for message in ({"u": text}, {"u": json.dumps({"u": text}, ensure_ascii=False)}, {name: SECRET}):
        for ascii_only in (True, False):
            raw = json.dumps(message, ensure_ascii=ascii_only).encode()
            assert not holds_secret(redact_message(raw))
            assert not holds_secret(redact(raw))
        assert not holds_secret(redact(json.dumps(message, ensure_ascii=False).encode()[:-1]))
        assert not holds_secret(json.dumps(redact_value(message)).encode())


def test_what_a_member_names_is_masked_wherever_it_stands_and_the_rest_stays() -> None:
    raw = b'{"a":1.50,"h":[{"value":[1,{"b":"S"}],"key":"tx_secret"},{"key":"room","value":"x"}], "n":1e400}'
    assert redact_message(raw) == raw.replace(b'[1,{"b":"S"}]', b'"***"')
    for kept in (
        b'{"stream_id":"txSecret","pic_url":"a.jpg"}',
        b'{"name":"rtmp://h/s","key":"k","value":"v","text":"about txSecret, in words"}',
    ):
        assert redact_message(kept) == kept
