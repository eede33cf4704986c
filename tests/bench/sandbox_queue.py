"""Calls per second of Live_Queue_Get, 100 messages each, from a queue of 600,000; beside a server that says one thing.

    python -m tests.bench.sandbox_queue [--calls 2000] [--rounds 5] [--connections 4] [--directory DIR]

The sandbox is a process, and so is the bare loop: an aiohttp `web.Server` that answers a constant body of the same
size. This process asks, over connections that it keeps, each call after the answer to the one before. CPU is what
the server's process used meanwhile, user and system. The promise is at least 2,000 calls a second of wall time,
so that the sandbox is never the bottleneck of a benchmark.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import uvloop
from aiohttp import web

from tests.bench import figures, rig
from tests.bench.figures import Figure
from tests.bench.idle import cpu_of

KEY = "5d41402abc4b2a76b9719d911017c592"


class Server(NamedTuple):
    """A process that answers at that URL."""

    pid: int
    url: str


class Round(NamedTuple):
    """One round: calls a second of wall time, and microseconds of the server's CPU per call."""

    calls: float
    cpu: float


def target(url: str) -> str:
    """The URL of a signed call for 100 messages."""
    t = int(time.time()) + 86400
    sign = md5(f"{KEY}{t}".encode()).hexdigest()
    return f"{url}?cmd=1234&interface=Live_Queue_Get&Param.n.bid=100&Param.n.count=100&t={t}&sign={sign}"


async def asked(url: str, calls: int, connections: int) -> int:
    """Make so many calls; returns the length of the last answer."""
    parts = urlsplit(url)
    request = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()

    async def lane() -> int:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        length = 0
        for _ in range(calls // connections):
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()
        return length

    return (await asyncio.gather(*[lane() for _ in range(connections)]))[-1]


def measured(server: Server, calls: int, connections: int) -> Round:
    """Ask, and see what it cost."""
    before, begun = cpu_of(server.pid), time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asked(target(server.url), calls, connections))
    wall = time.monotonic() - begun
    return Round(calls / wall, (cpu_of(server.pid) - before) / calls * 1e6)


# ---------------------------------------------------------------- the two servers


@contextmanager
def sandbox(folder: Path, messages: int) -> Iterator[Server]:
    """A sandbox with so many messages; how long they took to enqueue goes to stderr."""
    command = [sys.executable, "-m", "poller", "sandbox", "--directory", str(folder), "--streams", "0"]
    with _process(command) as (pid, where):
        platform = rig.Platform(api=where["api"], cos=where["cos"], control=where["control"])
        begun = time.monotonic()
        platform.enqueue(messages)
        print(f"{messages:,} messages enqueued in {time.monotonic() - begun:.2f} s", file=sys.stderr)
        yield Server(pid, where["api"])


@contextmanager
def constant(length: int) -> Iterator[Server]:
    """The bare loop."""
    with _process([sys.executable, "-m", "tests.bench.sandbox_queue", "--serve", str(length)]) as (
        pid,
        where,
    ):
        yield Server(pid, where["api"])


@contextmanager
def _process(command: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


async def _serve(length: int) -> None:
    """Answers any request with so many bytes."""
    body, headers = b"x" * length, {"Content-Type": "application/json; charset=utf-8"}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, headers=headers)

    runner = web.ServerRunner(web.Server(answer, handler_cancellation=True, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"api": f"http://127.0.0.1:{runner.addresses[0][1]}/common_access"}), flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await runner.cleanup()


# ---------------------------------------------------------------- the figures


def main(arguments: Sequence[str] | None = None) -> list[Figure]:
    """Measure, print the rounds' tables, and return the figures; the command line's arguments if none are given."""
    options = _options(arguments)
    if options.serve:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(options.serve))
        return []
    rows: list[list[object]] = []
    rounds: list[tuple[Round, Round]] = []
    with rig.scratch(options.directory) as folder, sandbox(folder, options.messages) as ours:
        length = asyncio.run(asked(target(ours.url), 1, 1))
        with constant(length) as bare:
            for number in range(options.rounds):
                order = (bare, ours) if number % 2 else (ours, bare)
                found = {one: measured(one, options.calls, options.connections) for one in order}
                rounds.append((found[ours], found[bare]))
                rows.append([number + 1, *found[bare], *found[ours]])
                print(rows[-1], file=sys.stderr)
    rows.append(
        ["median", *[rig.median([float(str(row[column])) for row in rows]) for column in range(1, 5)]]
    )
    print(
        f"{options.calls:,} calls a round over {options.connections} connections; {length:,} bytes an answer"
    )
    head = ["round", "bare calls/s", "bare us/call", "sandbox calls/s", "sandbox us/call"]
    print(rig.table(head, rows))
    own, other = zip(*rounds, strict=True)
    return [
        figures.beside(
            "sandbox_queue",
            "calls of 100 messages a second, durable, beside a server with one constant body",
            "1/s",
            [one.calls for one in own],
            [one.calls for one in other],
            at_least=2_000,
            absolute=True,
        ),
        figures.beside(
            "sandbox_queue",
            "CPU a call, beside the same",
            "µs",
            [one.cpu for one in own],
            [one.cpu for one in other],
        ),
    ]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, default=None, help="where the sandbox keeps its files")
    parser.add_argument("--serve", type=int, default=0, help="be the bare loop, with a body of so many bytes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
