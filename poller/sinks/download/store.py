"""Stores pictures on disk.

Invariants
    A picture is whole or absent. It is durable before its event is reported as delivered. It is never outside
    the directory: every folder is opened from its parent's descriptor, and no link is followed, so that
    neither a name nor a planted link leads out.

Steps
    Write the files, sync them, rename them, sync the folders, return. `syncing` says how.

All functions here block. They run in threads.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from poller.core.errors import PlaceGone, SinkError, StorageError
from poller.runtime.daemon_threads import DaemonThreads
from poller.runtime.durable_files import Identity, give_to_owner
from poller.runtime.failpoints import reached
from poller.sinks.download.folders import FolderChanged, Folders, OpenFolders
from poller.sinks.download.incoming import Drafts, set_time
from poller.sinks.download.place import DENIED, CurrentDirectory, PictureDirectory, trouble
from poller.sinks.download.syncing import SYNCS, BatchSync, Syncing, Way
from poller.sinks.pictures import PlaceTrouble

MOST_REMEMBERED: Final = 10_000

LONGEST_END: Final = 10.0
"""Seconds that a stop waits for threads whose calls to the kernel do not return."""

TRIES: Final = 3
"""The most attempts to store a batch while its folders are being replaced."""

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
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
"""The errors that concern a single path and not the disk."""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file to store: its place, its content, and the event that it belongs to."""

    event_id: str
    folders: Folders
    name: str
    content: bytes
    at: datetime | None = None
    """The file's time of modification; None for the time of writing."""


class Store:
    """A directory of pictures. `keep` may run in several threads at once.

    The directory stays open and may be replaced in the meantime. So the open folders are compared with the
    folders at the path, before and after each batch.
    """

    def __init__(self, directory: Path, sync: Way = "file") -> None:
        self._directory = directory
        self._syncs = DaemonThreads(2 * SYNCS, "fsync")
        self._syncing = Syncing(sync, self._syncs)
        self._places = CurrentDirectory(directory, self._syncing)
        self.folds = False

    def open(self) -> None:
        """Create a missing directory, prove that it is writable, delete a crash's leftovers; raises `StorageError`."""
        try:
            _make_durably(self._directory)
            self.folds = self._places.open().folds
        except OSError as error:
            self.close()
            raise StorageError(f"cannot store pictures in {self._directory}: {error.strerror}") from None
        except PlaceGone as error:
            self.close()
            raise StorageError(f"cannot store pictures in {self._directory}: {error.reason}") from None

    def close(self) -> None:
        """Stop the threads and close the descriptors. No `keep` may be running.

        Where a thread hangs in the kernel for longer than `LONGEST_END`, everything is left as it is.
        """
        if self._syncs.end(LONGEST_END):
            self._places.close()

    def look(self) -> None:
        """Open the directory again if it was replaced at its path; raises `PlaceGone` if it cannot be used."""
        try:
            with self._places.current() as place:
                self.folds = place.folds
        except OSError as error:
            raise trouble(self._directory, error) from None

    def keep(self, files: Sequence[File]) -> dict[str, SinkError]:
        """Store files in their order; returns the events that failed. All other files are durable, at the path.

        After a file of an event has failed, the event's later files are not stored. Raises `PlaceGone` if the
        whole directory is unusable (gone, full, read-only, broken). Some files may have been stored then,
        each of them whole. May be repeated.
        """
        try:
            for _ in range(TRIES):
                with (
                    self._places.current() as place,
                    suppress(FolderChanged),
                    self._syncing.batch(place.incoming) as sync,
                ):
                    return _Keeping(place, sync).keep(files)
        except OSError as error:
            raise trouble(self._directory, error) from None
        raise PlaceGone(f"the folder {self._directory} changes while pictures are stored in it")


