"""Heads of every form that proxies and strangers send, over raw sockets: taken, or refused and counted."""

import asyncio
import contextlib
from typing import Any

import pytest

from poller.core.model import PushOutcome
from poller.runtime import http_server as listen
from poller.sources.callbacks import Callbacks, receiver
from tests.patience import PATIENCE

from .test_callbacks import OK, Door, Scenario, ask, good, push, request, tell

REFUSED = PushOutcome.REFUSED
CERTIFICATE = "X-Client-Cert: " + "M" * 4200


def reasons(door: Door) -> list[str]:
    return [reason for _, reason in door.away]


# ---------------------------------------------------------------- heads that are taken


@pytest.mark.parametrize(
    "headers",
    [
        [CERTIFICATE],
        ["X-Client-Cert: " + "M" * 9000],
        ["X-Client-Cert: " + "M" * 16_000],
        [f"X-{number}: " + "v" * 1000 for number in range(15)],
        [f"X-{number}: {number}" for number in range(600)],
        ["X-Long-Name-" + "n" * 4200 + ": v"],
        ["Cookie: " + "c=d; " * 3000],
        ["X-Empty:", "X-Spaces:    "],
    ],
    ids=lambda headers: f"{len(headers)} of {len(headers[0])}",
)
def test_a_push_is_taken_whatever_a_proxy_adds_to_its_head(headers: list[str]) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        assert await push(to, good(), *headers) == OK
        assert len(door.pages) == 1
        assert door.away == []

    tell(scenario)


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue", " 100-continue "])
def test_a_sender_that_waits_for_100_continue_is_told_to_go_on_at_once(expect: str) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        host, _, port = to.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head, body = request(good(), f"Expect: {expect}").split(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        assert len(door.pages) == 1

    tell(scenario)


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        (["Content-Type: text/html"], "", 415),
        (["Content-Length: 300000"], "", 413),
        ([], "/wrong", 404),
    ],
)
def test_a_sender_that_waits_is_refused_before_it_sends(headers: list[str], path: str, status: int) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        length = not any(header.startswith("Content-Length") for header in headers)
        where = {"path": path} if path else {}
        head = request(good(), "Expect: 100-continue", *headers, length=length, **where).split(b"\r\n\r\n")[0]
        assert (await ask(to, head + b"\r\n\r\n"))[0] == status
        assert [outcome for outcome, _ in door.away] == [REFUSED]

    tell(scenario)


def test_http_1_0_is_never_told_to_continue() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        sent = request(good(), "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        assert await ask(to, sent) == OK

    tell(scenario)


def test_who_sends_a_push_and_shuts_its_side_still_gets_the_answer() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        host, _, port = to.address.rpartition(":")
        door.hold = asyncio.Event()
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request(good()))
        writer.write_eof()
        await door.begun.wait()
        await asyncio.sleep(0.05)
        door.hold.set()
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()

    tell(scenario)


# ---------------------------------------------------------------- heads that are refused

HUGE = b"X-A: " + b"a" * 40_000 + b"\r\n"
FLAWS = {
    "TLS": (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "TLS, which is for a proxy in front",
    ),
    "no HTTP": (b"\x00\x01\x02 nothing\r\n\r\n", "a strange method"),
    "bad request line": (b"POST\r\nHost: a\r\n\r\n", "a strange method"),
    "bad version": (b"POST / HTTP/9.9\r\nHost: a\r\n\r\n", "no HTTP request"),
    "no such protocol": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "a strange method"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "no HTTP request"),
    "two lengths": (request(good(), "Content-Length: 5"), "no HTTP request"),
    "negative length": (request(b"", "Content-Length: -5", length=False), "no HTTP request"),
    "length in words": (request(b"", "Content-Length: ten", length=False), "no HTTP request"),
    "length and chunked": (request(good(), "Transfer-Encoding: chunked"), "no HTTP request"),
    "space before a colon": (request(good(), "X-Node : 1"), "no HTTP request"),
    "no colon": (request(good(), "nonsense"), "no HTTP request"),
    "NUL in a header": (request(good(), "X-A: a\0b"), "no HTTP request"),
    "a huge header": (request(good()).replace(b"\r\n", b"\r\n" + HUGE, 1), "a head of more than 32 KiB"),
    "a huge line": (b"POST /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", "a head of more than 32 KiB"),
    "endless headers": (b"POST / HTTP/1.1\r\n" + b"X-A: b\r\n" * 20_000, "a head of more than 32 KiB"),
    "too many headers": (request(good()).replace(b"\r\n", b"\r\n" + b"a:b\r\n" * 5000, 1), ""),
}


