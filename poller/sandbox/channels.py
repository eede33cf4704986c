"""What each channel of each customer is doing: pushing, interrupted, disabled, or never seen."""

from __future__ import annotations

import time
from enum import IntEnum

from poller.sandbox.database import Database


class Status(IntEnum):
    """The status of a channel, in the words of Live_Channel_GetStatus."""

    INTERRUPTED = 0
    LIVE = 1
    DISABLED = 3


class Channels:
    """The channels' states, durable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def resume(self) -> None:
        """Marks all channels as not live, after a restart."""
        self._database.execute("UPDATE channel SET ended_at = ? WHERE ended_at IS NULL", (time.time(),))

    def begin(self, app_id: int, stream_id: str) -> None:
        """Marks a channel as live: a push was accepted."""
        self._database.execute(
            "INSERT INTO channel (app_id, stream_id, pushed_at) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET pushed_at = excluded.pushed_at, ended_at = NULL",
            (app_id, stream_id, time.time()),
        )

    def end(self, app_id: int, stream_id: str) -> None:
        """Marks a channel as interrupted: its push has ended."""
        self._database.execute(
            "UPDATE channel SET ended_at = ? WHERE app_id = ? AND stream_id = ?",
            (time.time(), app_id, stream_id),
        )

    def disable(self, app_id: int, stream_id: str, *, disabled: bool = True) -> None:
        """Sets whether pushes of a channel are refused from now on."""
        self._database.execute(
            "INSERT INTO channel (app_id, stream_id, ended_at, disabled) VALUES (?, ?, 0, ?)"
            " ON CONFLICT DO UPDATE SET disabled = excluded.disabled",
            (app_id, stream_id, int(disabled)),
        )

    def status(self, app_id: int, stream_id: str) -> Status | None:
        """The status of a channel; None if it was never pushed."""
        row = self._database.execute(
            "SELECT pushed_at, ended_at, disabled FROM channel WHERE app_id = ? AND stream_id = ?",
            (app_id, stream_id),
        ).fetchone()
        if row is None or (row[0] is None and not row[2]):
            return None
        if row[2]:
            return Status.DISABLED
        return Status.LIVE if row[1] is None else Status.INTERRUPTED

    def forget(self, before: float) -> None:
        """Drops what ended before that moment (epoch) and is not disabled."""
        self._database.execute("DELETE FROM channel WHERE ended_at < ? AND NOT disabled", (before,))
