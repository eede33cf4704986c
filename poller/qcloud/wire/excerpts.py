"""Makes short excerpts of answers that may be logged and shown. Pure.

Error pages echo requests: headers, URL, body, signatures. So an excerpt masks all configured secrets in the
forms in which pages write them, the queries of all URLs, and everything that `redaction` recognises. The rest
is cut to a length, and has no characters that control a terminal.
"""

import base64
import html
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import quote, quote_plus, urlsplit

import msgspec
from pydantic import BaseModel, SecretStr

from poller.qcloud.wire.redaction import MASK, redact_text, spelling_pattern

LONGEST: Final = 300
READ: Final = 4096
"""Bytes of an answer that are looked at."""
SHORTEST_SECRET: Final = 6
"""The shortest secret that is searched for, in characters. A shorter one would be found by chance."""
_QUERY = re.compile(r"(?i)(\?|%(?:25)*3f)[^\s\"'<>\\]++")
_SIGNATURE = re.compile(r"\bv1a?,[A-Za-z0-9+/_=-]{16,}")


def excerpt(said: bytes | str, secrets: Iterable[str] = (), longest: int = LONGEST) -> str:
    """A short, masked excerpt of an answer in one line; empty for an empty answer. Never raises."""
    text = _decode(said[:READ]) if isinstance(said, bytes) else said[:READ]
    secrets = frozenset(secrets)
    for secret in secrets:
        text = _pattern(secret).sub(MASK, text)
    for spelling in _spellings(secrets):
        text = text.replace(spelling, MASK)
        text = _without_cut_off(text, spelling)
    text = redact_text(_SIGNATURE.sub("v1," + MASK, _QUERY.sub(r"\g<1>" + MASK, text)))
    plain = "".join(
        " " if unicodedata.category(each) in {"Cc", "Cf", "Zl", "Zp", "Cs", "Co"} else each for each in text
    )
    return " ".join(plain.split())[:longest]


def _decode(said: bytes) -> str:
    """Decode an answer, also from UTF-16 or UTF-32. In those encodings a search for a secret would find nothing."""
    if said.count(0) * 3 > len(said):
        said = said.replace(b"\0", b"")
    return said.decode("utf-8", "replace")


def secrets_of(settings: object) -> frozenset[str]:
    """Every secret in settings: secret values, their lines and parts, and the queries of URLs."""
    return frozenset(found for found in _secrets(settings) if len(found) >= SHORTEST_SECRET)


def _secrets(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        for line in value.get_secret_value().splitlines():
            yield line
            yield line.removeprefix("whsec_")
            yield from line.split(" ")[1:]
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, dict):
        for member in value.values():
            yield from _secrets(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _secrets(member)
    elif isinstance(value, str) and re.match(r"https?://[^?]*\?", value):
        yield urlsplit(value).query


@lru_cache(maxsize=256)
def _pattern(secret: str) -> re.Pattern[str]:
    """A pattern for a secret, any of whose characters may be escaped, once or repeatedly, as in URLs, JSON or HTML."""
    named = {'"': "quot", "&": "amp", "<": "lt", ">": "gt", "'": "apos"}
    return re.compile(
        "(?i)"
        + "".join(
            rf"(?:{spelling_pattern(each)}|\\++{re.escape(each)}|&{named.get(each, '#')};)" for each in secret
        )
    )


def _spellings(secrets: Iterable[str]) -> list[str]:
    """The secrets in all spellings that pages use. The longest is first, so that none is masked in part."""
    found: set[str] = set()
    for secret in secrets:
        raw = secret.encode("utf-8", "replace")
        once = quote(secret, safe="")
        plain = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
        plain |= {once, once.replace("%", "%25"), quote_plus(secret), quote(secret), html.escape(secret)}
        plain |= {re.sub("%..", lambda each: each[0].lower(), once), html.escape(json.dumps(secret)[1:-1])}
        plain |= {
            base64.b64encode(raw).decode().rstrip("="),
            base64.urlsafe_b64encode(raw).decode().rstrip("="),
        }
        found |= plain | {raw.hex()}
    return sorted((one for one in found if one), key=len, reverse=True)


def _without_cut_off(text: str, spelling: str) -> str:
    """The text without the beginning of a secret at its end, where the text was cut."""
    for size in range(min(len(spelling) - 1, len(text)), 3, -1):
        if text.endswith(spelling[:size]):
            return text[:-size] + MASK
    return text


class Words(msgspec.Struct):
    """Knows every configured secret, and makes excerpts without them."""

    secrets: frozenset[str] = frozenset()

    def learn(self, settings: object) -> None:
        """Mask the secrets in these settings from now on. They stay known after a reload."""
        self.secrets |= secrets_of(settings)

    def of(self, said: bytes | str) -> str:
        """See `excerpt`."""
        return excerpt(said, self.secrets)
