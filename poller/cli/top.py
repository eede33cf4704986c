"""`poller top`: a live view of the daemon, drawn once a second."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

import typer

from poller.cli.common import Config, fail, stored_of
from poller.core.errors import PollerError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from poller.cli.terminal import Screen
    from poller.cli.top_view import Answer

EVERY: Final = 1.0
SILENT_AFTER: Final = 5.0
"""Seconds after which the last answer is no longer called live."""


def top(context: typer.Context, config: Config) -> None:
    """Watch sources, spool and sinks live: backlogs, rates, reasons.

    Keys: q quits, s changes the order of sinks, / filters by name, ? shows help.
    """
    from poller.cli.terminal import Screen, Signalled, is_terminal
    from poller.daemon.wiring import control_path

    if not is_terminal():
        fail("poller: top needs a terminal; `poller status` prints the same once", 2)
    path = control_path(stored_of(config))
    context.obj.give_back()
    try:
        first = _fetch(path)
    except PollerError as error:
        fail(f"poller: {error}")
    try:
        with Screen(sys.stdout) as screen:
            _watch(screen, path, first)
    except Signalled as ended:
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)
    except (EOFError, OSError):
        fail("poller: the terminal is gone")


def _fetch(path: Path) -> "Answer":
    from poller.control import ControlError, Request, Verb, ask

    for row in ask(path, Request(verb=Verb.TOP)):
        return row
    raise ControlError("the daemon gave no answer")


class Watch(threading.Thread):
    """Asks the daemon once a second, so that keys work also while it does not answer."""

    def __init__(self, path: Path, screen: "Screen") -> None:
        super().__init__(name="top", daemon=True)
        self._path = path
        self._screen = screen
        self._ended = threading.Event()
        self.fresh: SimpleQueue[Answer] = SimpleQueue()
        """Answers that were not shown yet."""
        self.trouble = ""
        """Why the last question had no answer; empty if it had one."""

    def run(self) -> None:
        while not self._ended.wait(EVERY):
            try:
                self.fresh.put(_fetch(self._path))
                self.trouble = ""
            except PollerError as error:
                self.trouble = f"{error}; trying again every second"
            self._screen.wake()

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()


def _watch(screen: "Screen", path: Path, first: "Answer") -> None:
    """Draw until a key ends it."""
    from poller.cli.top_view import Rates, View, lines, press

    console, rates, view, answer = _console(), Rates(), View(), first
    rates.add(answer)
    heard = time.monotonic()
    watch = Watch(path, screen)
    watch.start()
    try:
        while not view.quit:
            width, height = screen.size()
            shown = lines(answer, rates, view, (width - 1, height), watch.trouble or _silence(heard))
            screen.draw([_drawn(console, line) for line in shown])
            for key in _single(screen.read_keys(timeout=2 * EVERY)):
                view = press(view, key)
            while not watch.fresh.empty():
                answer, heard = watch.fresh.get(), time.monotonic()
                rates.add(answer)
    finally:
        watch.end()


def _silence(heard: float) -> str:
    silent = time.monotonic() - heard
    return "" if silent < SILENT_AFTER else f"the daemon has not answered for {silent:.0f} s"


def _single(keys: str) -> list[str]:
    """The keys one by one. A sequence of a special key, such as an arrow, means nothing here."""
    return [] if len(keys) > 1 and keys[0] == "\x1b" else list(keys)


def _console() -> "Console":
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, soft_wrap=True, width=1_000)


def _drawn(console: "Console", line: "Text") -> str:
    with console.capture() as captured:
        console.print(line, end="", crop=False)
    return captured.get()
