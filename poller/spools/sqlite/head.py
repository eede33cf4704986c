"""The head file, a small file beside the spool: it shows when a spool has lost its newest commits.

Purpose
    SQLite silently drops the damaged end of a WAL, and with it the commits there. The head file has the
    number of commits, for comparison at the next start.

Invariants
    The file is written after each durable commit, without an fsync. It survives a kill; after a power cut it
    may be some seconds old. So it never claims more than the spool had. A file that is missing, damaged or of
    another spool is ignored.

Layout
    One line of text, `poller-head ID COMMITS NEXT CRC`, padded with spaces. ID is a hash of the spool's
    secret factor. COMMITS counts the transactions that took in pages. NEXT is the number of the next event.
"""

import hashlib
import os
import re
import zlib
from contextlib import suppress
from pathlib import Path

import msgspec

from poller.runtime.durable_files import give_to_owner

_LINE = re.compile(rb"poller-head ([0-9a-f]{16}) (\d{1,19}) (\d{1,19}) ([0-9a-f]{8}) *\n")
_LENGTH = 80


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of the head file: the state of a spool after a commit."""

    id: str
    commits: int
    next: int


def identity(factor: bytes) -> str:
    """The public identity of a spool, derived from its secret factor."""
    return hashlib.blake2b(factor, digest_size=8).hexdigest()


class HeadFile:
    """The file, written by the one thread that commits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def read(self) -> Mark | None:
        """The last mark that was written; None when the file is missing or damaged."""
        with suppress(OSError):
            found = _LINE.fullmatch(self._path.read_bytes()[:_LENGTH])
            if found is not None and int(found[4], 16) == zlib.crc32(found[0][: found.start(4)]):
                return Mark(id=found[1].decode(), commits=int(found[2]), next=int(found[3]))
        return None

    def write(self, mark: Mark) -> None:
        """Write a mark. Errors of the disk are ignored: the spool meets them itself."""
        line = f"poller-head {mark.id} {mark.commits} {mark.next} ".encode()
        line = f"{line.decode()}{zlib.crc32(line):08x}".ljust(_LENGTH - 1).encode() + b"\n"
        with suppress(OSError):
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                give_to_owner(self._path, self._fd)
            os.pwrite(self._fd, line, 0)

    def close(self) -> None:
        """Close the file. May be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def copied_wal(path: Path, stamp: str) -> Path | None:
    """Copy a WAL with a damaged end before SQLite overwrites it; returns the copy's path.

    None when there is no WAL, or when the copy cannot be written.
    """
    wal = path.with_name(path.name + "-wal")
    aside = path.with_name(f"{path.name}.wal-damaged-{stamp}")
    try:
        content = wal.read_bytes()
        if not content:
            return None
        with open(aside, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as copy:
            copy.write(content)
        give_to_owner(aside)
    except OSError:
        return None
    return aside
