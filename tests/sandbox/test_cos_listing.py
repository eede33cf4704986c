"""What a bucket holds, in pages: against a plain reading of the rules, and as XML."""

import random
from collections.abc import Callable, Iterable
from xml.etree import ElementTree

import pytest

from poller.sandbox.cos import listing
from poller.sandbox.cos.errors import CosRefused
from poller.sandbox.cos.store import StoredObject

KEYS = [
    "a",
    "a/1",
    "a/2",
    "a/b/1",
    "a0",
    "b/",
    "b/x",
    "c&<d>.jpg",
    "直播/1.jpg",
    "\U0001f600",
    "\uffee",
    "x\ud7ff1",
    "x\ud7ff2",
    "\U0010ffff/1",
]


def stored(keys: Iterable[str]) -> list[StoredObject]:
    return [
        StoredObject(bucket="b", key=key, size=3, etag="e" * 32, crc64="1", type="image/jpeg", ready_at=0.0)
        for key in sorted(keys, key=str.encode)
    ]


def reader(keys: Iterable[str]) -> Callable[[str], Iterable[StoredObject]]:
    """The store's way of reading: from a key on, in the order of bytes."""
    objects = stored(keys)
    return lambda at: (one for one in objects if one.key.encode() >= at.encode())


def plainly(keys: Iterable[str], prefix: str, delimiter: str) -> list[str]:
    """All entries, common prefixes marked by a star, by the rule's own words."""
    entries = []
    for key in sorted((key for key in keys if key.startswith(prefix)), key=str.encode):
        head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        entry = f"*{prefix}{head}{found}" if found else key
        if entry not in entries:
            entries.append(entry)
    return entries


def in_pages(keys: Iterable[str], most: int, second: bool, **query: str) -> list[str]:
    """The same from the listing, page by page, as a client follows it."""
    entries: list[str] = []
    wish = listing.parse_list_request({**query, "max-keys": str(most)})
    while True:
        page = listing.page(wish, reader(keys))
        assert len(page.entries) <= most
        entries += [f"*{one}" if isinstance(one, str) else one.key for one in page.entries]
        if not page.more:
            return entries
        assert len(entries) <= len(set(keys)), "it goes in circles"
        root = ElementTree.fromstring(listing.xml("b-1", wish, page))
        if second:
            token = root.findtext("NextContinuationToken")
            query |= {"list-type": "2", "continuation-token": token or ""}
        else:
            query["marker"] = root.findtext("NextMarker") or ""
        wish = listing.parse_list_request({**query, "max-keys": str(most)})


@pytest.mark.parametrize("prefix", ["", "a", "a/", "b/", "直", "zzz", "\U0010ffff"])
@pytest.mark.parametrize("delimiter", ["", "/", "/b", ".", "\ud7ff"])
def test_pages_of_any_size_make_up_the_whole(prefix: str, delimiter: str) -> None:
    for most in (1, 2, 3, 1000):
        found = in_pages(KEYS, most, False, prefix=prefix, delimiter=delimiter)
        assert found == plainly(KEYS, prefix, delimiter)


def test_pages_of_random_keys_make_up_the_whole(soak: bool) -> None:
    rng = random.Random("listing")
    for _ in range(20_000 if soak else 300):
        keys = {"".join(rng.choices("ab/é\U0010ffff", k=rng.randint(1, 6))) for _ in range(20)}
        prefix, delimiter = ("".join(rng.choices("ab/", k=rng.randint(0, 2))) for _ in range(2))
        second = rng.random() < 0.5
        query = {"prefix": prefix, "delimiter": delimiter} | ({"list-type": "2"} if second else {})
        assert in_pages(keys, rng.randint(1, 5), second, **query) == plainly(keys, prefix, delimiter)


def test_a_listing_begins_after_its_marker() -> None:
    def keys(**query: str) -> list[str]:
        page = listing.page(listing.parse_list_request(query), reader(KEYS))
        return [one if isinstance(one, str) else one.key for one in page.entries]

    assert keys(marker="a/2")[:2] == ["a/b/1", "a0"]
    assert keys(marker="a/1x")[:2] == ["a/2", "a/b/1"]
    assert keys(**{"list-type": "2", "start-after": "a/2"})[:2] == ["a/b/1", "a0"]
    assert keys(marker="a/", delimiter="/")[:2] == ["a0", "b/"]
    assert keys(marker="zz", prefix="a") == []


def test_a_thousand_entries_are_the_most() -> None:
    keys = [f"{number:05}" for number in range(2500)]
    for asked in ("5000", "99999999999999999999", "1000", ""):
        page = listing.page(listing.parse_list_request({"max-keys": asked}), reader(keys))
        assert (len(page.entries), page.more, page.last) == (1000, True, "00999")
    none = listing.page(listing.parse_list_request({"max-keys": "0"}), reader(keys))
    assert (none.entries, none.more) == ([], False)


@pytest.mark.parametrize(
    "query",
    [
        {"max-keys": "x"},
        {"max-keys": "-1"},
        {"encoding-type": "base64"},
        {"list-type": "2", "continuation-token": "!"},
        {"list-type": "2", "continuation-token": "//79"},
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(CosRefused, match="InvalidArgument"):
        listing.parse_list_request(query)


def test_a_page_is_xml_whatever_the_keys() -> None:
    keys = [*KEYS, "bell\x07", "cr\r", " "]
    for encoding in ("", "url"):
        wish = listing.parse_list_request({"delimiter": "&", "prefix": "", "encoding-type": encoding})
        text = listing.xml("shots-1250000000", wish, listing.page(wish, reader(keys)))
        root = ElementTree.fromstring(text)
        assert root.findtext("Name") == "shots-1250000000"
        assert root.findtext("IsTruncated") == "false"
        found = [one.findtext("Key") for one in root.iter("Contents")]
        assert [one.findtext("Prefix") for one in root.iter("CommonPrefixes")] == [
            "c%26" if encoding else "c&"
        ]
        assert len(found) == len(keys) - 1
        assert ("%E7%9B%B4%E6%92%AD/1.jpg" if encoding else "直播/1.jpg") in found
        assert ("bell%07" if encoding else "bell\ufffd") in found
        first = root.find("Contents")
        assert first is not None
        assert first.findtext("ETag") == f'"{"e" * 32}"'
        assert first.findtext("LastModified") == "1970-01-01T00:00:00.000Z"
        assert (first.findtext("Size"), first.findtext("Owner/ID")) == ("3", "1250000000")
