"""An account's signed calls: short signatures, a skew that is corrected and said once, no secret anywhere."""

import asyncio
import gzip
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from structlog.testing import capture_logs

from poller.core.errors import NotSent
from poller.core.model import PollOutcome
from poller.qcloud.wire.account import Account
from poller.qcloud.wire.bodies import open_body as unpack
from poller.qcloud.wire.signing import sign
from poller.settings import AccountSettings
from poller.sources.screenshot_queue import ScreenshotQueue

KEY = "5ecre75ecre75ecre75ecre75ecre700"
NOW = 1_700_000_000.5
"""A clock that stands still, so that no pause of this process is taken for the skew of a clock."""
EMPTY = '{"ret":0,"output":{"count":0,"data":[]}}'

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def platform(answering: Answering) -> AsyncIterator[str]:
    runner = web.AppRunner(_application(answering))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/common_access"
    finally:
        await runner.cleanup()


def _application(answering: Answering) -> web.Application:
    application = web.Application()
    application.router.add_get("/common_access", answering)
    return application


def account(endpoint: str, *, now: Callable[[], float] = time.time, **more: Any) -> Account:
    given = {"endpoint": endpoint, "app_id": 1234, "key": KEY, **more}
    return Account("main", AccountSettings.model_validate(given), now=now)


def queue(of: Account) -> ScreenshotQueue:
    chosen = ScreenshotQueue.Settings(type="screenshot_queue", account="main")
    return ScreenshotQueue("shots", chosen, {"main": of})


async def test_a_poll_is_one_signed_get_of_the_queue() -> None:
    seen: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(dict(request.query))
        return web.Response(text=EMPTY)

    begun = time.time()
    async with platform(answer) as url, account(url, app_id_param="appid") as main, queue(main) as source:
        await source.ready()
        page = await source.fetch()
        assert source.read(page, b"").outcome is PollOutcome.EMPTY
    (query,) = seen
    assert begun + 60 - 1 <= int(query["t"]) <= time.time() + 60
    assert query == {
        "appid": "1234",
        "interface": "Live_Queue_Get",
        "Param.n.bid": "100",
        "Param.n.count": "100",
        "t": query["t"],
        "sign": sign(KEY, int(query["t"])),
    }


def test_a_clock_ten_minutes_behind_is_corrected_after_time_expired_and_said_once() -> None:
    off: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        there = NOW + 600
        off.append(int(request.query["t"]) - there)
        text = EMPTY if off[-1] > 0 else '{"ret":1,"message":"time expired"}'
        return web.Response(text=text, headers={"Date": formatdate(int(there), usegmt=True)})

    async def run() -> None:
        async with platform(answer) as url, account(url, now=lambda: NOW) as main:
            for _ in range(5):
                await main.call("Live_Queue_Get", {})
            assert main.skew == pytest.approx(600, abs=1.5)

    with capture_logs() as logs:
        asyncio.run(run())
    assert off[0] == pytest.approx(60 - 600, abs=3)
    assert all(seconds == pytest.approx(60, abs=3) for seconds in off[1:])
    (entry,) = logs
    assert (entry["event"], entry["log_level"], entry["account"]) == ("clock_skew", "warning", "main")
    assert (entry["seconds"], entry["state"]) == (pytest.approx(600, abs=1.5), "corrected")


@pytest.mark.parametrize("ahead", [-3000.0, 3000.0])
def test_a_date_that_something_in_between_writes_changes_no_signature(ahead: float) -> None:
    ts: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        ts.append(int(request.query["t"]) - NOW)
        return web.Response(text=EMPTY, headers={"Date": formatdate(NOW + ahead, usegmt=True)})

    async def run() -> None:
        async with platform(answer) as url, account(url, now=lambda: NOW) as main:
            for _ in range(6):
                await main.call("Live_Queue_Get", {})

    with capture_logs() as logs:
        asyncio.run(run())
    assert all(seconds == pytest.approx(60, abs=3) for seconds in ts)
    assert [(entry["event"], entry["state"]) for entry in logs] == [("clock_skew", "off")]


def test_a_date_two_hours_ahead_is_an_alarm_and_mints_no_long_lived_signature() -> None:
    ts: list[int] = []

    async def answer(request: web.Request) -> web.Response:
        ts.append(int(request.query["t"]))
        return web.Response(text=EMPTY, headers={"Date": formatdate(NOW + 7200, usegmt=True)})

    async def run() -> None:
        async with platform(answer) as url, account(url, now=lambda: NOW) as main:
            for _ in range(3):
                await main.call("Live_Queue_Get", {})

    with capture_logs() as logs:
        asyncio.run(run())
    assert max(ts) < NOW + 65
    assert [(entry["event"], entry["state"]) for entry in logs] == [("clock_skew", "beyond")]


def test_a_local_clock_that_is_set_right_is_said_too() -> None:
    wrong = [600.0]

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=EMPTY, headers={"Date": formatdate(NOW, usegmt=True)})

    async def run() -> None:
        async with platform(answer) as url, account(url, now=lambda: NOW + wrong[0]) as main:
            for _ in range(3):
                await main.call("Live_Queue_Get", {})
            wrong[0] = 0.0
            for _ in range(3):
                await main.call("Live_Queue_Get", {})

    with capture_logs() as logs:
        asyncio.run(run())
    assert [(entry["state"], entry["log_level"]) for entry in logs] == [
        ("off", "warning"),
        ("right", "info"),
    ]


