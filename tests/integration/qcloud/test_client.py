"""One call is one request, whatever the connection does; what came of a cut answer is kept."""

import asyncio
import gzip
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from socket import SO_LINGER, SOL_SOCKET

import pytest
import trustme

from poller.core.errors import NotSent
from poller.qcloud.wire.client import LARGEST_BODY, Client, Deadlines, HttpReply

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]
QUICK = Deadlines(connect=0.5, progress=0.2, whole=2.0)
"""For calls that a deadline has to end. The others have those of the program."""
BODY = b'{"ret":0,"output":{"count":0,"data":[]}}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
SECRET = "c0ffeec0ffeec0ffeec0ffeec0ffee00"


class Server:
    """Counts the requests it has read whole; `talk` says how it answers the n-th (from 0)."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0

    def url(self, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/common_access"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                await self.talk(reader, writer, len(self.requests) - 1)
                await writer.drain()
                if writer.is_closing():
                    return
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(talk)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


@asynccontextmanager
async def tunnelling() -> AsyncIterator[Server]:
    """A proxy that connects to where a CONNECT asks it to."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        host, _, port = proxy.requests[number].split()[1].decode().rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)

    async with serving(talk) as proxy:
        yield proxy


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


def saying(answer: bytes, then: Callable[[asyncio.StreamWriter], None] | None = None) -> Talk:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        writer.write(answer)
        await writer.drain()
        if then is not None:
            then(writer)

    return talk


