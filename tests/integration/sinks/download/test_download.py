"""The download sink against real servers and real files: what is stored, what is tried again, what dies."""

import asyncio
import gzip
import json
import os
import socket
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastcrc import crc64

from poller.core.errors import LONGEST_WAIT, PartlyFailed, Rejected, TryLater
from poller.qcloud.pictures.fetch import upload_deadline

from .shots import LONG_AGO, Answer, attempt, delivered, download, files, jpeg, ok, serving, shot

NAME = "cam1_1_1_1_320_176.jpg"
CRC = f"x-cos-hash-crc64ecma: {crc64.xz(jpeg())}"
FLAT = {"template": "{name}"}
LIMIT = 4.0
"""Seconds for a picture where one hangs: longer than this process is ever held up, which would fail its neighbour."""


def only_failure(error: Exception | None) -> Exception:
    """The one failure of a batch of one."""
    assert isinstance(error, PartlyFailed), repr(error)
    [failure] = error.failures.values()
    return failure


# ---------------------------------------------------------------- what is stored


def test_a_batch_of_pictures_is_stored_under_date_and_stream(tmp_path: Path) -> None:
    names = [f"cam1_1_1_{number}_320_176.jpg" for number in range(32)]
    assert delivered(tmp_path, lambda path: ok(jpeg(), CRC), *names) is None
    date = LONG_AGO.date()
    assert files(tmp_path) == {f"{date}/cam1/{name}": jpeg() for name in sorted(names)}


@pytest.mark.parametrize("template", ["{date}/{stream}/{name}", "{account}/{kind}/{hour}/{id}.jpg", "{name}"])
def test_the_path_that_an_event_is_said_to_have_is_that_of_its_file(tmp_path: Path, template: str) -> None:
    async def main() -> Path | None:
        async with serving(lambda path: ok(jpeg())) as server, download(tmp_path, template=template) as sink:
            event = shot("folder/räum_1_1_1_320_176.jpg", server.url("folder/r%C3%A4um_1_1_1_320_176.jpg"))
            before = download(tmp_path, template=template).path_of(event)
            assert await attempt(sink, event) is None
            assert sink.path_of(event) == before
            assert sink.path_of(shot(NAME, "http://elsewhere.example/a.jpg")) is None
            return before

    path = asyncio.run(main())
    assert path is not None
    assert list(files(tmp_path)) == [str(path.relative_to(tmp_path))]


def test_the_request_asks_for_an_uncompressed_picture_and_carries_nothing_else(tmp_path: Path) -> None:
    async def main() -> str:
        async with serving(lambda path: ok(jpeg())) as server, download(tmp_path) as sink:
            await attempt(sink, shot(NAME, server.url("a%23b@c%2Fd.jpg?t=1&tt=2")))
            return server.heads[0]

    head = asyncio.run(main())
    assert head.startswith("GET /a%23b@c%2Fd.jpg?t=1&tt=2 HTTP/1.1\r\n")
    assert "accept-encoding: identity\r\n" in head.lower()
    assert "cookie" not in head.lower()
    assert "authorization" not in head.lower()


def test_pictures_of_a_batch_are_fetched_at_once_but_not_beyond_the_hosts_limit(tmp_path: Path) -> None:
    async def main() -> int:
        now = most = 0
        gate = asyncio.Event()

        async def answer(path: str) -> bytes:
            nonlocal now, most
            now += 1
            most = max(most, now)
            if now == 5:
                gate.set()
            await gate.wait()
            await asyncio.sleep(0)
            now -= 1
            return ok(jpeg())

        async with serving(answer) as server, download(tmp_path, per_host=5) as sink:
            events = [shot(f"{number}.jpg", server.url(f"{number}.jpg")) for number in range(30)]
            assert await attempt(sink, *events) is None
        return most

    assert asyncio.run(main()) == 5


def test_an_identical_file_is_success_and_is_not_written_again(tmp_path: Path) -> None:
    assert delivered(tmp_path, lambda path: ok(jpeg()), NAME, **FLAT) is None
    before = (tmp_path / NAME).stat()
    assert delivered(tmp_path, lambda path: ok(jpeg()), NAME, **FLAT) is None
    after = (tmp_path / NAME).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("planted", [b"", b"x", jpeg()[:-1], jpeg(seed=1), bytes(len(jpeg()))])
