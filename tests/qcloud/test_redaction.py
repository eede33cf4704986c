"""What must not be kept or said is masked."""

import msgspec
import pytest

from poller.qcloud.redaction import blank, redact, redact_message, redact_text

SECRET = "c0ffeec0ffeec0ffeec0ffeec0ffee00"


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


def test_masking_is_quick_on_a_megabyte_of_bait() -> None:
    for bait in (b"sign" * 250_000, b"sign=" * 200_000, b'"sign":"' * 100_000, b"sign" + b"\\" * 1_000_000):
        redact(bait)
        redact_message(bait)
