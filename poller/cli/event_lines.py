"""Events on standard output: a short line each for people, or the CloudEvents themselves. Notices go to stderr.

Invariant: what goes to a terminal holds no query of a URL, which may be signed, and no character that could control it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

import msgspec
import typer

from poller.cli.tables import safe, shown
from poller.cli.times import show_time

if TYPE_CHECKING:
    from poller.control import EventRow
    from poller.core.model import Event


class EventPrinter:
    """Prints rows as they arrive."""

    def __init__(self, out: BinaryIO, *, json: bool, utc: bool) -> None:
        self._out = out
        self._json = json
        self._utc = utc
        self._terminal = out.isatty()

    def show(self, rows: Sequence["EventRow"]) -> None:
        """Print rows that arrived together: events, and notices of missed ones."""
        lines: list[bytes] = []
        for row in rows:
            if row.number:
                lines.append(self._line(bytes(row.event)))
            elif row.missed and self._json:
                lines.append(b'{"missed":%d}' % row.missed)
            elif row.missed:
                self._write(lines)
                lines = []
                typer.echo(f"{row.missed} events are missing here: deleted, or not readable", err=True)
        self._write(lines)

    def _write(self, lines: Sequence[bytes]) -> None:
        if lines:
            self._out.write(b"\n".join(lines) + b"\n")
            self._out.flush()

    def _line(self, event: bytes) -> bytes:
        from poller.core.model import parse_event
        from poller.operations.masking import public_form

        if not self._json:
            return line_of(parse_event(event), self._utc).encode()
        return safe(public_form(event).decode()).encode() if self._terminal else event


@contextmanager
def until_the_reader_ends(out: BinaryIO) -> Iterator[None]:
    """Ends quietly when the reader of the output has closed the pipe, as `head` does."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def line_of(event: "Event", utc: bool) -> str:
    """An event in one line: when it happened, its kind, its stream, and its file or state."""
    when, stream, detail = show_time(event.occurred_at, utc), shown(event.stream_id), shown(_detail(event))
    return f"{when}  {shown(event.kind):<10}  {stream:<16}  {detail}"


def _detail(event: "Event") -> str:
    try:
        fields = event.fields
    except msgspec.DecodeError:
        return ""
    for name in ("file_name", "state"):
        if isinstance(value := fields.get(name), str) and value:
            return value
    if isinstance(missing := fields.get("missing"), int):
        return f"{missing} missing"
    try:
        return urlsplit(event.url or "").path.rpartition("/")[2]
    except ValueError:
        return ""