def test_a_file_that_differs_is_replaced(tmp_path: Path, planted: bytes) -> None:
    (tmp_path / NAME).write_bytes(planted)
    other = os.open(tmp_path / NAME, os.O_RDONLY)
    assert delivered(tmp_path, lambda path: ok(jpeg()), NAME, **FLAT) is None
    assert (tmp_path / NAME).read_bytes() == jpeg()
    assert os.pread(other, len(planted) + 1, 0) == planted, "written over, not replaced"
    os.close(other)


def test_a_sidecar_holds_the_event(tmp_path: Path) -> None:
    assert delivered(tmp_path, lambda path: ok(jpeg()), NAME, sidecar=True, **FLAT) is None
    assert set(files(tmp_path)) == {NAME, f"{NAME}.json"}
    event = json.loads((tmp_path / f"{NAME}.json").read_bytes())
    assert event["type"] == "com.qcloud.live.screenshot"


def test_the_same_event_twice_in_a_batch_does_no_harm(tmp_path: Path) -> None:
    assert delivered(tmp_path, lambda path: ok(jpeg()), NAME, NAME, **FLAT) is None
    assert set(files(tmp_path)) == {NAME}


def test_large_pictures_beyond_the_memory_are_asked_for_again_later(tmp_path: Path) -> None:
    large = jpeg() + bytes(9 * 2**20)
    names = [f"{number}.jpg" for number in range(16)]
    error = delivered(tmp_path, lambda path: ok(large), *names, max_bytes=10 * 2**20, **FLAT)
    assert isinstance(error, PartlyFailed)
    assert 0 < len(error.failures) < 16
    assert {str(failure) for failure in error.failures.values()} == {"too many large pictures at once"}
    assert len(files(tmp_path)) == 16 - len(error.failures)


# ---------------------------------------------------------------- what may heal


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (ok(b"<html>sorry</html>", "Content-Type: text/html"), "HTML"),
        (ok(b"<html>sorry</html>", "Content-Type: image/jpeg"), "HTML"),
        (ok(b""), "nothing came"),
        (ok(jpeg(), "x-cos-hash-crc64ecma: 1"), "checksum"),
        (ok(jpeg()[:-1], f"x-cos-hash-crc64ecma: {crc64.xz(jpeg()[:-1])}"), "cut"),
        (ok(jpeg()[:-500], length=None), "cut"),
        (ok(jpeg() + b"<?php", length=None), "follows the end"),
        (ok(gzip.compress(jpeg()), "Content-Encoding: gzip"), "compressed"),
        (ok(gzip.compress(jpeg()), "Content-Encoding: aws-chunked, gzip"), "compressed"),
        (ok(b"400;chunk-signature=0\r\n" + jpeg(), "Content-Encoding: aws-chunked"), "compressed"),
        (ok(gzip.compress(jpeg())), "not a JPEG picture"),
        (ok(jpeg(), status="206 Partial Content"), "HTTP 206"),
        (ok(jpeg(), status="201 Created"), "HTTP 201"),
        (ok(jpeg(), status="202 Accepted"), "HTTP 202"),
        (ok(jpeg(), status="400 Bad Request"), "HTTP 400"),
        (ok(jpeg()[:-9], "Content-Encoding: aws-chunked", length=len(jpeg())), "midst of the answer"),
        (ok(jpeg(), "Content-Encoding: aws-chunked", "x-cos-hash-crc64ecma: 1"), "checksum"),
        (ok(jpeg(), "x-cos-hash-crc64ecma: 1", status="203 Non-Authoritative Information"), "checksum"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 5000 + ok(jpeg()), "does not end"),
        (ok(jpeg(), *(f"X-{number}: {'a' * 1000}" for number in range(200))), "does not end"),
        (ok(b"", status="302 Found"), "302: redirect refused"),
        (ok(b"", "Location: http://127.0.0.1:1/x", status="301 Moved"), "301: redirect refused"),
        (ok(b"", status="304 Not Modified"), "304"),
        (ok(b"", status="401 Unauthorized"), "401"),
        (ok(b"", status="403 Forbidden"), "403"),
        (ok(jpeg(), status="206 Partial Content"), "206"),
        (ok(b"", status="204 No Content"), "204"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "connection|HTTP|payload|Payload"),
        (ok(jpeg()[:-9], length=len(jpeg())), "connection|HTTP|Payload"),
        (b"", "connection closed"),
        (b"garbage\r\n\r\n", "not HTTP"),
        (ok(b"", "Retry-After: 7", status="503 Slow Down"), "503"),
    ],
)
def test_an_answer_that_may_heal_is_tried_again_and_leaves_nothing(
    tmp_path: Path, answer: bytes, says: str
) -> None:
    error = delivered(
        tmp_path, lambda path: ok(jpeg()) if "good" in path else answer, "good.jpg", NAME, **FLAT
    )
    failure = only_failure(error)
    assert isinstance(failure, TryLater)
    assert says in str(failure) or any(word in str(failure) for word in says.split("|"))
    assert set(files(tmp_path)) == {"good.jpg"}


