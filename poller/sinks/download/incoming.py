"""Drafts: files that are written and synced in the folder `.incoming`, and then renamed to their places.

All drafts are in one folder, so that the leftovers of a crash are found by listing it, however many pictures
there are. All functions here block. They run in threads.
"""

import fcntl
import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from secrets import token_hex
from types import TracebackType
from typing import Final, Self

from poller.runtime.durable_files import give_to_folder_owner, make_in
from poller.runtime.syncfs import ALIVE
from poller.sinks.download.syncing import BatchSync

FOLDER: Final = ".incoming"
ENDING: Final = ".part"
MOST_LEFTOVERS: Final = 100_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Drafts:
    """Some drafts. Leaving the context deletes those that were not published. `sync` has been entered."""

    def __init__(self, incoming: int, sync: BatchSync) -> None:
        self._incoming = incoming
        self._sync = sync
        self._prefix = f".{token_hex(16)}"
        self._count = 0
        self._named: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        for draft in self._named:
            with suppress(OSError):
                os.unlink(draft, dir_fd=self._incoming)

    def write(self, content: bytes, at: datetime | None = None) -> str:
        """Write a draft; returns its name. It is not durable before `sync_files`. `at` is its time of modification."""
        self._count += 1
        draft = f"{self._prefix}-{self._count}{ENDING}"
        descriptor = os.open(draft, _FLAGS, 0o666, dir_fd=self._incoming)
        self._named.add(draft)
        try:
            give_to_folder_owner(self._incoming, descriptor)
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            if at is not None:
                set_time(descriptor, at)
        except BaseException:
            os.close(descriptor)
            raise
        self._sync.add(descriptor)
        return draft

    def publish(self, draft: str, folder: int, name: str) -> None:
        """Move a synced draft to its place. An existing file is replaced, and so is a link, which is not followed."""
        os.rename(draft, name, src_dir_fd=self._incoming, dst_dir_fd=folder)
        self._named.discard(draft)


def set_time(descriptor: int, at: datetime) -> None:
    """Set the time of modification of an open file. Errors are ignored: not every file system can store it."""
    nanoseconds = (at - _EPOCH) // _MICROSECOND * 1000
    with suppress(OSError, OverflowError):
        os.utime(descriptor, ns=(nanoseconds, nanoseconds))


def open_incoming(root: int) -> int:
    """Open `.incoming`, and delete the leftovers of a crash unless another process uses it; returns its descriptor.

    Every user has a shared lock on the folder, so a process that gets an exclusive lock is alone. On file
    systems without such locks, the leftovers stay.
    """
    make_in(root, FOLDER)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    incoming = os.open(FOLDER, flags, dir_fd=root)
    with suppress(OSError):
        fcntl.flock(incoming, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _clean(incoming)
    with suppress(OSError):
        fcntl.flock(incoming, fcntl.LOCK_SH)
    return incoming


def _clean(incoming: int) -> None:
    with os.scandir(incoming) as found:
        names = [entry.name for entry in islice(found, MOST_LEFTOVERS)]
    for name in names:
        if name.endswith(ENDING) or name.startswith(ALIVE):
            os.unlink(name, dir_fd=incoming)
