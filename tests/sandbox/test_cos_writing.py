"""Signed PUT and DELETE over real sockets; the signatures are those of Tencent's own SDK."""

import asyncio
import contextlib
import logging
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import aiohttp
import pytest
from fastcrc import crc64
from qcloud_cos import CosConfig, CosS3Client
from yarl import URL

from poller.sandbox import Customer, Sandbox

from .api_client import play, tell

BUCKET, OTHERS = "shots-1250000000", "others-77"
DOMAIN = "cos.ap-shanghai.myqcloud.com"
KEY = "2026-11-22/a b+c/直播.jpg"
CONTENT = b"\xff\xd8" + bytes(range(256)) * 20 + b"\xff\xd9"
CUSTOMERS = (
    Customer(secret_id="AKIDfirst", secret_key="first"),
    Customer(app_id=77, bucket="others", cos_app_id=77, secret_id="AKIDsecond", secret_key="second"),
)


class Client:
    """Sends requests signed as the first customer, or as told."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        self._base = sandbox.endpoints["cos"]
        self._session = session

    async def ask(
        self,
        method: str,
        key: str = KEY,
        data: bytes | AsyncIterator[bytes] | None = None,
        *,
        bucket: str = BUCKET,
        secret_id: str | None = "AKIDfirst",
        secret_key: str = "first",
        query: str = "",
        **headers: str,
    ) -> tuple[int, Any, str]:
        """Status, headers, and the refusal's code if it is one."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if secret_id is not None:
            config = CosConfig(Endpoint=DOMAIN, SecretId=secret_id, SecretKey=secret_key, Scheme="http")
            sent["Authorization"] = CosS3Client(config).get_auth(method, bucket, key, Headers=dict(sent))
        sent |= {"Host": f"{bucket}.{DOMAIN}"}
        url = URL(f"{self._base}/{quote(key.removeprefix('/'))}{query}", encoded=True)
        async with self._session.request(method, url, data=data, headers=sent) as response:
            body = await response.read()
        refused = body.startswith(b"<?xml") and ElementTree.fromstring(body).findtext("Code")
        return response.status, response.headers, refused or ""


