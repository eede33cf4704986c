"""The s3 sink against moto's server and the sandbox's store, which are killed, hang and refuse."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from aiohttp import web
from botocore.config import Config

from poller.core.errors import PartlyFailed, Rejected, TryLater
from poller.core.model import Event, identity, new_event
from poller.sandbox.media.cutting import plain_jpeg
from poller.sinks.s3 import S3
from poller.testing import START, SinkContract, SinkWorld, some_batch

from .processes import ServerProcess, free_port, needs

LOOPBACK = ip_network("127.0.0.0/8")
BUCKET = "live-pictures"
JPEG = plain_jpeg(300, 169)
SECRET = "a-secret-key-of-the-bucket"


@dataclass
class Host:
    """A picture host on a free port: what it answers to a path, by default a picture."""

    url: str = ""
    bodies: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = self.bodies.get(request.path, JPEG)
        if request.path in self.cut:
            response = web.StreamResponse(headers={"Content-Length": str(len(body))})
            await response.prepare(request)
            await response.write(body[: len(body) // 2])
            assert request.transport is not None
            request.transport.abort()
            return response
        return web.Response(body=body, content_type="image/jpeg")

    def event(self, number: int, *, stream: str = "room") -> Event:
        name = f"room_1700000000_1700000000_{number * 10}_300_169.jpg"
        return new_event(
            id=identity("screenshot", "main", name),
            kind="screenshot",
            account="main",
            stream_id=stream,
            occurred_at=START,
            received_at=START,
            url=f"{self.url}/{name}",
            fields={"file_name": name},
            message=msgspec.Raw(b"{}"),
        )


@asynccontextmanager
async def pictures() -> AsyncIterator[Host]:
    host = Host()
    runner = web.ServerRunner(web.Server(host.answer))
    await runner.setup()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        host.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await web.SockSite(runner, listener).start()
        yield host
        await runner.cleanup()


def store_in(folder: Path) -> ServerProcess:
    program = needs("moto_server", "pip install 'moto[s3,server]'")
    folder.mkdir(exist_ok=True)
    port = free_port()
    return ServerProcess(folder, port, [program, "-H", "127.0.0.1", "-p", str(port)])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ServerProcess]:
    one = store_in(tmp_path / "s3")
    try:
        one.start()
        yield one
    finally:
        one.stop()


def client(store: ServerProcess) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{store.port}",
        region_name="us-east-1",
        aws_access_key_id="id",
        aws_secret_access_key=SECRET,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


def make_bucket(store: ServerProcess) -> None:
    client(store).create_bucket(Bucket=BUCKET)


def keys(store: ServerProcess) -> list[str]:
    found = client(store).list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return [one["Key"] for one in found]


def sink_to(store: ServerProcess, host: Host, **more: Any) -> S3:
    settings = {
        "type": "s3",
        "bucket": BUCKET,
        "endpoint": f"http://127.0.0.1:{store.port}",
        "path_style": True,
        "access_key": "id",
        "secret_key": SECRET,
        "allow_cidr": [LOOPBACK],
        "allow_hosts": [host.url.removeprefix("http://")],
    }
    return S3("bucket", S3.Settings.model_validate({**settings, **more}), {})


class TestS3(SinkContract):
    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[SinkWorld]:
        store = store_in(folder / "s3")

        def arrived() -> Sequence[str]:
            return [
                client(store).head_object(Bucket=BUCKET, Key=key)["Metadata"]["id"] for key in keys(store)
            ]

        def start_again() -> None:  # it keeps everything in memory
            store.start()
            make_bucket(store)

        try:
            start_again()
            async with pictures() as host, sink_to(store, host) as sink:
                yield SinkWorld(
                    sink=sink, arrived=arrived, breaks=store.kill, mends=start_again, event=host.event
                )
        finally:
            store.stop()


async def test_an_object_is_the_picture_with_its_type_and_what_it_is_of(store: ServerProcess) -> None:
    make_bucket(store)
    async with pictures() as host, sink_to(store, host, template="{stream}/{time}-{name}") as sink:
        event = host.event(1, stream="Raum 1/ä")
        await sink.deliver(some_batch(event))
    (key,) = await asyncio.to_thread(keys, store)
    assert key == "Raum%201%2F%C3%A4/20260102T030405-room_1700000000_1700000000_10_300_169.jpg"
    found = await asyncio.to_thread(lambda: client(store).get_object(Bucket=BUCKET, Key=key))
    assert (found["Body"].read(), found["ContentType"]) == (JPEG, "image/jpeg")
    assert found["Metadata"] == {
        "id": event.id,
        "account": "main",
        "stream": "Raum%201/%C3%A4",
        "time": event.occurred_at.isoformat(),
    }


async def test_a_sidecar_is_the_event(store: ServerProcess) -> None:
    make_bucket(store)
    async with pictures() as host, sink_to(store, host, sidecar=True) as sink:
        event = host.event(1)
        await sink.deliver(some_batch(event))
    picture, sidecar = sorted(await asyncio.to_thread(keys, store), key=len)
    assert sidecar == f"{picture}.json"
    found = await asyncio.to_thread(lambda: client(store).get_object(Bucket=BUCKET, Key=sidecar))
    assert found["Body"].read() == event.encoded + b"\n"


async def test_a_cut_source_and_what_is_no_picture_leave_no_object(store: ServerProcess) -> None:
    make_bucket(store)
    async with pictures() as host, sink_to(store, host) as sink:
        good, cut, page = host.event(1), host.event(2), host.event(3)
        host.cut.add(f"/{cut.url.rpartition('/')[2]}")  # type: ignore[union-attr]
        host.bodies[f"/{page.url.rpartition('/')[2]}"] = b"<html>no</html>"  # type: ignore[union-attr]
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(some_batch(good, cut, page))
    assert set(raised.value.failures) == {cut.id, page.id}
    assert len(await asyncio.to_thread(keys, store)) == 1


async def test_a_missing_bucket_is_one_clear_error(store: ServerProcess) -> None:
    async with pictures() as host, sink_to(store, host) as sink:
        with pytest.raises(TryLater) as raised:
            await sink.deliver(some_batch(host.event(1), host.event(2)))
        assert str(raised.value) == "there is no such bucket"
        assert await sink.check() == ["there is no such bucket"]


async def test_check_leaves_nothing(store: ServerProcess) -> None:
    make_bucket(store)
    async with pictures() as host, sink_to(store, host) as sink:
        assert await sink.check() == []
    assert await asyncio.to_thread(keys, store) == []


async def test_a_store_that_hangs_does_not_hold_a_cancelled_delivery(store: ServerProcess) -> None:
    make_bucket(store)
    async with pictures() as host, sink_to(store, host, timeout="3s") as sink:
        with store.frozen(), pytest.raises((TimeoutError, TryLater)):
            async with asyncio.timeout(1):
                await sink.deliver(some_batch(host.event(1)))
        await sink.deliver(some_batch(host.event(1)))
    assert len(await asyncio.to_thread(keys, store)) == 1


async def test_memory_is_flat_for_large_pictures(store: ServerProcess) -> None:
    make_bucket(store)
    filler = b"\xff\xfe" + (65_000).to_bytes(2, "big") + b"x" * 64_998  # a comment of a JPEG
    large = JPEG[:2] + filler * 100 + JPEG[2:]
    async with pictures() as host, sink_to(store, host, batch={"max_events": 4}) as sink:
        for number in range(4):
            host.bodies[f"/{host.event(number).url.rpartition('/')[2]}"] = large  # type: ignore[union-attr]
        await sink.deliver(some_batch(*map(host.event, range(4))))
        before = _resident()
        for _ in range(25):
            await sink.deliver(some_batch(*map(host.event, range(4))))
        assert _resident() - before < 40 * 2**20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_an_address_that_is_not_public_needs_permission(store: ServerProcess) -> None:
    async with pictures() as host, sink_to(store, host, allow_cidr=[]) as sink:
        with pytest.raises(TryLater, match=r"127\.0\.0\.1 is not a public address"):
            await sink.deliver(some_batch(host.event(1)))


async def test_a_picture_that_is_too_large_dies_alone(store: ServerProcess) -> None:
    make_bucket(store)
    async with pictures() as host, sink_to(store, host, max_bytes="1KiB") as sink:
        big, small = host.event(1), host.event(2)
        host.bodies[f"/{big.url.rpartition('/')[2]}"] = JPEG + b"x" * 2000  # type: ignore[union-attr]
        with pytest.raises(PartlyFailed) as raised:
            await sink.deliver(some_batch(big, small))
    assert isinstance(raised.value.failures[big.id], Rejected)


def test_a_key_is_whole_or_not_there() -> None:
    base = {"type": "s3", "bucket": "b"}
    for wrong, text in (
        ({}, "is missing"),
        ({"access_key": "a"}, "is missing"),
        ({"access_key": "a", "secret_key": "b", "bucket": "a/b"}, "pattern"),
    ):
        with pytest.raises(ValueError, match=text):
            S3.Settings.model_validate({**base, **wrong})


def test_the_bucket_is_part_of_the_host_unless_the_path_has_it() -> None:
    key = {"type": "s3", "bucket": "live-1250000000", "access_key": "a", "secret_key": "b"}
    cos = {"endpoint": "https://cos.ap-guangzhou.myqcloud.com", "region": "ap-guangzhou"}
    for more, found in (
        (
            {},
            (
                "https://live-1250000000.s3.us-east-1.amazonaws.com",
                "live-1250000000.s3.us-east-1.amazonaws.com",
                443,
            ),
        ),
        (
            cos,
            (
                "https://live-1250000000.cos.ap-guangzhou.myqcloud.com",
                "live-1250000000.cos.ap-guangzhou.myqcloud.com",
                443,
            ),
        ),
        ({"endpoint": "http://minio:9000", "path_style": True}, ("http://minio:9000", "minio", 9000)),
    ):
        assert S3.Settings.model_validate({**key, **more}).address() == found