def test_no_cut_of_a_transfer_is_ever_published(tmp_path: Path) -> None:
    # Closed early without a length: to the client every one of these looks like success.
    names = [f"{length}.jpg" for length in range(0, len(jpeg()), max(1, len(jpeg()) // 400))]

    def answer(path: str) -> bytes:
        return ok(jpeg()[: int(path[1:-4])], length=None)

    error = delivered(tmp_path, answer, *names, **FLAT)
    assert isinstance(error, PartlyFailed)
    assert len(error.failures) == len(names)
    assert files(tmp_path) == {}


def test_an_endless_body_is_cut_off(tmp_path: Path) -> None:
    error = delivered(tmp_path, lambda path: ok(jpeg() + bytes(2**20), length=None), NAME, max_bytes=100_000)
    assert "does not end within" in str(only_failure(error))
    error = delivered(tmp_path, lambda path: ok(jpeg(), length=10**15), NAME)
    assert isinstance(only_failure(error), Rejected)
    assert files(tmp_path) == {}


def test_a_picture_that_hangs_fails_alone(tmp_path: Path) -> None:
    async def main() -> Exception | None:
        never = asyncio.Event()

        async def answer(path: str) -> bytes:
            if "slow" in path:
                await never.wait()
            return ok(jpeg())

        async with serving(answer) as server, download(tmp_path, timeout=LIMIT, **FLAT) as sink:
            events = [shot(name, server.url(name)) for name in ("slow.jpg", "good.jpg")]
            error = await attempt(sink, *events)
            never.set()
            return error

    assert str(only_failure(asyncio.run(main()))) == "127.0.0.1: timed out"
    assert set(files(tmp_path)) == {"good.jpg"}


def test_a_picture_that_drips_fails_alone(tmp_path: Path) -> None:
    drops = 0

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal drops
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok(jpeg())[:-1000])
        while not writer.is_closing():
            writer.write(b"\xff")
            drops += 1
            await asyncio.sleep(0.02)

    async def main() -> Exception | None:
        async with (
            serving(lambda path: ok(jpeg())) as server,
            await asyncio.start_server(drip, "127.0.0.1", 0) as slow,
            download(tmp_path, timeout=LIMIT, **FLAT) as sink,
        ):
            port = slow.sockets[0].getsockname()[1]
            return await attempt(
                sink,
                shot("slow.jpg", f"http://127.0.0.1:{port}/slow.jpg"),
                shot("good.jpg", server.url("good.jpg")),
            )

    assert str(only_failure(asyncio.run(main()))) == "127.0.0.1: timed out"
    assert drops >= 5
    assert set(files(tmp_path)) == {"good.jpg"}


def test_a_host_that_serves_nothing_fails_the_batch_as_a_whole(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

    async def main() -> Exception | None:
        async with download(tmp_path) as sink:
            return await attempt(
                sink, *(shot(f"{n}.jpg", f"http://127.0.0.1:{port}/{n}?sign=secret") for n in "ab")
            )

    error = asyncio.run(main())
    assert isinstance(error, TryLater)
    assert str(error) == "127.0.0.1: cannot connect: ECONNREFUSED"


def test_a_busy_host_says_when_to_come_again(tmp_path: Path) -> None:
    error = delivered(
        tmp_path, lambda path: ok(b"", "Retry-After: 7", status="503 Slow Down"), "a.jpg", "b.jpg"
    )
    assert isinstance(error, TryLater)
    assert error.after == 7.0


def test_a_busy_host_may_name_a_date_and_no_wait_is_without_bounds(tmp_path: Path) -> None:
    header = "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"
    error = delivered(tmp_path, lambda path: ok(b"", header, status="503 Slow Down"), "a.jpg", "b.jpg")
    assert isinstance(error, TryLater)
    assert error.after == LONGEST_WAIT


@pytest.mark.parametrize(
    ("headers", "whole"),
    [
        ((["Retry-After: 3600"], []), False),
        ((["Retry-After: 3600"], ["Retry-After: 5"]), False),
        ((["Retry-After: 3600"], ["Retry-After: 3600"]), True),
        ((["Retry-After: 5"], []), True),
        (([], []), True),
    ],
)
def test_one_failing_picture_that_asks_for_an_hour_asks_for_itself_alone(
    tmp_path: Path, headers: tuple[list[str], list[str]], whole: bool
) -> None:
    first, others = headers

    def answer(path: str) -> bytes:
        return ok(b"", *(first if path == "/0.jpg" else others), status="503 Slow Down")

    names = [f"{number}.jpg" for number in range(31)]
    error = delivered(tmp_path, answer, *names)
    assert isinstance(error, TryLater if whole else PartlyFailed)
    if isinstance(error, PartlyFailed):
        waits = {id: getattr(failure, "after", None) for id, failure in error.failures.items()}
        assert waits.pop(shot("0.jpg").id) == 3600.0
        assert set(waits.values()) == {5.0 if others else None}
        assert len(waits) == 30


# ---------------------------------------------------------------- not yet, and never


def _missing(path: str) -> bytes:
    return ok(b"<Error/>", status="404 Not Found")


def test_a_picture_that_is_not_there_yet_is_asked_for_again_soon(tmp_path: Path) -> None:
    async def main() -> None:
        answers: list[Answer] = [_missing, lambda path: ok(jpeg())]

        def answer(path: str) -> bytes | Awaitable[bytes]:
            return answers.pop(0)(path)

        async with serving(answer) as server, download(tmp_path, **FLAT) as sink:
            event = shot(NAME, server.url(NAME), at=datetime.now(UTC))
            failure = only_failure(await attempt(sink, event))
            assert isinstance(failure, TryLater)
            assert failure.after == 2.0
            assert await attempt(sink, event) is None

    asyncio.run(main())
    assert set(files(tmp_path)) == {NAME}


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
def test_a_picture_that_is_still_missing_later_is_dead_and_its_neighbours_are_not(
    tmp_path: Path, status: str
) -> None:
    error = delivered(
        tmp_path,
        lambda path: ok(jpeg()) if "good" in path else ok(b"", status=status),
        "good.jpg",
        NAME,
        **FLAT,
    )
    assert isinstance(only_failure(error), Rejected)
    assert set(files(tmp_path)) == {"good.jpg"}
    assert isinstance(delivered(tmp_path, _missing, NAME), PartlyFailed), "must not count against the sink"


def test_not_yet_lasts_from_the_later_of_shot_and_receipt() -> None:
    at = datetime(2016, 8, 22, tzinfo=UTC)
    grace = timedelta(seconds=45)
    assert (
        upload_deadline(shot(at=at, received=at + timedelta(minutes=5))) == at + timedelta(minutes=5) + grace
    )
    assert (
        upload_deadline(shot(at=at + timedelta(minutes=5), received=at)) == at + timedelta(minutes=5) + grace
    )
    # A name that claims the next century must not be asked for every two seconds until then.
    assert upload_deadline(shot(at=at + timedelta(days=9_999), received=at)) == at + grace


def test_an_event_without_a_picture_is_rejected(tmp_path: Path) -> None:
    async def main() -> Exception | None:
        async with download(tmp_path) as sink:
            return await attempt(sink, shot(NAME, None))

    assert isinstance(only_failure(asyncio.run(main())), Rejected)


ODD_HEADS = {
    "coded by name only": ok(jpeg(), "Content-Encoding: aws-chunked"),
    "identity": ok(jpeg(), "Content-Encoding: identity"),
    "gzip, and plain": ok(jpeg(), "Content-Encoding: gzip"),
    "br, and plain": ok(jpeg(), "Content-Encoding: br"),
    "two codings, and plain": ok(jpeg(), "content-encoding:  AWS-Chunked , gzip "),
    "a type for anything": ok(jpeg(), "Content-Type: binary/octet-stream"),
    "HTML by name": ok(jpeg(), "Content-Type: text/html; charset=utf-8"),
    "JSON by name": ok(jpeg(), "Content-Type: application/json"),
    "no type that is one": ok(jpeg(), "Content-Type: ;"),
    "a proxy's word": ok(jpeg(), status="203 Non-Authoritative Information"),
    "no reason": ok(jpeg(), status="200"),
    "the store's own headers": ok(jpeg(), "x-cos-request-id: NjA=", "x-cos-meta-a: b", "x-cos-version-id:"),
    "one header of 9,000 bytes": ok(jpeg(), f"X-Client: {'a' * 9000}"),
    "one header of 60,000 bytes": ok(jpeg(), f"X-Client: {'a' * 60_000}"),
    "a thousand headers": ok(jpeg(), *(f"X-{number}: 1" for number in range(1000))),
    "a length twice": ok(jpeg(), f"Content-Length: {len(jpeg())}"),
    "a length as a list": ok(jpeg(), f"Content-Length: {len(jpeg())}, {len(jpeg())}", length=None),
    "a blank before the colon": ok(jpeg(), "X-Node : 1"),
    "a length with a blank before its colon": ok(jpeg(), f"Content-Length : {len(jpeg())}", length=None),
    "a folded header": ok(jpeg(), "X-Node: a\r\n b"),
    "a header without a name": ok(jpeg(), ": x"),
    "bytes that are no ASCII": ok(jpeg()).replace(b"Connection", b"X-\xe9: \xff\r\nConnection"),
    "lines that end in LF": ok(jpeg()).replace(b"\r\n", b"\n", 3),
    "hints before it": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 20 + ok(jpeg()),
    "HTTP/1.0": ok(jpeg()).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "no length": ok(jpeg(), length=None),
}


@pytest.mark.parametrize("answer", ODD_HEADS.values(), ids=ODD_HEADS)
def test_a_whole_picture_is_stored_whatever_the_head_says_of_its_type_and_coding(
    tmp_path: Path, answer: bytes
) -> None:
    assert delivered(tmp_path, lambda path: answer, NAME) is None
    assert list(files(tmp_path).values()) == [jpeg()]


def test_a_picture_in_two_pieces_proves_itself_by_its_first_bytes(tmp_path: Path) -> None:
    """Also where the first piece is one byte."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (jpeg()[:1], jpeg()[1:]))
    assert delivered(tmp_path, lambda path: head + pieces + b"0\r\n\r\n", NAME) is None
    assert list(files(tmp_path).values()) == [jpeg()]


def test_a_failed_handshake_is_not_reported_as_an_address_that_is_refused(tmp_path: Path) -> None:
    """localhost is ::1 and 127.0.0.1; only the second may be connected to, and speaks no TLS."""

    async def main() -> Exception | None:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        settings = {"allow_hosts": ["localhost"], "allow_cidr": ["127.0.0.0/8"]}
        async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with download(tmp_path, **settings) as sink:
                return await attempt(sink, shot(NAME, f"https://localhost:{port}/{NAME}"))

    error = asyncio.run(main())
    assert isinstance(error, TryLater)
    assert "TLS" in str(error)
    assert "public" not in str(error)


def test_an_address_that_is_refused_is_reported_where_nothing_was_connected_to(tmp_path: Path) -> None:
    async def main() -> Exception | None:
        settings = {"allow_hosts": ["localhost"], "allow_cidr": ["192.0.2.0/24"]}
        async with download(tmp_path, **settings) as sink:
            return await attempt(sink, shot(NAME, f"http://localhost:9/{NAME}"))

    assert "is not a public address; allow_cidr can permit it" in str(asyncio.run(main()))
