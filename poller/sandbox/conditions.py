"""What a request's headers ask of a thing that is served: only if it changed, only a part of it. Pure.

RFC 9110, sections 13 (conditions) and 14 (ranges).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE | re.ASCII)
_TAG = re.compile(r'(W/)?("[^"]*")')
_LARGE = 10**18
"""The value of any longer number: no file is so large."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """What is there. `etag` is strong and in its quotes, `modified` whole epoch seconds, `size` in bytes."""

    etag: str
    modified: int
    size: int


class NoSuchPart(Exception):
    """None of the requested bytes exist."""


def holds(headers: Mapping[str, str], served: Served | None) -> bool:
    """Whether the preconditions of a request hold. `served` is None if nothing is there. Step one of two (13.2.2)."""
    if "If-Match" in headers:
        return _names(headers["If-Match"], served, weakly=False)
    if "If-Unmodified-Since" in headers and served is not None:
        limit = _epoch(headers["If-Unmodified-Since"])
        return limit is None or served.modified <= limit
    return True


def is_known(headers: Mapping[str, str], served: Served | None) -> bool:
    """Whether the client has this version already: a reader then gets 304, a writer a refusal. Step two."""
    if "If-None-Match" in headers:
        return _names(headers["If-None-Match"], served, weakly=True)
    since = _epoch(headers.get("If-Modified-Since", ""))
    return since is not None and served is not None and served.modified <= since


def may_write(headers: Mapping[str, str], served: Served | None) -> bool:
    """Whether the conditions of a request that writes hold. `If-Modified-Since` is a reader's only."""
    known = "If-None-Match" in headers and is_known(headers, served)
    return holds(headers, served) and not known


def part(headers: Mapping[str, str], served: Served) -> range | None:
    """The bytes that a GET asks for; None: all of them.

    All are also served to several ranges, to another unit, to a range that makes no sense, and where `If-Range` names
    another version. Raises NoSuchPart.
    """
    match = _RANGE.fullmatch(headers.get("Range", ""))
    if match is None or not (match[1] or match[2]) or not _is_same(headers.get("If-Range"), served):
        return None
    first, last = _number(match[1]), _number(match[2])
    if first is None:
        first, last = max(0, served.size - (last or 0)), served.size - 1
    elif last is None:
        last = served.size - 1
    elif last < first:
        return None
    if first >= served.size:
        raise NoSuchPart
    return range(first, min(last + 1, served.size))


def _names(header: str, served: Served | None, *, weakly: bool) -> bool:
    if served is None:
        return False
    tags = _TAG.findall(header)
    return header.strip() == "*" or any(tag == served.etag and (weakly or not weak) for weak, tag in tags)


def _is_same(header: str | None, served: Served) -> bool:
    """`If-Range`: a strong tag, or the very date of the last change."""
    if header is None:
        return True
    text = header.strip()
    return text == served.etag if '"' in text else _epoch(text) == served.modified


def _epoch(date: str) -> int | None:
    try:
        moment = parsedate_to_datetime(date)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _number(digits: str) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) < 19 else _LARGE