def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter, _number: int) -> None:
    await reader.read()


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + BODY[:20]
CUT_HEAD = b"HTTP/1.1 200 OK\r\nContent-"
ENDLESS_HEAD = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000
FAULTS: dict[str, tuple[Talk, int, bytes]] = {
    "reset after the request was read": (saying(b"", reset), 0, b""),
    "closed without an answer": (saying(b"", close), 0, b""),
    "reset in the status line": (saying(b"HTTP/1.1 2", reset), 0, b"HTTP/1.1 2"),
    "closed in the headers": (saying(CUT_HEAD, close), 200, CUT_HEAD),
    "closed in the body": (saying(HALF, close), 200, BODY[:20]),
    "closed in a chunk": (
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n28\r\n" + BODY[:20], close),
        200,
        BODY[:20],
    ),
    "closed before the last chunk": (
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n28\r\n%b\r\n" % BODY, close),
        200,
        BODY,
    ),
    "closed where a close means the end": (
        saying(b"HTTP/1.1 200 OK\r\n\r\n" + BODY[:20], close),
        200,
        BODY[:20],
    ),
    "silence": (hang, 0, b""),
    "silence in the body": (saying(HALF), 200, BODY[:20]),
    "no HTTP": (saying(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", close), 0, b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "a header without end": (saying(ENDLESS_HEAD, close), 200, ENDLESS_HEAD),
    "two lengths": (
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", close),
        200,
        b"x",
    ),
    "a length that is none": (saying(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx", close), 200, b"x"),
    "interim answers only": (saying(b"HTTP/1.1 100 Continue\r\n\r\n" * 9, close), 0, b""),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_request_whose_connection_fails_is_never_sent_again(fault: str) -> None:
    talk, status, body = FAULTS[fault]

    deadlines = QUICK if "silence" in fault else Deadlines()
    async with serving(talk) as server, Client(server.url(), deadlines=deadlines) as client:
        for number in range(1, 4):
            answer = await client.get({"sign": SECRET})
            assert (answer.status, answer.whole, answer.body) == (status, False, body)
            assert len(server.requests) == number


def test_a_reset_before_the_request_is_read_is_not_repeated_either() -> None:
    async def run() -> None:
        connections = 0

        async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            reset(writer)

        listening = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        async with Client(f"http://127.0.0.1:{port}/") as client:
            answer = await client.get({})
        assert (answer.status, connections) == (0, 1)
        listening.close()

    asyncio.run(run())


async def test_a_connection_that_dies_with_its_request_costs_that_one_only() -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        if number % 2:
            reset(writer)
        else:
            writer.write(OK)

    async with serving(talk) as server, Client(server.url()) as client:
        answers = [await client.get({}) for _ in range(6)]
        assert [answer.status for answer in answers] == [200, 0, 200, 0, 200, 0]
        assert (len(server.requests), server.connections) == (6, 6)


@pytest.mark.parametrize("then", [None, close, reset])
async def test_no_poll_hangs_on_what_became_of_the_connection_before(
    then: Callable[[asyncio.StreamWriter], None] | None,
) -> None:
    """Also where the answer said that the connection would be kept."""
    kept = OK.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n")

    async with serving(saying(kept, then)) as server, Client(server.url()) as client:
        for number in range(1, 9):
            answer = await client.get({})
            assert (answer.status, answer.whole, len(server.requests)) == (200, True, number)
        assert server.connections == 8


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(status: int) -> None:
    redirect = b"HTTP/1.1 %d X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n" % status

    async with serving(saying(redirect)) as server, Client(server.url()) as client:
        answer = await client.get({})
        assert (answer.status, answer.whole, len(server.requests)) == (status, True, 1)


def ask(answer: bytes, then: Callable[[asyncio.StreamWriter], None] | None = None) -> HttpReply:
    async def run() -> HttpReply:
        async with serving(saying(answer, then)) as server, Client(server.url()) as client:
            return await client.get({})

    return asyncio.run(run())


def test_whole_answers_come_whole() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n28\r\n%b\r\n0\r\n\r\n" % BODY
    for answer in (
        ask(OK),
        ask(chunked),
        ask(b"HTTP/1.0 200 OK\r\n\r\n" + BODY, close),
        ask(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nX: y\r\n\r\n" + OK),
    ):
        assert (answer.status, answer.whole, answer.body) == (200, True, BODY)
    page = ask(b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>", close)
    assert (page.status, page.whole, page.body) == (502, True, b"<html>")


def test_a_cut_body_without_a_length_is_not_whole() -> None:
    """Its end looks like the end: only the bytes tell."""
    for end in (1, len(BODY) // 2, len(BODY) - 1):
        answer = ask(b"HTTP/1.0 200 OK\r\n\r\n" + BODY[:end], close)
        assert (answer.status, answer.whole, answer.body) == (200, False, BODY[:end])


def test_a_compressed_body_comes_as_it_was_sent() -> None:
    packed = gzip.compress(BODY)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: GZIP\r\nDate: now\r\nContent-Length: %d\r\n\r\n"
    answer = ask(head % len(packed) + packed)
    assert answer == HttpReply(status=200, encoding="gzip", whole=True, body=packed, date="now")


@pytest.mark.parametrize("cut", range(0, len(BODY), 3))
def test_all_that_came_of_a_cut_body_is_kept(cut: int) -> None:
    for end in (close, reset) if cut == 0 else (close,):
        answer = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + BODY[:cut], end)
        assert (answer.body, answer.whole) == (BODY[:cut], False)


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_endless_body_is_left_at_four_mebibytes(chunked: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n")
    piece = b"x" * 65536
    piece = b"10000\r\n%b\r\n" % piece if chunked else piece

    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()

    async with serving(talk) as server, Client(server.url()) as client:
        tracemalloc.start()
        answer = await client.get({})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (len(answer.body), answer.whole) == (LARGEST_BODY, False)
        assert peak < 4 * LARGEST_BODY


async def test_a_dripping_answer_ends_at_the_deadline_for_the_whole() -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)  # the drip

    deadlines = Deadlines(connect=0.2, progress=0.2, whole=0.4)
    async with serving(talk) as server, Client(server.url(), deadlines=deadlines) as client:
        answer = await client.get({})
        assert answer.status == 200
        assert not answer.whole
        assert answer.body.startswith(b"xx")


async def test_nobody_there_and_no_such_name_are_not_sent() -> None:
    async with serving(saying(OK)) as server:
        url = server.url()
    for endpoint in (url, "http://no-such-host.invalid/"):
        async with Client(endpoint, deadlines=QUICK) as client:
            with pytest.raises(NotSent) as caught:
                await client.get({"sign": SECRET})
            assert SECRET not in str(caught.value) + repr(caught.value)
            assert caught.value.__context__ is None


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and that of a client who trusts it."""
    authority = trustme.CA()
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return served, trusting


async def test_an_untrusted_certificate_sends_nothing_and_a_trusted_one_does(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    served, trusting = tls

    async with serving(saying(OK), served) as server:
        async with Client(server.url("https")) as client:
            with pytest.raises(NotSent):
                await client.get({"sign": SECRET})
        assert server.requests == []
        async with Client(server.url("https"), tls=trusting) as client:
            assert (await client.get({})).body == BODY


async def test_a_server_that_speaks_no_tls_is_sent_nothing() -> None:
    async with serving(saying(OK)) as server, Client(server.url("https"), deadlines=QUICK) as client:
        with pytest.raises(NotSent):
            await client.get({"sign": SECRET})
        assert (server.connections > 0, server.requests) == (True, [])


async def test_a_server_that_never_finishes_its_handshake_is_left_at_the_connect_deadline() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    deadlines = Deadlines(connect=0.2, progress=1.0, whole=2.0)
    async with Client(f"https://127.0.0.1:{port}/", deadlines=deadlines) as client:
        with pytest.raises(NotSent, match="in time"):
            await client.get({})
    listening.close()


async def test_proxies_of_the_environment_are_ignored_and_the_account_s_own_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(saying(OK)) as server, serving(saying(OK)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        async with Client(server.url()) as client:
            await client.get({})
        assert (len(server.requests), len(proxy.requests)) == (1, 0)
        async with Client("http://far.invalid/x", proxy=proxy.url()) as client:
            assert (await client.get({})).status == 200
        assert proxy.requests[0].startswith(b"GET http://far.invalid/x")


async def test_an_https_endpoint_is_reached_through_a_tunnel_of_the_proxy_and_a_refusal_sends_nothing(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    served, trusting = tls
    refused = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"

    async with serving(saying(OK), served) as server, tunnelling() as proxy:
        url = f"http://user:word@127.0.0.1:{proxy.port}"
        async with Client(server.url("https"), tls=trusting, proxy=url) as client:
            assert (await client.get({"sign": SECRET})).body == BODY
        head = proxy.requests[0].decode()
        assert head.startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in head
        assert SECRET not in head
        assert b"Proxy-" not in server.requests[0]
    for answer in (refused, b"", b"SSH-2.0\r\n\r\n", OK[:20]):
        async with serving(saying(answer, close)) as proxy:
            async with Client("https://far.invalid/", proxy=proxy.url()) as client:
                with pytest.raises(NotSent, match="the proxy"):
                    await client.get({"sign": SECRET})
            assert len(proxy.requests) == 1


async def test_a_request_asks_for_plain_bytes_from_no_cache() -> None:
    async with (
        serving(saying(OK)) as server,
        Client(server.url() + "?fixed=1") as client,
    ):
        await client.get({"Param.n.bid": "100"})
        head = server.requests[0].decode()
        assert head.startswith("GET /common_access?fixed=1&Param.n.bid=100 HTTP/1.1\r\n")
        assert "Accept-Encoding: identity\r\n" in head
        assert "Cache-Control: no-store\r\n" in head
        assert "Cookie" not in head
