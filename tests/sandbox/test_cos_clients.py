"""Real clients of object stores against the sandbox's: Tencent's own SDK, and OpenDAL."""

import asyncio
import io
import json
import logging
import os
import sys
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from fastcrc import crc64
from qcloud_cos import CosConfig, CosS3Client
from qcloud_cos.cos_exception import CosServiceError
from yarl import URL

from poller.sandbox import Customer, Options, Sandbox

BUCKET, OTHERS = "shots-1250000000", "others-77"
KEY = "2026-11-22/a b+c&d/直播#@%41.jpg"
CONTENT = b"\xff\xd8" + bytes(range(256)) * 50 + b"\xff\xd9"
CUSTOMERS = (
    Customer(secret_id="AKIDfirst", secret_key="first"),
    Customer(app_id=77, bucket="others", cos_app_id=77, secret_id="AKIDsecond", secret_key="second"),
)
FEW = {f"2026-11-{day}/{number}.jpg": CONTENT for day in (21, 22) for number in range(3)}


def with_sandbox(directory: Path, scene: Callable[[Sandbox], Any]) -> None:
    """Runs a scene as the program runs: on uvloop."""

    async def whole() -> None:
        options = Options(directory=directory, upload_delay=(0.0, 0.0), customers=CUSTOMERS)
        async with asyncio.timeout(60), Sandbox(options) as sandbox:
            await scene(sandbox)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


# ---------------------------------------------------------------- cos-python-sdk-v5


def sdk(sandbox: Sandbox, *, secret_key: str = "first", **how: Any) -> Any:
    """A client that knows the store by COS's names and reaches it as a proxy, or as told."""
    how = how or {"Endpoint": "cos.ap-shanghai.myqcloud.com", "Proxies": {"http": sandbox.endpoints["cos"]}}
    logging.getLogger("qcloud_cos").setLevel(logging.CRITICAL)  # it logs what it raises
    config = CosConfig(SecretId="AKIDfirst", SecretKey=secret_key, Scheme="http", **how)
    return CosS3Client(config, retry=0)


def with_sdk(directory: Path, scene: Callable[[Any, Sandbox], None], **how: Any) -> None:
    """Runs a scene of a client that blocks, in a thread."""

    async def whole(sandbox: Sandbox) -> None:
        await asyncio.to_thread(scene, sdk(sandbox, **how), sandbox)

    with_sandbox(directory, whole)


def test_the_sdk_puts_reads_and_deletes(tmp_path: Path) -> None:
    def scene(client: Any, sandbox: Sandbox) -> None:
        told = client.put_object(
            Bucket=BUCKET, Body=CONTENT, Key=KEY, EnableMD5=True, ContentType="image/jpeg"
        )
        assert told["ETag"] == f'"{md5(CONTENT).hexdigest()}"'
        assert told["x-cos-hash-crc64ecma"] == str(crc64.xz(CONTENT))
        told = client.head_object(Bucket=BUCKET, Key=KEY)
        assert (told["Content-Length"], told["Content-Type"]) == (str(len(CONTENT)), "image/jpeg")
        got = client.get_object(Bucket=BUCKET, Key=KEY)
        assert got["Body"].get_raw_stream().read() == CONTENT
        got = client.get_object(Bucket=BUCKET, Key=KEY, Range="bytes=10-19")
        assert got["Content-Range"] == f"bytes 10-19/{len(CONTENT)}"
        assert got["Body"].get_raw_stream().read() == CONTENT[10:20]
        assert client.object_exists(BUCKET, KEY)
        client.delete_object(Bucket=BUCKET, Key=KEY)
        assert not client.object_exists(BUCKET, KEY)

    with_sdk(tmp_path, scene)


def test_the_sdk_uploads_and_downloads_files(tmp_path: Path) -> None:
    def scene(client: Any, sandbox: Sandbox) -> None:
        (tmp_path / "shot.jpg").write_bytes(CONTENT)
        client.upload_file(Bucket=BUCKET, Key=KEY, LocalFilePath=str(tmp_path / "shot.jpg"))
        client.put_object(Bucket=BUCKET, Key="stream", Body=io.BytesIO(CONTENT))
        for key in (KEY, "stream"):
            client.download_file(Bucket=BUCKET, Key=key, DestFilePath=str(tmp_path / "back.jpg"))
            assert (tmp_path / "back.jpg").read_bytes() == CONTENT

    with_sdk(tmp_path, scene)


