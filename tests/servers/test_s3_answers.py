"""What the s3 sink makes of a store's rarer answers, of keys that the store must get unchanged, of a wrong clock."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from hashlib import md5
from pathlib import Path

import pytest
from aiohttp import web
from fastcrc import crc64

from poller.core.errors import PartlyFailed, Rejected, SinkError, TryLater
from poller.runtime.outbound import AddressGuard
from poller.runtime.resolver import Resolver
from poller.sinks.s3 import S3, S3Settings
from poller.sinks.s3.cos_store import CosBucket
from poller.sinks.s3.s3_store import S3Bucket
from poller.sinks.s3.store import NewObject, ObjectStore
from poller.testing import some_batch
from tests.scenario.environment import needs_root

from .object_stores import JPEG, KINDS, LOOPBACK, Host, Store, pictures, running, sink_to

ROOT = Path(__file__).parents[2]
RAW_KEYS = ("直播间/a b+c%20d%2Fe#f?g=h&i;j.jpg", "~a@b=c,d", "a..b/..c", "%", "'\"<>", "a/b/c/d.jpg.json")
SIGNATURES = ("s3", "cos")


# ---------------------------------------------------------------- names


def bucket(store: Store, threads: ThreadPoolExecutor) -> ObjectStore:
    """The sink's own way to a store, without a sink."""
    settings = S3.Settings.model_validate(store.settings())
    if store.signature == "s3":
        return S3Bucket(settings, threads)
    return CosBucket(settings, AddressGuard(settings.allow_cidr), Resolver(), threads)


@pytest.mark.parametrize("kind", KINDS)
async def test_any_key_comes_back_unchanged_and_can_be_deleted(kind: str, tmp_path: Path) -> None:
    with running(kind, tmp_path / "store") as store, ThreadPoolExecutor(2) as threads:
        opened = bucket(store, threads)
        for key in RAW_KEYS:
            await opened.put(NewObject.of(key, key.encode(), "text/plain", {"name": "x"}))
        assert sorted(await asyncio.to_thread(store.list_keys)) == sorted(RAW_KEYS)
        for key in RAW_KEYS:
            assert await asyncio.to_thread(store.get, key) == (key.encode(), "text/plain", {"name": "x"})
            await opened.delete(key)
        assert await asyncio.to_thread(store.list_keys) == []
        opened.close()


VIRTUAL_HOSTED = """
import asyncio, json, sys
from poller.testing import some_batch
from tests.servers.object_stores import pictures
from poller.sinks.s3 import S3, S3Settings

async def main():
    async with pictures() as host:
        settings = json.loads(sys.argv[1]) | {"allow_hosts": [host.url.removeprefix("http://")]}
        async with S3("bucket", S3.Settings.model_validate(settings), {}) as sink:
            print(await sink.check())
            await sink.deliver(some_batch(host.event(1, stream="直播 1+%")))

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", KINDS)
def test_the_bucket_may_be_part_of_the_hosts_name(kind: str, tmp_path: Path) -> None:
    """As AWS, COS and OSS have it. The name is in a file of hosts that only this test's process sees."""
    needs_root("a file of hosts in a mount namespace of its own")
    with running(kind, tmp_path / "store") as store:
        hosts = tmp_path / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {store.bucket}.store.example\n")
        settings = store.settings(endpoint=f"http://store.example:{store.port}", path_style=False)
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        command = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            script,
            str(hosts),
            sys.executable,
            "-c",
            VIRTUAL_HOSTED,
            json.dumps(settings),
        ]
        without = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        ran = subprocess.run(command, cwd=ROOT, env=without, capture_output=True, text=True, check=False)
        assert (ran.stdout, ran.returncode) == ("[]\n", 0), ran.stderr[-2000:]
        (key,) = store.list_keys()
        assert key.startswith("2026-01-02/%E7%9B%B4%E6%92%AD%201+%25/")
        assert store.get(key).content == JPEG


# ---------------------------------------------------------------- a wrong clock


async def test_a_wrong_clock_is_corrected_by_the_stores_and_told_where_it_cannot_be(tmp_path: Path) -> None:
    for offset in ("2h", "-2h"):
        with running("cos", tmp_path / offset, "--clock-offset", offset) as store:
            async with pictures() as host, sink_to(store, host) as sink:
                await sink.deliver(some_batch(*map(host.event, range(20))))
        stored = [*(store.folder / "kept" / "cos" / store.bucket).iterdir()]  # the SDK's clock is wrong too
        assert len(stored) == 20
    with running("cos_by_s3", tmp_path / "s3", "--clock-offset", "-2h") as store:
        async with pictures() as host, sink_to(store, host) as sink:
            with pytest.raises(TryLater) as raised:
                await sink.deliver(some_batch(host.event(1)))
    assert str(raised.value) == "the store's clock and the clock of this machine differ too much"


