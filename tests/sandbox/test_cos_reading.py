"""Reading from the object store as COS has it: parts, conditions, lists, refusals."""

from collections.abc import Mapping
from email.utils import formatdate
from hashlib import md5
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import aiohttp
import pytest
from fastcrc import crc64
from yarl import URL

from poller.sandbox import Customer, Sandbox

from .api_client import play, raw, tell

NAME = "live_1_1471850187_1471850187_10_300_169.jpg"
BUCKET = "shots-1250000000"
HOST = f"{BUCKET}.cos.ap-shanghai.myqcloud.com"
JPEG = b"\xff\xd8" + bytes(range(256)) * 20 + b"\xff\xd9"
ETAG = f'"{md5(JPEG).hexdigest()}"'
CHECKSUM = "x-cos-hash-crc64ecma"

Got = tuple[int, Any, bytes]


def asked(
    directory: Path,
    path: str,
    sent: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    host: str = HOST,
    keys: tuple[str, ...] = (),
) -> Got:
    """Status, headers and body of one request to a store that holds NAME, and `keys`."""
    got: list[Got] = []

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        for key in (NAME, *keys):
            sandbox.pictures.put(BUCKET, key, JPEG)
        url = URL(f"{sandbox.endpoints['cos']}{path}", encoded=True)
        headers = {"Host": host, **(sent or {})}
        async with session.request(method, url, headers=headers, allow_redirects=False) as response:
            got.append((response.status, response.headers, await response.read()))

    play(directory, scene)
    return got[0]


def code(body: bytes) -> str | None:
    return ElementTree.fromstring(body).findtext("Code")


def test_an_object_is_described_by_its_headers(tmp_path: Path) -> None:
    for method, body in (("GET", JPEG), ("HEAD", b"")):
        status, headers, found = asked(tmp_path, f"/{NAME}", method=method)
        assert (status, found) == (200, body)
        assert headers["ETag"] == ETAG
        assert headers[CHECKSUM] == str(crc64.xz(JPEG))
        assert headers["Content-Length"] == str(len(JPEG))
        assert headers["Content-Type"] == "image/jpeg"
        assert headers["Accept-Ranges"] == "bytes"
        assert headers["Last-Modified"].endswith(" GMT")
        assert headers["x-cos-request-id"]


def test_the_date_is_the_platforms(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with session.get(sandbox.endpoints["cos"] or "") as response:
            assert response.headers["Date"][:16] == formatdate(sandbox.clock.now(), usegmt=True)[:16]

    play(tmp_path, scene, clock_offset=-86400.0 * 400)


@pytest.mark.parametrize(
    ("wish", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=5000-", 5000, len(JPEG)),
        ("bytes=5000-99999999", 5000, len(JPEG)),
        ("bytes=-2", len(JPEG) - 2, len(JPEG)),
        ("bytes=-99999999", 0, len(JPEG)),
    ],
)
def test_a_part_is_fetched(tmp_path: Path, wish: str, first: int, end: int) -> None:
    status, headers, body = asked(tmp_path, f"/{NAME}", {"Range": wish})
    assert (status, body) == (206, JPEG[first:end])
    assert headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(JPEG)}"
    assert headers["Content-Length"] == str(end - first)
    assert headers[CHECKSUM] == str(crc64.xz(JPEG)), "of the whole object"


@pytest.mark.parametrize("wish", ["bytes=5124-", "bytes=99999-100000", "bytes=-0"])
def test_a_part_that_is_not_there_is_refused(tmp_path: Path, wish: str) -> None:
    status, headers, body = asked(tmp_path, f"/{NAME}", {"Range": wish})
    assert (status, code(body)) == (416, "InvalidRange")
    assert headers["Content-Range"] == f"bytes */{len(JPEG)}"


@pytest.mark.parametrize("wish", ["bytes=5-2", "bytes=0-1,3-4", "bytes=-", "lines=1-2", "bytes=x-y", "0-1"])
def test_a_range_that_says_nothing_gets_the_whole(tmp_path: Path, wish: str) -> None:
    status, _, body = asked(tmp_path, f"/{NAME}", {"Range": wish})
    assert (status, body) == (200, JPEG)