def test_the_sdk_lists_with_prefix_delimiter_and_marker(tmp_path: Path) -> None:
    def scene(client: Any, sandbox: Sandbox) -> None:
        for key in (*FEW, KEY, "a.jpg"):
            client.put_object(Bucket=BUCKET, Key=key, Body=CONTENT)
        found = client.list_objects(Bucket=BUCKET, Delimiter="/")
        assert [one["Prefix"] for one in found["CommonPrefixes"]] == ["2026-11-21/", "2026-11-22/"]
        assert [one["Key"] for one in found["Contents"]] == ["a.jpg"]
        assert found["Contents"][0]["Size"] == str(len(CONTENT))
        found = client.list_objects(Bucket=BUCKET, Prefix="2026-11-22/a b+c&d/")
        assert [one["Key"] for one in found["Contents"]] == [KEY]
        keys, marker = [], ""
        while True:
            page = client.list_objects(Bucket=BUCKET, Prefix="2026", MaxKeys=3, Marker=marker)
            keys += [one["Key"] for one in page["Contents"]]
            if page["IsTruncated"] == "false":
                break
            marker = page["NextMarker"]
        assert keys == sorted([*FEW, KEY])
        assert client.bucket_exists(BUCKET)
        assert not client.bucket_exists("nobody-1")

    with_sdk(tmp_path, scene)


def test_the_sdk_reaches_the_store_by_address(tmp_path: Path) -> None:
    """The bucket's name is in the host that it sends, which is not where it connects to."""

    def scene(client: Any, sandbox: Sandbox) -> None:
        where = URL(sandbox.endpoints["cos"] or "")
        client = sdk(sandbox, Endpoint="cos.ap-shanghai.myqcloud.com", IP=where.host, Port=where.port)
        client.put_object(Bucket=BUCKET, Key=KEY, Body=CONTENT)
        assert client.get_object(Bucket=BUCKET, Key=KEY)["Body"].get_raw_stream().read() == CONTENT

    with_sdk(tmp_path, scene)


