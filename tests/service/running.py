"""What these tests share: a queue that answers as scripted, a daemon as a process, a service manager's socket."""

import asyncio
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest

from poller.spools.sqlite import SqliteSpool
from poller.testing.history import newest_events
from tests import lives

PATIENCE: Final = 60.0
"""Seconds for what happens at once on a machine that has nothing else to do."""


def tool(name: str) -> str:
    """The path of a program that a test needs; without it the test is skipped at home, and fails in CI."""
    found = shutil.which(name)
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} is not installed")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


# ---------------------------------------------------------------- the platform


class Queue:
    """A destructive queue: `give` says how many new messages each of the coming answers takes away.

    While `open` is not set, requests are read and not answered.
    """

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}/common_access"
        self.open = threading.Event()
        self.open.set()
        self.give = 0
        self.delay = 0.0
        self.requests: list[str] = []
        self.removed: list[str] = []
        self.answered = 0
        self.hanging = threading.Semaphore(0)
        self.picture = b""
        self.posts = 0
        self._lock = threading.Lock()

    def answer(self, app_id: str) -> bytes:
        """Take messages off, and only then take time: whoever does not read to the end has lost them."""
        with self._lock:
            self.requests.append(app_id)
            first = len(self.removed)
            names = [
                f"s{n}_1471850187_1471850187_{n * 10}_300_169.jpg" for n in range(first, first + self.give)
            ]
            self.removed += names
        if not self.open.is_set():
            self.hanging.release()
        self.open.wait()
        time.sleep(self.delay)
        data = [{"stream_id": name.split("_")[0], "pic_url": name} for name in names]
        return json.dumps({"ret": 0, "message": "ok", "output": {"count": len(data), "data": data}}).encode()

    def all_read_to_the_end(self) -> None:
        """Assert that every answer went out whole; the last one's thread may still have to say so."""
        end = time.monotonic() + PATIENCE
        while self.answered < len(self.requests) and time.monotonic() < end:
            time.sleep(0.01)
        assert self.answered == len(self.requests), "a poll was not read to its end"

    def count(self) -> None:
        """One more answer went out whole."""
        with self._lock:
            self.answered += 1


@contextmanager
def queue() -> Iterator[Queue]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = parts.path == "/common_access"
            body = platform.answer(parse_qs(parts.query)["cmd"][0]) if asked else platform.picture
            self.send_response(200)
            self.send_header("Content-Type", "application/json" if asked else "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            if asked:
                platform.count()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()
            platform.posts += 1

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a poll that was cut: `answered` says so

    server = Server(("127.0.0.1", 0), Handler)
    platform = Queue(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield platform
    finally:
        platform.open.set()
        server.shutdown()
        server.server_close()


# ---------------------------------------------------------------- the service manager


class Notifications:
    """What the daemon tells the service manager, with the time of each word."""

    def __init__(self, socket: socket.socket, address: str) -> None:
        self.address = address
        self._socket = socket

    def next(self, within: float = PATIENCE) -> str | None:
        """The next word, None when none comes in time."""
        self._socket.settimeout(max(within, 0.001))
        try:
            return self._socket.recv(4096).decode()
        except TimeoutError:
            return None

    def until(self, word: str, within: float = PATIENCE) -> list[str]:
        """The words up to and with this one."""
        found, end = list[str](), time.monotonic() + within
        while word not in found:
            heard = self.next(end - time.monotonic())
            assert heard is not None, f"no {word} within {within} s, only {found}"
            found.append(heard)
        return found

    def during(self, seconds: float) -> list[str]:
        """All words of the coming seconds."""
        found, end = list[str](), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if (heard := self.next(left)) is not None:
                found.append(heard)
        return found

    def forget(self) -> None:
        """Leave out what has been said so far."""
        while self.next(0.0) is not None:
            pass


@contextmanager
def notifications(*, abstract: bool = False) -> Iterator[Notifications]:
    # Not pytest's folder: the path of a unix socket has 107 bytes at most.
    with (
        tempfile.TemporaryDirectory(prefix="poller-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
    ):
        path = f"{folder}/notify"
        listener.bind("\0" + path if abstract else path)
        yield Notifications(listener, "@" + path if abstract else path)


# ---------------------------------------------------------------- the daemon


def write_config(folder: Path, endpoint: str, **source: str) -> Path:
    """A small configuration in JSON, which is YAML too."""
    file = folder / "poller.yaml"
    content = {
        "accounts": {"main": {"endpoint": endpoint, "app_id": 1234, "key": "k" * 32, "rate": "1000/s"}},
        "sources": {"screenshots": {"type": "screenshot_queue", "account": "main", **source}},
        "spool": {"type": "sqlite", "path": str(folder / "spool.db")},
        "journal": {"size": "16MiB"},
        "sinks": {"console": {"type": "stdout"}},
    }
    file.write_text(json.dumps(content))
    return file


class Process:
    """A daemon that was started, with its output."""

    def __init__(
        self, config: Path, *before: str, command: str = "run", forked: bool = True, **environ: str
    ) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NOTIFY_", "WATCHDOG_"))}
        self.stderr_file = config.with_name(f"stderr-{time.monotonic_ns()}")
        self.stdout_file = self.stderr_file.with_name(self.stderr_file.name.replace("err", "out"))
        with self.stderr_file.open("wb") as stderr, self.stdout_file.open("wb") as stdout:
            self.child = lives.start(
                [command, "-c", str(config)],
                before=before,
                cwd=Path.cwd(),
                environ={**kept, **environ},
                stdout=stdout,
                stderr=stderr,
                forked=forked,
            )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, and wait for its exit code."""
        self.child.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        return self.child.wait(PATIENCE)

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text()

    @property
    def stdout(self) -> str:
        return self.stdout_file.read_text()

    def hears_sigterm(self) -> bool:
        """Whether the process has a handler of its own for SIGTERM."""
        for line in Path(f"/proc/{self.child.pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
        return False


@contextmanager
def daemon(config: Path, *before: str, forked: bool = True, **environ: str) -> Iterator[Process]:
    """A daemon; killed at the end if it still runs."""
    process = Process(config, *before, forked=forked, **environ)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.child.kill()
        process.child.wait(PATIENCE)


def until(what: Any, within: float = PATIENCE) -> None:
    """Wait for something that another process does. It is asked less often the longer it takes, or an answer takes."""
    begun = asked = time.monotonic()
    while not what():
        now = time.monotonic()
        waited, took = now - begun, now - asked
        assert waited < within, "waited in vain"
        time.sleep(max(min(max(waited / 20, 0.002), 0.1), min(4 * took, 0.5)))
        asked = time.monotonic()


def spooled(config: Path) -> set[str]:
    """The names of all pictures that the spool beside a configuration holds."""
    settings: Mapping[str, Any] = {"type": "sqlite", "path": config.with_name("spool.db")}

    async def names() -> set[str]:
        async with SqliteSpool("spool", SqliteSpool.Settings(**settings), {}) as spool:
            return {
                json.loads(event.encoded)["data"]["file_name"]
                for event in await newest_events(spool, 100_000)
            }

    return asyncio.run(names())