# ---------------------------------------------------------------- rarer answers


class OddStore:
    """A store that answers as it is told. `head`: the answer's headers; `kept`: the length that it says it has."""

    def __init__(self) -> None:
        self.port = 0
        self.status, self.text = 200, ""
        self.head: dict[str, str] = {}
        self.kept: int | None = None
        self.delete_status = 204
        self.early: bytes | None = None
        """The picture for whose ETag 200 is answered before it came."""
        self.requests: list[web.BaseRequest] = []
        self.peers: set[object] = set()
        self.at_once = self.most_at_once = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        self.requests.append(request)
        self.peers.add(request.transport.get_extra_info("peername"))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0.005)
            return await self._answer(request)
        finally:
            self.at_once -= 1

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.early is not None:
            assert request.transport is not None
            request.transport.write(
                f'HTTP/1.1 200 OK\r\nETag: "{md5(self.early).hexdigest()}"\r\nContent-Length: 0\r\n\r\n'.encode()
            )
            await asyncio.sleep(3600)
        body = await request.read()
        if request.method == "DELETE":
            return web.Response(status=self.delete_status)
        if request.method == "HEAD":
            return web.Response(headers={"Content-Length": str(self.kept), "ETag": '"odd"', **LATELY})
        told = {
            "ETag": f'"{md5(body).hexdigest()}"',
            "x-cos-hash-crc64ecma": str(crc64.xz(body)),
            **self.head,
        }
        return web.Response(status=self.status, text=self.text, headers=told)


LATELY = {"Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT"}


