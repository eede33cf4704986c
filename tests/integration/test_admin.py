"""The admin port and the deadlines of listening ports, over real sockets."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from poller import admin
from poller.operations.health import Condition, Health
from poller.runtime.http_server import MOST_CONNECTIONS, Listener
from tests.patience import PATIENCE, patiently

Scenario = Callable[[int], Awaitable[None]]


WELL = Condition(state="well")


def judged(*reasons: str) -> Health:
    """What is found of a sink for each of these reasons, a receiver that says the same as the spool, and a note."""
    return Health(
        sources={},
        receivers={"pushes": Condition(state="receiving", note="source pushes: quiet")},
        spool=Condition(state="full", reason="spool: disk full") if "spool: disk full" in reasons else WELL,
        sinks={why: Condition(state="paused", reason=why) for why in reasons if why.startswith("sink")},
        backlogs={},
        losses=[],
    )


def tell(
    scenario: Scenario, *, token: str | None = None, health: Health | None = None, deadline: float = 5.0
) -> None:
    registry = CollectorRegistry()
    Counter("poller_polls", "Polls.", registry=registry).inc(3)

    async def examine() -> Health:
        return health or judged()

    async def run_scenario() -> None:
        answer = admin.answers(registry, examine, token)
        async with Listener("127.0.0.1", 0, answer, deadline=deadline) as listener:
            await scenario(listener.port)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # what the program runs on
        runner.run(patiently(run_scenario()))


async def asked(port: int, path: str, *headers: str, method: str = "GET") -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    raw = await reader.read()
    writer.close()
    head, _, body = raw.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


def test_metrics_are_in_the_prometheus_form() -> None:
    async def scenario(port: int) -> None:
        status, body = await asked(port, "/metrics")
        assert status == 200
        assert "poller_polls_total 3.0" in body

    tell(scenario)


@pytest.mark.parametrize(("reasons", "status"), [([], 200), (["spool: disk full", "sink hook: late"], 503)])
def test_readiness_says_which_and_why(reasons: list[str], status: int) -> None:
    async def scenario(port: int) -> None:
        got, body = await asked(port, "/readyz")
        assert got == status
        assert json.loads(body) == {
            "ready": status == 200,
            "reasons": reasons,
            "notes": ["source pushes: quiet"],
        }
        assert await asked(port, "/healthz") == (200, "alive\n")

    tell(scenario, health=judged(*reasons))


@pytest.mark.parametrize(
    ("reasons", "for_pushes"), [(["sink hook: late"], 200), (["spool: disk full", "sink hook: late"], 503)]
)
def test_a_bad_sink_refuses_nobodys_push(reasons: list[str], for_pushes: int) -> None:
    async def scenario(port: int) -> None:
        status, body = await asked(port, "/readyz?for=pushes")
        assert (status, json.loads(body)["reasons"]) == (for_pushes, reasons[:-1])
        assert (await asked(port, "/readyz"))[0] == 503

    tell(scenario, health=judged(*reasons))


@pytest.mark.parametrize("query", ["for=polls", "for=", "for=pushes&for=pushes", "for=PUSHES"])
def test_readiness_for_something_unknown_is_a_bad_request(query: str) -> None:
    async def scenario(port: int) -> None:
        assert (await asked(port, f"/readyz?{query}"))[0] == 400

    tell(scenario)


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/nothing"])
def test_with_a_token_only_who_brings_it_sees_more_than_health(path: str) -> None:
    async def scenario(port: int) -> None:
        assert (await asked(port, "/healthz"))[0] == 200
        for header in (
            [],
            ["Authorization: Bearer wrong"],
            ["Authorization: secret-token"],
            ["Authorization: \xff"],
        ):
            status, body = await asked(port, path, *header)
            assert status == 401
            assert "secret-token" not in body
        assert (await asked(port, path, "Authorization: Bearer secret-token"))[0] in (200, 404)

    tell(scenario, token="secret-token")


def test_other_paths_and_methods_are_refused() -> None:
    async def scenario(port: int) -> None:
        assert (await asked(port, "/"))[0] == 404
        assert (await asked(port, "/metrics", "Content-Length: 0", method="POST"))[0] == 405

    tell(scenario)


@pytest.mark.parametrize(
    ("sent", "drop", "waited"),
    [
        (b"", b"G", False),  # no method begins so
        (b"GET /metrics HTTP/1.1\r\n", b"X-A: b\r\n", True),
        (b"GET /metrics HTTP/1.1\r\nX-A: ", b"b", True),
        (b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\nab", b"X", False),  # its body is not waited for
    ],
)
def test_a_client_that_drips_is_cut_at_the_deadline(sent: bytes, drop: bytes, waited: bool) -> None:
    """If its drops prolonged the deadline, it would drip until the test loses its patience."""
    deadline = 0.4

    async def scenario(port: int) -> None:
        began, drops = time.monotonic(), 0
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)

        async def drip() -> None:
            nonlocal drops
            while True:
                await asyncio.sleep(0.05)
                writer.write(drop)
                await writer.drain()
                drops += 1

        dripping = asyncio.ensure_future(drip())
        with contextlib.suppress(ConnectionError):
            await reader.read()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        if waited:
            assert time.monotonic() - began >= deadline
            assert drops >= 1, "it dripped until it was cut"
        assert (await asked(port, "/healthz"))[0] == 200

    tell(scenario, deadline=deadline)


def test_a_flood_of_idle_connections_is_bounded_and_others_are_served_after_the_deadline() -> None:
    async def scenario(port: int) -> None:
        flood = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_CONNECTIONS + 20)]
        cut = 0
        for reader, _ in flood:
            try:
                async with asyncio.timeout(PATIENCE):
                    assert (await reader.read())[:12] in (b"", b"HTTP/1.1 503")
            except ConnectionError:
                pass
            cut += 1
        assert cut == len(flood)
        assert (await asked(port, "/healthz"))[0] == 200
        for _, writer in flood:
            writer.close()

    tell(scenario, deadline=0.5)


def test_connections_beyond_the_bound_are_cut_at_once() -> None:
    async def scenario(port: int) -> None:
        flood = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_CONNECTIONS + 20)]
        ends = [asyncio.ensure_future(reader.read()) for reader, _ in flood]
        async with asyncio.timeout(PATIENCE):
            while sum(end.done() for end in ends) < 20:
                await asyncio.wait([end for end in ends if not end.done()], return_when="FIRST_COMPLETED")
        assert sum(end.done() for end in ends) == 20, "the others have until the deadline"
        for _, writer in flood:
            writer.close()
        await asyncio.gather(*ends, return_exceptions=True)

    tell(scenario, deadline=60.0)


def test_an_answer_that_takes_too_long_is_cut_as_well() -> None:
    async def hangs(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    async def run_scenario() -> None:
        async with Listener("127.0.0.1", 0, hangs, deadline=0.2) as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(patiently(run_scenario()))
