"""One page of a bucket's list, from its XML. Pure.

The XML comes from outside: a document type, and so every entity, is refused, and the depth is limited.
https://www.tencentcloud.com/document/product/436/30614
"""

import re
from typing import Final
from urllib.parse import unquote
from xml.parsers import expat  # document types are refused below

import msgspec

MOST_KEYS: Final = 1000
"""The most keys that the store sends in one page."""
_DEEPEST: Final = 16
_ROOT: Final = "ListBucketResult"
_KEY: Final = f"{_ROOT}/Contents/Key"
_COMMON: Final = f"{_ROOT}/CommonPrefixes/Prefix"
_SINGLE: Final = {f"{_ROOT}/{name}": name for name in ("EncodingType", "IsTruncated", "NextMarker")}
_CODE: Final = re.compile(rb"<Code>\s*([A-Za-z0-9.]{1,64})\s*</Code>")
_END: Final = (b"</ListBucketResult>", b"</Error>")


class BadPage(Exception):
    """The answer is no page of the list that was asked for. The text says why, and quotes nothing of the answer."""


class ListPage(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a page, the prefixes that keys share up to the delimiter, and where the next page begins.

    `following` is the next request's marker; None on the last page.
    """

    keys: tuple[str, ...]
    prefixes: tuple[str, ...] = ()
    following: str | None = None


def read_page(body: bytes, *, prefix: str = "", marker: str = "") -> ListPage:
    """Read the answer to a request with this prefix and marker; raises `BadPage`."""
    reader = _Reader()
    try:
        reader.read(body)
    except expat.ExpatError:
        raise BadPage("the answer is not whole XML") from None
    except (UnicodeError, LookupError, ValueError):
        raise BadPage("the answer is XML in an unknown encoding") from None
    page = reader.page()
    if not all(name.startswith(prefix) for name in (*page.keys, *page.prefixes)):
        raise BadPage("the answer lists keys that were not asked for")
    if page.following is not None and page.following.encode() <= marker.encode():
        raise BadPage("the list does not advance")
    return page


def error_code(body: bytes) -> str:
    """The code of an error, such as `NoSuchBucket`; empty if the answer has none."""
    found = _CODE.search(body[:4096])
    return found[1].decode() if found else ""


def is_whole(body: bytes, encoding: str) -> bool:
    """Whether an answer seems to have come to its end."""
    return not encoding and body[-64:].rstrip().endswith(_END)


class _Reader:
    """Collects the texts that count."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._texts: list[str] = []
        self._found: dict[str, list[str]] = {_KEY: [], _COMMON: []}
        self._single: dict[str, str] = {}
        self._root = ""

    def read(self, body: bytes) -> None:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._texts.append
        parser.Parse(body, True)

    def page(self) -> ListPage:
        """What was read; raises `BadPage`."""
        if self._root != _ROOT:
            raise BadPage("the answer is no list of a bucket")
        if self._single.get("IsTruncated") not in ("true", "false"):
            raise BadPage("the list does not say whether more follows")
        keys, prefixes = (self._decoded(self._found[path]) for path in (_KEY, _COMMON))
        following = None
        if self._single["IsTruncated"] == "true":
            # without a NextMarker the last entry is the marker, as in S3
            marker = self._decoded([self._single.get("NextMarker", "")])
            following = max((*keys, *prefixes), default="") if marker in ((), ("",)) else marker[0]
        return ListPage(keys=keys, prefixes=prefixes, following=following)

    def _decoded(self, texts: list[str]) -> tuple[str, ...]:
        """The texts as they are meant. A key that is not UTF-8 names no picture of ours, and is left out."""
        if self._single.get("EncodingType") != "url":
            return tuple(texts)
        return tuple(
            text for text in (unquote(text, errors="surrogateescape") for text in texts) if _is_text(text)
        )

    def _refuse(self, *_: object) -> None:
        raise BadPage("the answer's XML has a document type")

    def _start(self, name: str, attributes: object) -> None:
        self._root = self._root or name
        self._path.append(name)
        if len(self._path) > _DEEPEST:
            raise BadPage("the answer's XML is too deep")
        self._texts.clear()

    def _end(self, name: str) -> None:
        path, text = "/".join(self._path), "".join(self._texts)
        if path in self._found:
            self._found[path].append(text)
        elif path in _SINGLE:
            self._single[_SINGLE[path]] = text.strip() if path != f"{_ROOT}/NextMarker" else text
        self._path.pop()
        self._texts.clear()


def _is_text(text: str) -> bool:
    return not any("\ud800" <= each <= "\udfff" for each in text)