def scene_of(directory: Path, scene: Any, **options: Any) -> None:
    async def whole(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        await scene(sandbox, Client(sandbox, session))

    play(directory, whole, customers=CUSTOMERS, **options)


def test_what_is_put_is_there_at_once(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, client: Client) -> None:
        checked = b64encode(md5(CONTENT).digest()).decode()
        status, headers, _ = await client.ask(
            "PUT", KEY, CONTENT, Content_Type="image/png", Content_MD5=checked
        )
        assert status == 200
        told = (f'"{md5(CONTENT).hexdigest()}"', str(crc64.xz(CONTENT)))
        assert (headers["ETag"], headers["x-cos-hash-crc64ecma"]) == told
        assert sandbox.pictures.content(BUCKET, KEY) == CONTENT
        _, headers, _ = await client.ask("HEAD", secret_id=None)
        assert (headers["ETag"], headers["x-cos-hash-crc64ecma"]) == told
        assert headers["Content-Type"] == "image/png"
        assert (await client.ask("PUT", KEY, b""))[0] == 200
        assert sandbox.pictures.content(BUCKET, KEY) == b""

    scene_of(tmp_path, scene, upload_delay=(100.0, 100.0))


def test_what_is_deleted_is_gone(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, client: Client) -> None:
        sandbox.pictures.put(BUCKET, KEY, CONTENT)
        for _ in range(2):
            assert (await client.ask("DELETE"))[0] == 204
            assert (await client.ask("GET"))[2] == "NoSuchKey"

    scene_of(tmp_path, scene)


@pytest.mark.parametrize(
    ("expected", "how"),
    [
        ("AccessDenied", {"secret_id": None}),
        ("InvalidAccessKeyId", {"secret_id": "AKIDnobody"}),
        ("SignatureDoesNotMatch", {"secret_key": "second"}),
        ("SignatureDoesNotMatch", {"secret_id": "AKIDsecond"}),
        ("AccessDenied", {"secret_id": "AKIDsecond", "secret_key": "second"}),
        ("AccessDenied", {"bucket": OTHERS}),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_writing_needs_the_key_of_the_buckets_owner(
    tmp_path: Path, method: str, expected: str, how: dict[str, Any]
) -> None:
    async def scene(sandbox: Sandbox, client: Client) -> None:
        bucket = how.get("bucket", BUCKET)
        sandbox.pictures.put(bucket, KEY, CONTENT)
        status, _, code = await client.ask(method, KEY, b"other", **how)
        assert (status, code) == (403, expected)
        assert sandbox.pictures.content(bucket, KEY) == CONTENT

    scene_of(tmp_path, scene)


def test_a_signature_is_judged_by_the_platforms_clock(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, client: Client) -> None:
        for offset, expected in ((0, ""), (7200, "AccessDenied"), (-7200, "RequestTimeTooSkewed")):
            sandbox.clock.offset = offset
            assert (await client.ask("PUT", KEY, CONTENT))[2] == expected

    scene_of(tmp_path, scene)


def test_a_signature_is_for_its_method_and_its_key(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, client: Client) -> None:
        config = CosConfig(Endpoint=DOMAIN, SecretId="AKIDfirst", SecretKey="first", Scheme="http")
        stolen = {"Authorization": CosS3Client(config).get_auth("GET", BUCKET, KEY)}
        assert (await client.ask("GET", secret_id=None, **stolen))[2] == "NoSuchKey"
        assert (await client.ask("PUT", KEY, b"x", secret_id=None, **stolen))[2] == "SignatureDoesNotMatch"
        assert (await client.ask("GET", "other", secret_id=None, **stolen))[2] == "SignatureDoesNotMatch"

    scene_of(tmp_path, scene)


@pytest.mark.parametrize("signed_path", [f"{BUCKET}/{KEY}", KEY])
def test_a_bucket_may_be_named_by_the_path(tmp_path: Path, signed_path: str) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        # What an SDK sends that was told to go to 127.0.0.1: the host is signed without its port.
        where = urlsplit(sandbox.endpoints["cos"] or "")
        config = CosConfig(
            Domain=where.hostname,
            Region="ap-shanghai",
            SecretId="AKIDsandbox",
            SecretKey="sandbox",
            Scheme="http",
        )
        signed = {"Authorization": CosS3Client(config).get_auth("PUT", "shots", signed_path)}
        url = URL(f"{sandbox.endpoints['cos']}/{BUCKET}/{quote(KEY)}", encoded=True)
        async with session.put(url, data=CONTENT, headers=signed) as response:
            assert response.status == 200
        assert sandbox.pictures.content(BUCKET, KEY) == CONTENT

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("status", "expected", "how"),
    [
        (400, "BadDigest", {"Content_MD5": b64encode(md5(b"other").digest()).decode()}),
        (400, "InvalidDigest", {"Content_MD5": "x"}),
        (400, "InvalidDigest", {"Content_MD5": "AAAA"}),
        (400, "KeyTooLong", {"key": "x" * 851}),
        (501, "NotImplemented", {"key": "/"}),
        (501, "NotImplemented", {"query": "?acl"}),
        (501, "NotImplemented", {"query": "?partNumber=1&uploadId=2"}),
        (501, "NotImplemented", {"x_cos_copy_source": f"{BUCKET}.{DOMAIN}/a"}),
        (501, "NotImplemented", {"Content_Encoding": "gzip"}),
        (404, "NoSuchBucket", {"bucket": "nobody-1"}),
    ],
)
def test_what_cannot_be_put_is_refused(
    tmp_path: Path, status: int, expected: str, how: dict[str, str]
) -> None:
    async def scene(sandbox: Sandbox, client: Client) -> None:
        sandbox.pictures.put(BUCKET, KEY, CONTENT)
        found, _, code = await client.ask("PUT", **{"key": KEY, "data": b"new", **how})  # type: ignore[arg-type]
        assert (found, code) == (status, expected)
        assert [one.key for one in sandbox.pictures.since(BUCKET, "")] == [KEY]
        assert sandbox.pictures.content(BUCKET, KEY) == CONTENT

    scene_of(tmp_path, scene)


def test_a_body_without_length_may_come_in_chunks(tmp_path: Path) -> None:
    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield bytes(1 << 20)

    async def scene(sandbox: Sandbox, client: Client) -> None:
        assert (await client.ask("PUT", KEY, pieces(3)))[0] == 200
        assert sandbox.pictures.content(BUCKET, KEY) == bytes(3 << 20)
        with contextlib.suppress(aiohttp.ClientError):  # it may be refused while it is still sending
            assert (await client.ask("PUT", "large", pieces(65)))[2] == "EntityTooLarge"
        assert sandbox.pictures.content(BUCKET, "large") is None

    scene_of(tmp_path, scene)


async def spoken(sandbox: Sandbox, lines: str, *, until: bytes) -> bytes:
    """What is answered to a PUT of `x.jpg` written by hand, up to some bytes, or to the connection's end."""
    config = CosConfig(Endpoint=DOMAIN, SecretId="AKIDfirst", SecretKey="first", Scheme="http")
    signed = CosS3Client(config).get_auth("PUT", BUCKET, "x.jpg")
    where = urlsplit(sandbox.endpoints["cos"] or "")
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    head = f"PUT /x.jpg HTTP/1.1\r\nHost: {BUCKET}.{DOMAIN}\r\nAuthorization: {signed}\r\n{lines}"
    writer.write(head.encode())
    try:
        return await (reader.readuntil(until) if until else reader.read())
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_a_body_that_is_too_large_is_refused_before_it_comes(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, client: Client) -> None:
        got = await spoken(sandbox, f"Content-Length: {(64 << 20) + 1}\r\n\r\n", until=b"</Error>")
        assert got.startswith(b"HTTP/1.1 400")
        assert b"<Code>EntityTooLarge</Code>" in got
        got = await spoken(sandbox, "\r\n", until=b"</Error>")
        assert b"<Code>MissingContentLength</Code>" in got

    scene_of(tmp_path, scene)


def test_a_client_that_asks_first_is_told_to_go_on(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, client: Client) -> None:
        got = await spoken(sandbox, "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n", until=b"\r\n\r\n")
        assert got == b"HTTP/1.1 100 Continue\r\n\r\n"
        headers = {"Expect": "100-continue"}
        assert (await client.ask("PUT", KEY, CONTENT, **headers))[0] == 200
        assert sandbox.pictures.content(BUCKET, KEY) == CONTENT

    scene_of(tmp_path, scene)


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 1000\r\n\r\nonly a part",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhel",
    ],
)
def test_half_a_body_is_not_stored(tmp_path: Path, lines: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(sandbox: Sandbox, client: Client) -> None:
        with caplog.at_level(logging.ERROR):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):  # then we go
                    await spoken(sandbox, lines, until=b"")
            for _ in range(20):
                assert (await client.ask("PUT", KEY, CONTENT))[0] == 200
        assert [one.key for one in sandbox.pictures.since(BUCKET, "")] == [KEY]
        assert not caplog.records

    scene_of(tmp_path, scene)


