"""Pictures on disk: whole or not at all, durable before anyone is told, never outside the directory.

Every folder is opened from its parent's descriptor and no link is followed, so that neither a name nor a link
that somebody planted leads out. The order is: write, fsync the files, rename them, fsync the folders, return.
All of it blocks: it runs in threads.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Final, Self

import msgspec

from poller.errors import SinkError, StorageError, TryLater
from poller.failpoints import reached
from poller.sinks.download.incoming import SYNCS, Drafts, open_incoming

AT_ONCE: Final = 64
"""Files written before the first of them is fsynced; each holds a descriptor."""
MOST_REMEMBERED: Final = 10_000

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_IN_THE_WAY: Final = frozenset(
    {
        errno.EACCES,
        errno.EISDIR,
        errno.ELOOP,
        errno.EMLINK,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EXDEV,
    }
)
"""Errors of one path and not of the disk."""

Folders = tuple[str, ...]


class File(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be stored, where, and for which event."""

    event_id: str
    folders: Folders
    name: str
    content: bytes


class PathTrouble(TryLater):
    """Something stands where a file should go: a link, a folder, a file we may not touch."""


class Store:
    """A directory of pictures, opened once; `keep` may run in several threads at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._root = -1
        self._incoming = -1
        self._syncs = ThreadPoolExecutor(2 * SYNCS, "fsync")
        self._settled: set[Folders] = set()  # folders whose own entries are known to be durable
        self.folds = False

    def open(self) -> None:
        """Make the directory if missing, prove it writable, remove what a crash left; `StorageError`."""
        try:
            _make_durably(self._directory)
            self._root = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._incoming = open_incoming(self._root)
            self.folds = self._prove()
        except OSError as error:
            self.close()
            raise StorageError(f"cannot store pictures in {self._directory}: {error.strerror}") from None

    def close(self) -> None:
        """Give the descriptors back, and the threads; no `keep` may run any more."""
        self._syncs.shutdown()
        for descriptor in (self._incoming, self._root):
            if descriptor >= 0:
                os.close(descriptor)
        self._incoming = self._root = -1

    def keep(self, files: Sequence[File]) -> dict[str, SinkError]:
        """Store files in their order; returns the events that failed. All others are durable then.

        An event's later files are not stored once one of it failed. `TryLater` when the disk as a whole does
        not take them (full, read-only, broken); then some files may have been stored, each of them whole.
        """
        failed: dict[str, SinkError] = {}
        try:
            for first in range(0, len(files), AT_ONCE):
                self._keep_some(files[first : first + AT_ONCE], failed)
            self._settle({file.folders for file in files if file.event_id not in failed})
            reached("folders.synced")
        except OSError as error:
            raise TryLater(
                "the disk is full" if error.errno in _FULL else f"disk: {error.strerror}"
            ) from None
        return failed

    def _keep_some(self, files: Sequence[File], failed: dict[str, SinkError]) -> None:
        written: dict[int, str] = {}
        with self._open_folders() as folders, Drafts(self._incoming, self._syncs) as drafts:

            def write(index: int, file: File) -> None:
                if not _holds(folders.open(file.folders), file.name, file.content):
                    written[index] = drafts.write(file.content)

            def publish(index: int, file: File) -> None:
                if index in written:
                    drafts.publish(written[index], folders.open(file.folders), file.name)

            _each(files, failed, write)
            reached("picture.written")
            drafts.sync()
            reached("picture.synced")
            _each(files, failed, publish)
            reached("picture.renamed")

    def _open_folders(self) -> "_Opened":
        return _Opened(self._root, made=self._settled.discard)

    def _settle(self, touched: Iterable[Folders]) -> None:
        """Make the entries of folders durable, and the entries of those folders in their parents."""
        chain = {folders[:depth] for folders in touched for depth in range(1, len(folders) + 1)}
        new = chain - self._settled
        with self._open_folders() as opened:
            for folders in {*touched, *(folders[:-1] for folders in new)}:
                os.fsync(opened.open(folders))
        if len(self._settled) > MOST_REMEMBERED:
            self._settled.clear()
        self._settled.update(new)

    def _prove(self) -> bool:
        """Take one file through all the steps; returns whether the disk takes `A` and `a` for the same."""
        lower, upper = f".proof-{(token := token_hex(8))}", f".PROOF-{token}"
        with Drafts(self._incoming, self._syncs) as drafts:
            draft = drafts.write(b"proof")
            drafts.sync()
            drafts.publish(draft, self._root, lower)
        try:
            os.fsync(self._root)
            os.stat(upper, dir_fd=self._root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        finally:
            os.unlink(lower, dir_fd=self._root)
        return True


class _Opened:
    """Folders below a root, each opened once from its parent's descriptor and made if missing."""

    def __init__(self, root: int, *, made: Callable[[Folders], None]) -> None:
        self._root = root
        self._made = made
        self._open: dict[Folders, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def open(self, folders: Folders) -> int:
        """The descriptor of a folder, which stays open until all are left."""
        if not folders:
            return self._root
        if folders not in self._open:
            self._open[folders] = self._step(self.open(folders[:-1]), folders)
        return self._open[folders]

    def _step(self, parent: int, folders: Folders) -> int:
        name = folders[-1]
        try:
            return os.open(name, _FOLDER, dir_fd=parent)
        except FileNotFoundError:
            self._made(folders)
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=parent)
            return os.open(name, _FOLDER, dir_fd=parent)


def _each(files: Sequence[File], failed: dict[str, SinkError], step: Callable[[int, File], None]) -> None:
    for index, file in enumerate(files):
        if file.event_id in failed:
            continue
        try:
            step(index, file)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            failed[file.event_id] = PathTrouble(f"something is in the way of the file: {error.strerror}")


def _holds(folder: int, name: str, content: bytes) -> bool:
    """Whether the folder holds exactly this file already, durable; a link is not it, whatever it leads to."""
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != len(content):
            return False
        with open(descriptor, "rb", closefd=False) as file:
            if file.read(len(content) + 1) != content:
                return False
        os.fsync(descriptor)  # whoever wrote it may not have
        return True
    finally:
        os.close(descriptor)


def _make_durably(directory: Path) -> None:
    missing = []
    while True:
        try:
            os.stat(directory)
            break
        except FileNotFoundError:
            missing.append(directory)
            directory = directory.parent
    for new in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(new)
        parent = os.open(new.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
