"""In never waits for out: polls go on whatever receivers do to their connections, and whether their names exist."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .environment import PATIENCE, Environment, environment, needs_root, until
from .rig import Process, scenario, webhook

FLOOD = """
import socket, threading
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def flood(peer):
    try:
        peer.recv(65536)
        while True:
            peer.sendall(b"HTTP/1.1 103 Early Hints\\r\\nLink: </a>\\r\\n\\r\\n" * 1000)
    except OSError:
        peer.close()
while True:
    threading.Thread(target=flood, args=(listener.accept()[0],), daemon=True).start()
"""


CALM = 0.5
"""Seconds between two polls, at the most, of a daemon that has no trouble, on a machine that lets it run."""
ENOUGH = 3
"""The stretches of time in which a daemon is looked at. The machine may hold it up alone in one of them."""


class Gaps:
    """How long a platform waited between two polls, at the most."""

    def __init__(self, place: Environment) -> None:
        self._place = place
        self._last, self._seen = time.monotonic(), place.counts.polls
        self.most = 0.0

    def look(self) -> None:
        now = time.monotonic()
        if (polls := self._place.counts.polls) != self._seen:
            self._last, self._seen = now, polls
        self.most = max(self.most, now - self._last)


@contextmanager
def control(folder: Path) -> Iterator[Environment]:
    """The platform of a daemon that has no trouble."""
    with environment(folder / "control") as place, scenario(place, folder / "control") as scene:
        scene.run()
        yield place


def gap_in_calm(place: Environment, beside: Environment, seconds: float) -> float:
    """The longest time between two polls, but for one stretch of seconds, while the machine let the control poll."""
    found, given_up, held_up = list[float](), time.monotonic() + PATIENCE + ENOUGH * seconds, 0.0
    while len(found) < ENOUGH:
        assert time.monotonic() < given_up, f"void: one without trouble is held up too, for {held_up:.1f} s"
        end, own, others = time.monotonic() + seconds, Gaps(place), Gaps(beside)
        while time.monotonic() < end:
            own.look()
            others.look()
            time.sleep(0.005)
        held_up = others.most
        if held_up < CALM or own.most < CALM:
            found.append(own.most)
    return sorted(found)[-2]


def test_polls_go_on_while_receivers_send_informational_answers_without_end(
    tmp_path: Path, soak: bool
) -> None:
    flood = subprocess.Popen([sys.executable, "-c", FLOOD], stdout=subprocess.PIPE, text=True)
    try:
        assert flood.stdout is not None
        url = f"http://127.0.0.1:{int(flood.stdout.readline())}/"
        with environment(tmp_path) as place, control(tmp_path) as beside:
            sinks = {f"hook{n}": webhook(place, url=url, batch={"max_events": 1}) for n in range(3)}
            with scenario(place, tmp_path, sinks=sinks) as scene:
                process = scene.run()
                place.enqueue(500)
                until(lambda: process.said("delivery_failed"))
                before = resident(process)
                assert gap_in_calm(place, beside, 60.0 if soak else 4.0) < 1.0
                assert resident(process) - before < 50 * 2**20
    finally:
        flood.kill()
        flood.wait()


def resident(process: Process) -> int:
    pages = Path(f"/proc/{process.child.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


# ---------------------------------------------------------------- names


@contextmanager
def silent_name_server() -> Iterator[list[bytes]]:
    """A port 53 of its own address on loopback that takes questions and answers none."""
    questions: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.53.0.1", 53))

        def listen() -> None:
            try:
                while question := server.recv(2048):
                    questions.append(question)
            except OSError:
                pass

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield questions
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.53.0.1", 53))
        thread.join(5)


@pytest.mark.root
def test_polls_go_on_while_the_names_of_receivers_are_never_resolved(tmp_path: Path, soak: bool) -> None:
    """The account's own endpoint is a name too, which the file of hosts knows."""
    needs_root("a name server of its own is mounted over /etc/resolv.conf")
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.53.0.1\noptions timeout:30 attempts:5\n")
    with environment(tmp_path) as place, control(tmp_path) as beside, silent_name_server() as questions:
        sinks: dict[str, Any] = {
            f"hook{n}": webhook(place, url=f"http://hook{n}.example.com/", timeout="1s") for n in range(8)
        }
        sinks["pictures"] = {"type": "download", "directory": str(tmp_path / "pictures"), "timeout": "1s"}
        account = {"cos": {"base_url": "http://pictures.example.com/"}}
        endpoint = place.endpoint.replace("127.0.0.1", "localhost")
        with scenario(place, tmp_path, endpoint=endpoint, account=account, sinks=sinks) as scene:
            place.enqueue(200)
            mount = 'mount --make-rprivate / && mount --bind "$0" /etc/resolv.conf && exec "$@"'
            command = [sys.executable, "-m", "poller", "run", "-c", str(scene.config)]
            with (tmp_path / "stderr").open("wb") as stderr:
                daemon = subprocess.Popen(
                    ["unshare", "-m", "sh", "-c", mount, str(resolv), *command],
                    stderr=stderr,
                    stdin=subprocess.DEVNULL,
                )
            try:
                until(lambda: place.counts.removed == 200 and len(questions) >= 9)
                assert gap_in_calm(place, beside, 60.0 if soak else 5.0) < 1.0
                log = [json.loads(line) for line in (tmp_path / "stderr").read_text().splitlines()]
                assert not [line for line in log if line["event"] == "poll_failed"]
                assert [line for line in log if line["event"] == "delivery_failed"]
                daemon.send_signal(signal.SIGTERM)
                until(lambda: '"event": "stopped"' in (tmp_path / "stderr").read_text())
                assert daemon.wait(PATIENCE) == 0, "the process stayed for its look-ups"
            finally:
                daemon.kill()
                daemon.wait()
