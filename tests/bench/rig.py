"""What the figures share: the sandbox and a cheap webhook as processes, configurations, CPU time, tables."""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvloop

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLwSw"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a process used until its end, in seconds, and its exit code."""

    user: float
    system: float
    wall: float
    code: int

    @property
    def cpu(self) -> float:
        """User and system time together."""
        return self.user + self.system


def spent_by(command: Sequence[str], **more: Any) -> Spent:
    """Run a program to its end."""
    began = time.monotonic()
    process = subprocess.Popen(command, **more)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - began
    return Spent(user=usage.ru_utime, system=usage.ru_stime, wall=wall, code=process.returncode)


# ---------------------------------------------------------------- the two ends


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A sandbox that runs."""

    api: str
    cos: str
    control: str

    def enqueue(self, count: int, **load: object) -> None:
        """Make up so many messages of 200 streams."""
        self._control("/enqueue", {"count": count, "streams": 200, **load})

    def depth(self) -> int:
        """How many messages are left."""
        queue: dict[str, Any] = self._control("/enqueue", {"raw": []})
        return int(queue["depth"])

    def put(self, messages: Sequence[Mapping[str, object]]) -> None:
        """Put these messages into the queue."""
        self._control("/enqueue", {"raw": [json.dumps(message) for message in messages]})

    def polls(self) -> int:
        """How often the queue was polled."""
        with urllib.request.urlopen(self.control + "/state") as answer:
            return int(json.load(answer)["customers"]["1234"]["polls"])

    def _control(self, path: str, wish: Mapping[str, object]) -> dict[str, Any]:
        request = urllib.request.Request(self.control + path, json.dumps(wish).encode(), method="POST")
        with urllib.request.urlopen(request) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def platform(directory: Path) -> Iterator[Platform]:
    """The sandbox as a process, without live streams."""
    command = [sys.executable, "-m", "poller", "sandbox", "--directory", str(directory)]
    command += ["--streams", "0", "--upload-delay", "0-0"]
    with process(command) as where:
        yield Platform(api=_url(where["api"]), cos=_url(where["cos"]), control=_url(where["control"]))


@contextmanager
def receiver() -> Iterator[str]:
    """A webhook that answers 200 to whatever comes, as a process; its URL."""
    with process([sys.executable, "-m", "tests.bench.rig"]) as where:
        yield f"http://127.0.0.1:{where['port']}/hook"


@contextmanager
def process(command: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A program that says in its first line, as JSON, where it listens; ended by SIGTERM."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def _url(address: str) -> str:
    return address if "://" in address else f"http://{address}"


class _Hook(asyncio.Protocol):
    """Counts bytes, parses nothing but the length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # of uvloop, which has its own classes
        self._head = b""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        while data:
            if self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
            else:
                head, end, data = (self._head + data).partition(b"\r\n\r\n")
                if not end:
                    self._head = head
                    return
                self._head = b""
                self._left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if not self._left:
                self._transport.write(_ANSWER)


async def _serve_hook() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Hook, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


# ---------------------------------------------------------------- configurations


def account(api: str) -> dict[str, object]:
    """The sandbox's first customer, hardly throttled."""
    return {
        "endpoint": api,
        "app_id": 1234,
        "key": "5d41402abc4b2a76b9719d911017c592",
        "cos": {"bucket": "shots", "app_id": 1250000000},
        "rate": "100000/s",
    }


def webhook(url: str, concurrency: int = 1) -> dict[str, object]:
    """A signed webhook in batches of 100."""
    return {
        "type": "webhook",
        "url": url,
        "secret": SECRET,
        "allow_cidr": ["127.0.0.0/8"],
        "concurrency": concurrency,
        "batch": {"max_events": 100},
    }


def configuration(
    folder: Path,
    api: str,
    sinks: Mapping[str, object],
    spool: Mapping[str, object] | None = None,
    more: Mapping[str, object] | None = None,
    **source: object,
) -> Path:
    """Write a configuration; its path. (JSON is YAML.) `source` has settings of the source.

    Without the settings of a `spool` it has one of its own, in a file. `more` has settings of the account.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "poller.yaml"
    settings = {
        "accounts": {"main": {**account(api), **(more or {})}},
        "sources": {
            "screenshots": {"type": "screenshot_queue", "account": "main", "max_in_flight": 4, **source}
        },
        "spool": spool or {"type": "sqlite", "path": str(folder / "spool.db")},
        "sinks": sinks,
        "log": {"level": "info", "format": "json"},
    }
    if spool:
        settings["journal"] = {"path": str(folder / "poller.journal")}
    path.write_text(json.dumps(settings))
    return path


@contextmanager
def scratch(where: Path | None = None) -> Iterator[Path]:
    """A folder for one run, on a disk unless told otherwise."""
    with tempfile.TemporaryDirectory(prefix="poller-bench-", dir=where) as folder:
        yield Path(folder)


# ---------------------------------------------------------------- tables


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns under each other: text to the left, numbers to the right with one to three digits after the dot."""
    lines = [list(head), *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _cell(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.2f}"
    return str(cell)


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


Way = Callable[[], Spent]
"""Runs a process that drains the queue, and says what it used."""


def drained(queue: Platform, way: Way, events: int) -> Spent:
    """Fill the queue, drain it, and see that it is drained."""
    if events:
        queue.enqueue(events)
    spent = way()
    assert spent.code == 0, spent
    assert queue.depth() == 0
    return spent


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_hook())
