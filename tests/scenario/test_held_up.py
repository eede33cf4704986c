"""A daemon that is stopped for a while, and ports full of clients that are slow on purpose."""

import json
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from tests.integration.sources.pushes import KEY, PATH, post, shot, signed

from .environment import PATIENCE, Environment, environment, until
from .rig import Process, Scenario, scenario, webhook
from .test_operate import hook_refuses, rows

EVERY = 0.1
"""Seconds between two polls of an empty queue."""
LETTERS = 600
FLOOD = 300
"""Connections to a port: more than any takes at once."""
STEADY = {"min_delay": "100ms", "max_delay": "100ms"}


# ---------------------------------------------------------------- stopped


@contextmanager
def frozen(process: Process) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end."""
    process.signal(signal.SIGSTOP)
    try:
        state = Path(f"/proc/{process.child.pid}/stat")
        until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", what="for it to stand still")
        yield
    finally:
        process.signal(signal.SIGCONT)


@pytest.mark.timeout(600)
def test_a_daemon_that_stood_still_goes_on_and_makes_up_for_no_poll(tmp_path: Path, soak: bool) -> None:
    """It stands for longer than a delivery may take; with --soak for longer than a poll may."""
    seconds = 75.0 if soak else 5.0
    with environment(tmp_path) as place:
        sinks = {"console": {"type": "stdout"}, "hook": webhook(place, timeout="4s", concurrency=2)}
        with scenario(place, tmp_path, endpoint=place.wire.endpoint, source=STEADY, sinks=sinks) as daemon:
            process = daemon.run()
            place.turn("hang")
            place.enqueue(1000)
            until(lambda: place.hook.attempts >= 1 and place.counts.removed == 1000)
            until(lambda: process.metric("journal_bytes") == 0)
            place.wire.delays.append(seconds / 3)  # the answer comes while it stands
            place.enqueue(50)
            until(lambda: place.counts.removed == 1050)
            with frozen(process):
                requests = place.wire.requests
                _pass(seconds)
                assert place.wire.requests == requests, "it stood still"
                place.turn(200)
                begun = time.monotonic()
            until(lambda: place.wire.requests >= requests + 5)
            _pass(1.0)
            polls = place.wire.requests - requests
            assert polls <= 2 + (time.monotonic() - begun) / EVERY, "polls were made up for"
            until(lambda: process.metric("backlog_events") == 0)
            uncertain = process.metric("polls_total", outcome="uncertain")
            assert process.get("/readyz")[0] == 200
            assert process.stop() == 0
            books = daemon.books()
            assert len(books.lost_polls()) <= uncertain <= (1 if soak else 0)
            assert set(place.hook.files) == set(books.spooled)
            assert set(daemon.printed()[0]) == set(books.spooled)
            assert max(place.hook.files.values()) == 1, "what hung was not taken, what was taken came once"


def _pass(seconds: float) -> None:
    """Let time pass: what is looked for is that nothing happens meanwhile."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, seconds + PATIENCE)


# ---------------------------------------------------------------- slow on purpose


def test_slow_readers_and_floods_on_every_port_slow_no_poll(tmp_path: Path) -> None:
    pushed = {"type": "callbacks", "account": "main", "listen": "127.0.0.1:0", "path": PATH, "key": KEY}
    shots = {"type": "screenshot_queue", "account": "main", **STEADY}
    with (
        environment(tmp_path) as place,
        scenario(place, tmp_path, sources={"shots": shots, "pushed": pushed}) as daemon,
        ExitStack() as clients,
    ):
        process = hook_refuses(daemon, place, LETTERS)
        until(lambda: process.said("receiving"))
        before = _polls_a_second(place)
        readers = [_slow_reader(clients, daemon) for _ in range(8)]
        flood = []
        for port in (_port(process), int(process.said("receiving")[0]["at"].rpartition(":")[2])):
            for number in range(FLOOD):
                flood.append(_open(clients, port, b"POST / HTTP/1.1\r\nX: "[: 4 + number % 16]))
        for _ in range(40):
            _open_unix(clients, daemon)
        during = _polls_a_second(place)
        assert during > before / 2, f"{during:.1f} polls a second beside {before:.1f}"
        place.enqueue(500)
        until(lambda: place.hook.files.total() == 500)
        _served_again(process, daemon)
        for reader in readers:
            assert _hung_up(reader), "a slow reader is left at the deadline"
            assert _cut_before_the_end(reader)
        cut = sum(_hung_up(one) for one in flood)
        assert cut == 2 * FLOOD, "each is cut at the deadline, or was turned away"
        assert _polls_a_second(place) > before / 2
        assert process.stop() == 0
        assert daemon.books().lost() == []


def _polls_a_second(place: Environment) -> float:
    """By twenty polls, without the three longest gaps: the machine may hold a daemon, or us, up in those."""
    moments = list[float]()
    for _ in range(20):
        polls = place.counts.polls
        until(lambda polls=polls: place.counts.polls > polls)  # type: ignore[misc]
        moments.append(time.monotonic())
    gaps = sorted(after - before for before, after in pairwise(moments))[:-3]
    return len(gaps) / sum(gaps)


def _port(process: Process) -> int:
    until(lambda: process.said("admin_listens"))
    return int(process.said("admin_listens")[0]["port"])


def _open(clients: ExitStack, port: int, word: bytes) -> socket.socket:
    """A client that begins a request, and no more; more of them than the port takes at once."""
    one = clients.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
    with suppress(OSError):
        one.sendall(word)
    return one


def _open_unix(clients: ExitStack, daemon: Scenario) -> None:
    one = clients.enter_context(closing(socket.socket(socket.AF_UNIX)))
    one.setblocking(False)
    with suppress(OSError):  # beyond what the socket takes at once
        one.connect(f"{daemon.spool_file}.sock")
        one.sendall(b'{"ve')


def _slow_reader(clients: ExitStack, daemon: Scenario) -> socket.socket:
    """Asks for more than the socket's buffers hold, and does not read it."""
    one = clients.enter_context(closing(socket.socket(socket.AF_UNIX)))
    one.settimeout(PATIENCE)
    one.connect(f"{daemon.spool_file}.sock")
    one.sendall(json.dumps({"verb": "dead show", "limit": LETTERS}).encode() + b"\n")
    return one


def _hung_up(reader: socket.socket) -> bool:
    """Whether the other side has gone, within half a minute; nothing is read, which would let it go on."""
    waiting = select.poll()
    waiting.register(reader, select.POLLRDHUP)
    return bool(waiting.poll(30_000))


def _cut_before_the_end(reader: socket.socket) -> bool:
    """Whether the answer ends without its last line."""
    got = b""
    with suppress(ConnectionResetError):
        while chunk := reader.recv(1 << 16):
            got += chunk
    assert got.count(b"\n") > 10, "it did ask for something"
    return b'"end":true' not in got


def _served_again(process: Process, daemon: Scenario) -> None:
    """Who behaves is served, once the others are cut."""

    def well(ask: Callable[[], bool]) -> Callable[[], bool]:
        def asked() -> bool:
            try:
                return ask()
            except OSError:
                return False

        return asked

    until(well(lambda: process.get("/healthz")[0] == 200), what="for the admin port")
    at = process.said("receiving")[0]["at"]
    until(well(lambda: post(at, signed(shot(1)))[0] == 200), what="for the callbacks' port")
    until(lambda: rows(daemon, "status", code=None) != [], what="for the control socket")
