"""Files that survive a power cut and belong to one process.

Files that root creates in the folder of another user are given to that user: a command that root runs must
not leave files that the service cannot open.
"""

import fcntl
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from poller.core.errors import StorageLocked, StorageShared

Identity = tuple[int, int]
"""Device and inode."""


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each durable in the one above it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        with suppress(FileExistsError):
            path.mkdir()
            give_to_owner(path)
        sync_folder(path.parent)
    folder.mkdir(exist_ok=True)  # raises for what is no folder


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def identity_of(file: Path | int) -> Identity:
    """The identity of the file or folder at a path or of a descriptor; raises `OSError`."""
    found = os.stat(file)
    return found.st_dev, found.st_ino


def identity_at(path: Path) -> Identity | None:
    """The identity of the file or folder at a path; None if there is none, or if it cannot be read."""
    try:
        return identity_of(path)
    except OSError:
        return None


def is_still_at(path: Path, descriptor: int) -> bool:
    """Whether the open file or folder is the one that lies at the path now."""
    return identity_of(descriptor) == identity_at(path)


def has_no_name(descriptor: int) -> bool:
    """Whether the open file was deleted: it is gone when the descriptor is closed."""
    return os.fstat(descriptor).st_nlink == 0


def open_locked(path: Path, what: str) -> int:
    """Open a file for this process alone, or create it; returns its descriptor, which has the lock.

    Raises `StorageLocked` if another process has the lock, and `StorageShared` if the file has several names.
    """
    while True:
        fd = _open_file(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            check_one_name(path, what)
            if is_still_at(path, fd):
                return fd
        except BlockingIOError:
            os.close(fd)
            raise StorageLocked(f"{what}: another poller owns it") from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # it was replaced in the meantime: lock the file that lies there now


def _open_file(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    with suppress(FileExistsError):
        fd = os.open(path, flags | os.O_EXCL, 0o600)
        give_to_owner(path, fd)
        return fd
    return os.open(path, flags, 0o600)


def give_to_owner(made: Path, descriptor: int | None = None) -> None:
    """Give a new file to the owner of its folder, if root runs this process.

    With a descriptor, the new file itself is given away, even if another file is at its path by now.
    """
    if os.geteuid() != 0:
        return
    folder = os.stat(made.parent)
    if folder.st_uid != 0:
        if descriptor is None:
            os.chown(made, folder.st_uid, folder.st_gid, follow_symlinks=False)
        else:
            os.fchown(descriptor, folder.st_uid, folder.st_gid)


def make_in(folder: int, name: str) -> None:
    """Make a folder in an open one, for the owner of that; one that is there already stays as it is."""
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
        owner = os.fstat(folder)
        if os.geteuid() == 0 != owner.st_uid:
            os.chown(name, owner.st_uid, owner.st_gid, dir_fd=folder, follow_symlinks=False)


def give_to_folder_owner(folder: int, descriptor: int) -> None:
    """Give a file that this process has just made in an open folder to the folder's owner."""
    if os.geteuid() == 0 and (owner := os.fstat(folder)).st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def check_one_name(path: Path, what: str) -> None:
    """Raise `StorageShared` for a file with several names: the files beside it belong to one of them.

    The check uses `stat` only, because closing any descriptor of a database drops the locks that SQLite has
    on it.
    """
    found = os.stat(path)
    if stat.S_ISREG(found.st_mode) and (links := found.st_nlink) > 1:
        raise StorageShared(
            f"{what}: the file has {links} names (hard links), and its log lies beside one of them: remove the other"
            f" names, `find / -xdev -samefile {path}` lists them"
        )
    if _is_mount(path):
        raise StorageShared(
            f"{what}: the file alone is mounted there, and its log would lie elsewhere: mount its folder instead"
        )


def _is_mount(path: Path) -> bool:
    """Whether the path is a mount point; false where the kernel does not tell."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return False
    return os.fsencode(os.path.realpath(path)) in {_unescape(line.split(b" ")[4]) for line in lines}


def _unescape(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), field)
