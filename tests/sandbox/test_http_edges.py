"""HTTP as its clients really speak it, on every port: bodies that nobody wants, conditions, ranges, other origins."""

import asyncio
import contextlib
import gzip
import logging
import sqlite3
from collections.abc import AsyncIterator, Mapping
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from qcloud_cos import CosConfig, CosS3Client

from poller.sandbox import Customer, Sandbox
from poller.sandbox.database import FILE
from tests.patience import PATIENCE

from .api_client import play, record, signed

BUCKET = "shots-1250000000"
HOST = f"{BUCKET}.cos.ap-shanghai.myqcloud.com"
CONTENT = bytes(range(256)) * 10
ETAG = f'"{md5(CONTENT).hexdigest()}"'

Got = tuple[int, Mapping[str, str], bytes]


def authorized(method: str, key: str, **headers: str) -> str:
    """A signature of Tencent's own SDK for the default customer; some are made long before they are used."""
    config = CosConfig(
        Endpoint="cos.ap-shanghai.myqcloud.com", SecretId="AKIDsandbox", SecretKey="sandbox", Scheme="http"
    )
    return str(CosS3Client(config).get_auth(method, BUCKET, key, 3600, Headers=dict(headers)))


# --- bodies that nobody wants ---


class Wire:
    """A connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def said(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """The next final answer: status, headers, body."""
        self._writer.write(request)
        while True:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            status, lines = int(head.split()[1]), head.split("\r\n")[1:-2]
            headers = {
                name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)
            }
            if status >= 200:
                return status, headers, await self._reader.readexactly(int(headers.get("content-length", 0)))

    async def ended(self) -> bool:
        """Whether the server closes now."""
        with contextlib.suppress(ConnectionError):
            return await self._reader.read(1) == b""
        return True


@contextlib.asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


GZIP = gzip.compress(b"a body")
PUT = f"PUT /x.jpg HTTP/1.1\r\nHost: {HOST}\r\n"
SIGNED = f"{PUT}Authorization: {authorized('PUT', 'x.jpg')}\r\n"
WANTED = {
    "cos": f"GET /{BUCKET}/there HTTP/1.1\r\nHost: x\r\n\r\n",
    "vod": "GET /VID.f0.flv HTTP/1.1\r\nHost: x\r\n\r\n",
    "api": "GET /common_access?QUERY HTTP/1.1\r\nHost: x\r\n\r\n",
    "control": "GET /state HTTP/1.1\r\nHost: x\r\n\r\n",
}
BODIES: dict[str, tuple[str, bytes]] = {
    "a body": ("Content-Length: 9", b"GET /evil"),
    "a body of a megabyte": ("Content-Length: 1048576", bytes(1 << 20)),
    "a body in chunks": ("Transfer-Encoding: chunked", b"9\r\nGET /evil\r\n0\r\n\r\n"),
    "a body that waits for 100": ("Content-Length: 9\r\nExpect: 100-continue", b"GET /evil"),
    "a body that waits and is not sent": ("Content-Length: 9\r\nExpect: 100-continue", b""),
    "a body that is said to be gzip": ("Content-Length: 9\r\nContent-Encoding: gzip", b"GET /evil"),
    "a body that is said to be deflate": ("Content-Length: 9\r\nContent-Encoding: deflate", b"GET /evil"),
    "a body that is said to be br": ("Content-Length: 9\r\nContent-Encoding: br", b"GET /evil"),
    "a body of gzip": (f"Content-Length: {len(GZIP)}\r\nContent-Encoding: gzip", GZIP),
    "chunks that are none": ("Transfer-Encoding: chunked", b"zz\r\nGET /evil\r\n0\r\n\r\n"),
}
REFUSED = {
    "unsigned": ("cos", PUT, 403),
    "another bucket": ("cos", PUT.replace(BUCKET, "nobody-1"), 404),
    "not done here": ("cos", SIGNED + "x-cos-acl: private\r\n", 501),
    "a condition that fails": ("cos", SIGNED.replace("/x.jpg", "/there") + "If-None-Match: *\r\n", 403),
    "no such method": ("cos", PUT.replace("PUT", "POST"), 501),
    "a picture with a body": ("cos", PUT.replace("PUT /x.jpg", "GET /there"), 200),
    "a recording that is written": ("vod", "PUT /VID.f0.flv HTTP/1.1\r\nHost: x\r\n", 405),
    "a recording with a body": ("vod", "GET /VID.f0.flv HTTP/1.1\r\nHost: x\r\n", 200),
    "no recording": ("vod", "GET /nothing HTTP/1.1\r\nHost: x\r\n", 404),
    "a query that is posted": ("api", "POST /common_access HTTP/1.1\r\nHost: x\r\n", 405),
    "another path": ("api", "POST /other HTTP/1.1\r\nHost: x\r\n", 404),
    "a query with a body": ("api", "GET /common_access?QUERY HTTP/1.1\r\nHost: x\r\n", 200),
    "no such verb": ("control", "POST /nothing HTTP/1.1\r\nHost: x\r\n", 404),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_answer_before_the_body_spoils_no_later_request_of_its_connection(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    port, start, expected = REFUSED[what]

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.pictures.put(BUCKET, "there", CONTENT)
        (vid,) = record(sandbox, Customer(), 1)
        filled = {name: text.replace("VID", vid).replace("QUERY", signed()) for name, text in WANTED.items()}
        head = start.replace("VID", vid).replace("QUERY", signed())
        for form, (lines, body) in BODIES.items():
            async with asyncio.timeout(PATIENCE), wire(str(sandbox.endpoints[port])) as kept:
                status, headers, _ = await kept.said(f"{head}{lines}\r\n\r\n".encode() + body)
                assert status == expected or (status == 400 and form == "chunks that are none"), form
                if headers.get("connection") == "close":
                    assert await kept.ended(), form
                    continue
                if form == "chunks that are none":
                    assert await kept.ended(), form
                    continue
                status, _, _ = await kept.said(filled[port].encode())
                assert status == 200, form
        assert not [one for one in caplog.records if one.levelno >= logging.ERROR], form

    play(tmp_path, scene)


def test_a_refused_upload_that_waits_for_100_is_told_to_close(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        async with wire(str(sandbox.endpoints["cos"])) as kept:
            waiting = f"{PUT}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            status, headers, _ = await kept.said(waiting.encode())
            assert (status, headers["connection"]) == (403, "close")
            assert await kept.ended()

    play(tmp_path, scene)


def test_a_control_request_whose_body_breaks_http_is_refused_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        for body in (b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}xx0\r\n\r\n"):
            async with wire(str(sandbox.endpoints["control"])) as kept:
                head = b"POST /enqueue HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                status, _, _ = await kept.said(head + body)
                assert status == 400
                assert await kept.ended()
        async with session.post(f"{sandbox.endpoints['control']}/enqueue", data=bytes(2 << 20)) as response:
            assert response.status == 413
        assert not [one for one in caplog.records if one.levelno >= logging.ERROR]

    play(tmp_path, scene)


def test_the_control_port_refuses_a_clock_and_a_delay_that_are_none(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        control, api = sandbox.endpoints["control"], sandbox.endpoints["api"]
        for verb, wish in (
            ("clock", '{"offset": NaN}'),
            ("clock", '{"offset": 1e300}'),
            ("clock", '{"offset": "5"}'),
            ("cos", '{"upload_delay": [5, 1]}'),
            ("cos", '{"upload_delay": [0, Infinity]}'),
        ):
            async with session.post(f"{control}/{verb}", data=wish) as response:
                assert response.status == 400, wish
        async with session.get(str(api)) as response:
            assert response.status == 200

    play(tmp_path, scene)


# --- conditions and metadata of uploads ---


class Store:
    """Signed requests to the default bucket."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        self._base = sandbox.endpoints["cos"]
        self._session = session

    async def ask(
        self, method: str, key: str = "a", data: bytes | None = None, query: str = "", **headers: str
    ) -> Got:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= {"Authorization": authorized(method, key), "Host": HOST}
        url = f"{self._base}/{key}{query}"
        async with self._session.request(method, url, data=data, headers=sent) as response:
            return response.status, response.headers, await response.read()