@pytest.mark.parametrize("name", FLAWS)
def test_every_head_that_is_no_request_is_refused_counted_and_logged(name: str) -> None:
    sent, reason = FLAWS[name]

    async def scenario(to: Callbacks, door: Door) -> None:
        status, body = await ask(to, sent)
        wanted = (0, 431) if reason == "a head of more than 32 KiB" else (0, 400, 404, 431)
        assert status in wanted, (status, body)
        assert door.pages == []
        assert [outcome for outcome, _ in door.away] == [REFUSED], door.away
        if reason:
            assert reasons(door) == [f"{reason}, from 127.0.0.1"]
        else:
            assert reasons(door)[0].endswith(", from 127.0.0.1")
        assert await push(to, good()) == OK

    tell(scenario)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"POST / HTTP/1.1\r\nHo", "no whole head in time"),
        (b"", "no whole head in time"),
        (request(good())[:-5], "cut"),
    ],
)
@pytest.mark.parametrize("limit", ["deadline", "idle"])
def test_who_never_ends_its_request_is_cut_and_counted(
    monkeypatch: pytest.MonkeyPatch, sent: bytes, reason: str, limit: str
) -> None:
    """The other limit is longer than the test's patience."""
    monkeypatch.setattr(receiver, "DEADLINE", 0.3 if limit == "deadline" else 2 * PATIENCE)
    monkeypatch.setattr(listen, "IDLE", 0.3 if limit == "idle" else 2 * PATIENCE)

    async def scenario(to: Callbacks, door: Door) -> None:
        assert await ask(to, sent) in ((0, b""), (400, b""))
        while not door.away:
            await asyncio.sleep(0.01)
        assert door.away == [(REFUSED, f"{reason}, from 127.0.0.1")]

    tell(scenario)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("sent", [b"P", b"POST / HTTP/1.1\r\nHo", request(good())[:-5]])
def test_who_goes_away_within_its_request_is_counted(sent: bytes, reset: bool) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        host, _, port = to.address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.transport.abort() if reset else writer.close()
        async with asyncio.timeout(PATIENCE):
            while not door.away:
                await asyncio.sleep(0.01)
        assert [outcome for outcome, _ in door.away] == [REFUSED]
        assert reasons(door)[0] in ("ended before its head did, from 127.0.0.1", "cut, from 127.0.0.1")

    tell(scenario)


def test_a_look_whether_the_port_is_open_is_no_refusal() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        host, _, port = to.address.rpartition(":")
        for _ in range(5):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            await writer.wait_closed()
        assert await push(to, good()) == OK
        assert door.away == []

    tell(scenario)


def test_refusals_are_logged_a_few_times_a_minute_however_many_there_are() -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        for _ in range(50):
            await ask(to, b"nonsense\r\n\r\n")
        assert len(door.away) == 50
        assert len([reason for reason in reasons(door) if reason]) == 10

    tell(scenario)


# ---------------------------------------------------------------- one request a connection


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("header", ["Connection: keep-alive", "Connection: close", "X-A: b"])
def test_a_second_push_on_a_connection_is_not_taken_without_an_answer(version: bytes, header: str) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        host, _, port = to.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        both = request(good(1), header) + request(good(2), header)
        writer.write(both.replace(b"HTTP/1.1", version))
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await reader.read()
        writer.close()
        await asyncio.sleep(0.05)
        assert answer.count(b"200 OK") == len(door.pages)
        # behind a `Connection: close` nothing may come: then the parser gives neither
        assert answer.count(b"HTTP/1.1 ") + answer.count(b"HTTP/1.0 ") == 1

    tell(scenario)


# ---------------------------------------------------------------- crowds


def crowd(scenario: Scenario, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Door:
    monkeypatch.setattr(receiver, "MOST_CONNECTIONS", 40)
    monkeypatch.setattr(receiver, "MOST_OF_ONE", 10)
    return tell(scenario, **settings)


@pytest.mark.parametrize("sent", [b"", b"POST / HT", request(good())[:-9]])
def test_a_genuine_push_is_taken_beside_a_crowd_of_its_own_address(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        host, _, port = to.address.rpartition(":")
        slow = [await asyncio.open_connection(host, int(port)) for _ in range(60)]
        for _, writer in slow:
            with contextlib.suppress(ConnectionError):
                writer.write(sent)
        for number in range(5):
            assert await push(to, good(number)) == OK
        assert len(door.pages) == 5
        for _, writer in slow:
            writer.close()

    door = crowd(scenario, monkeypatch)
    assert len(door.away) >= 50
    assert {outcome for outcome, _ in door.away} == {REFUSED}


def test_who_is_turned_away_is_answered_503(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        host, _, port = to.address.rpartition(":")
        slow = [await asyncio.open_connection(host, int(port)) for _ in range(30)]
        heads = []
        for reader, writer in slow[:20]:
            heads.append((await reader.read())[:12])
            writer.close()
        assert heads == [b"HTTP/1.1 503"] * 20, "who came first has waited longest"
        for _, writer in slow:
            writer.close()

    crowd(scenario, monkeypatch)


def test_behind_a_proxy_each_forwarded_address_has_its_places(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(to: Callbacks, door: Door) -> None:
        door.hold = asyncio.Event()
        crowded = [
            asyncio.ensure_future(push(to, good(number), "X-Forwarded-For: 198.51.100.7"))
            for number in range(15)
        ]
        other = asyncio.ensure_future(push(to, good(99), "X-Forwarded-For: 198.51.100.8"))
        while len([one for one in crowded if one.done()]) < 5:
            await asyncio.sleep(0.01)
        door.hold.set()
        assert sorted(status for status, _ in await asyncio.gather(*crowded)) == [200] * 10 + [503] * 5
        assert await other == OK

    door = crowd(scenario, monkeypatch, trusted_proxies=["127.0.0.1"])
    assert len(door.pages) == 11
    assert [reason for _, reason in door.away] == ["too many requests at once, from 198.51.100.7"] * 5
