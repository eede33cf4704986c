"""Shows how far long work has come: one line that changes on a terminal, else a line now and then."""

import sys
import time

import typer

EVERY = {True: 0.2, False: 10.0}
"""Seconds between two lines, on a terminal and elsewhere."""


class Progress:
    """Reports on stderr. Nothing is shown for work that ends at once."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + EVERY[self._terminal]
        self._shown = False

    def show(self, done: int, total: int | None = None) -> None:
        """Report `done` of `total`, which may be unknown. Most calls show nothing."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY[self._terminal]
        self._shown = True
        share = f"{done:,}" if not total else f"{done:,} of {total:,} ({100 * done // total} %)"
        start, end = ("\r\x1b[K", "") if self._terminal else ("", "\n")
        typer.echo(f"{start}{self._what}: {share}{end}", err=True, nl=False)

    def end(self) -> None:
        """Remove the line from a terminal."""
        if self._shown and self._terminal:
            typer.echo("\r\x1b[K", err=True, nl=False)
