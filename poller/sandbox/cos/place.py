"""Where a request points: bucket and key, by host name or by path."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from poller.sandbox.cos.errors import CosRefused

_OURS = re.compile(r"(file|cos\.[a-z0-9-]+)\.myqcloud\.com")
_LABEL = re.compile(r"[a-z0-9-]+-[0-9]{8,}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestTarget:
    """What a request's line and host say.

    host:   as sent
    path:   decoded, without its leading slash
    query:  as sent
    bucket: None where neither the host nor the path names one
    key:    the path from the bucket on
    """

    host: str
    path: str
    query: str
    bucket: str | None
    key: str


def request_target(target: str, host: str, buckets: Collection[str]) -> RequestTarget:
    """Reads a request line's target; a proxy's client writes the host into it as well.

    A bucket is named by the host's first label or the path's first folder. Raises CosRefused where a host of the
    object store, or a folder that looks like a bucket and its owner, names one that is not there.
    """
    if not target.startswith("/"):
        parts = urlsplit(target)
        target, host = f"{parts.path or '/'}?{parts.query}", parts.netloc
    raw, _, query = target[1:].partition("?")
    path = unquote(raw, errors="replace")
    label, _, domain = host.partition(":")[0].partition(".")
    if label in buckets:
        return RequestTarget(host=host, path=path, query=query, bucket=label, key=path)
    if _OURS.fullmatch(domain):
        raise CosRefused("NoSuchBucket")
    first, _, rest = path.partition("/")
    if first in buckets:
        return RequestTarget(host=host, path=path, query=query, bucket=first, key=rest)
    if _LABEL.fullmatch(first) and "/" in path:
        raise CosRefused("NoSuchBucket")
    return RequestTarget(host=host, path=path, query=query, bucket=None, key=path)
