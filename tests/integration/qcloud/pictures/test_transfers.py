"""How pictures are fetched: over connections that stay open, by turns, from whom TLS vouches for."""

import asyncio
import gc
import os
import resource
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme

from poller.core.errors import PartlyFailed, TryLater
from poller.qcloud.pictures import handle
from poller.qcloud.pictures.fetch import Fetcher, Memory
from poller.qcloud.pictures.handle import BadUrl, TransferFailed
from poller.qcloud.pictures.hosts import Target
from poller.qcloud.pictures.transfers import TransferRequest, Transfers
from poller.runtime.outbound import AddressGuard
from tests.integration.sinks.download.shots import attempt, download, files, jpeg, shot
from tests.patience import patiently

LOCAL = AddressGuard([ip_network("127.0.0.0/8")])

Answer = Callable[[str], bytes | Awaitable[bytes]]


@dataclass(kw_only=True)
class Kept:
    """A server that keeps its connections open: where it is, how many came, what was asked over each."""

    port: int = 0
    asked: list[list[str]] = field(default_factory=list)
    scheme: str = "http"

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}/{path}"


@asynccontextmanager
async def keeping(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Kept]:
    """Answers request after request over each connection; an empty answer closes it."""
    server = Kept(scheme="https" if tls else "http")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.asked.append(asked := [])
        try:
            while True:
                line = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").partition("\r\n")[0]
                asked.append(line)
                said = answer(line.split(" ")[1])
                writer.write(said := said if isinstance(said, bytes) else await said)
                await writer.drain()
                if not said:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


