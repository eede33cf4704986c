"""A terminal's whole screen, for a view that is redrawn: no scrolling, no echo, keys one by one.

Life cycle
    Entering saves the state of the terminal and takes its other screen. Leaving gives everything back, whatever the
    reason. SIGINT, SIGTERM and SIGHUP raise `Signalled` in the main thread until then. Ctrl-Z gives the terminal back
    until the process goes on.
"""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock
from types import FrameType, TracebackType
from typing import Any, Final, Self, TextIO

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OTHER_SCREEN, _OWN_SCREEN = "\x1b[?1049h\x1b[?25l\x1b[2J", "\x1b[0m\x1b[2J\x1b[?25h\x1b[?1049l"


class Signalled(Exception):
    """A signal that asks the process to end. It is to be ended by the same signal, once the terminal is given back."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def is_terminal() -> bool:
    """Whether standard input and output are a terminal with a cursor that can be placed."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Screen:
    """The screen. `draw` writes only lines that have changed, so that nothing flickers."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._keys = sys.stdin.fileno()
        self._wake, self._waker = os.pipe()
        self._drawn: list[str] = []
        self._saved: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._suspended = self._resized = self._closed = False
        self._lock = Lock()

    def __enter__(self) -> Self:
        for end in (self._wake, self._waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._saved = termios.tcgetattr(self._keys)
        try:
            for ending in ENDING:
                self._handle(ending, self._end)
            self._handle(signal.SIGWINCH, self._resize)
            self._handle(signal.SIGTSTP, self._suspend)
            self._take()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        for ending in ENDING:  # nothing may end the process before the terminal is given back
            signal.signal(ending, signal.SIG_IGN)
        self._give_back()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        with self._lock:
            self._closed = True
            os.close(self._wake)
            os.close(self._waker)

    def wake(self) -> None:
        """End a `read_keys` that waits. Any thread may call it."""
        with self._lock, suppress(BlockingIOError):
            if not self._closed:
                os.write(self._waker, b"\0")

    def read_keys(self, timeout: float) -> str:
        """The keys that were pressed, or an empty text after the timeout, a signal or a call of `wake`.

        Raises `EOFError` when the terminal is gone.
        """
        readable, _, _ = select.select([self._keys, self._wake], [], [], timeout)
        if self._wake in readable:
            with suppress(BlockingIOError):
                os.read(self._wake, 1 << 12)
        if self._suspended:
            self._rest()
        if self._keys not in readable:
            return ""
        if not (pressed := os.read(self._keys, 1 << 10)):
            raise EOFError
        return pressed.decode(errors="ignore")

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        size = os.get_terminal_size(self._out.fileno())
        return max(size.columns, 1), max(size.lines, 1)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines from the top, each shorter than the screen is wide."""
        clear = "\x1b[2J" if self._resized else ""
        known = [] if self._resized else self._drawn
        self._resized = False
        changes = [
            f"\x1b[{place + 1};1H{line}\x1b[0m\x1b[K"
            for place, line in enumerate(lines)
            if place >= len(known) or known[place] != line
        ]
        changes += [f"\x1b[{place + 1};1H\x1b[K" for place in range(len(lines), len(known))]
        self._drawn = list(lines)
        self._write(clear + "".join(changes))

    # ------------------------------------------------------------ taking and giving back

    def _handle(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        self._handlers[number] = signal.signal(number, handler)

    def _take(self) -> None:
        tty.setcbreak(self._keys)
        self._drawn = []
        self._write(_OTHER_SCREEN)

    def _give_back(self) -> None:
        with suppress(OSError):  # the terminal may be gone
            self._write(_OWN_SCREEN)
        with suppress(termios.error):
            termios.tcsetattr(self._keys, termios.TCSAFLUSH, self._saved)

    def _rest(self) -> None:
        """Stop the process as Ctrl-Z does everywhere, until it is told to go on."""
        self._suspended = False
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    def _write(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()

    def _end(self, number: int, frame: FrameType | None) -> None:
        raise Signalled(number)

    def _resize(self, number: int, frame: FrameType | None) -> None:
        self._resized = True

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        self._suspended = True
