"""What a reader's headers ask of an object: only if changed, only a part. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from poller.sandbox.cos.errors import Refused
from poller.sandbox.cos.store import Stored

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def not_modified(headers: Mapping[str, str], stored: Stored) -> bool:
    """Whether the reader has this very object (RFC 9110, 13.2.2). Raises Refused if it wants another one."""
    if "If-Match" in headers:
        if not _named(headers["If-Match"], stored):
            raise Refused("PreconditionFailed")
    elif _later(stored, headers.get("If-Unmodified-Since"), otherwise=False):
        raise Refused("PreconditionFailed")
    if "If-None-Match" in headers:
        return _named(headers["If-None-Match"], stored)
    return not _later(stored, headers.get("If-Modified-Since"), otherwise=True)


def part(headers: Mapping[str, str], stored: Stored) -> range | None:
    """The bytes asked for; None: all of them, also where several ranges or none that can be read are asked for.

    Raises Refused where the object has no such bytes.
    """
    match = _RANGE.fullmatch(headers.get("Range", "").replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return None
    if "If-Range" in headers and headers["If-Range"] != f'"{stored.etag}"':
        return None
    if not match[1]:
        first, end = max(0, stored.size - int(match[2])), stored.size
    else:
        first, end = int(match[1]), min(int(match[2] or stored.size - 1) + 1, stored.size)
        if match[2] and int(match[2]) < first:
            return None
    if first >= end:
        raise Refused("InvalidRange", headers={"Content-Range": f"bytes */{stored.size}"})
    return range(first, end)


def _named(header: str, stored: Stored) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or f'"{stored.etag}"' in tags


def _later(stored: Stored, date: str | None, *, otherwise: bool) -> bool:
    """Whether the object is younger than that date; `otherwise` if it is no date."""
    if date is None:
        return otherwise
    try:
        return int(stored.ready_at) > parsedate_to_datetime(date).timestamp()
    except ValueError:
        return otherwise
