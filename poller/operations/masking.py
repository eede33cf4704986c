"""What may be shown of what is kept: nothing that signs or opens something. Pure."""

import base64
import re
from collections.abc import Sequence

from poller.qcloud.wire.bodies import open_body
from poller.qcloud.wire.redaction import redact, redact_text

_QUERY = re.compile(rb"(?i)(https?(?::|%3a)[^\s\"'<>?\\]{1,2000}\?)[^\s\"'<>\\]++")


def masked(text: str) -> str:
    """A text without what signs something."""
    return redact_text(text)


def public_form(encoded: bytes) -> bytes:
    """An event's public form, still one JSON object, with the queries of its URLs masked: they may be signed."""
    return _QUERY.sub(rb"\g<1>***", redact(encoded))


def bytes_shown(body: bytes, encoding: str, keys: Sequence[str]) -> dict[str, object]:
    """A reject's bytes, unpacked as far as they can be: as text, and in base64 too where the text is not all."""
    text = _QUERY.sub(rb"\g<1>***", redact(open_body(body, encoding).text, *keys))
    try:
        return {"body": text.decode()}
    except UnicodeDecodeError:
        return {"body": text.decode("utf-8", "backslashreplace"), "base64": base64.b64encode(text).decode()}
