"""A small file beside the spool: how much was committed, to notice a spool that lost its newest part.

SQLite drops the damaged end of a WAL without a word, with all that was committed in it. This file is written after each
commit is durable, without an fsync: a kill leaves it as it is, a power cut some seconds behind. So it never tells
of more than the spool held, and a file that is missing, damaged or of another spool says nothing.

Layout: one line of text, `poller-head ID COMMITS NEXT CRC`, padded with spaces. ID is a hash of the spool's secret
factor, COMMITS counts transactions that took something in, NEXT is the number of the next event.
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
    """How far a spool had come."""

    id: str
    commits: int
    next: int


def identity(factor: bytes) -> str:
    """What tells one spool from another; the factor stays secret."""
    return hashlib.blake2b(factor, digest_size=8).hexdigest()


class HeadFile:
    """The file, written by the one thread that commits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def read(self) -> Mark | None:
        """What it says; None when that cannot be believed."""
        with suppress(OSError):
            found = _LINE.fullmatch(self._path.read_bytes()[:_LENGTH])
            if found is not None and int(found[4], 16) == zlib.crc32(found[0][: found.start(4)]):
                return Mark(id=found[1].decode(), commits=int(found[2]), next=int(found[3]))
        return None

    def write(self, mark: Mark) -> None:
        """Say it; a disk that does not take it is met by the spool itself."""
        line = f"poller-head {mark.id} {mark.commits} {mark.next} ".encode()
        line = f"{line.decode()}{zlib.crc32(line):08x}".ljust(_LENGTH - 1).encode() + b"\n"
        with suppress(OSError):
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                give_to_owner(self._path, self._fd)
            os.pwrite(self._fd, line, 0)

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def copied_wal(path: Path, stamp: str) -> Path | None:
    """A copy of a WAL whose end cannot be read, before it is written over; None when there is none, or no room."""
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