def whole(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    """An answer after which the connection stays open."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Heard:
    """Takes an answer and keeps it."""

    def __init__(self) -> None:
        self.heads: list[tuple[int, dict[str, str], int | None]] = []
        self.body = b""

    def begin(self, status: int, headers: object, length: int | None) -> None:
        assert isinstance(headers, dict)
        self.heads.append((status, dict(headers), length))

    def take(self, piece: bytes) -> None:
        self.body += piece


async def get(transfers: Transfers, url: str, heard: Heard) -> None:
    """One GET; raises its failure."""
    [error] = await transfers.get([TransferRequest(url, heard)])
    if error is not None:
        raise error


def fetched(
    answer: Answer, path: str = "a.jpg", *, timeout: float = 30.0, tls: ssl.SSLContext | None = None
) -> tuple[Heard, Exception | None]:
    """What came of one GET."""

    async def main() -> tuple[Heard, Exception | None]:
        heard = Heard()
        async with (
            keeping(answer, tls=tls) as server,
            Transfers(LOCAL, per_host=4, timeout=timeout) as getting,
        ):
            try:
                await get(getting, server.url(path), heard)
            except Exception as error:
                return heard, error
            return heard, None

    return asyncio.run(main())


# ---------------------------------------------------------------- connections


def test_connections_stay_open_for_the_next_pictures_and_after_a_404(tmp_path: Path) -> None:
    async def main() -> list[list[str]]:
        def answer(path: str) -> bytes:
            return whole(b"x" * 1000, "404 Not Found") if "missing" in path else whole(jpeg())

        async with keeping(answer) as server, download(tmp_path, per_host=3, template="{name}") as sink:
            for each in range(4):
                names = [f"{each}_{number}.jpg" for number in range(9)] + [f"missing{each}.jpg"]
                error = await attempt(sink, *(shot(name, server.url(name)) for name in names))
                assert isinstance(error, PartlyFailed)
                assert len(error.failures) == 1
            return server.asked

    asked = asyncio.run(main())
    assert len(asked) <= 3
    assert sum(map(len, asked)) == 40
    assert len(files(tmp_path)) == 36


def test_a_kept_connection_that_has_died_is_replaced_unseen(tmp_path: Path) -> None:
    async def main() -> list[list[str]]:
        dead: list[str] = []

        def answer(path: str) -> bytes:
            if path == "/second.jpg" and not dead:
                dead.append(path)
                return b""  # closed on the very request, as by a server that had waited long enough
            return whole(jpeg())

        async with keeping(answer) as server, download(tmp_path, template="{name}") as sink:
            for name in ("first.jpg", "second.jpg"):
                assert await attempt(sink, shot(name, server.url(name))) is None
            assert dead
            return server.asked

    assert [len(each) for each in asyncio.run(main())] == [2, 1]


def test_waiting_for_a_turn_is_not_taken_for_slow_connecting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handle, "CONNECT_TIMEOUT", 4.0)  # longer than this process is ever held up

    async def main() -> Exception | None:
        async def answer(path: str) -> bytes:
            await asyncio.sleep(5.0 if "0.jpg" in path else 0.0)
            return whole(jpeg())

        async with keeping(answer) as server, download(tmp_path, per_host=1) as sink:
            return await attempt(sink, *(shot(f"{n}.jpg", server.url(f"{n}.jpg")) for n in range(9)))

    assert asyncio.run(main()) is None


def test_a_cancelled_transfer_frees_its_place(tmp_path: Path) -> None:
    async def main() -> None:
        held = asyncio.Event()

        async def answer(path: str) -> bytes:
            if "stuck" in path:
                held.set()
                await asyncio.Event().wait()
            return whole(jpeg())

        async with keeping(answer) as server, download(tmp_path, per_host=1) as sink:
            for number in range(3):
                held.clear()
                stuck = asyncio.create_task(attempt(sink, shot("stuck.jpg", server.url(f"stuck{number}"))))
                await patiently(held.wait())
                stuck.cancel()
                await asyncio.wait([stuck])
            assert await attempt(sink, shot("good.jpg", server.url("good.jpg"))) is None

    asyncio.run(patiently(main()))


def test_a_cancelled_delivery_gives_back_its_memory_while_pictures_still_come() -> None:
    async def main() -> None:
        memory = Memory(2**30)

        async def answer(path: str) -> bytes:
            return whole(bytes(2**24))

        async with keeping(answer) as server, Transfers(LOCAL, per_host=8, timeout=30) as getting:
            fetcher = Fetcher(getting, max_bytes=2**25, max_pixels=2**20)
            wanted = [
                (shot(f"{n}.jpg", url := server.url(f"{n}.jpg")), Target(url=url, host="local", path=""))
                for n in range(8)
            ]
            for _ in range(5):
                with memory.leases(len(wanted)) as leases:
                    fetching = asyncio.create_task(fetcher.fetch(wanted, leases))
                    while memory.free == 2**30:
                        await asyncio.sleep(0)
                    fetching.cancel()
                    await asyncio.wait([fetching])
                while memory.free < 2**30:
                    await asyncio.sleep(0.001)
                assert memory.free == 2**30

    asyncio.run(patiently(main()))


def test_transfers_that_are_left_end_those_that_wait() -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def answer(path: str) -> bytes:
            asked.set()
            await asyncio.Event().wait()
            return b""

        async with keeping(answer) as server:
            async with Transfers(LOCAL, per_host=1, timeout=30) as getting:
                wishes = [TransferRequest(server.url("a"), Heard()) for _ in range(3)]
                waiting = asyncio.create_task(getting.get(wishes))
                await asked.wait()
            assert [str(error) for error in await waiting] == ["fetching has ended"] * 3
            with pytest.raises(TransferFailed):
                await getting.get(wishes)

    asyncio.run(patiently(main()))


def test_sockets_with_numbers_beyond_libcurls_sets_are_served_too() -> None:
    async def main() -> list[Exception | None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
        try:
            async with (
                keeping(lambda path: whole(bytes(100_000))) as server,
                Transfers(LOCAL, per_host=4, timeout=30) as getting,
            ):
                heard = [Heard() for _ in range(40)]
                errors = await getting.get([TransferRequest(server.url("a"), each) for each in heard])
                assert len(server.asked) <= 4
            assert all(len(each.body) == 100_000 for each in heard)
            return errors
        finally:
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert asyncio.run(main()) == [None] * 40


def test_a_time_limit_ends_a_transfer_that_stands_still() -> None:
    async def answer(path: str) -> bytes:
        await asyncio.Event().wait()
        return b""

    begun = time.monotonic()
    _, error = fetched(answer, timeout=0.3)
    assert isinstance(error, TimeoutError)
    assert time.monotonic() - begun < 20


def test_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    heard, error = fetched(lambda path: whole(b"direct"))
    assert error is None
    assert heard.body == b"direct"


# ---------------------------------------------------------------- what is sent, what is understood


def test_the_url_is_sent_as_it_stands() -> None:
    paths = ["a%2fb%E4%b8%ad.jpg", "a/../b/./c.jpg", "a//b.jpg?x=%2f;y&sign=Q==", "%7Euser/~x.jpg", "a;b=c"]

    async def main() -> list[str]:
        async with (
            keeping(lambda path: whole(b"x")) as server,
            Transfers(LOCAL, per_host=1, timeout=30) as getting,
        ):
            for path in paths:
                await get(getting, server.url(path) + "#part", Heard())
            return [line for asked in server.asked for line in asked]

    assert asyncio.run(main()) == [f"GET /{path} HTTP/1.1" for path in paths]


def test_what_comes_before_and_after_an_answer_is_not_taken_for_its_head() -> None:
    said = (
        b"HTTP/1.1 103 Early Hints\r\nContent-Encoding: gzip\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\nX-One:  1 \r\n\r\n"
        b"5\r\nhello\r\n0\r\nContent-Encoding: br\r\n\r\n"
    )
    heard, error = fetched(lambda path: said)
    assert error is None
    [(status, headers, length)] = heard.heads
    assert (status, length) == (200, None)
    assert headers["x-one"] == "1"
    assert heard.body == b"hello"


@pytest.mark.parametrize(
    "said",
    [
        b"garbage\r\n\r\n",
        b"\xff\xd8\xff picture without a head",
        b"HTTP/1.1\r\n\r\nx",
        b"HTTP/1.1 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 20 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 -20 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/9.9 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"Content-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nNot-A-Header\r\nContent-Le",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
        b"\r\n\r\n",
        b"\x00" * 1000,
    ],
)
def test_what_is_no_http_is_a_failed_transfer_and_nothing_else(
    said: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    answers = [said, b""]
    heard, error = fetched(lambda path: answers.pop(0) if answers else b"", timeout=1)
    assert isinstance(error, TransferFailed | TimeoutError), heard.__dict__
    assert "127.0.0.1" not in str(error)
    assert capfd.readouterr().err == "", "an exception escaped from a callback"


async def test_what_libcurl_does_not_take_for_a_url_is_told_apart() -> None:
    async with Transfers(LOCAL, per_host=1, timeout=5) as getting:
        for url in ("http://[::zz]/", "http://a b/", "http://user@:80:80/"):
            with pytest.raises(BadUrl):
                await get(getting, url, Heard())
        for url in ("file:///etc/passwd", "gopher://127.0.0.1/", "ftp://127.0.0.1/x"):
            with pytest.raises(TransferFailed):
                await get(getting, url, Heard())


async def test_a_refused_address_is_named_and_never_connected_to() -> None:
    def unasked(path: str) -> bytes:
        raise AssertionError(path)

    async with (
        keeping(unasked) as server,
        Transfers(AddressGuard(), per_host=1, timeout=5) as getting,
    ):
        for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"):
            with pytest.raises(TransferFailed, match="is not a public address"):
                await get(getting, server.url("a", host), Heard())
        assert server.asked == []


async def test_what_the_answer_raises_ends_the_transfer_and_reaches_the_caller() -> None:
    class Picky(Heard):
        def take(self, piece: bytes) -> None:
            raise TryLater("enough")

    async with (
        keeping(lambda path: whole(bytes(2**20))) as server,
        Transfers(LOCAL, per_host=1, timeout=30) as getting,
    ):
        for _ in range(3):
            with pytest.raises(TryLater, match="enough"):
                await get(getting, server.url("a"), Picky())
        await get(getting, server.url("a"), heard := Heard())
        assert len(heard.body) == 2**20


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_a_certificate_is_believed_if_the_systems_authorities_vouch_for_it(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    server = _tls(authority, "127.0.0.1")
    _, error = fetched(lambda path: whole(b"x"), tls=server)
    assert isinstance(error, TransferFailed)
    assert str(error).startswith("TLS: ")

    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    heard, error = fetched(lambda path: whole(b"over TLS"), tls=server)
    assert error is None
    assert heard.body == b"over TLS"

    _, error = fetched(lambda path: whole(b"x"), tls=_tls(authority, "another.example"))
    assert isinstance(error, TransferFailed)
    assert str(error).startswith("TLS: ")


async def test_a_picture_is_freed_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        async with (
            keeping(lambda path: whole(b"a picture")) as server,
            Transfers(LOCAL, per_host=2, timeout=30) as transfers,
        ):
            heard = [Heard() for _ in range(3)]
            known = [weakref.ref(one) for one in heard]
            urls = [server.url(str(number)) for number in range(3)]
            assert await transfers.get(list(map(TransferRequest, urls, heard))) == [None] * 3
            del heard
            assert [one() for one in known] == [None] * 3
    finally:
        gc.enable()
