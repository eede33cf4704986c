"""Standard error that never blocks its writers: lines go into a bounded queue, and a thread writes them in order.

A pipe that is not read, a stopped terminal, a full disk or a reader that went away cost log lines and nothing
else. Lines without room in the queue, and lines that cannot be written, are dropped and counted. `report` is
called once lines get through again. At its end, the process waits a moment for the rest. The module imports
nothing heavy.
"""

import atexit
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

MOST_BYTES = 4 * 1024 * 1024
TOGETHER = 64 * 1024
END_WITHIN = 2.0
"""Seconds in which the rest must be written at the end."""


class Stderr(io.TextIOBase):
    """Text that a thread writes to a descriptor. Every method except `drain` returns at once."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, fd: int) -> None:
        self.report: Callable[[int], None] | None = None
        """Called in the thread with the number of lines dropped since the last call."""
        self.dropped = 0
        """Lines dropped since the start."""
        self._fd = fd
        self._reported = 0
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._cut = False
        self._changed = threading.Condition()
        self._busy = False
        self._thread = threading.Thread(target=self._run, name="stderr", daemon=True)
        self._thread.start()

    def write(self, text: str, /) -> int:
        """Queue a text, or drop it where there is no room."""
        encoded = text.encode(self.encoding, self.errors)
        with self._changed:
            if self._size + len(encoded) > MOST_BYTES:
                self._drop(encoded)
            elif encoded:
                self._queue.append(encoded)
                self._size += len(encoded)
                self._changed.notify_all()
        return len(text)

    def drain(self, seconds: float) -> None:
        """Wait until all is written, for so long at the most."""
        end = time.monotonic() + seconds
        with self._changed:
            while (self._queue or self._busy) and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)

    def flush(self) -> None:
        """Do nothing: the code that logs must not wait."""

    def writable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def fileno(self) -> int:
        """The descriptor behind it."""
        return self._fd

    def isatty(self) -> bool:
        """Whether a terminal is behind it."""
        try:
            return os.isatty(self._fd)
        except OSError:
            return False

    # ------------------------------------------------------------ in the thread

    def _run(self) -> None:
        while True:
            self._write_some(self._next())
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next(self) -> bytes:
        with self._changed:
            while not self._queue:
                self._changed.wait()
            self._busy = True
            chunk = [self._queue.popleft()]
            size = len(chunk[0])
            while self._queue and size + len(self._queue[0]) <= TOGETHER:
                chunk.append(self._queue.popleft())
                size += len(chunk[-1])
            self._size -= size
            return b"".join(chunk)

    def _write_some(self, chunk: bytes) -> None:
        rest = memoryview(b"\n" + chunk if self._cut else chunk)
        try:
            while rest:
                rest = rest[write_some(self._fd, rest) :]
                self._cut = False
        except OSError:
            self._cut = 0 < len(rest) < len(chunk)  # the next line begins on a line of its own
            with self._changed:
                self._drop(bytes(rest))
        else:
            self._report()

    def _drop(self, text: bytes) -> None:
        self.dropped += max(1, text.count(b"\n"))

    def _report(self) -> None:
        with self._changed:
            count = self.dropped - self._reported
            if not count or self.report is None or self._size > MOST_BYTES // 2:
                return
            self._reported = self.dropped
        with suppress(Exception):  # the thread must live
            self.report(count)


def write_some(fd: int, text: memoryview) -> int:
    """Write a part of the text, and wait until there is room for some of it; returns its length. Blocks."""
    while True:
        try:
            return os.write(fd, text)
        except BlockingIOError:  # another owner of the pipe has made it non-blocking
            room = select.poll()
            room.register(fd, select.POLLOUT)
            room.poll()


def install() -> None:
    """Send all of this process's standard error through the queue: the log, warnings, libraries, tracebacks.

    Closed standard descriptors are opened on /dev/null first. Otherwise the next file to be opened would get
    such a number, and lines for stderr would be written into the file.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    stderr = Stderr(2)
    sys.stderr = stderr
    atexit.register(stderr.drain, END_WITHIN)


def dropped_lines() -> int:
    """How many lines this process's standard error has lost."""
    return sys.stderr.dropped if isinstance(sys.stderr, Stderr) else 0
