"""A receiver's status counts, whatever else is wrong with its answer; and nothing but a status counts."""

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
import trustme

from poller.core.errors import Gone, Rejected, SinkError, TryLater
from poller.core.model import Batch, new_event
from poller.runtime import http_poster
from tests.patience import PATIENCE

from .hooks import carried, carry, sink
from .servers import Request, batch, serving

Then = Callable[[asyncio.StreamWriter], Awaitable[None]]
LONG = b"X-Node: " + b"x" * 9_000
OK = b"HTTP/1.1 200 OK\r\n"


async def stay(writer: asyncio.StreamWriter) -> None:
    """Keep the connection."""


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(writer: asyncio.StreamWriter) -> None:
    await writer.drain()
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def for_ever(piece: bytes) -> Then:
    async def send(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)

    return send


TAKEN: dict[str, tuple[bytes, Then]] = {
    "a header of 9,000 bytes": (OK + LONG + b"\r\nContent-Length: 2\r\n\r\nok", stay),
    "a header of 100,000 bytes": (OK + b"X-Node: " + b"x" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n", stay),
    "5,000 headers": (OK + b"X-Node: 1\r\n" * 5_000 + b"Content-Length: 0\r\n\r\n", stay),
    "204 with a length and a body": (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", stay),
    "204 and chunks": (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", stay),
    "chunks that are none": (OK + b"Transfer-Encoding: chunked\r\n\r\nok", stay),
    "a length twice": (OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", stay),
    "lengths that conflict": (OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nok", stay),
    "a length that is none": (OK + b"Content-Length: -1\r\n\r\nok", stay),
    "a length beside chunks": (
        OK + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        stay,
    ),
    "a body longer than its length": (OK + b"Content-Length: 2\r\n\r\nok and more", stay),
    "a header without a colon": (OK + b"X-Node\r\nContent-Length: 0\r\n\r\n", stay),
    "a space before the colon": (OK + b"X-Node : 1\r\nContent-Length: 0\r\n\r\n", stay),
    "a header without a name": (OK + b": 1\r\nContent-Length: 0\r\n\r\n", stay),
    "a folded header": (OK + b"X-Node: a\r\n b\r\nContent-Length: 0\r\n\r\n", stay),
    "NUL in a header": (OK + b"X-Node: \0\r\nContent-Length: 0\r\n\r\n", stay),
    "bare LF": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", stay),
    "blank lines before": (b"\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n", stay),
    "no reason phrase": (b"HTTP/1.1 202\r\nContent-Length: 0\r\n\r\n", stay),
    "a reason with odd bytes": (b"HTTP/1.1 200 \xff\x01\r\nContent-Length: 0\r\n\r\n", stay),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nok", close),
    "informational answers before": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n" + OK + b"\r\n",
        close,
    ),
    "a status line and the close": (OK, close),
    "a status line and a reset": (OK, reset),
    "a status line and silence": (OK, stay),
    "a cut head": (OK + b"Content-Le", close),
    "a cut body": (OK + b"Content-Length: 9\r\n\r\nok", close),
    "a body and a reset": (OK + b"Content-Length: 9\r\n\r\nok", reset),
    "headers without end": (OK, for_ever(b"X-Node: " + b"x" * 4000 + b"\r\n")),
    "one header without end": (OK + b"X-Node: ", for_ever(b"x" * 4000)),
    "trailers without end": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", for_ever(b"X-Sum: 1\r\n")),
}
NOT_TAKEN: dict[str, tuple[bytes, Then]] = {
    "HTTP/2": (b"HTTP/2 200\r\n\r\n", stay),
    "HTTP/2.0": (b"HTTP/2.0 200 OK\r\n\r\n", stay),
    "HTTP/1": (b"HTTP/1 200 OK\r\n\r\n", stay),
    "HTTP/11": (b"HTTP/11 200 OK\r\n\r\n", stay),
    "HTTP/1.10": (b"HTTP/1.10 200 OK\r\n\r\n", stay),
    "small letters": (b"http/1.1 200 ok\r\n\r\n", stay),
    "four digits": (b"HTTP/1.1 2000 OK\r\n\r\n", stay),
    "two digits": (b"HTTP/1.1 20\r\n\r\n", stay),
    "two digits and a cut": (b"HTTP/1.1 20", close),
    "a status without the line's end": (b"HTTP/1.1 200", close),
    "a reason without the line's end": (b"HTTP/1.1 200 OK", reset),
    "a sign": (b"HTTP/1.1 +200 OK\r\n\r\n", stay),
    "no space": (b"HTTP/1.1200 OK\r\n\r\n", stay),
    "a letter behind the status": (b"HTTP/1.1 200OK\r\n\r\n", stay),
    "digits of another script": ("HTTP/1.1 ２００ OK\r\n\r\n".encode(), stay),
    "ICY": (b"ICY 200 OK\r\n\r\n", stay),
    "HTTPS": (b"HTTPS/1.1 200 OK\r\n\r\n", stay),
    "indented": (b" HTTP/1.1 200 OK\r\n\r\n", stay),
    "a body alone": (b'{"status":200}', close),
    "a body that speaks of HTTP": (b"<html>\r\nHTTP/1.1 200 OK\r\n\r\n", close),
    "informational answers alone": (b"HTTP/1.1 100 Continue\r\n\r\n", close),
    "200 after what is no HTTP": (b"SSH-2.0\r\n\r\n" + OK + b"\r\n", close),
    "nothing": (b"", close),
}


def answering(answer: bytes, then: Then) -> Callable[[Request, asyncio.StreamWriter], Awaitable[None]]:
    async def talk(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await then(writer)

    return talk


@pytest.mark.parametrize("form", TAKEN)
def test_a_2xx_is_believed_whatever_follows_it_and_its_connection_is_not_used_again(form: str) -> None:
    async def main() -> tuple[int, int]:
        async with serving(answering(*TAKEN[form])) as server, sink(server.url) as hook:
            async with asyncio.timeout(PATIENCE):
                await hook.deliver(batch())
                await hook.deliver(batch(1, first=1))
            return len(server.requests), server.connections

    requests, connections = asyncio.run(main())
    assert requests == 2
    assert connections == (1 if form == "no reason phrase" else 2), "kept only where it is well formed"


@pytest.mark.parametrize("form", NOT_TAKEN)
def test_what_is_no_status_line_of_http_1_is_no_delivery(form: str) -> None:
    error, server = carried(answering(*NOT_TAKEN[form]))
    assert isinstance(error, TryLater)
    assert error.reason.startswith(("not HTTP", "connection closed", "connection lost")), error.reason
    assert len(server.requests) == 1


@pytest.mark.parametrize("form", ["a status line and silence", "headers without end", "chunks that are none"])
def test_a_2xx_whose_answer_does_not_end_is_believed_also_where_the_timeout_is_short(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shorter than the time for the rest of an answer, and longer than this process is ever held up."""
    monkeypatch.setattr(http_poster, "REST_WITHIN", 7.0)

    async def main() -> int:
        async with (
            serving(answering(*TAKEN[form])) as server,
            sink(server.url, timeout="6s") as hook,
            asyncio.timeout(6.0),
        ):
            await hook.deliver(batch())
            return len(server.requests)

    assert asyncio.run(main()) == 1


# ---------------------------------------------------------------- other statuses

ODD = {
    "a long header": LONG + b"\r\nContent-Length: 0\r\n\r\n",
    "a header without a colon": b"X-Node\r\n\r\n",
    "lengths that conflict": b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "chunks that are none": b"Transfer-Encoding: chunked\r\n\r\nno",
    "no end": b"X-Node: 1\r\n",
}


@pytest.mark.parametrize("head", ODD)
@pytest.mark.parametrize(
    ("status", "kind", "after"),
    [
        (400, Rejected, None),
        (422, Rejected, None),
        (410, Gone, None),
        (503, TryLater, 7.0),
        (302, TryLater, 7.0),
    ],
)
def test_another_status_keeps_its_meaning_under_an_odd_head(
    head: str, status: int, kind: type[SinkError], after: float | None
) -> None:
    answer = b"HTTP/1.1 %d X\r\nRetry-After: 7\r\n" % status + ODD[head]
    error, server = carried(answering(answer, close))
    assert type(error) is kind
    assert error.reason.startswith(f"HTTP {status}")
    assert getattr(error, "after", None) == after
    assert len(server.requests) == 1


def test_the_beginning_of_what_a_receiver_says_is_at_hand_for_the_reason() -> None:
    body = b"canary: " + b"x" * 1000
    for answer in (b"Content-Length: 1008\r\n\r\n" + body, b"\r\n" + body, LONG + b"\r\n\r\n" + body):
        error, _ = carried(answering(b"HTTP/1.1 500 X\r\n" + answer, close))
        assert isinstance(error, TryLater)
        assert "canary" not in error.reason
        assert error.said == body[:300]


# ---------------------------------------------------------------- before the whole request


def _large() -> Batch:
    large = new_event(
        id="0" * 32,
        kind="screenshot",
        account="main",
        stream_id="s",
        occurred_at=None,
        received_at=batch().events[0].received_at,
        url=None,
        fields={},
        message=msgspec.Raw(b'{"x":"%b"}' % (b"x" * 2**24)),
    )
    return Batch(id="b" * 32, sink="hook", events=(large,))


@asynccontextmanager
async def hasty(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Answers as soon as a head has come, and reads no body."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        await asyncio.sleep(5)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls, limit=1024)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/"
    finally:
        server.close()


@pytest.mark.parametrize("secure", [False, True])
def test_a_2xx_before_the_whole_request_was_sent_is_no_delivery(secure: bool) -> None:
    authority, context, trusting = trustme.CA(), None, {}
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)

    async def main() -> list[SinkError | None]:
        errors = []
        with authority.cert_pem.tempfile() as ca_file:
            trusting.update({"tls": {"ca_file": ca_file}} if secure else {})
            for answer in (
                OK + b"Content-Length: 0\r\n\r\n",
                b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n",
            ):
                async with hasty(answer, context) as url:
                    errors.append(await carry(url, _large(), **trusting))
        return errors

    early, refused = asyncio.run(main())
    assert isinstance(early, TryLater)
    assert early.reason == "HTTP 200 before the whole request was sent"
    assert isinstance(refused, Rejected)


def test_a_proxy_s_word_about_its_tunnel_is_no_delivery() -> None:
    async def main() -> SinkError | None:
        async with serving(answering(b"HTTP/1.1 200 Connection established\r\n\r\n", close)) as proxy:
            return await carry("https://hooks.example/x", proxy=proxy.url.partition("/hook")[0])

    error = asyncio.run(main())
    assert isinstance(error, TryLater)


# ---------------------------------------------------------------- informational answers without end


def test_informational_answers_without_end_are_left_and_starve_nothing() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 1000

    async def main() -> tuple[SinkError | None, float]:
        gaps, running = [0.0], True

        async def look() -> None:
            while running:
                before = time.process_time()  # so that what other processes use does not count
                await asyncio.sleep(0.01)
                gaps.append(time.process_time() - before)

        looking = asyncio.ensure_future(look())
        async with serving(answering(hints, for_ever(hints))) as server:
            error = await carry(server.url)
        running = False
        await looking
        return error, max(gaps)

    error, gap = asyncio.run(main())
    assert isinstance(error, TryLater)
    assert error.reason == "not HTTP: informational answers without end"
    assert gap < 1.0
