"""Nobody reads the log, or it cannot be written: the daemon goes on."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from poller.runtime.stderr import MOST_BYTES, Stderr
from tests import lives

from .running import PATIENCE, queue, until, write_config


def _full_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 512)
    os.set_blocking(writing, True)
    return reading, writing


@contextmanager
def pipe_that_nobody_reads() -> Iterator[int]:
    reading, writing = _full_pipe()
    yield writing
    os.close(reading)
    os.close(writing)


@contextmanager
def pipe_that_does_not_block() -> Iterator[int]:
    with pipe_that_nobody_reads() as writing:
        os.set_blocking(writing, False)
        yield writing


@contextmanager
def pipe_whose_reader_is_gone() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@contextmanager
def full_disk() -> Iterator[int]:
    fd = os.open("/dev/full", os.O_WRONLY)
    yield fd
    os.close(fd)


@contextmanager
def descriptor_for_reading_only() -> Iterator[int]:
    fd = os.open("/dev/null", os.O_RDONLY)
    yield fd
    os.close(fd)


@contextmanager
def stopped_terminal() -> Iterator[int]:
    main, side = pty.openpty()
    termios.tcflow(side, termios.TCOOFF)
    yield side
    os.close(main)
    os.close(side)


@contextmanager
def closed() -> Iterator[None]:
    yield None


KINDS = (
    pipe_that_nobody_reads,
    pipe_that_does_not_block,
    pipe_whose_reader_is_gone,
    full_disk,
    descriptor_for_reading_only,
    stopped_terminal,
    closed,
)


def at_debug(config: Path) -> Path:
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "log": {"level": "debug", "format": "auto"}}))
    return config


def started(config: Path, stderr: int | None) -> "subprocess.Popen[bytes] | lives.Life":
    words = ["run", "-c", str(config)]
    if stderr is None:
        command = ["sh", "-c", 'exec "$@" 0<&- 2>&-', "sh", sys.executable, "-m", "poller", *words]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with open(os.devnull, "wb") as nothing, open(stderr, "wb", buffering=0, closefd=False) as log:
        return lives.start(words, cwd=Path.cwd(), stdout=nothing, stderr=log)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_daemon_whose_log_nobody_reads_goes_on_polling_and_hears_sigterm(
    tmp_path: Path, kind: Callable[[], Iterator[int | None]]
) -> None:
    with queue() as platform, kind() as stderr:  # type: ignore[attr-defined]
        platform.give = 1
        config = at_debug(write_config(tmp_path, platform.endpoint, min_delay="10ms", max_delay="20ms"))
        child = started(config, stderr)
        try:
            until(lambda: len(platform.requests) > 30 or child.poll() is not None)
            assert child.poll() is None
            child.send_signal(signal.SIGTERM)
            assert child.wait(PATIENCE) == 0
        finally:
            child.kill()
            child.wait(PATIENCE)
        platform.all_read_to_the_end()
        for file in ("spool.db", "spool.db.journal"):
            assert b'"event":' not in (tmp_path / file).read_bytes(), "a line of the log is in another file"


def test_a_reader_that_comes_late_gets_the_log_in_its_order(tmp_path: Path) -> None:
    with queue() as platform:
        reading, writing = _full_pipe()
        child = started(write_config(tmp_path, platform.endpoint), writing)
        os.close(writing)
        until(lambda: len(platform.requests) > 5)
        with os.fdopen(reading, "rb") as log:
            child.send_signal(signal.SIGTERM)
            text = log.read()
        assert child.wait(PATIENCE) == 0
        events = [json.loads(line)["event"] for line in text.lstrip(b"x").splitlines()]
        assert [event for event in events if event in ("running", "stopping", "stopped")] == [
            "running",
            "stopping",
            "stopped",
        ]


CRASH = """
import sys, warnings
from poller.runtime import stderr
stderr.install()
warnings.warn("a warning")
raise LookupError("the last word")
"""


def test_the_last_words_of_a_crash_are_written() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", CRASH], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1
    assert "UserWarning: a warning" in ran.stderr
    assert ran.stderr.endswith("LookupError: the last word\n")


# ---------------------------------------------------------------- the queue


def test_lines_without_room_are_counted_and_reported_when_lines_get_through_again() -> None:
    reading, writing = os.pipe()
    stderr, reported = Stderr(writing), list[int]()
    stderr.report = reported.append
    line = "y" * 1023 + "\n"
    begun = time.monotonic()
    for _ in range(MOST_BYTES // 1024 + 500):
        stderr.write(line)
    assert time.monotonic() - begun < 30
    assert stderr.dropped >= 300
    read = list[bytes]()
    with os.fdopen(reading, "rb") as pipe:
        thread = threading.Thread(target=lambda: read.append(pipe.read()))
        thread.start()
        stderr.drain(30)
        until(lambda: sum(reported) == stderr.dropped)
        os.close(writing)
        thread.join(PATIENCE)
    assert set(read[0].splitlines(keepends=True)) == {line.encode()}
    assert read[0].count(b"\n") + stderr.dropped == MOST_BYTES // 1024 + 500


def test_each_line_that_a_closed_pipe_refuses_is_counted() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stderr = Stderr(writing)
    stderr.write("one\ntwo\n")
    stderr.write("three\n")
    stderr.drain(10)
    assert stderr.dropped == 3
    os.close(writing)