def stored(directory: Path, scene: Any) -> None:
    async def whole(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await scene(sandbox, Store(sandbox, session))

    play(directory, whole)


LONG_AGO, FAR_OFF = "Mon, 22 Aug 2016 12:00:00 GMT", "Fri, 22 Aug 2036 12:00:00 GMT"
OTHER = '"0123456789abcdef0123456789abcdef"'


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    ("headers", "there", "nothing"),
    [
        ({"If-None-Match": "*"}, 412, 200),
        ({"If-None-Match": ETAG}, 412, 200),
        ({"If-None-Match": f"W/{ETAG}"}, 412, 200),
        ({"If-None-Match": f"{OTHER}, {ETAG}"}, 412, 200),
        ({"If-None-Match": OTHER}, 200, 200),
        ({"If-Match": "*"}, 200, 412),
        ({"If-Match": ETAG}, 200, 412),
        ({"If-Match": f"{OTHER}, {ETAG}"}, 200, 412),
        ({"If-Match": f"W/{ETAG}"}, 412, 412),
        ({"If-Match": OTHER}, 412, 412),
        ({"If-Match": ETAG, "If-None-Match": "*"}, 412, 412),
        ({"If-Unmodified-Since": LONG_AGO}, 412, 200),
        ({"If-Unmodified-Since": FAR_OFF}, 200, 200),
        ({"If-Unmodified-Since": "no date"}, 200, 200),
        ({"If-Match": ETAG, "If-Unmodified-Since": LONG_AGO}, 200, 412),
        ({"If-Modified-Since": FAR_OFF}, 200, 200),
    ],
    ids=str,
)
def test_an_object_is_written_only_on_its_conditions(
    tmp_path: Path, method: str, headers: dict[str, str], there: int, nothing: int
) -> None:
    async def scene(sandbox: Sandbox, store: Store) -> None:
        sandbox.pictures.put(BUCKET, "a", CONTENT)
        done = 200 if method == "PUT" else 204
        expected = {200: done, 412: 412}
        status, _, body = await store.ask(method, "a", b"new", **headers)
        assert status == expected[there]
        assert (b"PreconditionFailed" in body) == (status == 412)
        left = {412: CONTENT, 200: b"new", 204: None}[status]
        assert sandbox.pictures.content(BUCKET, "a") == left
        assert (await store.ask(method, "b", b"new", **headers))[0] == expected[nothing]
        assert sandbox.pictures.content(BUCKET, "b") == (b"new" if expected[nothing] == 200 else None)

    stored(tmp_path, scene)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (304, {"If-None-Match": ETAG}),
        (304, {"If-None-Match": "*"}),
        (200, {"If-None-Match": OTHER}),
        (304, {"If-Modified-Since": FAR_OFF}),
        (200, {"If-Modified-Since": LONG_AGO}),
        (200, {"If-Modified-Since": "no date"}),
        (200, {"If-None-Match": OTHER, "If-Modified-Since": FAR_OFF}),
        (412, {"If-Match": OTHER}),
        (412, {"If-Match": f"W/{ETAG}"}),
        (200, {"If-Match": "*"}),
        (412, {"If-Unmodified-Since": LONG_AGO}),
        (412, {"If-Match": OTHER, "If-None-Match": ETAG}),
    ],
    ids=str,
)
def test_an_object_is_read_on_its_conditions(
    tmp_path: Path, method: str, status: int, headers: dict[str, str]
) -> None:
    async def scene(sandbox: Sandbox, store: Store) -> None:
        sandbox.pictures.put(BUCKET, "a", CONTENT)
        found, _, body = await store.ask(method, "a", None, "", **headers)
        assert found == status
        assert body == (CONTENT if (status, method) == (200, "GET") else body if status == 412 else b"")

    stored(tmp_path, scene)