def test_a_part_of_an_object_that_changed_is_not_fetched(tmp_path: Path) -> None:
    assert asked(tmp_path, f"/{NAME}", {"Range": "bytes=0-1", "If-Range": '"other"'})[0] == 200
    assert asked(tmp_path, f"/{NAME}", {"Range": "bytes=0-1", "If-Range": ETAG})[0] == 206


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (304, {"If-None-Match": ETAG}),
        (304, {"If-None-Match": f'"x", W/{ETAG}'}),
        (304, {"If-None-Match": "*"}),
        (200, {"If-None-Match": '"x"'}),
        (200, {"If-None-Match": '"x"', "If-Modified-Since": formatdate(4e9, usegmt=True)}),
        (304, {"If-Modified-Since": formatdate(4e9, usegmt=True)}),
        (200, {"If-Modified-Since": formatdate(1e9, usegmt=True)}),
        (200, {"If-Modified-Since": "yesterday"}),
        (200, {"If-Match": ETAG}),
        (412, {"If-Match": '"x"'}),
        (412, {"If-Unmodified-Since": formatdate(1e9, usegmt=True)}),
        (200, {"If-Unmodified-Since": formatdate(4e9, usegmt=True)}),
    ],
)
def test_an_object_is_fetched_on_conditions(tmp_path: Path, status: int, headers: dict[str, str]) -> None:
    found, told, body = asked(tmp_path, f"/{NAME}", headers)
    assert found == status
    assert body == JPEG if status == 200 else body != JPEG
    if status == 304:
        assert (told["ETag"], body) == (ETAG, b"")


@pytest.mark.parametrize(
    ("path", "host", "expected"),
    [
        ("/nothing.jpg", HOST, (404, "NoSuchKey")),
        ("/nothing.jpg", "x", (404, "NoSuchKey")),
        (f"/{NAME}", "nobody-1.cos.ap-shanghai.myqcloud.com", (404, "NoSuchBucket")),
        (f"/{NAME}", "nobody-1.file.myqcloud.com:80", (404, "NoSuchBucket")),
        ("/", "x", (404, "NoSuchBucket")),
        ("/?max-keys=x", HOST, (400, "InvalidArgument")),
        ("/?acl", HOST, (501, "NotImplemented")),
        ("/?uploads&prefix=x", HOST, (501, "NotImplemented")),
        (f"/{NAME}?tagging", HOST, (501, "NotImplemented")),
    ],
)
def test_a_refusal_is_worded_as_cos_words_it(
    tmp_path: Path, path: str, host: str, expected: tuple[int, str]
) -> None:
    status, headers, body = asked(tmp_path, path, host=host)
    assert (status, code(body)) == expected
    told = {element.tag: element.text for element in ElementTree.fromstring(body)}
    assert headers["Content-Type"] == "application/xml"
    assert told["RequestId"] == headers["x-cos-request-id"]
    assert told["Message"]
    assert told["Resource"] == path.partition("?")[0]


@pytest.mark.parametrize(
    ("method", "status"), [("POST", 501), ("OPTIONS", 501), ("PATCH", 405), ("TRACE", 405), ("QUERY", 405)]
)
def test_other_methods_are_refused(tmp_path: Path, method: str, status: int) -> None:
    found, headers, _ = asked(tmp_path, f"/{NAME}", method=method)
    assert found == status
    assert status == 501 or "PUT" in headers["Allow"]


def test_a_cover_is_fetched_with_its_query(tmp_path: Path) -> None:
    cover = "shihou/5659_10146_prod-320.jpg"
    status, _, body = asked(tmp_path, f"/{cover}?t=1499678069&tt=1499679047", keys=(cover,))
    assert (status, body) == (200, JPEG)


