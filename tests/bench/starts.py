"""Starts of a daemon over a spool that owes events, and the memory that it takes. A part of `tests.bench.growth`.

    python -m tests.bench.starts FOLDER [--rounds 3]

The folder holds a `spool.db` whose sink is called `hook`. CPU is that of the daemon until its first poll: it says what
a start costs where the machine has more to do than it can.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.bench import rig

EMPTY = b'{"ret":0,"message":"return successfully!","output":{"count":"0","data":[]}}'
LULL = 10.0
"""Seconds after the first poll until memory is looked at."""
LOAD = 60_000
"""Messages that wait for the daemon that is killed under load."""
START = "start to first poll"
BACK = "kill -9 to first poll"
BACK_UNDER_LOAD = "kill -9 under load to first poll"
MEMORY = "memory"


class Queue(ThreadingHTTPServer):
    """An empty queue that rings when it is polled."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Empty)
        self.polled = threading.Event()

    @property
    def api(self) -> str:
        """Where it is polled."""
        return f"http://127.0.0.1:{self.server_address[1]}/common_access"


class _Empty(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Queue)
        self.server.polled.set()
        self.send_response(200)
        self.send_header("Content-Length", str(len(EMPTY)))
        self.end_headers()
        self.wfile.write(EMPTY)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def queue() -> Iterator[Queue]:
    """An empty queue, in a thread."""
    with Queue() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def started(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon; killed in the end."""
    command = [sys.executable, "-m", "poller", "run", "-c", str(config)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def running(config: Path, server: Queue) -> Iterator[tuple[subprocess.Popen[bytes], float, float]]:
    """A daemon, and the seconds and the CPU seconds from its start to its first poll; killed in the end."""
    server.polled.clear()
    began = time.monotonic()
    with started(config) as process:
        assert server.polled.wait(120), "no poll within two minutes"
        yield process, time.monotonic() - began, cpu_of(process.pid)


def cpu_of(pid: int) -> float:
    """The CPU seconds of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int, field: str) -> float:
    """`VmRSS` or `VmHWM` of a process, in MiB."""
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith(field)]
    return int(line.split()[1]) / 1024


def lives(folder: Path, server: Queue) -> dict[str, float]:
    """Starts, and memory, of a daemon over the spool in a folder."""
    with socket.create_server(("127.0.0.1", 0)) as refusing:
        hook = f"http://127.0.0.1:{refusing.getsockname()[1]}/hook"
    sinks: dict[str, object] = {"hook": rig.webhook(hook)}
    config = rig.configuration(folder, server.api, sinks)
    found: dict[str, float] = {}
    with running(config, server) as (process, found[START], found["CPU s of it"]):
        time.sleep(LULL)
        found[MEMORY], found["most memory"] = (memory_of(process.pid, one) for one in ("VmRSS", "VmHWM"))
    with running(config, server) as (_, found[BACK], _):
        pass
    kill_under_load(folder, sinks)
    config = rig.configuration(folder, server.api, sinks)
    with running(config, server) as (_, found[BACK_UNDER_LOAD], found["CPU s of that"]):
        return found


def kill_under_load(folder: Path, sinks: Mapping[str, object]) -> None:
    """Kill a daemon in the middle of taking messages."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as directory,
        rig.platform(Path(directory)) as platform,
    ):
        platform.enqueue(LOAD)
        with started(rig.configuration(folder, platform.api, sinks)) as process:
            until = time.monotonic() + 120
            while platform.depth() > LOAD // 2:
                assert time.monotonic() < until, "too few messages were taken within two minutes"
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with queue() as server:
        rounds = [lives(options.folder, server) for _ in range(options.rounds)]
    print(rig.table(list(rounds[0]), [list(one.values()) for one in rounds]))


if __name__ == "__main__":
    main()
