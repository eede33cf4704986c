"""What a bucket holds, page by page, in the two forms of S3 (COS documents the first).

https://www.tencentcloud.com/document/product/436/30614
"""

from __future__ import annotations

import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from poller.sandbox.cos.errors import CosRefused, text_of
from poller.sandbox.cos.store import StoredObject

MOST = 1000


@dataclass(frozen=True, kw_only=True)
class ListRequest:
    """A request for a listing: the keys that begin with `prefix` and come after `after`.

    Keys that agree from the prefix to the first delimiter after it are one entry.
    """

    prefix: str
    delimiter: str
    after: str
    most: int
    encoded: bool
    second: bool


@dataclass(frozen=True, kw_only=True)
class ListingPage:
    """Objects and common prefixes in order, and whether more follow."""

    entries: Sequence[StoredObject | str]
    more: bool

    @property
    def last(self) -> str:
        """The `after` of the request for the next page; empty after the last page."""
        return _text(self.entries[-1]) if self.more else ""


def parse_list_request(query: Mapping[str, str]) -> ListRequest:
    """Parses the query of a listing. Raises CosRefused for an invalid one."""
    second = query.get("list-type") == "2"
    most, encoding = query.get("max-keys") or str(MOST), query.get("encoding-type", "")
    if not (most.isascii() and most.isdigit()):
        raise CosRefused("InvalidArgument", "max-keys is no number from 0 on")
    if encoding not in ("", "url"):
        raise CosRefused("InvalidArgument", "encoding-type can only be url")
    after = query.get("marker", "")
    if second:
        token = query.get("continuation-token")
        after = query.get("start-after", "") if token is None else _key_of(token)
    return ListRequest(
        prefix=query.get("prefix", ""),
        delimiter=query.get("delimiter", ""),
        after=after,
        most=min(int(most[:9]), MOST),
        encoded=encoding == "url",
        second=second,
    )


def page(request: ListRequest, since: Callable[[str], Iterable[StoredObject]]) -> ListingPage:
    """Takes from the sorted objects (`since` gives those from a key on) what belongs on the page."""
    entries: list[StoredObject | str] = []
    at = _start(request) if request.most else None
    while at is not None:
        start, at = at, None
        for one in since(start):
            if not one.key.startswith(request.prefix):
                break
            if len(entries) == request.most:
                return ListingPage(entries=entries, more=True)
            common = _common(one.key, request)
            entries.append(common or one)
            if common:
                at = _beyond(common)  # what else it holds need not be looked at
                break
    return ListingPage(entries=entries, more=False)


def xml(bucket: str, request: ListRequest, found: ListingPage) -> bytes:
    """The page as XML."""
    parts = ["<?xml version='1.0' encoding='utf-8' ?>\n<ListBucketResult>"]
    parts += [_element(name, value) for name, value in _head(bucket, request, found)]
    owner = bucket.rpartition("-")[2]
    for one in found.entries:
        if isinstance(one, str):
            parts.append(f"<CommonPrefixes>{_element('Prefix', _encode_name(one, request))}</CommonPrefixes>")
        else:
            parts.append(f"<Contents>{_contents(one, request, owner)}</Contents>")
    return "\n".join([*parts, "</ListBucketResult>\n"]).encode()


def _head(bucket: str, request: ListRequest, found: ListingPage) -> Iterator[tuple[str, str]]:
    yield "Name", bucket
    if request.encoded:
        yield "EncodingType", "url"
    yield "Prefix", _encode_name(request.prefix, request)
    yield "Delimiter", _encode_name(request.delimiter, request)
    yield "MaxKeys", str(request.most)
    yield "IsTruncated", str(found.more).lower()
    if request.second:
        yield "KeyCount", str(len(found.entries))
        if found.more:
            yield "NextContinuationToken", _token_of(found.last)
    else:
        yield "Marker", _encode_name(request.after, request)
        if found.more:
            yield "NextMarker", _encode_name(found.last, request)


def _contents(one: StoredObject, request: ListRequest, owner: str) -> str:
    said = {
        "Key": _encode_name(one.key, request),
        "LastModified": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(one.ready_at)),
        "ETag": f'"{one.etag}"',
        "Size": str(one.size),
        "StorageClass": "STANDARD",
    }
    elements = "".join(_element(name, value) for name, value in said.items())
    return f"{elements}<Owner>{_element('ID', owner)}{_element('DisplayName', owner)}</Owner>"


def _element(name: str, value: str) -> str:
    return f"<{name}>{text_of(value)}</{name}>"


def _encode_name(text: str, request: ListRequest) -> str:
    return quote(text, safe="/") if request.encoded else text


def _start(request: ListRequest) -> str | None:
    """The first key that can be on the page; None if there is none."""
    if request.after < request.prefix:
        return request.prefix
    if _common(request.after, request) == request.after:
        return _beyond(request.after)
    return request.after + "\0"


def _common(key: str, request: ListRequest) -> str | None:
    """The key's common prefix, if it has one."""
    if not request.delimiter or not key.startswith(request.prefix):
        return None
    end = key.find(request.delimiter, len(request.prefix))
    return None if end < 0 else key[: end + len(request.delimiter)]


def _beyond(prefix: str) -> str | None:
    """The first text that sorts after all texts with this prefix. UTF-8 bytes and code points sort alike."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    after = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if after == 0xD800 else after)


def _text(entry: StoredObject | str) -> str:
    return entry if isinstance(entry, str) else entry.key


def _token_of(key: str) -> str:
    return urlsafe_b64encode(key.encode()).decode()


def _key_of(token: str) -> str:
    try:
        return b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise CosRefused("InvalidArgument", "the continuation token is none of ours") from None
