"""Copies a spool file while it is in use, and before a migration.

The copy is made beside its final name and gets that name when it is complete, checked and on disk.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import structlog

from poller.core.errors import StorageError
from poller.core.spool import Examined
from poller.runtime.durable_files import sync_folder
from poller.spools.sqlite.examine import examine, opened
from poller.spools.sqlite.schema import VERSION

PAGES = 1_024
"""The database pages that are copied between two reports of progress."""

log = structlog.get_logger("spool")
Progress = Callable[[int, int], None]
"""Takes the number of pages that are copied, and of all pages."""


def back_up(path: Path, to: Path, progress: Progress) -> Examined:
    """Copy a spool file as of one moment to a new file, and check the copy. A daemon may write meanwhile.

    Raises `StorageError` if the target exists, there is no room for it, or a file cannot be read or written. A copy
    that is damaged is removed; its findings are returned.
    """
    if to.exists():
        raise StorageError(f"{to} exists already")
    with closing(opened(path)) as source:
        source.execute("BEGIN")
        source.execute(
            "SELECT 1 FROM meta"
        ).fetchone()  # holds this moment: a copy of a moving file starts over
        return _copy(source, to, progress)


def keep_before_migration(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Copy a file of an earlier schema before it is migrated, and log where the copy lies. Without room, go on."""
    to, kept = path.with_name(f"{path.name}.schema-{version}"), True
    why = ""
    try:
        to.unlink(missing_ok=True)  # of a start that was cut before the migration
        findings = _copy(connection, to, lambda done, total: None).findings
        if findings:
            kept, why = False, findings[0]
    except StorageError as error:
        kept, why = False, str(error)
    log.warning(
        "spool_migrated",
        schema_before=version,
        schema=VERSION,
        backup=str(to) if kept else None,
        reason=why or None,
    )


def _copy(source: sqlite3.Connection, to: Path, progress: Progress) -> Examined:
    partial = to.with_name(f"{to.name}.partial")
    try:
        _check_room(source, to.parent)
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(partial, isolation_level=None)) as target:
            source.backup(
                target, pages=PAGES, progress=lambda _, left, total: progress(total - left, total), sleep=0
            )
            target.execute("PRAGMA journal_mode=DELETE")
        examined = examine(partial)
        if not examined.findings:
            _sync(partial)
            partial.rename(to)
            sync_folder(to.parent)
        return examined
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"{to}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _check_room(source: sqlite3.Connection, folder: Path) -> None:
    pages, size = (source.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    free = shutil.disk_usage(folder).free
    if pages * size > free:
        raise StorageError(f"no room in {folder}: the copy takes {pages * size} bytes, {free} are free")


def _sync(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