def test_reading_with_a_signature_that_is_wrong_is_refused(tmp_path: Path) -> None:
    wrong = (
        "q-sign-algorithm=sha1&q-ak=AKIDsandbox&q-sign-time=1;4000000000&q-key-time=1;4000000000"
        "&q-header-list=&q-url-param-list=&q-signature=0000"
    )
    for status, headers in ((403, {"Authorization": wrong}), (403, {"Authorization": "Bearer x"})):
        assert asked(tmp_path, f"/{NAME}", headers)[0] == status
    assert asked(tmp_path, f"/{NAME}?{wrong}")[0] == 403
    assert (
        code(asked(tmp_path, f"/{NAME}?{wrong.replace('AKIDsandbox', 'AKIDnobody')}")[2])
        == "InvalidAccessKeyId"
    )
    assert asked(tmp_path, f"/{NAME}", {"Authorization": ""})[0] == 200


def listed(directory: Path, path: str, host: str = HOST) -> list[str | None]:
    keys = ("2026-11-22/a.jpg", "2026-11-22/b.jpg", "2026-11-23/c d.jpg", "直播.jpg")
    status, _, body = asked(directory, path, host=host, keys=keys)
    assert status == 200
    return [
        one.text for one in ElementTree.fromstring(body).iter() if one.tag in ("Key", "Prefix") and one.text
    ]


def test_a_bucket_is_listed_by_host_and_by_path(tmp_path: Path) -> None:
    everything = ["2026-11-22/a.jpg", "2026-11-22/b.jpg", "2026-11-23/c d.jpg", NAME, "直播.jpg"]
    assert listed(tmp_path, "/") == everything
    assert listed(tmp_path, f"/{BUCKET}", host="x") == everything
    assert listed(tmp_path, f"/{BUCKET}/?list-type=2", host="127.0.0.1") == everything
    assert listed(tmp_path, "/?prefix=2026-11-23&encoding-type=url") == ["2026-11-23", "2026-11-23/c%20d.jpg"]
    assert listed(tmp_path, f"/{BUCKET}?delimiter=/", host="x") == [
        "2026-11-22/", "2026-11-23/", NAME, "直播.jpg"
    ]  # fmt: skip
    assert listed(tmp_path, "/?prefix=2026-11-23/c+d&max-keys=1") == ["2026-11-23/c d", "2026-11-23/c d.jpg"]


def test_what_is_under_way_is_not_listed(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.pictures.upload(BUCKET, NAME, JPEG)
        async with session.get(f"{sandbox.endpoints['cos']}/{BUCKET}") as response:
            assert NAME not in await response.text()
        async with session.head(f"{sandbox.endpoints['cos']}/{BUCKET}") as response:
            assert response.status == 200

    play(tmp_path, scene, upload_delay=(100.0, 100.0))


def test_two_customers_buckets_are_told_apart(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.pictures.put(BUCKET, "first.jpg", JPEG)
        sandbox.pictures.put("others-77", "second.jpg", JPEG)
        for bucket, there in ((BUCKET, "first.jpg"), ("others-77", "second.jpg")):
            async with session.get(f"{sandbox.endpoints['cos']}/{bucket}/") as response:
                root = ElementTree.fromstring(await response.read())
            assert [one.text for one in root.iter("Key")] == [there]

    play(tmp_path, scene, customers=(Customer(), Customer(app_id=77, bucket="others", cos_app_id=77)))


def test_a_listing_can_be_broken_like_a_picture(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        order = [
            {"fault": "cut", "offset": 20},
            {"fault": "truncated"},
            {"fault": "wrong_checksum"},
            {"fault": "status"},
        ]
        await tell(sandbox, session, "faults", target="cos", next=order)
        url = f"{sandbox.endpoints['cos']}/{BUCKET}"
        assert len((await raw(url))[1]) == 20
        for _ in range(2):
            head, body, _ = await raw(url)
            assert body.endswith(b"</ListBucketResult>\n")
            assert CHECKSUM.encode() not in head
        assert (await raw(url))[0].startswith(b"HTTP/1.1 503")

    play(tmp_path, scene)