def test_the_length_of_an_object_without_bytes_is_0(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, store: Store) -> None:
        assert (await store.ask("PUT", "a", b""))[0] == 200
        for method in ("HEAD", "GET"):
            status, headers, body = await store.ask(method)
            assert (status, headers.get("Content-Length"), body) == (200, "0", b"")
        assert (await store.ask("GET", Range="bytes=0-"))[0] == 416
        status, headers, _ = await store.ask("HEAD", "nothing")
        assert (status, int(headers["Content-Length"]) > 0) == (404, True)

    stored(tmp_path, scene)


METADATA = {
    "x-cos-meta-camera": "left",
    "x-amz-meta-Room": "7 & 8",
    "Cache-Control": "max-age=60, private",
    "Content-Disposition": "attachment; filename*=UTF-8''%E7%9B%B4.jpg",
    "Content-Language": "zh-CN",
    "Expires": FAR_OFF,
}


def test_what_an_upload_says_of_its_object_comes_back_with_it(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, store: Store) -> None:
        assert (await store.ask("PUT", "a", CONTENT, **METADATA))[0] == 200
        for method, status, wish in (
            ("HEAD", 200, {}),
            ("GET", 200, {}),
            ("GET", 206, {"Range": "bytes=0-3"}),
        ):
            found, headers, _ = await store.ask(method, **wish)  # type: ignore[arg-type]
            assert found == status
            assert {name: headers.get(name) for name in METADATA} == METADATA
        assert (await store.ask("PUT", "a", CONTENT))[0] == 200
        _, headers, _ = await store.ask("HEAD")
        assert not [name for name in METADATA if name in headers], "a new object has its own"

    stored(tmp_path, scene)


