"""How the pictures of a batch are made durable: by an fsync of each file, or by `syncfs` for all of them.

All functions here block. They run in threads.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, wait
from types import TracebackType
from typing import Final, Literal, Self

from poller.runtime.syncfs import check_alive, syncfs, why_unsupported
from poller.sinks.download.folders import Folders

Way = Literal["file", "filesystem"]

SYNCS: Final = 8
"""The most fsyncs of a batch at once."""
AT_ONCE: Final = 64
"""The most files that are written before they are fsynced. Each needs a descriptor."""
MOST: Final = 100_000
"""The most files that are written before a `syncfs`."""


class BatchSync(ABC):
    """Syncs the files and folders of one batch. It must be entered before the first file of the batch is written."""

    at_once: int
    """The most files that may be added before `sync_files`."""

    @abstractmethod
    def __enter__(self) -> Self:
        """Begin; raises `OSError`."""

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close the descriptors of files that were not synced."""

    @abstractmethod
    def add(self, descriptor: int) -> None:
        """Take over the descriptor of a file that was written, to sync the file and close it."""

    @abstractmethod
    def sync_files(self) -> None:
        """Make all added files durable; raises `OSError`, and then none of them may be published."""

    @abstractmethod
    def sync_found(self, descriptor: int) -> None:
        """Make a file that was there already durable, now or with the folders; raises `OSError`."""

    @abstractmethod
    def sync_folders(self, folders: Iterable[Folders], opened: Callable[[Folders], int]) -> None:
        """Make the entries of these folders durable, and open each folder with `opened`; raises what that raises."""


class EachFile(BatchSync):
    """An fsync of each file and of each folder. `threads` run the fsyncs of files."""

    at_once = AT_ONCE

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._descriptors: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._close()

    def add(self, descriptor: int) -> None:
        """See `BatchSync.add`."""
        self._descriptors.append(descriptor)

    def sync_files(self) -> None:
        """See `BatchSync.sync_files`."""
        # The advice makes Linux begin to write. If all writes begin before the first fsync, they share the
        # commits of the file system (measured on ext4: 0.59 ms a file instead of 0.91).
        for descriptor in self._descriptors:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        # fsyncs in parallel share commits too (on ext4 a fifth more pictures a second)
        parts = [part for start in range(SYNCS) if (part := self._descriptors[start::SYNCS])]
        running = [self._threads.submit(_fsync, part) for part in parts]
        wait(running)
        for synced in running:
            synced.result()
        self._close()

    def sync_found(self, descriptor: int) -> None:
        """See `BatchSync.sync_found`."""
        os.fsync(descriptor)

    def sync_folders(self, folders: Iterable[Folders], opened: Callable[[Folders], int]) -> None:
        """See `BatchSync.sync_folders`."""
        for one in folders:
            os.fsync(opened(one))

    def _close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


class WholeFileSystem(BatchSync):
    """`syncfs` for all files of a batch, and again for its folders. `folder` is open and on the file system.

    Files and folders below a mount point are on another file system, and are fsynced one by one.
    """

    at_once = MOST

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._device = os.fstat(folder).st_dev
        self._descriptor = -1
        self._unsynced = False

    def __enter__(self) -> Self:
        # of its own, and before the writes: Linux reports each error once to each open descriptor
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self._descriptor = os.open(".", flags, dir_fd=self._folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        os.close(self._descriptor)

    def add(self, descriptor: int) -> None:
        """See `BatchSync.add`."""
        os.close(descriptor)
        self._unsynced = True

    def sync_files(self) -> None:
        """See `BatchSync.sync_files`."""
        if self._unsynced:
            syncfs(self._descriptor)
            self._unsynced = False

    def sync_found(self, descriptor: int) -> None:
        """See `BatchSync.sync_found`: the folders come later, and `syncfs` makes the file durable with them."""
        self._sync_elsewhere(descriptor)

    def sync_folders(self, folders: Iterable[Folders], opened: Callable[[Folders], int]) -> None:
        """See `BatchSync.sync_folders`."""
        syncfs(self._descriptor)
        check_alive(self._folder)
        for one in folders:
            self._sync_elsewhere(opened(one))

    def _sync_elsewhere(self, descriptor: int) -> None:
        if os.fstat(descriptor).st_dev != self._device:
            os.fsync(descriptor)


class Syncing:
    """The way in which a sink syncs. `threads` run fsyncs of files, and are used by several batches at once."""

    def __init__(self, way: Way, threads: Executor) -> None:
        self._way = way
        self._threads = threads

    def batch(self, folder: int) -> BatchSync:
        """A sync for one batch, not entered. `folder` is open on the file system of the batch."""
        return EachFile(self._threads) if self._way == "file" else WholeFileSystem(folder)

    def why_unsupported(self, folder: int) -> str:
        """Why this way cannot be relied on for the file system of an open folder; empty if it can."""
        why = "" if self._way == "file" else why_unsupported(folder)
        return f"sync: {self._way} {why}" if why else ""


def _fsync(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)
