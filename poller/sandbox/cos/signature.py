"""The signature of COS's XML interface: read from a request, computed, compared.

https://www.tencentcloud.com/document/product/436/7778
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from urllib.parse import quote

from poller.sandbox.cos.errors import CosRefused

Params = Sequence[tuple[str, str]]

_PREFIX = "q-sign-algorithm="
_PERIOD = re.compile(r"([0-9]{1,12});([0-9]{1,12})")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What of a request a signature covers.

    path:    decoded, from the bucket on, with its leading slash
    params:  the query, decoded
    headers: by lower-case names
    """

    method: str
    path: str
    params: Params
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a signed request says of its signature. The times are `start;end` in epoch seconds."""

    secret_id: str
    sign_time: str
    key_time: str
    headers: frozenset[str]
    params: frozenset[str]
    value: str


def read(authorization: str, params: Params) -> Signature | None:
    """The signature in an `Authorization` header or in a query; None where there is none.

    Raises CosRefused where there is one that is none of COS's.
    """
    query = dict(params)
    if authorization:
        said = _fields(authorization)
    elif query.get("sign", "").startswith(_PREFIX):
        said = _fields(query["sign"])
    elif "q-signature" in query or "q-ak" in query:
        said = query
    else:
        return None
    try:
        if said["q-sign-algorithm"] != "sha1":
            raise CosRefused("AccessDenied", "q-sign-algorithm is not sha1")
        return Signature(
            secret_id=said["q-ak"],
            sign_time=said["q-sign-time"],
            key_time=said["q-key-time"],
            headers=frozenset(filter(None, said["q-header-list"].split(";"))),
            params=frozenset(filter(None, said["q-url-param-list"].split(";"))),
            value=said["q-signature"],
        )
    except KeyError as missing:
        raise CosRefused("AccessDenied", f"{missing.args[0]} is missing") from None


def check(signature: Signature, secret_key: str, readings: Iterable[Asked], now: float) -> None:
    """Raises CosRefused unless the signature is in time (epoch) and right for one of the readings of its request."""
    for period in (signature.key_time, signature.sign_time):
        match = _PERIOD.fullmatch(period)
        if match is None:
            raise CosRefused("AccessDenied", "q-sign-time or q-key-time is not START;END")
        if now > int(match[2]):
            raise CosRefused("AccessDenied", "Request has expired")
        if now < int(match[1]):
            raise CosRefused("RequestTimeTooSkewed")
    texts = [http_string(signature, asked) for asked in readings]
    value = signature.value.encode("utf-8", "replace")
    if not any(hmac.compare_digest(_sign(signature, secret_key, text), value) for text in texts):
        details = {"StringToSign": string_to_sign(signature, texts[0]), "FormatString": texts[0]}
        raise CosRefused("SignatureDoesNotMatch", details=details)


def http_string(signature: Signature, asked: Asked) -> str:
    """The part of a request that is signed, in its canonical form."""
    params = _canonical(signature.params, asked.params)
    headers = _canonical(signature.headers, asked.headers.items())
    return f"{asked.method.lower()}\n{asked.path}\n{params}\n{headers}\n"


def string_to_sign(signature: Signature, text: str) -> str:
    return f"sha1\n{signature.sign_time}\n{sha1(text.encode()).hexdigest()}\n"


def _sign(signature: Signature, secret_key: str, text: str) -> bytes:
    key = _mac(secret_key.encode(), signature.key_time)
    return _mac(key, string_to_sign(signature, text))


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), sha1).hexdigest().encode()


def _canonical(listed: frozenset[str], found: Iterable[tuple[str, str]]) -> str:
    """`name=value&…` of what is listed as signed, in order."""
    pairs = sorted((_encode(name).lower(), _encode(value)) for name, value in found)
    missing = listed.difference(name for name, _ in pairs)
    if missing:
        raise CosRefused("SignatureDoesNotMatch", f"Said to be signed, and missing: {min(missing)}")
    return "&".join(f"{name}={value}" for name, value in pairs if name in listed)


def _encode(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")


def _fields(text: str) -> dict[str, str]:
    pairs = (field.partition("=") for field in text.split("&"))
    return {name.strip(): value.strip() for name, _, value in pairs}
