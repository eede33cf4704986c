"""Locks on the spool file, and whether the file is still where it was opened."""

import os
from collections.abc import Mapping
from pathlib import Path

from poller.runtime.durable_files import (
    Identity,
    check_one_name,
    has_no_name,
    identity_at,
    is_still_at,
    open_locked,
)


class FileLocks:
    """Holds a lock file, and a lock on the database file itself, under any name.

    The database file is locked before SQLite opens it, and unlocked after SQLite has closed it: closing a descriptor of
    the file drops SQLite's own locks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._what = f"spool {path}"
        self._lock = -1
        self._file = -1
        self._beside: Mapping[Path, Identity] = {}

    def lock_name(self) -> None:
        """Keep other processes away from this path. Raises `StorageLocked`, and `StorageShared` for a hard link."""
        self._lock = open_locked(self._path.with_name(self._path.name + ".lock"), self._what)
        if self._path.exists():
            check_one_name(self._path, self._what)

    def lock_file(self) -> None:
        """Lock the database file, or create it."""
        self._file = open_locked(self._path, self._what)

    def note_files(self) -> None:
        """Remember which files SQLite has beside the database file."""
        names = [self._path.with_name(self._path.name + end) for end in ("-wal", "-shm")]
        self._beside = {path: found for path in names if (found := identity_at(path))}

    def unlock_file(self) -> None:
        """Release the database file."""
        self._file = _close(self._file)

    def unlock_all(self) -> None:
        """Release both."""
        self.unlock_file()
        self._lock = _close(self._lock)

    def why_displaced(self) -> str | None:
        """See `Placed.why_displaced`."""
        if self._file < 0:
            return None
        gone = [path for path, found in self._beside.items() if identity_at(path) != found]
        if not is_still_at(self._path, self._file):
            gone = [self._path]
        return f"spool {gone[0]}: the file was moved or deleted" if gone else None

    def is_deleted(self) -> bool:
        """See `Placed.is_deleted`."""
        return self._file >= 0 and has_no_name(self._file)


def _close(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1
