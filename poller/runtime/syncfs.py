"""`syncfs`: one call that makes durable everything that was written to a file system.

The call also writes, and waits for, whatever other processes have written there. Linux reports a failed write of
data to each open descriptor once, from 5.8 on. So the descriptor must have been opened before the writes, and must
not be shared with somebody who calls `syncfs` too. Before Linux 5.17 the call does not report a failure of the file
system's journal: `check_alive` does.

All functions here block. They run in threads.
"""

import ctypes
import os
import platform
import re
import sys
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

OLDEST: Final = (5, 8)
"""The first version of Linux whose `syncfs` reports a failed write of data."""
SUPPORTED: Final = {0xEF53: "ext4", 0x58465342: "xfs"}
"""The file systems, by their numbers in `statfs`, on which `syncfs` is known to keep its promise."""
_OTHERS: Final = {
    0x01021994: "tmpfs",
    0x2FC12FC1: "zfs",
    0x6969: "nfs",
    0x65735546: "fuse",
    0x794C7630: "overlay",
    0x9123683E: "btrfs",
    0xF2F52010: "f2fs",
    0xFE534D42: "smb2",
    0xFF534D42: "cifs",
}
ALIVE: Final = ".alive-"
_STATFS_SIZE: Final = 512
"""More bytes than `struct statfs` has on any machine. It begins with the type."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def syncfs(descriptor: int) -> None:
    """Make everything durable that was written to the descriptor's file system before the call; raises `OSError`.

    Other threads run in the meantime.
    """
    if _libc.syncfs(descriptor) != 0:
        raise _error()


def check_alive(folder: int) -> None:
    """Make a file in an open folder and delete it; raises `OSError` if the file system has stopped its journal.

    A process that is killed in between leaves the file. Its name begins with `ALIVE`.
    """
    name = f"{ALIVE}{token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o600, dir_fd=folder))
    os.unlink(name, dir_fd=folder)


def why_unsupported(place: int | Path) -> str:
    """Why `syncfs` cannot be relied on for a descriptor or a path; empty if it can, or if nobody may look.

    A path that does not exist yet is judged by the folder in which it would be made.
    """
    if kernel_is_too_old(platform.release()):
        return (
            f"needs Linux {OLDEST[0]}.{OLDEST[1]} or later, and this is {platform.release()}: use sync: file"
        )
    with suppress(OSError):
        kind = _type_of(place) if isinstance(place, int) else _type_at(place)
        if kind not in SUPPORTED:
            found = _OTHERS.get(kind, f"of another kind ({kind:#x})")
            return f"needs a folder on {' or '.join(SUPPORTED.values())}, and this one is {found}: use sync: file"
    return ""


def kernel_is_too_old(release: str) -> bool:
    """Whether a release of Linux, such as 6.1.0-18-amd64, does not report failed writes."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is None or (int(found[1]), int(found[2])) < OLDEST


def _type_at(path: Path) -> int:
    there = next(one for one in (path, *path.parents) if one.exists())
    descriptor = os.open(there, os.O_PATH | os.O_CLOEXEC)
    try:
        return _type_of(descriptor)
    finally:
        os.close(descriptor)


def _type_of(descriptor: int) -> int:
    status = ctypes.create_string_buffer(_STATFS_SIZE)
    if _libc.fstatfs(descriptor, status) != 0:
        raise _error()
    word = ctypes.c_uint if platform.machine() == "s390x" else ctypes.c_long
    return int.from_bytes(status.raw[: ctypes.sizeof(word)], sys.byteorder) & 0xFFFFFFFF


def _error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
