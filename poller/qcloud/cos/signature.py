"""The signature of the object store's XML interface, as an Authorization header. Pure.

https://www.tencentcloud.com/document/product/436/7778
"""

import hmac
from collections.abc import Iterable, Mapping
from hashlib import sha1
from typing import Final
from urllib.parse import quote

EARLY: Final = 60
"""Seconds before now from which a signature holds: the clocks need not agree."""
LIFETIME: Final = 600
"""Seconds for which a signature holds."""


def authorization(
    *,
    secret_id: str,
    secret_key: str,
    method: str,
    path: str,
    params: Mapping[str, str],
    headers: Mapping[str, str],
    now: float,
) -> str:
    """The header for a request with this decoded path and query. All of `params` and `headers` are signed."""
    period = f"{int(now) - EARLY};{int(now) + LIFETIME}"
    param_list, param_text = _canonical(params.items())
    header_list, header_text = _canonical(headers.items())
    request = f"{method.lower()}\n{path}\n{param_text}\n{header_text}\n"
    key = _mac(secret_key.encode(), period)
    signature = _mac(key.encode(), f"sha1\n{period}\n{sha1(request.encode()).hexdigest()}\n")
    return (
        f"q-sign-algorithm=sha1&q-ak={secret_id}&q-sign-time={period}&q-key-time={period}"
        f"&q-header-list={header_list}&q-url-param-list={param_list}&q-signature={signature}"
    )


def encoded(text: str) -> str:
    """A name or a value as the signature and the URL have it."""
    return quote(text, safe="-_.~")


def _canonical(pairs: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """The sorted names, and `name=value&…` in the same order."""
    found = sorted((encoded(name).lower(), encoded(value)) for name, value in pairs)
    return ";".join(name for name, _ in found), "&".join(f"{name}={value}" for name, value in found)


def _mac(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), sha1).hexdigest()
