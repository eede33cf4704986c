"""Amazon's signature, version 4, which COS takes as well: in a header, or in the query of a presigned URL.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote

from poller.sandbox.cos.errors import CosRefused
from poller.sandbox.cos.signature import Asked, Params

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = 900
"""Seconds by which the clock of who signs a header may differ."""
LONGEST = 7 * 86400
UNSIGNED = "UNSIGNED-PAYLOAD"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SCOPE = re.compile(r"([^/]+)/([0-9]{8})/([^/]+)/(s3)/aws4_request")


@dataclass(frozen=True, kw_only=True)
class SignatureV4:
    """What a request says of its signature. `expires` is None in a header, else seconds from `moment` (epoch)."""

    secret_id: str
    scope: str
    date: str
    moment: float
    expires: int | None
    headers: tuple[str, ...]
    value: str
    payload: str


def read(headers: Mapping[str, str], params: Params) -> SignatureV4 | None:
    """The signature of a request with these headers (by lower-case names); None where there is none of this kind.

    Raises CosRefused where one cannot be understood.
    """
    authorization, query = headers.get("authorization", ""), dict(params)
    if authorization.startswith(ALGORITHM):
        pairs = (one.strip().partition("=") for one in authorization.removeprefix(ALGORITHM).split(","))
        said = {name: value for name, _, value in pairs}
        date, payload, expires = headers.get("x-amz-date", ""), headers.get("x-amz-content-sha256", ""), None
    elif query.get("X-Amz-Algorithm") == ALGORITHM:
        said = {name: query.get(f"X-Amz-{name}", "") for name in ("Credential", "SignedHeaders", "Signature")}
        date, payload, expires = (
            query.get("X-Amz-Date", ""),
            UNSIGNED,
            query.get("X-Amz-Expires", ""),
        )
    else:
        return None
    scope = _SCOPE.fullmatch(said.get("Credential", ""))
    if scope is None or not said.get("SignedHeaders") or not said.get("Signature"):
        raise CosRefused("InvalidArgument", "the signature names no credential, headers or value")
    return SignatureV4(
        secret_id=scope[1],
        scope=scope[0].partition("/")[2],
        date=date,
        moment=_moment(date),
        expires=None if expires is None else _seconds(expires),
        headers=tuple(said["SignedHeaders"].split(";")),
        value=said["Signature"],
        payload=payload,
    )


def check(signature: SignatureV4, secret_key: str, readings: Iterable[Asked], now: float) -> None:
    """Raises CosRefused unless the signature is in time (epoch) and right for one of the readings of its request."""
    early = signature.moment - now > SKEW
    if early or (signature.expires is None and now - signature.moment > SKEW):
        raise CosRefused("RequestTimeTooSkewed")
    if signature.expires is not None and now > signature.moment + signature.expires:
        raise CosRefused("AccessDenied", "Request has expired")
    value = signature.value.encode("utf-8", "replace")
    if not any(hmac.compare_digest(_sign(signature, secret_key, one), value) for one in readings):
        raise CosRefused("SignatureDoesNotMatch")


def check_payload(signature: SignatureV4, content: bytes) -> None:
    """Raises CosRefused unless the body is the one that was signed, or none was."""
    if signature.payload == UNSIGNED:
        return
    if not _DIGEST.fullmatch(signature.payload):
        raise CosRefused(
            "NotImplemented", "x-amz-content-sha256: bodies signed piece by piece are not taken."
        )
    if sha256(content).hexdigest() != signature.payload:
        raise CosRefused("XAmzContentSHA256Mismatch")


def _sign(signature: SignatureV4, secret_key: str, asked: Asked) -> bytes:
    text = f"{ALGORITHM}\n{signature.date}\n{signature.scope}\n{sha256(_canonical(signature, asked)).hexdigest()}"
    key = f"AWS4{secret_key}".encode()
    for part in (*signature.scope.split("/"), text):
        key = hmac.new(key, part.encode(), sha256).digest()
    return key.hex().encode()


def _canonical(signature: SignatureV4, asked: Asked) -> bytes:
    pairs = sorted(
        (_encode(name), _encode(value)) for name, value in asked.params if name != "X-Amz-Signature"
    )
    headers = "".join(
        f"{name}:{' '.join(asked.headers.get(name, '').split())}\n" for name in signature.headers
    )
    lines = (
        asked.method,
        quote(asked.path, safe="/~", errors="surrogateescape"),
        "&".join(f"{name}={value}" for name, value in pairs),
        headers,
        ";".join(signature.headers),
        signature.payload,
    )
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _encode(text: str) -> str:
    return quote(text, safe="~", errors="surrogateescape")


def _moment(date: str) -> float:
    try:
        return datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise CosRefused("AccessDenied", "X-Amz-Date is no time") from None


def _seconds(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 0 < int(text) <= LONGEST:
        raise CosRefused("InvalidArgument", f"X-Amz-Expires is not between 1 and {LONGEST}")
    return int(text)
