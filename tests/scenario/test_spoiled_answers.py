"""The daemon behind a box that passes every poll on to the platform, and spoils the answers on their way back."""

import asyncio
import itertools
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .environment import Environment, environment, until
from .rig import Process, scenario

Spoil = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Box:
    """Takes a request, has the platform answer it, and gives back what `spoil` makes of the answer."""

    def __init__(self, endpoint: str, *spoils: Spoil) -> None:
        parts = urlsplit(endpoint)
        self._platform = (str(parts.hostname), int(parts.port or 80))
        self._path = parts.path
        self.spoils = itertools.cycle(spoils)
        self.times: list[float] = []
        self.server: asyncio.Server | None = None
        self.endpoint = ""

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}{self._path}"

    async def close(self) -> None:
        assert self.server is not None
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.times.append(time.monotonic())
        far_reader, far_writer = await asyncio.open_connection(*self._platform)
        far_writer.write(request)
        answer = await far_reader.read()
        far_writer.close()
        await next(self.spoils)(answer, writer)
        writer.close()


async def pass_on(answer: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(answer)


async def reset(answer: bytes, writer: asyncio.StreamWriter) -> None:
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def close(answer: bytes, writer: asyncio.StreamWriter) -> None:
    pass


async def empty(answer: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def replace(answer: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n<html>oops</html>\r\n")


async def cut(answer: bytes, writer: asyncio.StreamWriter) -> None:
    """Within the first message."""
    head, _, body = answer.partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n" + body[: body.index(b"pic_url")])


async def cut_head(answer: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(answer[:40])


async def endless(answer: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000)


@contextmanager
def box(place: Environment, *spoils: Spoil) -> Iterator[Box]:
    standing = Box(place.endpoint, *spoils)
    place.do(standing.open())
    try:
        yield standing
    finally:
        place.do(standing.close())


def reasons(process: Process) -> str:
    return process.get("/readyz")[1]


def test_no_message_is_lost_behind_a_proxy_that_adds_a_header_of_9000_bytes(tmp_path: Path) -> None:
    async def lengthen(answer: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer.replace(b"\r\n", b"\r\nX-Node: " + b"x" * 9000 + b"\r\n", 1))

    async def repeat_length(answer: bytes, writer: asyncio.StreamWriter) -> None:
        line = next(line for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length"))
        writer.write(answer.replace(b"\r\n", b"\r\n" + line + b"\r\n", 1))

    async def space(answer: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer.replace(b"\r\n", b"\r\nX-Node : 1\r\n", 1))

    with (
        environment(tmp_path) as place,
        box(place, lengthen, repeat_length, space) as between,
        scenario(place, tmp_path, endpoint=between.endpoint) as daemon,
    ):
        place.enqueue(1000)
        process = daemon.run()
        until(lambda: len(place.hook.files) == 1000)
        assert process.metric("polls_total", outcome="uncertain") == 0
        odd = [line["odd"].split()[0] for line in process.said("odd_answer")]
        assert sorted(odd) == ["Content-Length", "a", "a"], "once for each kind"
        assert process.stop() == 0
        assert place.counts.dequeues <= len(between.times)


def test_no_message_is_lost_behind_a_proxy_that_sends_many_informational_answers_first(
    tmp_path: Path,
) -> None:
    async def hint(answer: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 200 + answer)

    with (
        environment(tmp_path) as place,
        box(place, hint) as between,
        scenario(place, tmp_path, endpoint=between.endpoint) as daemon,
    ):
        place.enqueue(300)
        process = daemon.run()
        until(lambda: len(place.hook.files) == 300)
        assert process.metric("polls_total", outcome="uncertain") == 0
        assert process.stop() == 0


@pytest.mark.timeout(600)
def test_where_every_answer_is_spoiled_the_queue_is_not_emptied_for_nothing(
    tmp_path: Path, soak: bool
) -> None:
    """Four pages in the first minute and one in each later one; the daemon says why. Minutes with --soak."""
    with (
        environment(tmp_path) as place,
        box(place, reset, replace, empty, cut, close, cut_head, endless) as between,
        scenario(place, tmp_path, endpoint=between.endpoint) as daemon,
        place.feeding(),
    ):
        until(lambda: place.depth >= 3000)
        process = daemon.run()
        until(lambda: "brought nothing" in reasons(process))
        assert process.get("/readyz")[0] == 503
        begun = between.times[0]
        time.sleep(190.0 if soak else 2.0)  # nothing must happen meanwhile
        for minute in range(4):
            within = [at for at in between.times if minute * 60 <= at - begun < (minute + 1) * 60]
            assert len(within) <= (1 if minute else 4)
        assert place.counts.dequeues == len(between.times)
        if soak:
            assert len(between.times) >= 5, "it goes on asking"
            between.spoils = itertools.cycle([pass_on])
            until(lambda: process.get("/readyz")[0] == 200)
        assert process.stop() == 0
