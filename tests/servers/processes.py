"""Real servers, each started as a process on free ports below a folder of the test, and stopped by its process id."""

import asyncio
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.patience import PATIENCE


def free_port() -> int:
    """A port that nobody has now. A server that finds it taken is started again on another one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def needs(program: str, install: str) -> str:
    """The path of a server's program. The test is skipped if there is none."""
    beside = Path(os.sys.executable).parent / program  # type: ignore[attr-defined]
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program}: {install}")
    return found


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
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until this very process listens on the port."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._argv,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=self.environ,
                start_new_session=True,
            )
        began = time.monotonic()
        while not self._is_ready():
            assert self._process.poll() is None, self._log.read_text(errors="replace")[-2000:]
            assert time.monotonic() - began < PATIENCE, f"{self._argv[0]} is not ready"
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        """Whether the server's log says so; without such a word, whether its port answers."""
        if self._says:
            return self._says in self._log.read_bytes()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """End the server and its children without a chance to tidy up."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def limit_files(self, size: int) -> None:
        """Let every write beyond so many bytes of a file fail, as on a full disk; -1 for no limit."""
        assert self._process is not None
        _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def freeze(self, frozen: bool) -> None:
        """Let the server hang, or go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def stop(self) -> None:
        """End the server if it runs. May be repeated."""
        if self._process is not None:
            self.kill()

    def restart(self) -> None:
        self.stop()
        self.start()


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
