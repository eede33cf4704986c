"""What a bucket holds, page by page, in the two forms of S3 (COS documents the first).

https://www.tencentcloud.com/document/product/436/30614
"""

from __future__ import annotations

import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from poller.sandbox.cos.errors import Refused, text_of
from poller.sandbox.cos.store import Stored

MOST = 1000


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be listed: what begins with `prefix` and comes after `after`.

    Keys that share what lies between the prefix and the first delimiter behind it are one entry.
    """

    prefix: str
    delimiter: str
    after: str
    most: int
    encoded: bool
    second: bool


@dataclass(frozen=True, kw_only=True)
class Page:
    """Objects and common prefixes in order, and whether more follow."""

    entries: Sequence[Stored | str]
    more: bool

    @property
    def last(self) -> str:
        """The page's end, as a later wish's `after`; empty if nothing follows."""
        return _text(self.entries[-1]) if self.more else ""


def wish_of(query: Mapping[str, str]) -> Wish:
    """Raises Refused for what cannot be understood."""
    second = query.get("list-type") == "2"
    most, encoding = query.get("max-keys") or str(MOST), query.get("encoding-type", "")
    if not (most.isascii() and most.isdigit()):
        raise Refused("InvalidArgument", "max-keys is no number from 0 on")
    if encoding not in ("", "url"):
        raise Refused("InvalidArgument", "encoding-type can only be url")
    after = query.get("marker", "")
    if second:
        token = query.get("continuation-token")
        after = query.get("start-after", "") if token is None else _key_of(token)
    return Wish(
        prefix=query.get("prefix", ""),
        delimiter=query.get("delimiter", ""),
        after=after,
        most=min(int(most[:9]), MOST),
        encoded=encoding == "url",
        second=second,
    )


def page(wish: Wish, since: Callable[[str], Iterable[Stored]]) -> Page:
    """Takes from the sorted objects (`since` gives those from a key on) what belongs on the page."""
    entries: list[Stored | str] = []
    at = _start(wish) if wish.most else None
    while at is not None:
        start, at = at, None
        for one in since(start):
            if not one.key.startswith(wish.prefix):
                break
            if len(entries) == wish.most:
                return Page(entries=entries, more=True)
            common = _common(one.key, wish)
            entries.append(common or one)
            if common:
                at = _beyond(common)  # what else it holds need not be looked at
                break
    return Page(entries=entries, more=False)


def xml(bucket: str, wish: Wish, found: Page) -> bytes:
    """The page as it is sent."""
    parts = ["<?xml version='1.0' encoding='utf-8' ?>\n<ListBucketResult>"]
    parts += [_element(name, value) for name, value in _head(bucket, wish, found)]
    owner = bucket.rpartition("-")[2]
    for one in found.entries:
        if isinstance(one, str):
            parts.append(f"<CommonPrefixes>{_element('Prefix', _said(one, wish))}</CommonPrefixes>")
        else:
            parts.append(f"<Contents>{_contents(one, wish, owner)}</Contents>")
    return "\n".join([*parts, "</ListBucketResult>\n"]).encode()


def _head(bucket: str, wish: Wish, found: Page) -> Iterator[tuple[str, str]]:
    yield "Name", bucket
    if wish.encoded:
        yield "EncodingType", "url"
    yield "Prefix", _said(wish.prefix, wish)
    yield "Delimiter", _said(wish.delimiter, wish)
    yield "MaxKeys", str(wish.most)
    yield "IsTruncated", str(found.more).lower()
    if wish.second:
        yield "KeyCount", str(len(found.entries))
        if found.more:
            yield "NextContinuationToken", _token_of(found.last)
    else:
        yield "Marker", _said(wish.after, wish)
        if found.more:
            yield "NextMarker", _said(found.last, wish)


def _contents(one: Stored, wish: Wish, owner: str) -> str:
    said = {
        "Key": _said(one.key, wish),
        "LastModified": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(one.ready_at)),
        "ETag": f'"{one.etag}"',
        "Size": str(one.size),
        "StorageClass": "STANDARD",
    }
    elements = "".join(_element(name, value) for name, value in said.items())
    return f"{elements}<Owner>{_element('ID', owner)}{_element('DisplayName', owner)}</Owner>"


def _element(name: str, value: str) -> str:
    return f"<{name}>{text_of(value)}</{name}>"


def _said(text: str, wish: Wish) -> str:
    return quote(text, safe="/") if wish.encoded else text


def _start(wish: Wish) -> str | None:
    """The first key that can be on the page; None if there is none."""
    if wish.after < wish.prefix:
        return wish.prefix
    if _common(wish.after, wish) == wish.after:
        return _beyond(wish.after)
    return wish.after + "\0"


def _common(key: str, wish: Wish) -> str | None:
    """The key's common prefix, if it has one."""
    if not wish.delimiter or not key.startswith(wish.prefix):
        return None
    end = key.find(wish.delimiter, len(wish.prefix))
    return None if end < 0 else key[: end + len(wish.delimiter)]


def _beyond(prefix: str) -> str | None:
    """The first text after all that begin so, in the order of code points, which is that of UTF-8's bytes."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    after = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if after == 0xD800 else after)


def _text(entry: Stored | str) -> str:
    return entry if isinstance(entry, str) else entry.key


def _token_of(key: str) -> str:
    return urlsafe_b64encode(key.encode()).decode()


def _key_of(token: str) -> str:
    try:
        return b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise Refused("InvalidArgument", "the continuation token is none of ours") from None
