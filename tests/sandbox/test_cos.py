"""The picture server: there once uploaded, with checksum, and breakable."""

from hashlib import md5
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fastcrc import crc64

from poller.sandbox import Customer, Load, Sandbox

from .api_client import ask, play, raw, tell

NAME = "live_1_1471850187_1471850187_10_300_169.jpg"
BUCKET = "shots-1250000000"
JPEG = b"\xff\xd8" + bytes(range(256)) * 20 + b"\xff\xd9"


def test_a_picture_is_not_there_until_it_is_uploaded(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.pictures.upload(BUCKET, NAME, JPEG)
        url = f"{sandbox.endpoints['cos']}/{NAME}"
        async with session.get(url) as response:
            assert response.status == 404
            assert "<Code>NoSuchKey</Code>" in await response.text()
        await sandbox.until(lambda: sandbox.pictures.stored == 1)
        async with session.get(url) as response:
            assert response.status == 200
            assert await response.read() == JPEG
            assert response.headers["Content-Type"] == "image/jpeg"
            assert response.headers["Content-Length"] == str(len(JPEG))
            assert response.headers["ETag"] == f'"{md5(JPEG).hexdigest()}"'
            assert response.headers["x-cos-hash-crc64ecma"] == str(crc64.xz(JPEG))
        async with session.head(url) as response:
            assert response.headers["Content-Length"] == str(len(JPEG))
            assert await response.read() == b""

    play(tmp_path, scene, upload_delay=(0.1, 0.2))


def test_a_bucket_is_named_by_host_or_by_path(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.pictures.put("others-1250000000", NAME, JPEG)
        base = sandbox.endpoints["cos"]

        async def status(path: str, host: str = "x") -> int:
            async with session.get(f"{base}/{path}", headers={"Host": host}) as response:
                return response.status

        assert await status(NAME) == 200
        assert await status(NAME, "others-1250000000.file.myqcloud.com") == 200
        assert await status(NAME, "others-1250000000.cos.ap-shanghai.myqcloud.com") == 200
        assert await status(NAME, f"{BUCKET}.file.myqcloud.com") == 404
        assert await status(f"others-1250000000/{NAME}") == 200
        assert await status(f"{BUCKET}/{NAME}") == 404

    play(tmp_path, scene, customers=(Customer(), Customer(app_id=77, bucket="others")))


@pytest.mark.parametrize(
    "path",
    [
        "2026-11-22/a b.jpg",
        "3891_@v_tls#3pf_1_2.jpg",
        "../../etc/passwd",
        "%2e%2e",
        "x" * 250,
        ".hidden",
        "直播.jpg",
    ],
)
def test_any_name_is_kept_inside_the_directory(tmp_path: Path, path: str) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.pictures.put(BUCKET, path, JPEG)
        file = sandbox.pictures.file(BUCKET, path)
        assert file.parent == tmp_path / "cos" / BUCKET
        escaped = "".join(f"%{byte:02X}" for byte in path.encode())
        head, body, _ = await raw(f"{sandbox.endpoints['cos']}/{escaped}")
        assert head.startswith(b"HTTP/1.1 200")
        assert body == JPEG

    play(tmp_path, scene)


def test_made_up_messages_may_have_real_pictures(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.enqueue(Load(count=8, pictures=True))
        for message in (await ask(sandbox, session))["output"]["data"]:
            async with session.get(f"{sandbox.endpoints['cos']}/{message['pic_url']}") as response:
                body = await response.read()
            assert (body[:2], body[-2:]) == (b"\xff\xd8", b"\xff\xd9")

    play(tmp_path, scene)


def fetched(directory: Path, fault: str, **params: Any) -> tuple[bytes, bytes, Any]:
    """What a picture's fetch gets under one fault."""
    got: list[tuple[bytes, bytes, Any]] = []

    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        sandbox.pictures.put(BUCKET, NAME, JPEG)
        await tell(sandbox, session, "faults", target="cos", next=[{"fault": fault, **params}])
        got.append(await raw(f"{sandbox.endpoints['cos']}/{NAME}"))
        assert sandbox.faults["cos"].fired == {fault: 1}
        _, body, _ = await raw(f"{sandbox.endpoints['cos']}/{NAME}")
        assert body == JPEG

    play(directory, scene)
    return got[0]


@pytest.mark.parametrize(
    ("fault", "status", "begins"),
    [
        ("not_found", 404, b"<html>"),
        ("status", 503, b"<html>"),
        ("html", 200, b"<html>"),
        ("redirect", 302, b""),
        ("wrong_type", 200, JPEG),
        ("latency", 200, JPEG),
    ],
)
def test_another_answer_comes(tmp_path: Path, fault: str, status: int, begins: bytes) -> None:
    head, body, _ = fetched(tmp_path, fault)
    assert head.startswith(b"HTTP/1.1 %d" % status)
    assert body.startswith(begins)


def test_a_picture_is_cut(tmp_path: Path) -> None:
    head, body, _ = fetched(tmp_path, "cut", offset=1000)
    assert body == JPEG[:1000]
    assert b"Content-Length: %d" % len(JPEG) in head


def test_a_picture_has_the_wrong_checksum(tmp_path: Path) -> None:
    head, body, _ = fetched(tmp_path, "wrong_checksum")
    assert body == JPEG
    assert b"x-cos-hash-crc64ecma: 1\r\n" in head


def test_a_truncated_picture_lacks_only_its_end(tmp_path: Path) -> None:
    head, body, _ = fetched(tmp_path, "truncated")
    assert body == JPEG[: len(JPEG) // 2]
    assert f"x-cos-hash-crc64ecma: {crc64.xz(body)}".encode() in head


@pytest.mark.parametrize("fault", ["reset_before", "reset_headers"])
def test_a_fetch_is_reset(tmp_path: Path, fault: str) -> None:
    assert isinstance(fetched(tmp_path, fault)[2], ConnectionResetError)


def test_an_upload_may_be_lost_or_late(tmp_path: Path) -> None:
    async def scene(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        order = [{"fault": "lost"}, {"fault": "late", "seconds": 0.2}]
        await tell(sandbox, session, "faults", target="upload", next=order)
        for name in ("lost", "late", "good"):
            sandbox.pictures.upload(BUCKET, name, JPEG)
        await sandbox.until(lambda: sandbox.pictures.stored == 1)
        assert sandbox.pictures.content(BUCKET, "good")
        await sandbox.until(lambda: sandbox.pictures.stored == 2)
        assert sandbox.pictures.content(BUCKET, "late")
        assert (sandbox.pictures.lost, sandbox.pictures.content(BUCKET, "lost")) == (1, None)

    play(tmp_path, scene)
