"""Files that must be there after a power cut, and belong to one process."""

import fcntl
import os
from pathlib import Path

from poller.errors import StorageLocked


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each durable in the one above it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_still_at(path: Path, descriptor: int) -> bool:
    """Whether the open file or folder is the one that lies at the path now (same device and inode)."""
    opened = os.fstat(descriptor)
    try:
        found = os.stat(path)
    except OSError:
        return False
    return (opened.st_dev, opened.st_ino) == (found.st_dev, found.st_ino)


def own(path: Path, what: str) -> int:
    """Open a file for this process alone, made if missing; `StorageLocked` when another one has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StorageLocked(f"{what}: another poller owns it") from None
    return fd
