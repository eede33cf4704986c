"""The stdout sink over real pipes: whole lines, and a reader that stops or goes away harms nobody."""

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from poller.core.errors import TryLater
from poller.core.model import parse_event
from poller.sinks.stdout import Stdout, StdoutSettings, short_line
from tests.patience import PATIENCE

from .servers import batch, event

ROOT = Path(__file__).parents[3]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def _sink(fd: int | None) -> Stdout:
    return Stdout("console", StdoutSettings(type="stdout"), {}, fd=fd)


def _fill(fd: int) -> None:
    """Fill a pipe with empty lines until nothing more goes in."""
    os.set_blocking(fd, False)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(fd, b"\n" * size)
    os.set_blocking(fd, True)


class _Reader(threading.Thread):
    """Reads a pipe in small pieces until it is closed."""

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True)
        self._fd = fd
        self._pieces: list[bytes] = []

    def run(self) -> None:
        while piece := os.read(self._fd, 1000):
            self._pieces.append(piece)

    def all(self) -> bytes:
        self.join(timeout=60)
        return b"".join(self._pieces)


def _lines(content: bytes) -> list[bytes]:
    assert content.endswith(b"\n")
    return [line for line in content.split(b"\n") if line]


def test_the_default_batch_is_a_hundred_events() -> None:
    assert StdoutSettings(type="stdout").batch.max_events == 100


def test_each_event_is_one_line_in_the_order_of_the_batch(pipe: tuple[int, int]) -> None:
    reading, writing = pipe

    async def main() -> None:
        async with _sink(writing) as sink:
            await sink.deliver(batch(3))
            await sink.deliver(batch(1, first=3))

    asyncio.run(main())
    assert [parse_event(line) for line in _lines(os.read(reading, 65536))] == [event(n) for n in range(4)]


def test_a_batch_is_one_write(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)

    async def main() -> None:
        async with _sink(writing) as sink:
            await sink.deliver(batch(100))

    asyncio.run(main())
    assert len(_lines(os.read(reading, 1 << 20))) == 100


async def test_a_closed_pipe_is_a_delivery_to_try_later(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)

    async with _sink(writing) as sink:
        for _ in range(3):
            with pytest.raises(TryLater, match="stdout is closed"):
                await sink.deliver(batch())


def test_a_full_pipe_holds_back_its_delivery_and_not_the_loop(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    _fill(writing)
    reader = _Reader(reading)

    async def main() -> None:
        async with _sink(writing) as sink:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await sink.deliver(batch(2))
            reader.start()
            await sink.deliver(batch(1, first=2))

    asyncio.run(main())
    os.close(writing)
    assert _lines(reader.all()) == [event(number).encoded for number in range(3)]


def test_deliveries_cancelled_at_a_full_pipe_cut_no_line_and_mix_none(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    reader = _Reader(reading)

    async def main() -> None:
        async with _sink(writing) as sink:
            for turn in range(20):
                if turn == 10:
                    reader.start()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await sink.deliver(batch(400, first=turn))
            await sink.deliver(batch(1, first=1000))

    asyncio.run(main())
    os.close(writing)
    lines = _lines(reader.all())
    assert {parse_event(line).id for line in lines} >= {event(0).id, event(1000).id}
    assert lines[-1] == event(1000).encoded


def test_a_non_blocking_pipe_is_waited_for(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    reader = _Reader(reading)

    async def main() -> None:
        async with _sink(writing) as sink:
            await sink.deliver(batch(500))

    reader.start()
    asyncio.run(main())
    os.close(writing)
    assert _lines(reader.all()) == [event(number).encoded for number in range(500)]


async def test_leaving_does_not_wait_for_a_reader_that_never_comes(pipe: tuple[int, int]) -> None:
    _, writing = pipe
    _fill(writing)

    async with asyncio.timeout(PATIENCE):
        async with _sink(writing) as sink:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await sink.deliver(batch())


def test_a_line_that_was_cut_by_a_full_disk_is_finished_before_the_next(tmp_path: Path) -> None:
    target = tmp_path / "events.ndjson"
    first = event(0).encoded + b"\n"
    program = """
        import asyncio, resource, signal, sys
        from poller.core.errors import TryLater
        from poller.sinks.stdout import Stdout, StdoutSettings, short_line
        from tests.integration.sinks.servers import batch

        async def main():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
            async with Stdout("console", StdoutSettings(type="stdout"), {}) as sink:
                for _ in range(3):
                    try:
                        await sink.deliver(batch(3))
                    except TryLater as error:
                        print(error, file=sys.stderr)
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                await sink.deliver(batch(1, first=7))

        asyncio.run(main())
    """
    with target.open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), str(len(first) + 100)],
            stdout=out,
            stderr=subprocess.PIPE,
            check=True,
            timeout=60,
            text=True,
            cwd=ROOT,
        )
    assert done.stderr.splitlines() == ["stdout: File too large"] * 3
    assert _lines(target.read_bytes()) == [event(0).encoded, event(1).encoded, event(7).encoded]


