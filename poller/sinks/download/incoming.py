"""Drafts: files that are written and fsynced in the folder `.incoming`, and then renamed to their places.

All drafts are in one folder, so that the leftovers of a crash are found by listing it, however many pictures
there are. All functions here block. They run in threads.
"""

import fcntl
import os
from collections.abc import Iterable
from concurrent.futures import Executor, wait
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from secrets import token_hex
from types import TracebackType
from typing import Final, Self

from poller.runtime.durable_files import give_to_folder_owner, make_in

FOLDER: Final = ".incoming"
ENDING: Final = ".part"
MOST_LEFTOVERS: Final = 100_000
SYNCS: Final = 8
"""The most fsyncs of a batch at once."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Drafts:
    """Some drafts. Leaving the context deletes those that were not published. `syncs` has the threads for fsync."""

    def __init__(self, incoming: int, syncs: Executor) -> None:
        self._incoming = incoming
        self._syncs = syncs
        self._open: dict[str, int] = {}
        self._named: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        for draft in self._named:
            with suppress(OSError):
                os.unlink(draft, dir_fd=self._incoming)

    def write(self, content: bytes, at: datetime | None = None) -> str:
        """Write a draft; returns its random name. It is not durable yet. `at` is its time of modification."""
        draft = f".{token_hex(16)}{ENDING}"
        descriptor = os.open(draft, _FLAGS, 0o666, dir_fd=self._incoming)
        self._named.add(draft)
        self._open[draft] = descriptor
        give_to_folder_owner(self._incoming, descriptor)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if at is not None:
            set_time(descriptor, at)
        return draft

    def sync(self) -> None:
        """Make all written drafts durable; raises `OSError`, and then none of them may be published."""
        # The advice makes Linux begin to write. If all writes begin before the first fsync, they share the
        # commits of the file system (measured on ext4: 0.59 ms a file instead of 0.91).
        for descriptor in self._open.values():
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        # fsyncs in parallel share commits too (on ext4 a fifth more pictures a second)
        descriptors = list(self._open.values())
        parts = [part for start in range(SYNCS) if (part := descriptors[start::SYNCS])]
        running = [self._syncs.submit(_fsync, part) for part in parts]
        wait(running)
        for synced in running:
            synced.result()
        self._open.clear()
        for descriptor in descriptors:
            os.close(descriptor)

    def publish(self, draft: str, folder: int, name: str) -> None:
        """Move a synced draft to its place. An existing file is replaced, and so is a link, which is not followed."""
        os.rename(draft, name, src_dir_fd=self._incoming, dst_dir_fd=folder)
        self._named.discard(draft)


def _fsync(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)


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
        names = [entry.name for entry in islice(found, MOST_LEFTOVERS) if entry.name.endswith(ENDING)]
    for name in names:
        os.unlink(name, dir_fd=incoming)
