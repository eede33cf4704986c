"""Real servers, each started as a process on free ports below a folder of the test, and stopped by its process id."""

import asyncio
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

import pytest

from tests.lives import Life
from tests.patience import PATIENCE
from tests.ports import lasting_port as free_port
from tests.servers import trees
from tests.servers.guard import guard
from tests.servers.used import used

__all__ = ["ServerProcess", "cannot_start", "free_port", "needs", "run", "until"]


def needs(program: str, install: str) -> str:
    """The path of a server's program. Without it the test is skipped, or fails where it could have been installed."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    return found or cannot_start(f"needs {program}: {install}")


def cannot_start(why: str) -> NoReturn:
    """Skip at home, fail in CI, which installs everything."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


class ServerProcess:
    """A server that can be killed and started again on the same port and folder."""

    environ: Mapping[str, str] | None = None
    """The environment, if it is not that of the tests."""

    def __init__(self, folder: Path, port: int, argv: Sequence[str], says: bytes = b"") -> None:
        self.folder = folder
        self.port = port
        self._argv = argv
        self._says = says
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | Life | None = None

    def start(self) -> None:
        """Start, and wait until this very process listens on the port, and its log says that it is ready.

        It must not run already, and does not run if it is not ready in time.
        """
        assert self._process is None or self._process.poll() is not None, f"{self._argv[0]} runs already"
        self.stop()
        with self._log.open("wb") as log:
            self._process = self._begin(log)
        used(self.describe())
        try:
            self._until_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def _until_ready(self, process: "subprocess.Popen[bytes] | Life") -> None:
        began = time.monotonic()
        while not self._is_ready(process):
            assert process.poll() is None, f"{self._argv[0]} has ended: {self._said()}"
            assert time.monotonic() - began < PATIENCE, f"{self._argv[0]} is not ready: {self._said()}"
            time.sleep(0.05)

    def _begin(self, log: IO[bytes]) -> "subprocess.Popen[bytes] | Life":
        """The process, which the guard ends if this one cannot."""
        return _guarded(self._argv, stdout=log, stderr=log, cwd=self.folder, env=self.environ)

    def describe(self) -> str:
        """What it is, for the run's summary."""
        return Path(self._argv[0]).name

    def _is_ready(self, process: "subprocess.Popen[bytes] | Life") -> bool:
        return self._says in self._log.read_bytes() and trees.listens(process.pid, self.port)

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def log(self) -> bytes:
        """What it has written since its last start."""
        return self._log.read_bytes()

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def kill(self) -> None:
        """End the server and its children without a chance to tidy up. It must not have ended by itself."""
        assert self._process is not None, "the server does not run"
        code = self._process.poll()
        self.stop()
        assert code is None, f"{self._argv[0]} had ended by itself with {code}: {self._said()}"

    def limit_files(self, size: int) -> None:
        """Let every write beyond so many bytes of a file fail, as on a full disk; -1 for no limit."""
        assert self._process is not None
        _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def freeze(self) -> None:
        """Let the server hang."""
        assert self._process is not None, "the server does not run"
        trees.freeze(self._process.pid)

    def thaw(self) -> None:
        """Let a server that hangs go on; nothing happens if it does not hang."""
        if self._process is not None:
            trees.thaw(self._process.pid)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server hangs for so long."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def stop(self) -> None:
        """End the server if it runs. May be repeated."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def mend(self) -> None:
        """Let it run, whatever a test has left behind."""
        self.thaw()
        if self._process is None or self._process.poll() is not None:
            self.start()


def run(argv: Sequence[str], *, cwd: Path, within: float = PATIENCE) -> str:
    """Run a program to its end; returns what it has printed, and nothing of it outlives the test.

    Raises RuntimeError if it fails, and TimeoutError if it takes longer.
    """
    process = _guarded(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd)
    try:
        printed, _ = process.communicate(timeout=within)
    except subprocess.TimeoutExpired as late:
        raise TimeoutError(f"{argv[0]} takes more than {within:g} s") from late
    finally:
        _end(process)
    text = printed.decode(errors="replace")
    if process.returncode != 0:
        raise RuntimeError(f"{argv[0]} fails: {text[-2000:]}")
    return text


def _guarded(argv: Sequence[str], **more: object) -> "subprocess.Popen[bytes]":
    """A process in a session of its own, which the guard ends if this one cannot."""
    process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
        argv, stdin=subprocess.DEVNULL, start_new_session=True, **more
    )
    guard().watch(process.pid)
    return process


def _end(process: "subprocess.Popen[bytes] | Life") -> None:
    if process.poll() is None:
        trees.kill(process.pid)
    process.wait()
    guard().forget(process.pid)


async def until(condition: object, what: str = "") -> None:
    """Wait until a condition (a function, or a coroutine function) is true."""
    began = time.monotonic()
    while True:
        found = condition()  # type: ignore[operator]
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert time.monotonic() - began < PATIENCE, f"waited in vain {what}"
        await asyncio.sleep(0.05)