@pytest.mark.parametrize(
    ("fault", "stored"),
    [
        ("status", False),
        ("not_found", False),
        ("redirect", False),
        ("html", False),
        ("reset_before", False),
        ("close", False),
        ("latency", True),
        ("cut", True),
        ("cut_chunked", True),
        ("reset_headers", True),
        ("drip", True),
        ("wrong_checksum", True),
        ("truncated", True),
        ("wrong_type", True),
    ],
)
def test_an_upload_can_be_broken(tmp_path: Path, fault: str, stored: bool) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sent = "Connection: close\r\nContent-Length: 5\r\n\r\nhello"
        await tell(sandbox, session, "faults", target="cos", next=[{"fault": fault, "seconds": 0.01}])
        broken = await spoken(sandbox, sent, until=b"")
        assert sandbox.faults["cos"].fired == {fault: 1}
        assert (sandbox.pictures.content(BUCKET, "x.jpg") == b"hello") is stored
        assert broken.startswith(b"HTTP/1.1") or fault in ("reset_before", "reset_headers", "close")
        assert (await spoken(sandbox, sent, until=b"")).startswith(b"HTTP/1.1 200")
        assert sandbox.pictures.content(BUCKET, "x.jpg") == b"hello"

    play(tmp_path, scene, customers=CUSTOMERS)
