"""Masks signatures and push secrets before bytes or texts are kept or said."""

import re

_MASK = rb"\g<1>***"
_NAMED = frozenset({"sign", "streamparam", "txsecret", "txtime"})
_IN_QUERY = re.compile(
    rb"(?i)((?:(?<![a-z0-9])|(?<=%26))(?:sign|txsecret|txtime|stream_param)(?:=|%3d))(?:(?!%26)[^&\"'\s<>\\,;)])++"
)
_IN_JSON = re.compile(
    rb"(?i)((?<![a-z0-9_])(?:sign|stream_param|txsecret|key)\\*\"\s*+:\s*+\\*\")(?:[^\"\\]++|\\[^\"])*+"
)
_PUSH_SECRET = re.compile(rb"(?i)((?:(?<![a-z0-9])|(?<=%26))(?:txsecret|txtime)(?:=|%3d))[^&\"'\s<>\\,;)]++")
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


def redact_value(value: object, *secrets: str) -> object:
    """Mask the same in a decoded JSON value, wherever it is and however it was spelled, and every one of `secrets`."""
    if isinstance(value, dict):
        return {
            _redact_inner(name, secrets): "***" if _is_secret(name) else redact_value(member, *secrets)
            for name, member in value.items()
        }
    if isinstance(value, list):
        return [redact_value(member, *secrets) for member in value]
    return _redact_inner(value, secrets) if isinstance(value, str) else value


def _is_secret(name: str) -> bool:
    return name.replace("_", "").lower() in _NAMED


def _redact_inner(text: str, secrets: tuple[str, ...]) -> str:
    """A text may be a URL, or JSON of its own."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "*" * len(secret))
    if "=" not in text and "%" not in text and '"' not in text:
        return text
    inner = text.encode("utf-8", "surrogatepass")
    return _IN_JSON.sub(_MASK, _PUSH_SECRET.sub(_MASK, inner)).decode("utf-8", "surrogatepass")


def blank(text: bytes, secret: str) -> bytes:
    """Overwrite a secret with asterisks of the same length, in UTF-8 and UTF-16."""
    if not secret:
        return text
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        needle = secret.encode(encoding)
        if needle in text:
            text = text.replace(needle, ("*" * len(secret)).encode(encoding))
    return text