def test_an_answer_that_echoes_our_signature_or_key_is_blanked_before_it_is_kept() -> None:
    async def answer(request: web.Request) -> web.Response:
        text = f"<html>bad request: {request.path_qs} {KEY}</html>"
        coding = "utf-16-le" if request.query["coding"] == "wide" else "utf-8"
        return web.Response(status=502, body=text.encode(coding))

    async def run() -> None:
        async with platform(answer) as url, account(url) as main:
            for coding in ("wide", "narrow"):
                got = await main.call("Live_Queue_Get", {"coding": coding})
                text = got.body.decode("utf-16-le" if coding == "wide" else "utf-8")
                assert "bad request" in text
                assert "*" * 32 in text
                assert KEY not in text
                t = text.partition("t=")[2][:10]
                assert sign(KEY, int(t)) not in text

    asyncio.run(run())


async def _error_page(request: web.Request) -> web.Response:
    return web.Response(status=500, text=str(request.url) + KEY)


async def _refused(request: web.Request) -> web.Response:
    return web.json_response({"ret": 7, "message": f"sign invalid: {request.path_qs} {KEY}"})


async def _dies(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "9999"})
    await response.prepare(request)
    await response.write(b'{"ret":0,"x":"' + request.path_qs.encode() + b'","output":{"data":[{"pic_')
    assert request.transport is not None
    request.transport.close()
    return response


def test_a_packed_answer_that_echoes_our_key_is_blanked_too() -> None:
    async def answer(request: web.Request) -> web.Response:
        text = f'{{"data":[{{"pic_url":"{KEY}.jpg","u":"{request.query["sign"]}"}}]}}'.encode()
        if request.query["Param.n.bid"] == "1":
            return web.Response(body=gzip.compress(text), headers={"Content-Encoding": "gzip"})
        return web.Response(body=gzip.compress(text))

    async def run() -> None:
        async with platform(answer) as url, account(url) as main:
            for which in ("1", "2"):
                reply = await main.call("Live_Queue_Get", {"Param.n.bid": which})
                text = unpack(reply.body, reply.encoding).text
                assert b"*" * len(KEY) + b".jpg" in text
                assert KEY.encode() not in text
                assert text.count(b"*" * 32) == 2

    asyncio.run(run())


@pytest.mark.parametrize("answering", [_error_page, _refused, _dies, _cut])
def test_no_key_and_no_signature_comes_out_anywhere(
    answering: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    signatures: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        signatures.append(request.query["sign"])
        return await answering(request)

    async def run() -> str:
        async with platform(answer) as url, account(url) as main, queue(main) as source:
            page = await source.fetch()
            return repr(page) + repr(source.read(page, b"")) + repr(source) + repr(main)

    with caplog.at_level(logging.DEBUG, "asyncio"), capture_logs() as logs:
        said = (
            asyncio.run(run())
            + repr(logs)
            + "".join(
                record.getMessage() for record in caplog.records if not record.name.startswith("aiohttp")
            )
        )
    assert len(signatures) == 1
    assert KEY not in said
    assert signatures[0] not in said


async def test_an_account_that_cannot_connect_says_so_without_its_url() -> None:
    async with account("http://127.0.0.1:1/common_access") as main, queue(main) as source:
        with pytest.raises(NotSent) as caught:
            await source.fetch()
    said = f"{caught.value!r} {caught.value} {caught.value.__context__!r} {caught.value.__cause__!r}"
    assert "sign" not in said
    assert "common_access" not in said


async def test_the_throttle_bounds_attempts_over_all_sources_of_an_account() -> None:
    main = account("http://127.0.0.1:1/", rate="3/200ms")
    sources = [queue(main), queue(main)]
    begun = time.monotonic()
    for number in range(7):
        await sources[number % 2].ready()
    assert time.monotonic() - begun >= 0.4


async def test_waiting_for_the_throttle_can_be_cancelled() -> None:
    main = account("http://127.0.0.1:1/", rate="1/1h")
    await main.ready()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(main.ready(), 0.05)


def test_an_account_s_certificates_are_used(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("client.example")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    tls = {
        "ca_file": tmp_path / "ca.pem",
        "cert_file": tmp_path / "cert.pem",
        "key_file": tmp_path / "key.pem",
    }

    async def run() -> None:
        import ssl  # noqa: PLC0415 - only this test serves TLS

        served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        served.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(served)
        authority.issue_cert("127.0.0.1").configure_cert(served)

        async def answer(_request: web.Request) -> web.Response:
            return web.Response(text=EMPTY)

        runner = web.AppRunner(_application(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=served).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}/common_access"
        async with account(url, tls=tls) as main:
            assert (await main.call("Live_Queue_Get", {})).status == 200
        async with account(url, tls={"ca_file": tmp_path / "ca.pem"}) as stranger:
            try:
                answered = (await stranger.call("Live_Queue_Get", {})).status
            except NotSent:
                answered = 0
            assert answered == 0
        await runner.cleanup()

    asyncio.run(run())


def test_an_account_knows_where_its_pictures_are() -> None:
    shots = account("http://x.example/", cos={"bucket": "shots", "app_id": 125})
    assert shots.picture_url("/a b.jpg") == "http://shots-125.file.myqcloud.com/a%20b.jpg"
    assert "shots-125.file.myqcloud.com" in shots.picture_hosts
    own = account("http://x.example/", cos={"base_url": "https://CDN.example:8443/pics"})
    assert own.picture_url("a.jpg") == "https://CDN.example:8443/pics/a.jpg"
    assert own.picture_hosts == frozenset({"cdn.example"})
    cdn = account("http://x.example/", cos={"bucket": "shots", "app_id": 125}, hosts=["CDN.example.com"])
    assert cdn.picture_hosts == shots.picture_hosts | {"cdn.example.com"}
    assert account("http://x.example/", hosts=["a.example"]).picture_hosts == frozenset({"a.example"})
    none = account("http://x.example/")
    assert none.picture_url("a.jpg") is None
    assert none.picture_hosts == frozenset()
