"""Files before they have their names: written and fsynced in one folder of their own, then renamed.

One folder for all, so that what a crash left is found by listing it, however many pictures there are.
It blocks: it runs in threads.
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

from poller.runtime.durable_files import make_in, own_as

FOLDER: Final = ".incoming"
ENDING: Final = ".part"
MOST_LEFTOVERS: Final = 100_000
SYNCS: Final = 8
"""So many fsyncs of a batch run at once."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Drafts:
    """A few files on their way; leaving removes those that were not published. `syncs` are threads for fsync."""

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
        """Write a new file under a random name, which is returned; not durable yet. `at` becomes the file's time."""
        draft = f".{token_hex(16)}{ENDING}"
        descriptor = os.open(draft, _FLAGS, 0o666, dir_fd=self._incoming)
        self._named.add(draft)
        self._open[draft] = descriptor
        own_as(self._incoming, descriptor)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if at is not None:
            set_time(descriptor, at)
        return draft

    def sync(self) -> None:
        """Make all that was written durable; after an error none of it may be published."""
        # The advice only makes Linux begin to write. With all of them on their way before the first is waited
        # for, they share the file system's commits (measured on ext4: 0.59 ms a file instead of 0.91).
        for descriptor in self._open.values():
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        # So do those that are waited for at once (on ext4 a fifth more pictures a second).
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
        """Give a synced file its place, instead of what is there (a link is replaced, not followed)."""
        os.rename(draft, name, src_dir_fd=self._incoming, dst_dir_fd=folder)
        self._named.discard(draft)


def _fsync(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)


def set_time(descriptor: int, at: datetime) -> None:
    """Give an open file this time as that of its last change, where the file system can keep it."""
    nanoseconds = (at - _EPOCH) // _MICROSECOND * 1000
    with suppress(OSError, OverflowError):
        os.utime(descriptor, ns=(nanoseconds, nanoseconds))


def open_incoming(root: int) -> int:
    """Return the folder's descriptor; what a crash left in it is gone if nobody else uses it.

    Every user holds a shared lock on the folder, so whoever gets an exclusive one is alone. Where the file
    system has no such locks, the leftovers stay.
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
