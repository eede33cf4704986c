"""The sink `stdout`: one CloudEvents object a line, whole lines, one write a batch. On a terminal a line is short."""

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
    """How many lines are written at once."""

    max_events: int = Field(default=100, ge=1, le=1000, description="The most lines in one write, 1 to 1000.")


class StdoutSettings(SinkSettings):
    """Settings of a sink of type `stdout`."""

    lines: Literal["auto", "json", "short"] = Field(
        default="auto",
        description="How an event is written: json, or short for people; auto: short on a terminal.",
    )
    batch: StdoutBatch = Field(default=StdoutBatch(), description="How many events are written at once.")


class Stdout(Sink):
    """Writes events to standard output; a reader that stops or goes away is a failed delivery, nothing worse.

    A write to a full pipe blocks its thread, not the loop. It outlives the delivery that began it, and
    nothing else is written before it ends.
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
        # A thread that still writes cannot be stopped, only left: it is a daemon.
        if self._written is None or self._written.done():
            await self._thread.stop()

    async def deliver(self, batch: Batch) -> None:
        """Write the batch; returns when the other side's pipe or file has all of it."""
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
    """An event for people: the time of day in UTC, the stream, the kind, and what is worth knowing of it."""
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
    # Names come from strangers: what is shown must not steer the terminal, nor look like another line.
    text = "".join(c if c.isprintable() else "\ufffd" for c in "  ".join(words).rstrip())
    return f"{text}\n".encode("utf-8", "replace")


class _Pen:
    """Writes whole lines to a file descriptor; the rest of a line that was cut comes before the next."""

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
    # A process started without a standard output has none here, and its descriptor 1 is some other file.
    if sys.__stdout__ is None:
        raise SinkError("the process has no standard output")
    return sys.__stdout__.fileno()
