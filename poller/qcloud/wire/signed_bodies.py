"""The body of a notification: parsing within limits, checking the signature, masking secrets. Pure."""

import hmac
import json
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from poller.qcloud.wire.messages import UnreadableMessage, depth
from poller.qcloud.wire.redaction import redact_value
from poller.qcloud.wire.signing import sign

LARGEST = 256 * 1024
"""The largest body, in bytes. Known notifications have a few hundred."""
AHEAD = 600.0
"""Seconds by which `t` is ahead when a notification is sent (the platform's documents)."""
UNEVEN = 300.0
"""Seconds allowed for clocks that nobody measured."""
LATE = 3600.0
"""Seconds after `t` in which a repeat is still taken: the platform repeats for some minutes."""

_DEEPEST = 64
_LONGEST_NUMBER = 300
_T = re.compile(r"[0-9]{10}")
_BOM = b"\xef\xbb\xbf"

Fields = dict[str, Any]
"""A notification's members, decoded."""


def open_body(body: bytes) -> Fields:
    """Decode a body.

    Raises `UnreadableMessage` if the body is not a JSON object, or if two parsers could read it differently.
    """
    text = body.removeprefix(_BOM)
    if depth(text) > _DEEPEST:
        raise UnreadableMessage("too deep")
    try:
        found = json.loads(
            text.decode(),
            object_pairs_hook=_unique,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except UnicodeDecodeError:
        raise UnreadableMessage("not UTF-8") from None
    except RecursionError:
        raise UnreadableMessage("too deep") from None
    except ValueError:
        raise UnreadableMessage("not JSON") from None
    if not isinstance(found, dict):
        raise UnreadableMessage("not an object")
    return found


def is_signed(fields: Fields) -> bool:
    """Whether a notification claims a signature, good or bad."""
    return "t" in fields or "sign" in fields


def flaw(fields: Fields, keys: Sequence[str], now: float) -> str | None:
    """The flaw of a signature, or None if it is good. `now` is the platform's time, an epoch.

    The signature covers neither body nor URL and MD5 can be lengthened, so that `t` has to be ten digits
    and nothing else. Every key is compared, each in constant time.
    """
    t, given = fields.get("t"), fields.get("sign")
    digits = str(t) if type(t) is int else t
    if not isinstance(digits, str) or not _T.fullmatch(digits):
        return "t is not ten digits"
    ahead = int(digits) - now
    if ahead > AHEAD + UNEVEN:
        return f"t is {ahead:.0f} s ahead"
    if ahead < -LATE:
        return f"t was {-ahead:.0f} s ago"
    if not isinstance(given, str):
        return "no signature"
    shown = given.encode("utf-8", "surrogatepass")
    matches = [hmac.compare_digest(sign(key, int(digits)).encode(), shown) for key in keys]
    return None if any(matches) else "wrong signature"


def mask(fields: Fields, secrets: Sequence[str]) -> bytes:
    """The notification as one line of JSON, without push secrets and signatures."""
    text = json.dumps(redact_value(fields, *secrets), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")  # lone surrogates are no text


def _unique(pairs: list[tuple[str, Any]]) -> Fields:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnreadableMessage("a name stands twice")
    return found


def _constant(name: str) -> NoReturn:
    raise UnreadableMessage(f"holds {name}")


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise UnreadableMessage("a number is too long")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits) if len(digits) <= _LONGEST_NUMBER else math.inf
    if math.isinf(value):
        raise UnreadableMessage("a number is too long")
    return value
