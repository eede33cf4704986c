"""Masking of stored data before an operator sees it: signatures and keys are removed. Pure functions."""

import base64
import re
from collections.abc import Sequence

from poller.qcloud.wire.bodies import open_body
from poller.qcloud.wire.redaction import redact, redact_text

_QUERY = re.compile(rb"(?i)(https?(?::|%3a)[^\s\"'<>?\\]{1,2000}\?)[^\s\"'<>\\]++")


def mask(text: str) -> str:
    """A text with its keys and signatures masked."""
    return redact_text(text)


def public_form(encoded: bytes) -> bytes:
    """An event as one JSON object, with the queries of its URLs masked, because they may hold a signature."""
    return _QUERY.sub(rb"\g<1>***", redact(encoded))


def public_bytes(body: bytes, encoding: str, keys: Sequence[str]) -> dict[str, object]:
    """The bytes of a reject, unpacked if possible and masked: as text, and also in base64 if they are not UTF-8."""
    text = _QUERY.sub(rb"\g<1>***", redact(open_body(body, encoding).text, *keys))
    try:
        return {"body": text.decode()}
    except UnicodeDecodeError:
        return {"body": text.decode("utf-8", "backslashreplace"), "base64": base64.b64encode(text).decode()}