class _Keeping:
    """Stores one batch. Raises `FolderChanged` if a folder was replaced, so that the whole batch must be repeated."""

    def __init__(self, place: PictureDirectory, sync: BatchSync) -> None:
        self._place = place
        self._sync = sync
        self._failed: dict[str, SinkError] = {}

    def keep(self, files: Sequence[File]) -> dict[str, SinkError]:
        """See `Store.keep`."""
        with OpenFolders(self._place.root, made=self._unsettle) as folders:
            for first in range(0, len(files), self._sync.at_once):
                self._keep_some(files[first : first + self._sync.at_once], folders)
            identities = folders.identities
        self._settle({file.folders for file in files if file.event_id not in self._failed}, identities)
        reached("folders.synced")
        return self._failed

    def _keep_some(self, files: Sequence[File], folders: OpenFolders) -> None:
        written: dict[int, str] = {}
        with Drafts(self._place.incoming, self._sync) as drafts:

            def write(index: int, file: File) -> None:
                if not self._holds(folders.open(file.folders), file):
                    with self._in_place():
                        written[index] = drafts.write(file.content, file.at)

            def publish(index: int, file: File) -> None:
                if index in written:
                    drafts.publish(written[index], folders.open(file.folders), file.name)

            with self._place.turn:
                self._each(files, write)
            reached("picture.written")
            self._sync.sync_files()
            reached("picture.synced")
            with self._place.turn:
                self._each(files, publish)
            reached("picture.renamed")

    def _each(self, files: Sequence[File], step: Callable[[int, File], None]) -> None:
        for index, file in enumerate(files):
            if file.event_id in self._failed:
                continue
            try:
                step(index, file)
            except _Blocked as error:
                raise error.cause from None
            except (FileNotFoundError, FolderChanged):
                raise FolderChanged from None
            except OSError as error:
                if error.errno not in _IN_THE_WAY or (error.errno in DENIED and not self._writable()):
                    raise
                self._failed[file.event_id] = PlaceTrouble(
                    f"something is in the way of the file: {error.strerror}"
                )

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Mark errors of the folder of drafts: they never concern a single path."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _Blocked(error) from None

    def _holds(self, folder: int, wanted: File) -> bool:
        """Whether the folder has exactly this file already; it counts as durable then. A link never counts."""
        content = wanted.content
        try:
            descriptor = os.open(wanted.name, _READ, dir_fd=folder)
        except OSError:
            return False
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != len(content):
                return False
            with open(descriptor, "rb", closefd=False) as file:
                if file.read(len(content) + 1) != content:
                    return False
            if wanted.at is not None:
                set_time(descriptor, wanted.at)
            self._sync.sync_found(descriptor)  # the writer may not have done so
            return True
        finally:
            os.close(descriptor)

    def _writable(self) -> bool:
        return os.access(".", os.W_OK | os.X_OK, dir_fd=self._place.root, effective_ids=True)

    def _unsettle(self, folders: Folders) -> None:
        self._place.settled.pop(folders, None)

    def _settle(self, touched: Iterable[Folders], identities: Mapping[Folders, Identity]) -> None:
        """Sync the folders that were written to, and the parents of new folders.

        The folders are opened again from the path: the folders at the path are the ones that must be durable.
        """
        settled = self._place.settled
        chain = {folders[:depth] for folders in touched for depth in range(1, len(folders) + 1)}
        new = {folders for folders in chain if settled.get(folders) != identities.get(folders)}
        with OpenFolders(self._place.root, made=None) as opened:
            opened.identities.update(identities)
            try:
                self._sync.sync_folders(sorted({*touched, *(folders[:-1] for folders in new)}), opened.open)
            except (FileNotFoundError, NotADirectoryError):
                raise FolderChanged from None
        if not self._place.is_current():
            raise FolderChanged
        if len(settled) > MOST_REMEMBERED:
            settled.clear()
        settled.update({folders: identities[folders] for folders in new})


class _Blocked(Exception):
    """Carries an error of the whole directory past the handler of errors of single paths."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause)
        self.cause = cause


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
            give_to_owner(new)
        parent = os.open(new.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
