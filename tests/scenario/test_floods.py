"""Strangers open thousands of connections to a real daemon: its log stays short, its pushes and its health go on."""

import json
import math
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from ..integration.sources.pushes import PATH, post, shot, signed
from .environment import PATIENCE, environment, until
from .rig import Process, Scenario
from .test_callbacks import OK, address_of, receiving

SLOW = 1000
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{{"
WORDS = (b"", b"G", b"POST /", HEAD.encode())


def _ports(process: Process) -> tuple[int, int]:
    until(lambda: process.said("admin_listens"))
    return int(address_of(process).rpartition(":")[2]), int(process.said("admin_listens")[0]["port"])


def _stranger(port: int, source: str) -> socket.socket:
    one = socket.socket()
    one.settimeout(PATIENCE)
    one.bind((source, 0))
    one.connect(("127.0.0.1", port))
    return one


def _lines(process: Process) -> list[str]:
    lines = process.stderr.splitlines()
    for line in lines:
        assert isinstance(json.loads(line), dict), line
    return lines


@contextmanager
def _daemon(folder: Path) -> Iterator[tuple[Scenario, Process]]:
    with (
        environment(folder) as place,
        receiving(place, folder, sinks={"console": {"type": "stdout"}}) as daemon,
    ):
        yield daemon, daemon.run()


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_thousands_of_plain_connections_are_a_few_lines_of_json(
    tmp_path: Path, source: str, soak: bool
) -> None:
    plain = 4000 if soak else 800
    with _daemon(tmp_path) as (_, process):
        for port in _ports(process):
            for number in range(plain // 2):
                with closing(_stranger(port, source)) as one, suppress(OSError):
                    one.sendall(WORDS[number % len(WORDS)])
                    if number % 3 == 0:
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        address = address_of(process)
        assert post(address, signed(shot(1))) == OK
        until(lambda: process.metric("callbacks_total", outcome="refused") > plain // 8)
        assert process.get("/healthz")[0] == 200
        assert process.stop() == 0
        assert len(_lines(process)) < 40, process.stderr[-3000:]


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_a_thousand_slow_connections_lock_out_neither_pushes_nor_health(tmp_path: Path, source: str) -> None:
    begun = time.monotonic()
    with _daemon(tmp_path) as (_, process), ExitStack() as strangers:
        callbacks, admin = _ports(process)
        ends: Counter[bytes] = Counter()
        crowd, took = [], []
        for number in range(SLOW):
            for port in (callbacks, admin):
                one = strangers.enter_context(closing(_stranger(port, source)))
                crowd.append(one)
                with suppress(OSError):
                    one.sendall(WORDS[number % len(WORDS)])
            if number % 50 == 0:
                assert post(f"127.0.0.1:{callbacks}", signed(shot(number))) == OK
                began = time.monotonic()
                assert process.get("/healthz")[0] == 200
                took.append(time.monotonic() - began)
        assert sorted(took)[-3] < 3, "but for two, in which the machine may hold up the daemon or us"
        open_files = len(list(Path(f"/proc/{process.child.pid}/fd").iterdir()))
        assert open_files < 600, open_files
        for one in crowd:
            with suppress(OSError):
                ends[one.recv(12)] += 1
        assert ends[b"HTTP/1.1 503"] > SLOW, ends
        assert process.metric("callbacks_total", outcome="accepted") == SLOW // 50
        assert process.metric("callbacks_total", outcome="refused") >= SLOW
        assert process.stop() == 0
        assert len(_lines(process)) < 40, process.stderr[-3000:]
        said = process.said("connections_refused")
        most = 2 * (2 + math.ceil((time.monotonic() - begun) / 60))
        assert 2 <= len(said) <= most, "one at once and one a minute for each port, and the rest at the end"
