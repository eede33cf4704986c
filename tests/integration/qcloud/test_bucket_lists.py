"""Listing a bucket of the sandbox, with all that can go wrong on the way."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from poller.qcloud.cos import bucket as module
from poller.qcloud.cos.bucket import Bucket, ListingFailed, has_keys
from poller.qcloud.wire.client import Deadlines
from poller.sandbox import Customer, Options, Sandbox
from poller.settings import AccountSettings
from tests.patience import patiently

LABEL = Customer().host_label
KEYS = {"secret_id": Customer().secret_id, "secret_key": Customer().secret_key}


def account(endpoint: str, **cos: Any) -> AccountSettings:
    return AccountSettings.model_validate(
        {
            "app_id": 1234,
            "key": "k",
            "cos": {"bucket": "shots", "app_id": 1250000000, "endpoint": endpoint, **KEYS, **cos},
        }
    )


async def at_once() -> None:
    pass


@asynccontextmanager
async def sandbox(folder: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(Options(directory=folder, upload_delay=(0.0, 0.0))) as standing:
        yield standing


@asynccontextmanager
async def listed(endpoint: str, **more: Any) -> AsyncIterator[Bucket]:
    now = more.pop("now", time.time)
    async with Bucket("main", account(endpoint, **more), at_once, now=now) as bucket:
        yield bucket


def of(standing: Sandbox) -> str:
    return f"{standing.endpoints['cos']}/{LABEL}/"


async def keys(bucket: Bucket, prefix: str, **more: str) -> list[str]:
    async with aclosing(bucket.pages(prefix, **more)) as pages:
        return [key async for page in pages for key in page.keys]


def test_every_key_of_a_prefix_is_listed_in_pages_of_a_thousand(tmp_path: Path) -> None:
    names = [f"a_{n:05}_#@ 直+%2F.jpg" for n in range(2_345)]

    async def story() -> None:
        async with sandbox(tmp_path) as standing, listed(of(standing)) as bucket:
            standing.pictures.put_many(LABEL, [*names, "b_1.jpg", "Z.jpg"], b"x")
            before = standing.picture_server.requests
            assert await keys(bucket, "a_") == names
            assert standing.picture_server.requests == before + 3
            assert await keys(bucket, "a_", after=names[2_000]) == names[2_001:]
            page = await bucket.page("", delimiter="_")
            assert (page.keys, page.prefixes) == (("Z.jpg",), ("a_", "b_"))

    asyncio.run(patiently(story()))


@pytest.mark.parametrize(
    ("cos", "path", "reason"),
    [
        ({"secret_key": "wrong"}, LABEL, "HTTP 403 SignatureDoesNotMatch: secret_key does not belong"),
        ({"secret_id": "AKIDnobody"}, LABEL, "HTTP 403 InvalidAccessKeyId: the store does not know"),
        ({}, "none-1250000000", "HTTP 404 NoSuchBucket: there is no such bucket"),
    ],
)
def test_a_refusal_is_reported_in_words_without_secrets(
    tmp_path: Path, cos: dict[str, str], path: str, reason: str
) -> None:
    async def story() -> None:
        async with sandbox(tmp_path) as standing:
            async with listed(f"{standing.endpoints['cos']}/{path}/", **cos) as bucket:
                with pytest.raises(ListingFailed, match=reason) as raised:
                    await bucket.page("a")
            for secret in (*KEYS.values(), *cos.values(), "q-sign"):
                assert secret not in str(raised.value)

    asyncio.run(patiently(story()))


FAULTS = ["not_found", "status", "redirect", "html", "cut", "cut_chunked", "cut_close"]
FAULTS += ["reset_before", "reset_headers", "close", "hang", "drip", "endless", "bomb"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_store_is_an_error_and_the_next_request_succeeds(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEADLINES", Deadlines(connect=2.0, progress=1.0, whole=3.0))

    async def story() -> None:
        async with sandbox(tmp_path) as standing, listed(of(standing)) as bucket:
            standing.pictures.put_many(LABEL, [f"a_{n}" for n in range(40)], b"x")
            standing.faults["cos"].order(fault)
            with pytest.raises(ListingFailed) as raised:
                await bucket.page("a_")
            assert "q-sign" not in str(raised.value)
            assert "/?" not in str(raised.value)
            assert len((await bucket.page("a_")).keys) == 40

    asyncio.run(patiently(story()))


@pytest.mark.parametrize("wrong", [-7200.0, 7200.0])
def test_a_wrong_clock_of_ours_is_corrected_by_the_stores(tmp_path: Path, wrong: float) -> None:
    async def story() -> None:
        async with (
            sandbox(tmp_path) as standing,
            listed(of(standing), now=lambda: time.time() + wrong) as bucket,
        ):
            standing.pictures.put(LABEL, "a_1", b"x")
            assert (await bucket.page("a_")).keys == ("a_1",)
            before = standing.picture_server.requests
            assert (await bucket.page("a_")).keys == ("a_1",)
            assert standing.picture_server.requests == before + 1

    asyncio.run(patiently(story()))


@asynccontextmanager
async def server(answer: Callable[[web.BaseRequest], web.Response]) -> AsyncIterator[str]:
    async def answering(request: web.BaseRequest) -> web.StreamResponse:
        return answer(request)

    async with AsyncExitStack() as stack:
        runner = web.ServerRunner(web.Server(answering, access_log=None))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"


def test_a_redirect_is_not_followed_with_the_signature() -> None:
    asked: list[str] = []

    async def story() -> None:
        def elsewhere(request: web.BaseRequest) -> web.Response:
            asked.append(request.path)
            return web.Response(status=307, headers={"Location": "/elsewhere"})

        async with server(elsewhere) as endpoint, listed(endpoint) as bucket:
            with pytest.raises(ListingFailed, match="HTTP 307: a redirect is not followed"):
                await bucket.page("a")

    asyncio.run(patiently(story()))
    assert asked == ["/"]


def test_a_list_without_end_is_an_error() -> None:
    body = (
        b"<ListBucketResult><IsTruncated>true</IsTruncated><NextMarker>a</NextMarker>"
        b"<Contents><Key>a</Key></Contents></ListBucketResult>"
    )

    async def story() -> None:
        async with server(lambda _: web.Response(body=body)) as endpoint, listed(endpoint) as bucket:
            with pytest.raises(ListingFailed, match="does not advance"):
                await keys(bucket, "a")

    asyncio.run(patiently(story()))


def test_the_host_of_a_region_is_the_buckets_own_and_never_that_of_pictures() -> None:
    settings = AccountSettings.model_validate(
        {
            "app_id": 1,
            "key": "k",
            "cos": {"bucket": "shots", "app_id": 1250000000, "region": "ap-shanghai", **KEYS},
        }
    )
    assert has_keys(settings)
    assert settings.cos is not None
    assert module._endpoint(settings.cos) == "https://shots-1250000000.cos.ap-shanghai.myqcloud.com/"
