"""Every sink delivers to a real server from within the walls of the unit `systemd/poller.service`."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.scenario.environment import environment
from tests.scenario.rig import scenario, webhook
from tests.service.running import tool
from tests.service.walls import FILTER, SET, allowed

from . import sql_sinks, test_nats, test_redis
from .databases import PASSWORD, mariadb, postgres
from .kafka_broker import make_topic, open_broker
from .object_stores import running
from .rabbit import PASSWORD as RABBIT_PASSWORD
from .rabbit import Rabbit, make_queue

LOOPBACK = "127.0.0.0/8"
EVENTS = 100


@contextmanager
def rabbit(folder: Path) -> Iterator[dict[str, Any]]:
    one = Rabbit(folder)
    one.start()
    try:
        asyncio.run(make_queue(one, "live", exchange="live"))
        yield {
            "type": "amqp",
            "servers": [one.address],
            "exchange": "live",
            "user": "writer",
            "password": RABBIT_PASSWORD,
        }
    finally:
        one.stop()


@contextmanager
def kafka(folder: Path) -> Iterator[dict[str, Any]]:
    with open_broker(folder) as one:
        yield {"type": "kafka", "servers": [one.address], "topic": make_topic(one)}


@contextmanager
def nats(folder: Path) -> Iterator[dict[str, Any]]:
    one = test_nats.server_in(folder)
    one.start()
    try:
        asyncio.run(test_nats.make_stream(one))
        yield {"type": "nats", "servers": [f"nats://127.0.0.1:{one.port}"], "synced": True}
    finally:
        one.stop()


@contextmanager
def redis(folder: Path) -> Iterator[dict[str, Any]]:
    with test_redis.running(folder, test_redis.valkey(), "--appendonly", "yes") as one:
        yield {"type": "redis", "url": f"redis://127.0.0.1:{one.port}"}


@contextmanager
def s3(folder: Path) -> Iterator[dict[str, Any]]:
    with running("moto", folder) as one:
        yield one.settings()


@contextmanager
def sql(engine: str, shared: Path) -> Iterator[dict[str, Any]]:
    with postgres(shared) if engine == "postgresql" else mariadb() as one:
        asyncio.run(sql_sinks.make_table(one))
        yield {"type": "sql", "url": one.url, "user": "poller", "password": PASSWORD}


@pytest.mark.timeout(900)
def test_every_sink_delivers_within_the_units_walls(tmp_path: Path, shared: Path) -> None:
    trace = tmp_path / "trace"
    before = [tool("strace"), "-f", "-qq", "-o", str(trace), sys.executable, "-c", FILTER]
    with ExitStack() as stack, environment(tmp_path) as place:
        servers = {
            "amqp": rabbit(_folder(stack)),
            "kafka": kafka(_folder(stack)),
            "mariadb": sql("mariadb", shared),
            "nats": nats(_folder(stack)),
            "postgresql": sql("postgresql", shared),
            "redis": redis(_folder(stack)),
            "s3": s3(_folder(stack)),
        }
        sinks = {
            name: {**stack.enter_context(one), "allow_cidr": [LOOPBACK]} for name, one in servers.items()
        }
        sinks["command"] = {"type": "exec", "command": ["/bin/sh", "-c", f"cat >>{tmp_path}/handed"]}
        sinks["hook"] = webhook(place)
        daemon = stack.enter_context(scenario(place, tmp_path, sinks=sinks))
        place.enqueue(EVENTS, pictures=True)
        words = [
            *before,
            sys.executable,
            "-m",
            "poller",
            "drain",
            "-c",
            str(daemon.config),
            "--timeout",
            "5m",
        ]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        books = daemon.books()
        assert not books.waiting
        assert not books.dead
        assert len(books.spooled) == EVENTS
        assert (tmp_path / "handed").read_bytes().count(b"\n") >= EVENTS
    used = set(re.findall(r"^[0-9]+ +([a-z_0-9]+)\(", trace.read_text(), re.MULTILINE))
    assert {"connect", "memfd_create", "execve"} <= used, "nothing was traced"
    if os.geteuid() == 0:
        used -= {"fchown", "chown"}  # SQLite hands its files to the database's owner, as root only
    assert sorted(used - allowed()) == []


def _folder(stack: ExitStack) -> Path:
    """A short path: some servers have sockets below it."""
    folder = Path(tempfile.mkdtemp(prefix="walls-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


ATTEMPTS = """
import ctypes, mmap, socket
for family in (socket.AF_NETLINK, socket.AF_PACKET, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    try:
        socket.socket(family, socket.SOCK_RAW if family > 16 else socket.SOCK_DGRAM).close()
    except OSError as error:
        print(family.name, error.errno)
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except OSError as error:
    print("mmap", error.errno)
libc = ctypes.CDLL(None, use_errno=True)
page = mmap.mmap(-1, 4096)
address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page)))
assert libc.mprotect(address, 4096, mmap.PROT_READ) == 0
if libc.mprotect(address, 4096, mmap.PROT_READ | mmap.PROT_EXEC):
    print("mprotect", ctypes.get_errno())
"""


def test_the_walls_of_the_test_refuse_what_those_of_the_unit_do() -> None:
    assert SET["MemoryDenyWriteExecute"] == ["yes"]
    assert SET["RestrictAddressFamilies"] == ["AF_INET AF_INET6 AF_UNIX"]
    words = [sys.executable, "-c", FILTER, sys.executable, "-c", ATTEMPTS]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["AF_NETLINK 97", "AF_PACKET 97", "mmap 1", "mprotect 1", ""]
