"""The errors of SQLite as errors of the spool."""

import sqlite3
from datetime import datetime
from pathlib import Path

from poller.core.errors import StorageCorrupt, StorageError, StorageFull, Unreadable
from poller.spools.sqlite.corrupt_file import CORRUPT, condemn

NO_TEXT = "Could not decode to UTF-8"
"""The beginning of `sqlite3`'s message for a text column that is not UTF-8; there is no error code for it."""


def storage_error(path: Path, error: Exception, now: datetime) -> StorageError:
    """The `StorageError` for an error of the engine. A file that is damaged is condemned."""
    code = getattr(error, "sqlite_errorcode", None)
    text = f"spool {path}: {error}"
    if code is not None and (code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE):
        return StorageFull(text)
    no_text = isinstance(error, sqlite3.OperationalError) and str(error).startswith(NO_TEXT)
    if isinstance(error, Unreadable) or no_text or (code is not None and code & 0xFF in CORRUPT):
        condemn(path, now, text)
        return StorageCorrupt(text)
    return StorageError(text)
