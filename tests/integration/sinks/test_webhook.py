"""The webhook sink: what it sends, how it signs, and which settings it takes."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import ValidationError
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from poller import __version__
from poller.sinks.webhook import WebhookSettings

from .hooks import OLD_SECRET, SECRET, carried, sink
from .servers import batch, event, saying, serving

NO_CONTENT = saying(204)


# ---------------------------------------------------------------- what is sent


def test_one_event_travels_as_itself() -> None:
    error, server = carried(NO_CONTENT)
    assert error is None
    [request] = server.requests
    assert request.line == "POST /hook?token=in-the-query HTTP/1.1"
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert request.headers["user-agent"] == f"poller/{__version__}"
    assert request.body == event(0).encoded
    assert request.headers["webhook-id"] == event(0).id


def test_a_batch_travels_as_an_array_of_the_encoded_events() -> None:
    error, server = carried(NO_CONTENT, batch(100), batch={"max_events": 100})
    assert error is None
    [request] = server.requests
    assert request.headers["content-type"] == "application/cloudevents-batch+json"
    assert json.loads(request.body) == [json.loads(event(number).encoded) for number in range(100)]


def test_a_batch_of_one_is_an_array_where_batches_are_wanted() -> None:
    _, server = carried(NO_CONTENT, batch(1), batch={"max_events": 100})
    assert server.requests[0].body == b"[" + event(0).encoded + b"]"
    assert server.requests[0].headers["content-type"] == "application/cloudevents-batch+json"


def test_a_batch_left_from_other_settings_is_an_array_also_where_single_events_are_wanted() -> None:
    _, server = carried(NO_CONTENT, batch(2))
    assert server.requests[0].headers["content-type"] == "application/cloudevents-batch+json"
    assert len(json.loads(server.requests[0].body)) == 2


def test_the_id_is_the_same_on_every_attempt_and_holds_no_dot() -> None:
    async def main() -> list[str]:
        async with serving(NO_CONTENT) as server, sink(server.url, batch={"max_events": 9}) as hook:
            await hook.deliver(batch(9))
            await hook.deliver(batch(9))
            await hook.deliver(batch(8))
        return [request.headers["webhook-id"] for request in server.requests]

    first, second, other = asyncio.run(main())
    assert first == second != other
    assert "." not in first


def test_deliveries_reuse_their_connection() -> None:
    async def main() -> int:
        async with serving(saying(200, body=b"x" * 2000)) as server, sink(server.url) as hook:
            for _ in range(5):
                await hook.deliver(batch())
        return server.connections

    assert asyncio.run(main()) == 1


def test_extra_headers_are_sent() -> None:
    _, server = carried(NO_CONTENT, headers={"Authorization": "Bearer canary", "X-Tenant": "7"})
    assert server.requests[0].headers["authorization"] == "Bearer canary"
    assert server.requests[0].headers["x-tenant"] == "7"


# ---------------------------------------------------------------- signatures


def _verifies(secret: str, headers: dict[str, str], body: bytes) -> bool:
    try:
        Verifier(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


def test_the_library_verifies_what_a_real_server_received() -> None:
    async def main() -> tuple[bool, bool]:
        seen: list[tuple[dict[str, str], bytes]] = []

        async def receive(request: web.Request) -> web.Response:
            seen.append((dict(request.headers), await request.read()))
            return web.Response(status=202)

        application = web.Application()
        application.router.add_post("/hook", receive)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
            async with sink(url, secret=SECRET, batch={"max_events": 100}) as hook:
                await hook.deliver(batch(100))
        finally:
            await runner.cleanup()
        [(headers, body)] = seen
        return _verifies(SECRET, headers, body), _verifies(SECRET, headers, body + b" ")

    assert asyncio.run(main()) == (True, False)


def test_either_secret_verifies_during_rotation() -> None:
    _, server = carried(NO_CONTENT, secrets=[SECRET, OLD_SECRET])
    [request] = server.requests
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    assert _verifies(SECRET, request.headers, request.body)
    assert _verifies(OLD_SECRET, request.headers, request.body)


def test_a_file_holds_a_secret_or_during_rotation_two(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for content, count in ((f"{SECRET}\n", 1), (f"{SECRET}\n{OLD_SECRET}\n", 2)):
        file.write_text(content)
        _, server = carried(NO_CONTENT, secret_file=str(file))
        assert len(server.requests[0].headers["webhook-signature"].split(" ")) == count
        assert _verifies(SECRET, server.requests[0].headers, server.requests[0].body)


def test_without_a_secret_nothing_is_signed() -> None:
    _, server = carried(NO_CONTENT)
    assert "webhook-signature" not in server.requests[0].headers


# ---------------------------------------------------------------- settings


def test_the_defaults_are_those_of_a_careful_sender() -> None:
    settings = WebhookSettings.model_validate({"type": "webhook", "url": "https://example.com/hook"})
    assert (settings.timeout, settings.concurrency, settings.batch.max_events) == (15.0, 4, 1)
    assert settings.allow_cidr == ()


BAD_SECRETS = [
    "hunter2-canary",
    "whsec_",
    "whsec_canary!",
    "whsec_Y2FuYXJ5",
    "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
]


@pytest.mark.parametrize("secret", BAD_SECRETS)
@pytest.mark.parametrize("key", ["secret", "secrets", "secret_file"])
def test_a_bad_secret_is_refused_and_not_echoed(key: str, secret: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n{secret}\n")
    value = {"secret": secret, "secrets": [SECRET, secret], "secret_file": str(tmp_path / "secret")}[key]
    with pytest.raises(ValidationError, match="Standard Webhooks secret") as caught:
        WebhookSettings.model_validate({"type": "webhook", "url": "https://example.com/", key: value})
    assert secret.removeprefix("whsec_") not in str(caught.value) or secret == "whsec_"


BAD_SETTINGS: list[dict[str, object]] = [
    {"secret": SECRET, "secrets": [OLD_SECRET]},
    {"secret": None},
    {"secrets": []},
    {"headers": {"Content-Type": "text/plain"}},
    {"headers": {"content-length": "3"}},
    {"headers": {"Host": "elsewhere"}},
    {"headers": {"Webhook-Id": "x"}},
    {"headers": {"webhook-signature": "x"}},
    {"headers": {"Transfer-Encoding": "chunked"}},
    {"headers": {"Connection": "close"}},
    {"headers": {"User-Agent": "curl"}},
    {"headers": {"accept-encoding": "gzip"}},
    {"headers": {"X Tenant": "x"}},
    {"headers": {"X-Tenant:": "x"}},
    {"headers": {"": "x"}},
    {"headers": {"X-Tenant": "a\r\nHost: b"}},
    {"headers": {"X-Tenant": "a\0"}},
    {"headers": {"X-Tenant": "a", "x-tenant": "b"}},
    {"allow_cidr": ["10.0.0.1/8"]},
    {"url": "ftp://example.com/"},
    {"url": "https://user:password@example.com/"},
    {"proxy": "socks5://127.0.0.1:1080"},
    {"tls": {"cert_file": "/nowhere.pem", "key_file": "/nowhere.pem"}},
    {"verify": False},
]


@pytest.mark.parametrize("bad", BAD_SETTINGS, ids=str)
def test_settings_that_cannot_be_meant_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        WebhookSettings.model_validate({"type": "webhook", "url": "https://example.com/", **bad})


def test_no_secret_is_in_what_the_settings_or_the_sink_show() -> None:
    hook = sink("https://example.com/", secrets=[SECRET, OLD_SECRET], headers={"Authorization": "canary"})
    shown = repr(hook) + repr(hook._settings) + str(hook._settings) + hook._settings.model_dump_json()
    for secret in (SECRET, OLD_SECRET, SECRET[6:], "canary"):
        assert secret not in shown
