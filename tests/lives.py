"""Starts the program as a process: forked from a warm one (`tests/warm.py`) where nothing shows a difference.

The imports are most of what a short life takes. A test of the start itself, of the imports or of the command line
takes the true command, `python -m poller`; so does every start whose environment the interpreter or a library
has read when the warm process began. Programs that only tests have may live so too.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from .commands import Ended
from .patience import PATIENCE

ROOT: Final = Path(__file__).parents[1]
READ_LATE: Final = (
    *("POLLER_", "NOTIFY_SOCKET", "WATCHDOG_", "OTEL_BSP_", "COLUMNS", "PYTEST_CURRENT_TEST"),
    *("CANARY", "NOTHING", "INJECTION", "NOT_UTF8", "FIVE"),
)
"""How variables begin that the program reads when it runs; the last ones only tests' configurations name."""


class Life:
    """A forked process, with the methods of `subprocess.Popen`."""

    def __init__(self, warm: "Warm", pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._warm = warm
        self._fd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code."""
        if (code := self._ended(None if timeout is None else timeout * 1000)) is None:
            raise subprocess.TimeoutExpired(f"poller, process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing happens if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, milliseconds: float | None) -> int | None:
        if self.returncode is None:
            end = select.poll()
            end.register(self._fd, select.POLLIN)
            if end.poll(milliseconds):
                self.returncode = self._warm.reap(self.pid)
                os.close(self._fd)
        return self.returncode


class Warm:
    """A warm process, one for all lives of a program that this process starts.

    `read_late` says how variables begin that the program reads when it runs.
    """

    def __init__(self, program: str, read_late: tuple[str, ...]) -> None:
        self._read_late = read_late
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._turn = threading.Lock()
        self._environ = dict(os.environ)
        with theirs:
            command = [sys.executable, "-m", "tests.warm", str(theirs.fileno()), program]
            self._process = subprocess.Popen(
                command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        self._channel.settimeout(3 * PATIENCE)  # it imports the whole program
        assert self._channel.recv(16) == b"ready", "the warm process did not start"

    def fits(self, environ: Mapping[str, str]) -> bool:
        """Whether a life may have this environment: what differs is read after the fork only."""
        differing = {name for name, _ in self._environ.items() ^ environ.items()}
        return all(name == "TERM" or name.startswith(self._read_late) for name in differing)

    def start(
        self,
        words: Sequence[str],
        *,
        cwd: Path,
        environ: Mapping[str, str],
        files: Sequence[int],
        terminal: bool = False,
    ) -> Life:
        """A life of its own, running, with three standard files and perhaps namespaces.

        With `terminal` it leads a session on the terminal that is its standard input.
        """
        order: dict[str, object] = {"words": list(words), "cwd": str(cwd.resolve()), "environ": dict(environ)}
        order["terminal"] = terminal
        return Life(self, self._ask(order, files))

    def reap(self, pid: int) -> int:
        """The exit code of a life that has ended, as `subprocess` counts it."""
        return self._ask({"reap": pid})

    def end(self) -> None:
        """Stop starting lives."""
        self._channel.close()
        self._process.wait(PATIENCE)

    def _ask(self, order: Mapping[str, object], files: Sequence[int] = ()) -> int:
        with self._turn:
            socket.send_fds(self._channel, [json.dumps(order).encode()], list(files))
            return int(self._channel.recv(64))


_warm: Final[dict[str, Warm]] = {}


def warm(program: str = "poller", read_late: tuple[str, ...] = READ_LATE) -> Warm:
    """The warm process of a program, started when it is needed first."""
    if program not in _warm:
        _warm[program] = Warm(program, read_late)
    return _warm[program]


def end() -> None:
    """Stop the warm processes."""
    while _warm:
        _warm.popitem()[1].end()


def start(
    words: Sequence[str],
    *,
    before: Sequence[str] = (),
    cwd: Path,
    environ: Mapping[str, str] | None = None,
    stdout: IO[bytes],
    stderr: IO[bytes],
    forked: bool = True,
    network: int | None = None,
) -> "subprocess.Popen[bytes] | Life":
    """`python -m poller` with these words; the true command behind another program, or with `forked=False`.

    A forked one may live in a network namespace, which an open file names.
    """
    environ = os.environ if environ is None else environ
    assert network is None or (forked and not before and warm().fits(environ)), "only a forked life moves"
    if forked and not before and warm().fits(environ):
        with open(os.devnull, "rb") as nothing:
            files = [nothing.fileno(), stdout.fileno(), stderr.fileno()]
            files += [] if network is None else [network]
            return warm().start(words, cwd=cwd, environ=environ, files=files)
    command = [*before, sys.executable, "-m", "poller", *words]
    return subprocess.Popen(
        command, cwd=cwd, env=environ, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
    )


def start_on_terminal(words: Sequence[str], file: int, environ: Mapping[str, str]) -> Life:
    """A forked life on a terminal of its own, which an open file names."""
    assert warm().fits(environ), "only a forked life is started on a terminal"
    return warm().start(words, cwd=Path.cwd(), environ=environ, files=[file] * 3, terminal=True)


def run(*words: str, folder: Path, forked: bool = True, **environ: str) -> Ended:
    """One command to its end."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        told = {**os.environ, **environ}
        child = start(words, cwd=folder, environ=told, stdout=stdout, stderr=stderr, forked=forked)
        try:
            code = child.wait(PATIENCE)
        finally:
            child.kill()
        for file in (stdout, stderr):
            file.seek(0)
        return Ended(code, stdout.read().decode(), stderr.read().decode())