def test_metadata_outlive_a_restart_and_an_older_sandboxs_file_is_taken(tmp_path: Path) -> None:
    async def first(sandbox: Sandbox, store: Store) -> None:
        await store.ask("PUT", "a", CONTENT, **METADATA)

    async def second(sandbox: Sandbox, store: Store) -> None:
        _, headers, _ = await store.ask("HEAD")
        assert {name: headers.get(name) for name in METADATA} == METADATA

    async def third(sandbox: Sandbox, store: Store) -> None:
        assert (await store.ask("GET"))[2] == CONTENT

    stored(tmp_path, first)
    stored(tmp_path, second)
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.executescript("ALTER TABLE object DROP COLUMN metadata; PRAGMA user_version=1;")
    stored(tmp_path, third)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-cos-acl": "private"},
        {"x-cos-grant-read": 'id="1"'},
        {"x-cos-storage-class": "ARCHIVE"},
        {"x-cos-storage-class": "STANDARD_IA"},
        {"x-cos-tagging": "a=b"},
        {"x-cos-server-side-encryption": "AES256"},
        {"x-cos-server-side-encryption-customer-algorithm": "AES256"},
        {"x-cos-traffic-limit": "819200"},
        {"x-cos-forbid-overwrite": "true"},
        {"x-cos-copy-source": "other-1.cos.ap-shanghai.myqcloud.com/a"},
        {"x-cos-something-new": "1"},
        {"x-amz-acl": "private"},
        {"x-amz-tagging": "a=b"},
        {"x-amz-object-lock-mode": "GOVERNANCE"},
        {"X-COS-ACL": "private"},
        {"Content-Encoding": "gzip"},
        {"Content-Range": "bytes 0-2/10"},
        {"Pic-Operations": "{}"},
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_not_accepted(tmp_path: Path, headers: dict[str, str]) -> None:
    async def scene(sandbox: Sandbox, store: Store) -> None:
        status, _, body = await store.ask("PUT", "a", b"new", **headers)
        assert (status, b"NotImplemented" in body) == (501, True)
        assert sandbox.pictures.content(BUCKET, "a") is None

    stored(tmp_path, scene)


def test_what_is_so_anyway_may_be_asked_for(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, store: Store) -> None:
        assert (await store.ask("PUT", "a", b"new", **{"x-cos-storage-class": "STANDARD"}))[0] == 200
        status, _, body = await store.ask("PUT", "b", b"new", **{"x-cos-meta-a": "x" * 3000})
        assert (status, b"InvalidArgument" in body) == (400, True)
        assert (await store.ask("GET", query="?response-content-type=text/plain"))[0] == 501

    stored(tmp_path, scene)


# --- ranges and other origins, of pictures and recordings alike ---

SIZE = len(CONTENT)


