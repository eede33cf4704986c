"""Moves a damaged spool file aside. The file stays whole and is never deleted.

Life cycle
    The code that meets the damage calls `condemn`, which puts a mark beside the file. The next start moves
    the file before it opens anything. If the move is interrupted, the start after that continues it under the
    same name.

The WAL is moved first, because SQLite deletes a WAL that has no database.
"""

import os
import re
import sqlite3
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from poller.core.spool import Damage
from poller.runtime.durable_files import give_to_owner, sync_folder

ENDS = ("-wal", "-shm", "")
CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _mark(path: Path) -> Path:
    return _beside(path, ".damaged")


def condemn(path: Path, now: datetime, reason: str) -> None:
    """Mark a file to be moved by the next start. An existing mark stays. Errors of the disk are ignored."""
    with suppress(OSError):
        fd = os.open(_mark(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            give_to_owner(_mark(path))
            os.write(fd, f"{_name(path, now)}\n{reason}\n".encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_folder(path.parent)


def _name(path: Path, now: datetime) -> str:
    name = stem = f"{path.name}.corrupt-{now:%Y%m%dT%H%M%SZ}"
    count = 1
    while any(path.with_name(name + end).exists() for end in ENDS):
        count += 1
        name = f"{stem}.{count}"
    return name


def is_condemned(path: Path) -> bool:
    """Whether the file is marked, so that it must be moved before it is opened."""
    return _mark(path).exists()


def move_aside(path: Path, now: datetime, reason: str = "") -> Damage:
    """Move a file and its WAL to the name in the mark; raises `OSError` when that fails. May be repeated."""
    condemn(path, now, reason)
    name, _, said = _mark(path).read_text(errors="replace").partition("\n")
    if not re.fullmatch(re.escape(path.name) + r"\.corrupt-[0-9TZ.]+", name):  # a mark that was cut short
        name, said = _name(path, now), reason
    aside = path.with_name(name)
    for end in ENDS:
        if _beside(path, end).exists():
            os.rename(_beside(path, end), _beside(aside, end))
    _beside(path, ".head").unlink(missing_ok=True)  # it describes the file that was moved
    sync_folder(path.parent)
    _mark(path).unlink()
    sync_folder(path.parent)
    return Damage(file=aside, reason=said.strip() or "damaged")


def files_aside(path: Path) -> list[Path]:
    """The files that were moved aside and still lie beside the spool, oldest first."""
    found = path.parent.glob(f"{path.name}.corrupt-*")
    return sorted(file for file in found if not file.name.endswith(("-wal", "-shm")))