@asynccontextmanager
async def odd_store() -> AsyncIterator[OddStore]:
    odd = OddStore()
    runner = web.ServerRunner(web.Server(odd.answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    odd.port = runner.addresses[0][1]
    yield odd
    await runner.cleanup()


def settings_for(odd: OddStore, signature: str, host: Host) -> S3Settings:
    return S3.Settings.model_validate(
        {
            "type": "s3",
            "bucket": "b-1250000000",
            "region": "r",
            "signature": signature,
            "endpoint": f"http://127.0.0.1:{odd.port}",
            "path_style": True,
            "access_key": "id",
            "secret_key": "secret",
            "uploads": 3,
            "allow_cidr": [LOOPBACK],
            "allow_hosts": [host.url.removeprefix("http://")],
        }
    )


def grown(size: int) -> bytes:
    """A picture with so many comments of 64 KiB."""
    return JPEG[:2] + (b"\xff\xfe\xff\xff" + bytes(65_533)) * size + JPEG[2:]


async def outcome(odd: OddStore, signature: str, *, size: int = 0) -> SinkError | None:
    """What becomes of one picture, which has `size` times 64 KiB more than usual."""
    async with pictures() as host:
        event = host.event(1)
        host.bodies[(event.url or "").rpartition("/")[2]] = grown(size)
        async with S3("bucket", settings_for(odd, signature, host), {}) as sink:
            try:
                await sink.deliver(some_batch(event))
            except PartlyFailed as error:
                (found,) = error.failures.values()
                assert isinstance(found, SinkError)
                return found
            except SinkError as error:
                return error
    return None


async def test_a_store_that_encrypts_is_asked_for_the_length_or_gives_the_crc() -> None:
    async with odd_store() as odd:
        odd.head, odd.kept = {"ETag": '"not-an-md5"'}, len(JPEG)
        assert await outcome(odd, "s3") is None
        assert await outcome(odd, "cos") is None
        assert [one.method for one in odd.requests] == ["PUT", "HEAD", "PUT"]


@pytest.mark.parametrize("etag", ["", '"0123456789abcdef0123456789abcdef"'])
async def test_an_object_that_is_stored_otherwise_is_not_delivered(etag: str) -> None:
    async with odd_store() as odd:
        odd.head, odd.kept = {"ETag": etag, "x-cos-hash-crc64ecma": "1"}, len(JPEG) - 1
        by_s3, by_cos = await outcome(odd, "s3"), await outcome(odd, "cos")
    assert isinstance(by_s3, TryLater)
    assert "of another length" in str(by_s3) or not etag
    assert isinstance(by_cos, TryLater)
    assert str(by_cos) == "the store does not confirm the object's MD5 or CRC-64"


@pytest.mark.parametrize("signature", SIGNATURES)
async def test_what_no_repetition_makes_good_is_a_dead_letter(signature: str) -> None:
    async with odd_store() as odd:
        for code in ("KeyTooLong", "KeyTooLongError", "EntityTooLarge", "MetadataTooLarge"):
            odd.status, odd.text = 400, f"<Error><Code>{code}</Code></Error>"
            found = await outcome(odd, signature)
            assert isinstance(found, Rejected), code
            assert str(found) == f"the store never takes this object: {code}"


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("status", [301, 307, 400, 404, 500, 503])
async def test_every_other_refusal_is_tried_again(signature: str, status: int) -> None:
    async with odd_store() as odd:
        odd.status, odd.head = status, {"Location": f"http://127.0.0.1:{odd.port}/other"}
        odd.text = "<Error><Code>SlowDown</Code></Error>"
        found = await outcome(odd, signature)
        assert isinstance(found, TryLater)
        assert len(odd.requests) == 1, "nothing is repeated or followed"
        assert signature == "s3" or str(found) == f"HTTP {status} SlowDown"


async def test_a_200_before_the_whole_picture_was_sent_is_no_delivery() -> None:
    async with odd_store() as odd:
        odd.early = grown(200)
        found = await outcome(odd, "cos", size=200)
    assert isinstance(found, TryLater)


async def test_retry_after_is_what_the_sink_waits() -> None:
    async with odd_store() as odd:
        odd.status, odd.head = 503, {"Retry-After": "7"}
        found = await outcome(odd, "cos")
    assert isinstance(found, TryLater)
    assert found.after == 7


@pytest.mark.parametrize("signature", SIGNATURES)
async def test_the_check_says_when_its_object_is_left(signature: str) -> None:
    async with odd_store() as odd, pictures() as host:
        odd.delete_status = 403
        async with S3("bucket", settings_for(odd, signature, host), {}) as sink:
            (said,) = await sink.check()
    assert said.startswith("the key may not delete, so that the object .poller-check-")


@pytest.mark.parametrize("signature", SIGNATURES)
async def test_no_more_pictures_are_stored_at_once_than_the_settings_say(signature: str) -> None:
    async with odd_store() as odd, pictures() as host:
        async with S3("bucket", settings_for(odd, signature, host), {}) as sink:
            await sink.deliver(some_batch(*map(host.event, range(30))))
        assert odd.most_at_once == 3
        assert len(odd.requests) == 30
        assert len(odd.peers) <= 6, "connections are kept"


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"},
        {"ALL_PROXY": "http://127.0.0.1:1", "all_proxy": "http://127.0.0.1:1"},
        {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"},
        {"AWS_SKIP_SIGNATURE": "true"},
        {"AWS_SESSION_TOKEN": "of-another"},
        {"AWS_SERVER_SIDE_ENCRYPTION": "nonsense"},
        {"AWS_S3_EXPRESS": "true"},
    ],
    ids=lambda environ: next(iter(environ)),
)
@pytest.mark.parametrize("signature", SIGNATURES)
async def test_the_environment_changes_no_request(
    monkeypatch: pytest.MonkeyPatch, signature: str, environ: dict[str, str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    async with odd_store() as odd:
        assert await outcome(odd, signature) is None
        (request,) = odd.requests
    assert "signature" in request.headers["Authorization"].lower()
    assert not request.headers.keys() & {"x-amz-security-token", "x-amz-server-side-encryption"}


async def test_everything_that_an_object_is_is_signed() -> None:
    async with odd_store() as odd:
        assert await outcome(odd, "cos") is None
        (request,) = odd.requests
    listed = request.headers["Authorization"].partition("q-header-list=")[2].partition("&")[0].split(";")
    sent = {name.lower() for name in request.headers}
    assert set(listed) == sent - {"authorization", "user-agent", "content-length"}
    assert {"content-md5", "content-type", "host", "x-cos-meta-id", "x-cos-meta-stream"} <= set(listed)


# ---------------------------------------------------------------- the library

WITHOUT = """
import sys
sys.modules["obstore"] = None
from poller.sinks.s3 import S3, S3Settings
base = {"type": "s3", "bucket": "b", "access_key": "a", "secret_key": "b", "region": "r"}
S3("bucket", S3Settings.model_validate({**base, "signature": "cos"}), {})
assert "obstore" not in {name for name, module in sys.modules.items() if module}
try:
    S3Settings.model_validate(base)
except ValueError as error:
    print(error)
"""


def test_coss_own_signature_needs_no_library_and_the_other_says_which() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "pip install 'live-screenshot-poller[s3]'" in ran.stdout
