"""Login with a one-time code, which only the process itself gives out."""

import json
import time
from typing import Any

import aiohttp
from pydantic import SecretStr

from poller.operations.operator_context import OperatorContext
from poller.settings import Listen, WebSettings
from poller.web.server import WebServer
from tests.patience import PATIENCE

OWN = {"Sec-Fetch-Site": "same-origin"}


def nothing() -> OperatorContext:
    """The parts of a daemon; a login needs none."""
    raise AssertionError("a login asks for no part of the daemon")


def server(token: str | None = "t" * 16) -> WebServer:
    listen = Listen(host="127.0.0.1", port=0)
    secret = SecretStr(token) if token is not None else None
    return WebServer(WebSettings(listen=listen, token_file=secret), nothing)


async def log_in(at: WebServer, **content: str) -> tuple[int, object]:
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{at.port}") as client,
        client.post("/login", json=content, headers=OWN) as answer,
    ):
        if answer.status != 200:
            return answer.status, await answer.json()
        assert len(answer.cookies) == 1
        (cookie,) = answer.cookies.values()
        async with client.get("/api/me", headers={"Cookie": f"{cookie.key}={cookie.value}"}) as me:
            said: dict[str, Any] = await me.json()
            assert abs(said.pop("now") - time.time()) < PATIENCE
            return me.status, said


async def test_a_one_time_code_logs_an_operator_in_once() -> None:
    async with server() as at:
        code, other = at.one_time_code(), at.one_time_code()
        operator = (200, {"role": "operate", "login": True})
        assert await log_in(at, code=code) == operator
        used = (
            401,
            {"error": "This link was used already, or is too old. The command poller pages prints another."},
        )
        assert await log_in(at, code=code) == used
        assert await log_in(at, token=other) == (401, {"error": "This token is not right."})
        assert await log_in(at, code="t" * 16) == used, "a token is no code"
        assert await log_in(at, code=other) == operator


async def test_guesses_at_codes_count_as_tries() -> None:
    async with server() as at:
        answers = [await log_in(at, code=f"guess-{number}") for number in range(6)]
        assert [status for status, _ in answers] == [401] * 5 + [429]
        assert "wait" in json.dumps(answers[4]), "the try that was one too many says so at once"


async def test_without_a_login_a_code_opens_nothing() -> None:
    async with server(None) as at:
        status, _ = await log_in(at, code=at.one_time_code())
        assert status == 404