def refusal(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(CosServiceError) as caught:
        call()
    return caught.value.get_status_code(), caught.value.get_error_code()


def test_the_sdk_is_told_why_it_is_refused(tmp_path: Path) -> None:
    def scene(client: Any, sandbox: Sandbox) -> None:
        wrong = sdk(sandbox, secret_key="second")
        denied = (403, "SignatureDoesNotMatch")
        assert refusal(lambda: wrong.put_object(Bucket=BUCKET, Key=KEY, Body=CONTENT)) == denied
        assert refusal(lambda: wrong.delete_object(Bucket=BUCKET, Key=KEY)) == denied
        assert refusal(lambda: wrong.get_object(Bucket=BUCKET, Key=KEY)) == denied
        assert refusal(lambda: wrong.list_objects(Bucket=BUCKET)) == denied
        assert refusal(lambda: client.get_object(Bucket=BUCKET, Key=KEY)) == (404, "NoSuchKey")
        assert refusal(lambda: client.list_objects(Bucket="nobody-1")) == (404, "NoSuchBucket")
        others = (403, "AccessDenied")
        assert refusal(lambda: client.put_object(Bucket=OTHERS, Key=KEY, Body=CONTENT)) == others
        assert refusal(lambda: client.create_multipart_upload(Bucket=BUCKET, Key=KEY))[0] == 501
        asked = client.get_object
        client.put_object(Bucket=BUCKET, Key=KEY, Body=CONTENT)
        beyond = f"bytes={len(CONTENT)}-"
        assert refusal(lambda: asked(Bucket=BUCKET, Key=KEY, Range=beyond)) == (416, "InvalidRange")

    with_sdk(tmp_path, scene)


def test_urls_presigned_by_the_sdk_read_and_write(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox) -> None:
        client = sdk(sandbox)

        async def status(method: str, signed_for: str, expired: int = 300, **request: Any) -> int:
            url = client.get_presigned_url(Bucket=BUCKET, Key=KEY, Method=signed_for, Expired=expired)
            sent = session.request(method, URL(url, encoded=True), proxy=sandbox.endpoints["cos"], **request)
            async with sent as response:
                await response.read()
                return response.status

        async with aiohttp.ClientSession() as session:
            assert await status("GET", "GET") == 404
            assert await status("PUT", "GET", data=CONTENT) == 403
            assert await status("PUT", "PUT", data=CONTENT) == 200
            assert sandbox.pictures.content(BUCKET, KEY) == CONTENT
            assert await status("GET", "GET") == 200
            assert await status("GET", "GET", expired=-1) == 403
            assert await status("DELETE", "DELETE") == 204

    with_sandbox(tmp_path, scene)


# ---------------------------------------------------------------- OpenDAL

# In a process of its own, which leaves without its clean-up: OpenDAL's threads abort it at times.
OPENDAL = """
import json, os, sys
import opendal

secret, key, few, by_s3 = json.loads(sys.argv[1])
content = bytes.fromhex(sys.argv[2])
if by_s3:
    names = {"endpoint": by_s3, "region": "ap-shanghai", "access_key_id": "AKIDfirst", "secret_access_key": secret}
else:
    names = {"endpoint": "http://cos.made-up.example", "secret_id": "AKIDfirst", "secret_key": secret}
store = opendal.Operator("s3" if by_s3 else "cos", bucket="shots-1250000000", **names)
said = {}
try:
    store.write(key, content, content_type="image/jpeg")
    about = store.stat(key)
    said["stat"] = [about.content_length, about.etag, about.content_type]
    said["same"] = store.read(key) == content
    said["part"] = bytes(store.read(key, offset=10, size=10)).hex()
    for name in few:
        store.write(name, content)
    said["list"] = sorted(entry.path for entry in store.list("2026-11-21/"))
    said["top"] = sorted(entry.path for entry in store.list("/"))
    said["all"] = sorted(entry.path for entry in store.scan("/"))
    store.delete(key)
    said["there"] = store.exists(key)
except opendal.exceptions.PermissionDenied as error:
    said["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(said), flush=True)
os._exit(0)
"""


async def by_opendal(sandbox: Sandbox, secret: str, scheme: str) -> dict[str, Any]:
    """What OpenDAL got, going through the store as its proxy, or with the scheme `s3` directly."""
    by_s3 = sandbox.endpoints["cos"] if scheme == "s3" else None
    arguments = [json.dumps([secret, KEY, list(FEW), by_s3]), CONTENT.hex()]
    without = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        OPENDAL,
        *arguments,
        env={**without, **({} if by_s3 else {"http_proxy": sandbox.endpoints["cos"] or ""})},
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    said: dict[str, Any] = json.loads(told)
    return said


@pytest.mark.parametrize("scheme", ["cos", "s3"])
def test_opendal_writes_reads_lists_and_deletes(tmp_path: Path, scheme: str) -> None:
    async def scene(sandbox: Sandbox) -> None:
        said = await by_opendal(sandbox, "first", scheme)
        assert said.get("error") is None
        assert said["stat"] == [len(CONTENT), f'"{md5(CONTENT).hexdigest()}"', "image/jpeg"]
        assert said["same"] is True
        assert said["part"] == CONTENT[10:20].hex()
        assert set(said["list"]) - {"2026-11-21/"} == {name for name in FEW if "-21/" in name}
        assert set(said["top"]) - {"/"} == {"2026-11-21/", "2026-11-22/"}
        assert set(FEW) | {KEY} <= set(said["all"])
        assert said["there"] is False
        assert [one.key for one in sandbox.pictures.since(BUCKET, "")] == sorted(FEW)

    with_sandbox(tmp_path, scene)


@pytest.mark.parametrize("scheme", ["cos", "s3"])
def test_opendal_with_a_wrong_secret_is_refused(tmp_path: Path, scheme: str) -> None:
    async def scene(sandbox: Sandbox) -> None:
        said = await by_opendal(sandbox, "second", scheme)
        assert said["error"].startswith("PermissionDenied")
        assert "SignatureDoesNotMatch" in said["error"]
        assert list(sandbox.pictures.since(BUCKET, "")) == []

    with_sandbox(tmp_path, scene)
