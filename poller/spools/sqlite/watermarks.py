"""High and low water marks: the spool is full when its file is too large, or when its disk has too little space."""

import os
import sqlite3
from pathlib import Path

import msgspec

LOOK_EVERY = 1.0
LOOK_AFTER = 4 * 1024 * 1024
"""The seconds, and the bytes of written events, after which the levels are measured again."""


class Levels(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes. `used` is the size of the WAL and of the file's pages in use. `room` is the space left for writing.

    An SQLite file does not shrink: its free pages count as room, as free space of the disk does.
    """

    used: int
    room: int


def reason(levels: Levels, max_bytes: int, min_free: int, full: bool) -> str | None:
    """Why the spool takes no more events; None while it takes them. A `full` spool must go below the low marks.

    The low marks are a tenth away from the high marks.
    """
    low, clear = max_bytes * 9 // 10, min_free * 11 // 10
    most, least = (low, clear) if full else (max_bytes, min_free)
    if levels.used > most:
        return (
            f"full: {_mib(levels.used)} in use, max_bytes is {_mib(max_bytes)}, taken again under"
            f" {_mib(low)}: let the sinks deliver, or raise max_bytes"
        )
    if levels.room < least:
        how_full = "nearly full" if levels.room > 0 else "full"
        return (
            f"the disk is {how_full}: {_mib(max(0, levels.room))} left, min_free is {_mib(min_free)}, taken again above"
            f" {_mib(clear)}: make room on the disk, or lower min_free"
        )
    return None


def fullness(levels: Levels, max_bytes: int, min_free: int) -> dict[str, float]:
    """How near the levels are to the high marks, which are at 1. Twice the wanted free space is 0.5."""
    return {"max_bytes": levels.used / max_bytes, "min_free": min_free / max(levels.room, min_free / 10, 1)}


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"


class Marks:
    """Decides when to measure, and remembers whether the spool is full."""

    def __init__(self, path: Path, max_bytes: int, min_free: int) -> None:
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self._max_bytes = max_bytes
        self._min_free = min_free
        self._look_at = 0.0
        self.written = 0
        """Bytes of events that were written since the last measurement."""
        self.full: str | None = None
        """Why the spool takes no more events; None while it takes them."""
        self.levels: Levels | None = None
        """As they were measured last. Other threads may read them."""

    @property
    def fullness(self) -> dict[str, float]:
        """How near the spool is to each mark; empty before the first measurement. Other threads may ask."""
        levels = self.levels
        return {} if levels is None else fullness(levels, self._max_bytes, self._min_free)

    def due(self, now: float) -> bool:
        """Whether to measure: before every transaction while full, otherwise now and then."""
        return self.full is not None or now >= self._look_at or self.written >= LOOK_AFTER

    def look(self, connection: sqlite3.Connection, now: float) -> None:
        """Measure, and set `full`. Takes some ten microseconds."""
        self._look_at = now + LOOK_EVERY
        self.written = 0
        self.levels = measured(connection, self._path, self._wal)
        self.full = reason(self.levels, self._max_bytes, self._min_free, self.full is not None)


def measured(connection: sqlite3.Connection, path: Path, wal: Path) -> Levels:
    """The levels now."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    disk = os.statvfs(path.parent)
    log = wal.stat().st_size if wal.exists() else 0
    growth = max(0, pages * size - path.stat().st_size)  # the next checkpoint extends the file by so much
    return Levels(used=(pages - free) * size + log, room=disk.f_bavail * disk.f_frsize + free * size - growth)