def test_a_process_ends_although_its_pipe_is_full() -> None:
    program = """
        import asyncio
        from poller.sinks.stdout import Stdout, StdoutSettings, short_line
        from tests.integration.sinks.servers import batch

        async def main():
            async with Stdout("console", StdoutSettings(type="stdout"), {}) as sink:
                try:
                    async with asyncio.timeout(0.2):
                        await sink.deliver(batch(1000))
                except TimeoutError:
                    pass

        asyncio.run(main())
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.wait(timeout=60) == 0
    _, errors = process.communicate()
    assert errors == b""


def test_a_process_without_a_standard_output_says_so() -> None:
    program = """
        import asyncio, sys
        from poller.core.errors import SinkError
        from poller.sinks.stdout import Stdout, StdoutSettings, short_line

        async def main():
            try:
                async with Stdout("console", StdoutSettings(type="stdout"), {}):
                    pass
            except SinkError as error:
                print(error, file=sys.stderr)

        asyncio.run(main())
    """
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, textwrap.dedent(program)],
        stderr=subprocess.PIPE,
        check=True,
        timeout=60,
        text=True,
    )
    assert done.stderr.strip() == "the process has no standard output"


@pytest.mark.parametrize(("lines", "short"), [("auto", True), ("short", True), ("json", False)])
def test_on_a_terminal_an_event_is_one_short_line_unless_json_is_asked_for(lines: str, short: bool) -> None:
    first, other = os.openpty()
    try:
        settings = StdoutSettings.model_validate({"type": "stdout", "lines": lines})

        async def scene() -> None:
            async with Stdout("console", settings, {}, fd=other) as sink:
                await sink.deliver(batch(2))

        asyncio.run(scene())
        said = os.read(first, 65536).decode().replace("\r\n", "\n").splitlines()
    finally:
        os.close(first)
        os.close(other)
    if short:
        assert said == [f"00:00:00  房间_{n}  screenshot  room_{n}.jpg" for n in range(2)]
    else:
        assert [parse_event(line.encode()) for line in said] == [event(n) for n in range(2)]


def test_a_pipe_gets_short_lines_only_if_they_are_asked_for(pipe: tuple[int, int]) -> None:
    async def scene(lines: str) -> bytes:
        settings = StdoutSettings.model_validate({"type": "stdout", "lines": lines})
        async with Stdout("console", settings, {}, fd=pipe[1]) as sink:
            await sink.deliver(batch(1))
        return os.read(pipe[0], 65536)

    assert asyncio.run(scene("auto")) == event(0).encoded + b"\n"
    assert asyncio.run(scene("short")).endswith(b"screenshot  room_0.jpg\n")


def test_a_name_from_a_stranger_does_not_steer_the_terminal() -> None:
    bad = msgspec.structs.replace(event(0), stream_id="a\x1b[2J\u202e\n\x9bb")
    line = short_line(bad)
    assert line.count(b"\n") == 1
    assert line.decode().rstrip("\n").isprintable()
