"""The sink `stdout`: one line for each event, and one write for each batch.

A line is a CloudEvents object, or on a terminal a short text for people.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Literal, Self

from pydantic import Field

from poller.core.errors import SinkError, TryLater
from poller.core.model import Batch, Event
from poller.core.ports import Sink
from poller.runtime.group_thread import GroupThread
from poller.runtime.stderr import write_some
from poller.settings import BatchSettings, SinkSettings

LEAVE_WITHIN = 1.0


class StdoutBatch(BatchSettings):
    """How events are put into batches."""

    max_events: int = Field(default=100, ge=1, le=1000, description="The most lines in one write, 1 to 1000.")


class StdoutSettings(SinkSettings):
    """Settings of a sink of type `stdout`."""

    lines: Literal["auto", "json", "short"] = Field(
        default="auto",
        description="The form of an event: json, or short for people. auto is short on a terminal.",
    )
    batch: StdoutBatch = Field(default=StdoutBatch(), description="How many events are written at once.")


class Stdout(Sink):
    """Writes events to standard output. If the reader stops or goes away, the delivery fails and is tried again.

    A write to a full pipe blocks its thread but not the event loop. It goes on after its delivery was
    cancelled, and the next write waits for it.
    """

    Settings = StdoutSettings

    def __init__(
        self, name: str, settings: StdoutSettings, accounts: Mapping[str, object], *, fd: int | None = None
    ) -> None:
        self.name = name
        self._fd = fd
        self._lines = settings.lines
        self._short = False
        self._turn = asyncio.Lock()
        self._written: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        fd = _standard_output() if self._fd is None else self._fd
        self._short = self._lines == "short" or (self._lines == "auto" and os.isatty(fd))
        pen = _Pen(fd)
        self._thread: GroupThread[bytes, None] = GroupThread(f"sink {self.name}", pen.write_all, most=1)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._written is not None:
            await asyncio.wait({self._written}, timeout=LEAVE_WITHIN)
        # a thread that still writes cannot be stopped: as a daemon thread it ends with the process
        if self._written is None or self._written.done():
            await self._thread.stop()

    async def deliver(self, batch: Batch) -> None:
        """Write the batch; returns when the pipe or file has all of it, and raises `TryLater` when writing fails."""
        lines = b"".join(
            [short_line(event) if self._short else event.encoded + b"\n" for event in batch.events]
        )
        async with self._turn:
            if self._written is not None:
                await asyncio.wait({self._written})
            self._written = self._thread.submit(lines)
            try:
                await asyncio.shield(self._written)
            except BrokenPipeError:
                raise TryLater("stdout is closed") from None
            except OSError as error:
                raise TryLater(f"stdout: {error.strerror}") from None


def short_line(event: Event) -> bytes:
    """An event for people: the time of day in UTC, the stream, the kind, and the main detail of the kind."""
    fields = event.fields
    match event.kind:
        case "screenshot":
            said = fields.get("file_name")
        case "channel":
            said = fields.get("state")
        case "recording":
            said = f"{fields.get('duration') or 0} s"
        case _:
            said = ""
    words = (f"{event.occurred_at:%H:%M:%S}", event.stream_id, event.kind, str(said or ""))
    # names come from strangers: they must not control the terminal, nor look like another line
    text = "".join(c if c.isprintable() else "\ufffd" for c in "  ".join(words).rstrip())
    return f"{text}\n".encode("utf-8", "replace")


class _Pen:
    """Writes whole lines to a file descriptor. If a write was cut within a line, the next one begins with its rest."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._owed = b""

    def write_all(self, batches: list[bytes]) -> list[Exception | None]:
        return [self._write(lines) for lines in batches]

    def _write(self, lines: bytes) -> Exception | None:
        text = memoryview(self._owed + lines)
        written = 0
        try:
            while written < len(text):
                written += write_some(self._fd, text[written:])
        except OSError as error:
            self._owed = _cut_line(bytes(text), written, began_cut=bool(self._owed))
            return error
        self._owed = b""
        return None


def _cut_line(text: bytes, written: int, *, began_cut: bool) -> bytes:
    """The rest of the line in which writing stopped; empty when it stopped between lines."""
    between = text[written - 1 : written] == b"\n" if written else not began_cut
    return b"" if between else text[written : text.index(b"\n", written) + 1]


def _standard_output() -> int:
    # a process that was started without standard output has None here, and its descriptor 1 is another file
    if sys.__stdout__ is None:
        raise SinkError("the process has no standard output")
    return sys.__stdout__.fileno()