@pytest.fixture(params=["cos", "vod"])
def port(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fetched(directory: Path, port: str, *wishes: Mapping[str, str], method: str = "GET") -> list[Got]:
    """One thing of SIZE bytes, fetched once for each of these headers; they may name its tag and date."""
    found: list[Got] = []

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.pictures.put(BUCKET, "a", CONTENT)
        vid = sandbox.recordings.begin(Customer(), "show", 1.0)
        sandbox.recordings.part(vid).write_bytes(CONTENT)
        sandbox.recordings.end(vid, 2.0)
        url = f"{sandbox.endpoints[port]}/" + (f"{BUCKET}/a" if port == "cos" else f"{vid}.f0.flv")
        async with session.head(url) as response:
            tag, date = response.headers["ETag"], response.headers["Last-Modified"]
        for wish in wishes:
            sent = {name: value.replace("TAG", tag).replace("DATE", date) for name, value in wish.items()}
            async with session.request(method, url, headers=sent) as response:
                found.append((response.status, response.headers, await response.read()))

    play(directory, scene)
    return found


RANGES = {
    "bytes=0-0": (0, 1),
    "BYTES=0-0": (0, 1),
    "bytes=00-0000": (0, 1),
    "bytes=5-": (5, SIZE),
    "bytes=-5": (SIZE - 5, SIZE),
    f"bytes=-{SIZE * 2}": (0, SIZE),
    f"bytes=1-{'9' * 30}": (1, SIZE),
    f"bytes=-{'9' * 30}": (0, SIZE),
    f"bytes={SIZE - 1}-{SIZE - 1}": (SIZE - 1, SIZE),
    "bytes=-0": None,
    "bytes=-00": None,
    f"bytes={SIZE}-": None,
    f"bytes={SIZE}-{SIZE + 5}": None,
    f"bytes={'9' * 30}-": None,
    "bytes=5-2": "whole",
    "bytes=0-1,5-6": "whole",
    "bytes=0-1, 5-6, -2": "whole",
    "bytes=-0,-0": "whole",
    "seconds=1-2": "whole",
    "bytes": "whole",
    "bytes=": "whole",
    "bytes=-": "whole",
    "bytes=a-b": "whole",
    "bytes=1.5-2": "whole",
    "bytes=0x1-2": "whole",
    "bytes=\u0661-": "whole",
    "bytes 0-1": "whole",
}


def test_a_range_is_what_http_says_it_is(tmp_path: Path, port: str) -> None:
    answers = fetched(tmp_path, port, *({"Range": wish} for wish in RANGES))
    for (wish, expected), (status, headers, body) in zip(RANGES.items(), answers, strict=True):
        match expected:
            case "whole":
                assert (status, body, "Content-Range" in headers) == (200, CONTENT, False), wish
            case None:
                assert (status, headers.get("Content-Range")) == (416, f"bytes */{SIZE}"), wish
            case (int(start), int(end)):
                assert (status, body) == (206, CONTENT[start:end]), wish
                assert headers["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"


def test_head_has_no_ranges(tmp_path: Path, port: str) -> None:
    for status, headers, _ in fetched(
        tmp_path, port, {"Range": "bytes=0-1"}, {"Range": "bytes=-0"}, method="HEAD"
    ):
        assert (status, headers["Content-Length"]) == (200, str(SIZE))


@pytest.mark.parametrize(
    ("wish", "status"),
    [
        ("TAG", 206),
        ("DATE", 206),
        ("W/TAG", 200),
        (OTHER, 200),
        (LONG_AGO, 200),
        (FAR_OFF, 200),
        ("no date", 200),
        ("", 200),
    ],
)
def test_a_part_is_served_if_it_is_of_the_same_version(
    tmp_path: Path, port: str, wish: str, status: int
) -> None:
    ((found, _, body),) = fetched(tmp_path, port, {"Range": "bytes=1-2", "If-Range": wish})
    assert (found, body) == (status, CONTENT[1:3] if status == 206 else CONTENT)


def test_conditions_come_before_ranges(tmp_path: Path, port: str) -> None:
    beyond = {"Range": f"bytes={SIZE}-"}
    known, other, gone = fetched(
        tmp_path, port, beyond | {"If-None-Match": "TAG"}, beyond | {"If-Match": OTHER}, {"If-Match": "W/TAG"}
    )
    assert [known[0], other[0], gone[0]] == [304, 412, 412]


def test_a_page_of_another_origin_may_play_and_seek(tmp_path: Path, port: str) -> None:
    origin = {"Origin": "https://player.example"}
    wishes = (
        origin,
        origin | {"Range": "bytes=0-9"},
        origin | {"Range": f"bytes={SIZE}-"},
        origin | {"If-None-Match": "TAG"},
        origin | {"If-Match": OTHER},
    )
    for method in ("GET", "HEAD"):
        for status, headers, _ in fetched(tmp_path, port, *wishes, method=method):
            assert headers["Access-Control-Allow-Origin"] == "*", status
            exposed = headers["Access-Control-Expose-Headers"].split(", ")
            assert {"Content-Length", "Content-Range", "ETag", "Accept-Ranges"} <= set(exposed)


def test_a_preflight_is_answered(tmp_path: Path, port: str) -> None:
    asked = {
        "Origin": "https://player.example",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "range,if-range",
        "Access-Control-Request-Private-Network": "true",
    }
    ((status, headers, body),) = fetched(tmp_path, port, asked, method="OPTIONS")
    assert (status in (200, 204), body) == (True, b"")
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert {"GET", "HEAD"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
    assert "range" in headers["Access-Control-Allow-Headers"].lower()
    assert headers["Access-Control-Allow-Private-Network"] == "true"


def test_what_is_not_there_says_so_to_other_origins_too(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        for port in ("cos", "vod"):
            async with session.get(f"{sandbox.endpoints[port]}/{BUCKET}/nothing") as response:
                assert response.status == 404
                assert response.headers["Access-Control-Allow-Origin"] == "*"

    play(tmp_path, scene)
