"""Messages made to break their reader: each is one element of `data`, in raw bytes."""

from __future__ import annotations

from collections.abc import Mapping

# %s is the message's own path, so that a test can find it again.
_TEMPLATES: Mapping[str, bytes] = {
    "lone_surrogate": b'{"stream_id":"\\ud800","pic_url":"%s"}',
    "invalid_utf8": b'{"stream_id":"\xff\xfe","pic_url":"%s"}',
    "nul": b'{"stream_id":"a\\u0000b","pic_url":"%s"}',
    "big_int": b'{"stream_id":"poison","pic_url":"%s","create_time":9223372036854775808}',
    "digits": b'{"stream_id":"poison","pic_url":"%s","create_time":' + b"7" * 5000 + b"}",
    "nan": b'{"stream_id":"poison","pic_url":"%s","create_time":NaN}',
    "deep": b'{"stream_id":"poison","pic_url":"%s","more":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "duplicate_keys": b'{"stream_id":"first","stream_id":"second","pic_url":"%s"}',
    "wrong_types": b'{"stream_id":{"a":1},"pic_url":["%s"],"create_time":"soon"}',
    "not_an_object": b'"%s"',
    "null": b"null",
    "no_url": b'{"stream_id":"poison"}',
}

POISONS = tuple(_TEMPLATES)


def poisonous(kind: str, path: str) -> bytes:
    """A poison message of a kind. It names the (ASCII) path if the kind can hold one."""
    return _TEMPLATES[kind].replace(b"%s", path.encode("ascii"))


def names_a_path(kind: str) -> bool:
    return b"%s" in _TEMPLATES[kind]
