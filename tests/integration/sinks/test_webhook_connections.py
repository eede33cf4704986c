"""The webhook sink's connections: broken ones, TLS, proxies, and addresses that are none of its business."""

import asyncio
import socket
import ssl
import struct
import threading
import time
import traceback
from pathlib import Path

import pytest
import trustme

from poller.core.errors import BadConfiguration, TryLater
from poller.sinks.webhook import Webhook
from tests.patience import PATIENCE

from .hooks import SECRET, carried, carry, sink
from .servers import Request, batch, saying, serving


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


# ---------------------------------------------------------------- broken connections


def test_an_answer_that_was_lost_is_carried_again_with_the_same_id() -> None:
    answers = 0

    async def lost_once(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        answers += 1
        if answers > 1:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            writer.close()

    async def main() -> list[str]:
        async with serving(lost_once) as server, sink(server.url) as hook:
            with pytest.raises(TryLater, match="connection closed without an answer"):
                await hook.deliver(batch())
            await hook.deliver(batch())
        return [request.headers["webhook-id"] for request in server.requests]

    first, second = asyncio.run(main())
    assert first == second


def test_a_reset_is_tried_later_and_sent_once() -> None:
    async def reset(request: Request, writer: asyncio.StreamWriter) -> None:
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    error, server = carried(reset)
    assert isinstance(error, TryLater)
    assert error.reason in {"connection lost: ECONNRESET", "connection closed without an answer"}
    assert len(server.requests) == 1


def test_a_kept_connection_that_died_is_not_retried_by_the_client() -> None:
    async def once(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.headers["webhook-id"] == batch(1, first=1).id:
            writer.close()
        else:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def main() -> tuple[int, int]:
        async with serving(once) as server, sink(server.url) as hook:
            await hook.deliver(batch())
            with pytest.raises(TryLater):
                await hook.deliver(batch(1, first=1))
            return len(server.requests), server.connections

    assert asyncio.run(main()) == (2, 1)


def test_a_kept_connection_whose_end_has_just_come_is_not_used() -> None:
    ended = threading.Event()

    def answer_and_close(listening: socket.socket) -> None:
        for _ in range(2):
            taken, _ = listening.accept()
            with taken:
                taken.recv(65536)
                taken.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            ended.set()

    async def main(url: str) -> None:
        async with sink(url) as hook:
            await hook.deliver(batch())
            assert ended.wait(PATIENCE)
            time.sleep(0.05)  # noqa: ASYNC251 - the end is with the kernel, and the loop could not look
            await hook.deliver(batch(1, first=1))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        serving_it = threading.Thread(target=answer_and_close, args=[listening], daemon=True)
        serving_it.start()
        asyncio.run(main(f"http://127.0.0.1:{listening.getsockname()[1]}/"))
        serving_it.join(PATIENCE)


def test_a_server_that_hangs_is_left_at_the_deadline_and_harms_no_later_delivery() -> None:
    async def hang(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.headers["webhook-id"] == batch().id:
            await asyncio.Event().wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def main() -> None:
        async with serving(hang) as server, sink(server.url, concurrency=1) as hook:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await hook.deliver(batch())
            async with asyncio.timeout(PATIENCE):
                await hook.deliver(batch(1, first=1))

    asyncio.run(main())


def test_a_closed_port_and_an_unknown_name_are_tried_later() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = asyncio.run(carry(f"http://127.0.0.1:{port}/"))
    assert isinstance(error, TryLater)
    assert error.reason == "cannot connect: ECONNREFUSED"
    unknown = asyncio.run(carry("http://does-not-exist.invalid/?token=in-the-query"))
    assert isinstance(unknown, TryLater)
    assert unknown.reason == "name not resolved"


# ---------------------------------------------------------------- TLS


def test_a_certificate_nobody_vouches_for_is_refused(server_tls: ssl.SSLContext) -> None:
    async def main() -> int:
        async with serving(saying(200), tls=server_tls) as server:
            error = await carry(server.url)
            assert isinstance(error, TryLater)
            assert error.reason.startswith("TLS: ")
            assert "certificate" in error.reason
            return len(server.requests)

    assert asyncio.run(main()) == 0


def test_a_certificate_of_the_given_authority_is_accepted(server_tls: ssl.SSLContext, ca_file: str) -> None:
    async def main() -> None:
        async with serving(saying(200), tls=server_tls) as server:
            assert await carry(server.url, tls={"ca_file": ca_file}) is None
            assert len(server.requests) == 1

    asyncio.run(main())


def test_a_certificate_for_another_name_is_refused(authority: trustme.CA, ca_file: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)

    async def main() -> None:
        async with serving(saying(200), tls=context) as server:
            error = await carry(server.url, tls={"ca_file": ca_file})
            assert error is not None
            assert "mismatch" in error.reason
            assert server.requests == []

    asyncio.run(main())


def test_a_client_certificate_is_shown_where_one_is_demanded(
    authority: trustme.CA, server_tls: ssl.SSLContext, ca_file: str, tmp_path: Path
) -> None:
    authority.configure_trust(server_tls)
    server_tls.verify_mode = ssl.CERT_REQUIRED
    ours = authority.issue_cert("poller.example")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    ours.cert_chain_pems[0].write_to_path(str(cert))
    ours.private_key_pem.write_to_path(str(key))

    async def main() -> None:
        async with serving(saying(200), tls=server_tls) as server:
            refused = await carry(server.url, tls={"ca_file": ca_file})
            assert isinstance(refused, TryLater)
            assert refused.reason.startswith(("TLS: ", "connection "))
            assert server.requests == []
            tls = {"ca_file": ca_file, "cert_file": str(cert), "key_file": str(key)}
            assert await carry(server.url, tls=tls) is None

    asyncio.run(main())


def test_plain_http_where_tls_is_expected_is_tried_later() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
            error = await carry(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            assert isinstance(error, TryLater)
            assert error.reason.startswith("TLS: ")

    asyncio.run(main())


def test_files_that_hold_no_certificate_stop_the_start(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("not a certificate")

    async def main() -> None:
        with pytest.raises(BadConfiguration, match=r"sinks\.hook\.tls"):
            async with sink("https://127.0.0.1/", tls={"ca_file": str(file)}):
                pass

    asyncio.run(main())


# ---------------------------------------------------------------- proxies


def test_an_explicit_proxy_is_used_and_may_be_private() -> None:
    async def main() -> None:
        async with serving(saying(204)) as proxy:
            error = await carry(
                "http://hooks.example/x", proxy=proxy.url.partition("/hook")[0], allow_cidr=[]
            )
            assert error is None
            assert [request.line for request in proxy.requests] == ["POST http://hooks.example/x HTTP/1.1"]

    asyncio.run(main())


def test_a_proxy_that_refuses_the_tunnel_is_tried_later() -> None:
    async def main() -> None:
        async with serving(saying(403)) as proxy:
            error = await carry("https://hooks.example/x", proxy=proxy.url.partition("/hook")[0])
            assert isinstance(error, TryLater)
            assert error.reason == "the proxy answered HTTP 403"

    asyncio.run(main())


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> int:
        async with serving(saying(204)) as server, serving(saying(204)) as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            assert await carry(server.url) is None
            assert len(server.requests) == 1
            return proxy.connections

    assert asyncio.run(main()) == 0


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("allowed", "served"),
    [([], 0), (["10.0.0.0/8"], 0), (["127.0.0.2/32"], 0), (["::1/128"], 0), (["127.0.0.1/32"], 1)],
)
def test_a_private_target_is_served_only_within_allow_cidr(allowed: list[str], served: int) -> None:
    error, server = carried(saying(204), allow_cidr=allowed)
    assert server.connections == served
    if not served:
        assert isinstance(error, TryLater)
        assert error.reason == "127.0.0.1 is not a public address; allow_cidr can permit it"


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1"])
def test_an_odd_spelling_is_a_failure_with_a_reason(host: str) -> None:
    error = asyncio.run(carry(f"http://{host}:9/", allow_cidr=[]))
    assert isinstance(error, TryLater)
    assert error.reason


# ---------------------------------------------------------------- secrets


def test_no_failure_tells_url_query_headers_or_secret(server_tls: ssl.SSLContext) -> None:
    canaries = ("in-the-query", "canary", SECRET, SECRET[6:])
    private = {"secret": SECRET, "headers": {"Authorization": "Bearer canary"}}

    async def failure_of(hook: Webhook) -> str:
        try:
            await hook.deliver(batch())
        except TryLater as error:
            return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__context__)
        return ""

    async def main() -> list[str]:
        async def close(request: Request, writer: asyncio.StreamWriter) -> None:
            writer.close()

        texts = []
        async with (
            serving(close) as closing,
            serving(saying(503)) as busy,
            serving(saying(200), tls=server_tls) as tls,
        ):
            urls = [closing.url, busy.url, tls.url, "http://127.0.0.1:1/?token=in-the-query"]
            for url in [*urls, "http://no.invalid/?token=in-the-query", "http://0x7f.1/?token=in-the-query"]:
                async with sink(url, **private) as hook:
                    texts.append(await failure_of(hook))
            async with sink(closing.url, allow_cidr=[], **private) as hook:
                texts.append(await failure_of(hook))
        return texts

    texts = asyncio.run(main())
    assert all(texts)
    assert len(texts) == 7
    for text in texts:
        assert not any(canary in text for canary in canaries), text
