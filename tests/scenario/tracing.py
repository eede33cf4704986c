"""Disks that fail or are slow, made by strace on a running daemon."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .environment import PATIENCE
from .rig import Process


class Trace:
    """What strace wrote down."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def times(self, mark: str) -> int:
        """How many calls were tampered with: `INJECTED` or `DELAYED`."""
        return self._file.read_text().count(f"({mark})")


@contextmanager
def traced(
    process: Process, log: Path, files: Sequence[Path], calls: str, fault: str, *, abrupt: bool = False
) -> Iterator[Trace]:
    """While it lasts, these calls of the daemon on these files go wrong in strace's words (`error=EIO:when=2`).

    `abrupt` kills strace at the end: while it delays a call of a process that has ended, it does not react to signals.
    """
    paths = [word for file in files for word in ("-P", str(file))]
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"]
    command = ["strace", "-f", "-o", str(log), *paths, *inject, "-p", str(process.child.pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        yield Trace(log)
    finally:
        if abrupt:
            tracer.kill()
        else:
            tracer.terminate()
        tracer.wait(PATIENCE)
