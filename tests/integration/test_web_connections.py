"""The connections of the pages' listener, over real sockets: deadlines, crowding, keep-alive, event streams."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import pytest
import uvloop
from aiohttp import web

from poller.web.connections import Bounds, Runner
from poller.web.errors import WebError, errors_as_json
from poller.web.headers import SECURITY, secure
from poller.web.limits import EVENT_STREAMS, LARGEST_BODY, EventStreams
from tests.patience import PATIENCE, patiently

GET: Final = b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n"
QUICK: Final = Bounds(request=0.6, write=0.6, most=4)
LARGE: Final = b"x" * (4 << 20)


class Site:
    """A small application behind our connections."""

    def __init__(self, bounds: Bounds) -> None:
        app = web.Application(middlewares=[errors_as_json], client_max_size=LARGEST_BODY)
        self.streams = app[EVENT_STREAMS] = EventStreams()
        self.streams_ended = 0
        self.release = asyncio.Event()
        app.on_response_prepare.append(secure)
        app.on_shutdown.append(self.streams.close)
        routes = (
            web.get("/quick", self._quick),
            web.get("/slow", self._slow),
            web.get("/large", self._large),
            web.get("/live", self._live),
            web.get("/bug", self._bug),
            web.get("/refused", self._refused),
            web.post("/body", self._body),
        )
        app.add_routes(routes)
        self.bounds = bounds
        self.runner = Runner(app, bounds, grace=1.0)
        self.port = 0

    async def _quick(self, request: web.Request) -> web.Response:
        return web.Response(text="quick")

    async def _slow(self, request: web.Request) -> web.Response:
        await self.release.wait()
        return web.Response(text="slow")

    async def _large(self, request: web.Request) -> web.Response:
        return web.Response(body=LARGE)

    async def _live(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        async with self.streams.place(request):
            await answer.prepare(request)
            await answer.write(b"data: {}\n\n")
            await asyncio.Event().wait()
        self.streams_ended += 1
        return answer

    async def _bug(self, request: web.Request) -> web.Response:
        raise ValueError("the-text-of-the-bug")

    async def _refused(self, request: web.Request) -> web.Response:
        raise WebError(409, "The count has changed.", more={"count": 7})

    async def _body(self, request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))


Story = Callable[[Site], Awaitable[None]]


@asynccontextmanager
async def serving(bounds: Bounds) -> AsyncIterator[Site]:
    site = Site(bounds)
    await site.runner.setup()
    try:
        await web.TCPSite(site.runner, "127.0.0.1", 0).start()
        site.port = site.runner.addresses[0][1]
        yield site
    finally:
        await site.runner.cleanup()


def tell(story: Story, bounds: Bounds = QUICK) -> None:
    async def run() -> None:
        async with serving(bounds) as site:
            await story(site)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # what the program runs on
        runner.run(patiently(run()))


class Client:
    """A connection that a test holds."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, site: Site, sent: bytes = b"", limit: int = 64 * 1024) -> "Client":
        client = cls(*await asyncio.open_connection("127.0.0.1", site.port, limit=limit))
        client.writer.write(sent)
        return client

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer, which has a length."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers.get("Content-Length", "0")))
        return int(first.split()[1]), headers, body

    async def ask(self, request: bytes = GET) -> int:
        self.writer.write(request)
        return (await self.answer())[0]

    async def ended(self) -> bool:
        """Wait for the end; true if nothing came before it."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


# ---------------------------------------------------------------- requests


def test_a_connection_has_many_requests() -> None:
    async def story(site: Site) -> None:
        client = await Client.open(site)
        assert [await client.ask() for _ in range(5)] == [200] * 5
        client.writer.write(GET * 3)
        assert [(await client.answer())[0] for _ in range(3)] == [200] * 3

    tell(story)


@pytest.mark.parametrize("begun", [b"G", b"GET /quick HTTP/1.1\r\n", GET[:-2]])
def test_a_head_that_does_not_end_is_answered_408(begun: bytes) -> None:
    async def story(site: Site) -> None:
        client = await Client.open(site, begun)
        since = time.monotonic()
        status, headers, _ = await client.answer()
        assert status == 408
        assert SECURITY.items() <= headers.items()
        assert time.monotonic() - since > 0.5
        assert await client.ended()

    tell(story)


def test_a_head_that_drips_has_no_more_time_than_one_that_waits() -> None:
    async def story(site: Site) -> None:
        client = await Client.open(site)
        for byte in b"GET /quick HTTP/1.1\r\nX: " + b"y" * 1000:
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
            if client.reader._buffer:  # type: ignore[attr-defined]
                break
        else:
            pytest.fail("the whole head was waited for")
        assert (await client.answer())[0] == 408

    tell(story)


def test_a_second_request_on_a_connection_has_a_deadline_of_its_own() -> None:
    async def story(site: Site) -> None:
        client = await Client.open(site)
        for _ in range(3):
            assert await client.ask() == 200
            await asyncio.sleep(0.3)
        client.writer.write(GET[:10])
        assert (await client.answer())[0] == 408

    tell(story)


def test_a_body_that_does_not_end_is_cut() -> None:
    async def story(site: Site) -> None:
        client = await Client.open(site, b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        since = time.monotonic()
        assert await client.ended()
        assert time.monotonic() - since > 0.5

    tell(story)


def test_an_idle_connection_is_not_cut_by_the_deadline_of_requests_and_ends_at_its_own() -> None:
    async def story(site: Site) -> None:
        client, since = await Client.open(site), time.monotonic()
        await asyncio.sleep(1.0)
        assert await client.ask() == 200
        assert await client.ended()
        assert time.monotonic() - since > 2.0

    tell(story, Bounds(request=0.3, write=0.3, idle=1.5))


def test_a_large_body_is_refused_whether_it_says_its_length_or_not() -> None:
    async def story(site: Site) -> None:
        head = b"POST /body HTTP/1.1\r\nHost: a\r\n"
        exact = await Client.open(site, head + b"Content-Length: 65536\r\n\r\n" + b"x" * 65536)
        assert (await exact.answer())[0] == 200
        more = await Client.open(site, head + b"Content-Length: 65537\r\n\r\n" + b"x" * 65537)
        assert (await more.answer())[0] == 413
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        endless = await Client.open(site, chunked + b"8001\r\n" + b"x" * 0x8001 + b"\r\n0\r\n\r\n")
        assert (await endless.answer())[0] == 413

    tell(story)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400, 405)),
        (b"HELLO\r\n\r\n", (400, 405)),
        (b"FROB /quick HTTP/1.1\r\nHost: a\r\n\r\n", (405,)),
        (b"GET /quick HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000, (431,)),
        (b"GET /quick HTTP/1.1\r\n" + b"X: y\r\n" * 8_000, (400, 431)),
        (b"GET /quick HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", (400,)),
        (b"GET /" + b"y" * 40_000 + b" HTTP/1.1\r\n\r\n", (431,)),
    ],
)
def test_bytes_that_are_no_request_are_refused_with_our_headers_and_the_end(
    sent: bytes, status: tuple[int, ...]
) -> None:
    async def story(site: Site) -> None:
        client = await Client.open(site, sent)
        got, headers, _ = await client.answer()
        assert got in status
        assert SECURITY.items() <= headers.items()
        assert await client.ended()

    tell(story)


# ---------------------------------------------------------------- errors


def test_errors_are_json_with_our_headers_and_a_bug_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    async def story(site: Site) -> None:
        client = await Client.open(site)
        for path, status in (("nothing", 404), ("body", 405), ("refused", 409), ("bug", 500)):
            client.writer.write(GET.replace(b"quick", path.encode()))
            got, headers, body = await client.answer()
            assert got == status
            assert SECURITY.items() <= headers.items()
            assert headers["Content-Type"] == "application/json"
            content = json.loads(body)
            assert content["error"].endswith(".")
            assert content.get("count") == (7 if status == 409 else None)
            assert "the-text-of-the-bug" not in body.decode()
        assert await client.ask() == 200, "an error does not end the connection"

    tell(story)
    logged = capsys.readouterr().out
    assert "web_failed" in logged
    assert "ValueError" in logged
    assert "the-text-of-the-bug" not in logged


# ---------------------------------------------------------------- readers


async def until_left(site: Site) -> None:
    """Wait until our listener has cut its only client."""
    await _until(lambda: site.runner.server.requests_count > 0)  # type: ignore[union-attr]
    await _until(lambda: not site.runner.server.connections)  # type: ignore[union-attr]


def test_a_reader_that_does_not_read_is_cut() -> None:
    async def story(site: Site) -> None:
        client = await Client.open(site, GET.replace(b"quick", b"large"), limit=1024)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await until_left(site)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.reader.readexactly(len(LARGE))

    tell(story)


def test_a_slow_reader_who_goes_on_gets_all_of_it() -> None:
    async def story(site: Site) -> None:
        client = await Client.open(site, GET.replace(b"quick", b"large"), limit=64 * 1024)
        got, since = 0, time.monotonic()
        while got < len(LARGE):
            piece = await client.reader.read(100_000)
            assert piece, "it was cut"
            got += len(piece)
            await asyncio.sleep(0.24)
        assert time.monotonic() - since > 2 * bounds.write

    bounds = Bounds(write=4.0)  # longer than this process is ever held up
    tell(story, bounds)


def test_a_reader_of_small_answers_who_does_not_read_is_cut_too() -> None:
    async def story(site: Site) -> None:
        client = await Client.open(site, limit=1024)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(GET * 50_000)
        await until_left(site)

    tell(story)


# ---------------------------------------------------------------- crowding


INCOMPLETE, STUCK, ANSWERED = 1, 2, None


async def until_all_are(kind: int | None, site: Site) -> None:
    """Wait until that is what our listener thinks of as many connections as it takes."""

    def so_many() -> bool:
        ranks = [one.rank() for one in site.runner.server.connections]  # type: ignore[union-attr]
        return [rank and rank[0] for rank in ranks] == [kind] * site.bounds.most

    await _until(so_many)


async def held(site: Site, sent: bytes, kind: int | None) -> list[Client]:
    clients = [await Client.open(site, sent) for _ in range(site.bounds.most)]
    await until_all_are(kind, site)
    return clients


def test_for_a_newcomer_the_connection_that_is_idle_longest_makes_room() -> None:
    async def story(site: Site) -> None:
        clients = []
        for _ in range(QUICK.most):
            clients.append(await Client.open(site))
            assert await clients[-1].ask() == 200
            await asyncio.sleep(0.01)
        assert await clients[0].ask() == 200  # so the second one is idle longest
        newcomer = await Client.open(site)
        assert await newcomer.ask() == 200
        assert await clients[1].ended()
        for other in (clients[0], *clients[2:]):
            assert await other.ask() == 200

    tell(story)


def test_who_sends_no_whole_request_makes_room_and_is_answered_503() -> None:
    async def story(site: Site) -> None:
        clients = await held(site, GET[:5], INCOMPLETE)
        newcomer = await Client.open(site)
        assert await newcomer.ask() == 200
        status, headers, _ = await clients[0].answer()
        assert status == 503
        assert SECURITY.items() <= headers.items()

    tell(story, Bounds(request=20, most=4))


def test_who_does_not_read_makes_room() -> None:
    async def story(site: Site) -> None:
        clients = []  # a reader that nobody holds would end its connection
        async with AsyncExitStack() as stack:
            for _ in range(QUICK.most):
                client = await Client.open(site, GET.replace(b"quick", b"large"), limit=1024)
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                stack.callback(client.writer.transport.abort)
                clients.append(client)
            await until_all_are(STUCK, site)
            newcomer = await Client.open(site)
            assert await newcomer.ask() == 200

    tell(story, Bounds(write=20, most=4))


def test_where_all_are_being_answered_the_newcomer_gets_503_and_nobody_else_is_hurt() -> None:
    async def story(site: Site) -> None:
        clients = await held(site, GET.replace(b"quick", b"slow"), ANSWERED)
        newcomer = await Client.open(site)
        assert (await newcomer.answer())[0] == 503
        assert await newcomer.ended()
        site.release.set()
        for client in clients:
            assert (await client.answer())[0] == 200

    tell(story)


# ---------------------------------------------------------------- event streams


LIVE: Final = GET.replace(b"quick", b"live")


async def listening(site: Site) -> Client:
    client = await Client.open(site, LIVE)
    await client.reader.readuntil(b"data: {}\n\n")
    return client


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_viewer_who_goes_away_frees_the_place_at_once() -> None:
    async def story(site: Site) -> None:
        for leave in ("close", "abort"):
            client = await listening(site)
            assert len(site.streams._open) == 1
            getattr(client.writer.transport, leave)()
            await _until(lambda: not site.streams._open)

    tell(story)


def test_the_end_of_the_listener_ends_event_streams_at_once() -> None:
    async def story(site: Site) -> None:
        client = await listening(site)
        await site.runner.cleanup()
        assert site.streams_ended == 1, "its handler was not cancelled, as at the end of the grace"
        assert await client.reader.read() == b"\r\n0\r\n\r\n"

    tell(story)


def test_a_half_closed_connection_gets_its_answer() -> None:
    async def story(site: Site) -> None:
        client = await Client.open(site, GET.replace(b"quick", b"slow"))
        client.writer.write_eof()
        await asyncio.sleep(0.1)
        site.release.set()
        assert (await client.answer())[0] == 200
        assert await client.ended()

    tell(story)
