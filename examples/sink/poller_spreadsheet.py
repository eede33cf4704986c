"""The sink `spreadsheet`: appends each event to a CSV file, as time, kind, stream, id and URL."""

import asyncio
import csv
import io
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from poller.api import Account, Batch, BatchSettings, Event, FilePath, PlaceGone, Sink, SinkSettings


class SpreadsheetSettings(SinkSettings):
    """Settings of a sink of type `spreadsheet`; whatever every sink has is inherited."""

    type: Literal["spreadsheet"] = Field(description="Appends events to a CSV file.")
    path: FilePath = Field(description="The file; it is made if it is missing.")
    batch: BatchSettings = Field(
        default=BatchSettings(max_events=100), description="How many events are written at once."
    )


class Spreadsheet(Sink):
    """Appends a batch in one write and syncs it. A line may come twice, after a crash or an error: its id says so."""

    Settings = SpreadsheetSettings

    def __init__(self, name: str, settings: SpreadsheetSettings, accounts: Mapping[str, Account]) -> None:
        self.name = name
        self._path = settings.path
        self._turn = threading.Lock()

    async def deliver(self, batch: Batch) -> None:
        """Return when the whole batch is on the disk."""
        text = rows(batch.events)
        try:
            await asyncio.to_thread(append, self._path, text, self._turn)
        except (FileNotFoundError, PermissionError) as error:
            raise PlaceGone(f"{self._path.name}: {error.strerror}") from None


def rows(events: Sequence[Event]) -> bytes:
    """The events as CSV, one a line."""
    text = io.StringIO()
    lines = ((one.occurred_at.isoformat(), one.kind, one.stream_id, one.id, one.url or "") for one in events)
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def append(path: Path, text: bytes, turn: threading.Lock) -> None:
    """Write at the end of the file, whole or not at all, and sync.

    `concurrency` batches may come at once, and a thread goes on after its delivery was cancelled. So the lock is the
    threads' own.
    """
    with turn, path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            if file.write(text) != len(text):
                raise OSError(28, "no space left on the device")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise
