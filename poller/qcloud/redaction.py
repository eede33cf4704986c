"""Masks signatures and push secrets before bytes or texts are kept or said."""

import re

_MASK = rb"\g<1>***"
_IN_QUERY = re.compile(
    rb"(?i)((?<![a-z0-9])(?:sign|txsecret|txtime|stream_param)(?:=|%3d))(?:(?!%26)[^&\"'\s<>\\,;)])++"
)
_IN_JSON = re.compile(
    rb"(?i)((?<![a-z0-9_])(?:sign|stream_param|txsecret|key)\\*\"\s*+:\s*+\\*\")(?:[^\"\\]++|\\[^\"])*+"
)
_PUSH_SECRET = re.compile(rb"(?i)((?<![a-z0-9])(?:txsecret|txtime)(?:=|%3d))[^&\"'\s<>\\,;)]++")
_JSON_SECRET = re.compile(
    rb"((?<![A-Za-z0-9_])\"(?:sign|stream_param|txSecret)\"\s*+:\s*+\")(?:[^\"\\]++|\\.)*+", re.DOTALL
)


def redact(text: bytes, *secrets: str) -> bytes:
    """Mask what signs or opens something, and every one of `secrets`, in bytes meant for quarantine or log.

    Covers query strings (also percent-encoded) and JSON members (also inside a JSON string).
    """
    masked = _IN_JSON.sub(_MASK, _IN_QUERY.sub(_MASK, text))
    for secret in secrets:
        masked = blank(masked, secret)
    return masked


def redact_text(text: str, *secrets: str) -> str:
    """Mask a text as `redact` masks bytes."""
    return redact(text.encode("utf-8", "replace"), *secrets).decode("utf-8", "replace")


def redact_message(message: bytes) -> bytes:
    """Mask the push secret and the notification's signature in one JSON object, which stays valid JSON.

    A `sign=` inside a picture's URL stays: a private bucket's URL is worth nothing without it.
    """
    return _JSON_SECRET.sub(_MASK, _PUSH_SECRET.sub(_MASK, message))


def blank(text: bytes, secret: str) -> bytes:
    """Overwrite a secret with asterisks of the same length, in UTF-8 and UTF-16."""
    if not secret:
        return text
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        needle = secret.encode(encoding)
        if needle in text:
            text = text.replace(needle, ("*" * len(secret)).encode(encoding))
    return text
