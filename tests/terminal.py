"""A terminal for tests: a real pty, and what a person would see on its screen."""

import fcntl
import os
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from tests import lives

PATIENCE: Final = 90.0
_PART: Final = re.compile(
    r"\x1b\[(?P<private>\??)(?P<numbers>[0-9;]*)(?P<letter>[A-Za-z])|(?P<text>[^\x1b]+)"
)


class Picture:
    """The screen of a terminal that understands placing the cursor, erasing, colours and the other screen."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns = columns
        self.height = lines
        self.other_screen = False
        self.cursor_shown = True
        self.written = 0
        """The bytes that were written."""
        self._rest = ""
        self._clear()

    def _clear(self) -> None:
        self._cells = [[" "] * self.columns for _ in range(self.height)]
        self._row = self._column = 0

    @property
    def lines(self) -> list[str]:
        return ["".join(cells).rstrip() for cells in self._cells]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def resize(self, columns: int, lines: int) -> None:
        self.columns, self.height = columns, lines
        self._clear()

    def feed(self, text: str) -> None:
        self.written += len(text)
        text = self._rest + text
        cut = text.rfind("\x1b")
        whole = cut < 0 or _PART.match(text, cut) is not None
        text, self._rest = (text, "") if whole else (text[:cut], text[cut:])
        for part in _PART.finditer(text):
            if part["text"] is not None:
                self._put(part["text"])
            else:
                self._obey(part["private"] + part["letter"], part["numbers"])

    def _put(self, text: str) -> None:
        for character in text:
            if character == "\r":
                self._column = 0
            elif character == "\n":
                self._row = min(self._row + 1, self.height - 1)
            elif character.isprintable():
                if self._column == self.columns:
                    assert not self.other_screen, "a line is longer than the screen is wide"
                    self._row, self._column = min(self._row + 1, self.height - 1), 0
                self._cells[self._row][self._column] = character
                self._column += 1

    def _obey(self, order: str, numbers: str) -> None:
        match order:
            case "H":
                row, column = (int(one) for one in (numbers or "1;1").split(";"))
                assert row <= self.height, "a line below the screen"
                self._row, self._column = row - 1, column - 1
            case "K":
                self._cells[self._row][self._column :] = [" "] * (self.columns - self._column)
            case "J":
                self._clear()
            case "?h" | "?l":
                on = order == "?h"
                if numbers == "1049":
                    self.other_screen = on
                elif numbers == "25":
                    self.cursor_shown = on
            case "m":
                pass
            case _:
                raise AssertionError(f"the terminal knows no {order!r}")


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, words: Sequence[str], columns: int = 80, lines: int = 24, **environ: str) -> None:
        self._ours, self._theirs = os.openpty()
        self.picture = Picture(columns, lines)
        self._set_size(columns, lines)
        self.before = self.modes
        told = {**os.environ, "TERM": "xterm-256color", **environ}
        self.child = lives.start_on_terminal(words, self._theirs, told)

    @property
    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._theirs)

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self.read(0.2)
        self.picture.resize(columns, lines)
        self._set_size(columns, lines)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def read(self, seconds: float) -> None:
        """Take what the program writes for so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self._ours], [], [], left)[0]:
                try:
                    self.picture.feed(os.read(self._ours, 1 << 16).decode(errors="replace"))
                except OSError:
                    return

    def until(self, holds: Callable[[Picture], object]) -> None:
        begun = time.monotonic()
        while not holds(self.picture):
            waited = time.monotonic() - begun
            assert waited < PATIENCE, self.picture.text
            assert self.child.poll() is None, self.picture.text
            self.read(0.05)

    def until_shown(self, *texts: str) -> None:
        """Wait until the screen shows all of these."""
        self.until(lambda picture: all(text in picture.text for text in texts))

    def wait(self) -> int:
        """The exit code, after all was read."""
        begun = time.monotonic()
        while (code := self.child.poll()) is None:
            assert time.monotonic() - begun < PATIENCE
            self.read(0.05)
        self.read(0.3)
        return code

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
            self.child.wait()
        os.close(self._ours)
        os.close(self._theirs)

    @property
    def given_back(self) -> bool:
        """Whether the terminal is as it was before the program."""
        return self.modes == self.before and self.picture.cursor_shown and not self.picture.other_screen


@contextmanager
def terminal(*words: str, columns: int = 80, lines: int = 24, **environ: str) -> Iterator[Terminal]:
    opened = Terminal(words, columns, lines, **environ)
    try:
        yield opened
    finally:
        opened.close()
