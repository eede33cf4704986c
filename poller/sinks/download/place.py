"""The open directory of pictures: its descriptors, and whether it is still at its path.

All functions here block. They run in threads.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import Final

from poller.core.errors import PlaceGone, TryLater
from poller.runtime.durable_files import Identity, identity_of, is_still_at
from poller.sinks.download.folders import Folders
from poller.sinks.download.incoming import FOLDER, Drafts, open_incoming
from poller.sinks.download.syncing import Syncing

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class PictureDirectory:
    """The directory, opened once. It is closed when its last user is done.

    Creating it proves that it is writable; raises `OSError`, or `PlaceGone` where files cannot be synced as wished.
    """

    def __init__(self, directory: Path, syncing: Syncing) -> None:
        self.directory = directory
        self.mount = _mount_of(directory)
        """The mount point of the directory's file system."""
        self.settled: dict[Folders, Identity] = {}
        """The folders whose entries in their parents are durable."""
        self.turn = Lock()
        """Held by the batch that writes or renames files, so that batches do not fight for the interpreter's lock
        (a sixth more pictures a second). Nobody syncs with it."""
        self.users = 0
        self.root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.incoming = -1
        try:
            if why := syncing.why_unsupported(self.root):
                raise PlaceGone(why)
            self.incoming = open_incoming(self.root)
            self.folds = self._check_writable(syncing)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in (self.incoming, self.root):
            if descriptor >= 0:
                os.close(descriptor)

    def is_current(self) -> bool:
        """Whether the directory and its `.incoming` are still at their paths."""
        if not is_still_at(self.directory, self.root):
            return False
        try:
            found = os.stat(FOLDER, dir_fd=self.root, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == identity_of(self.incoming)

    def _check_writable(self, syncing: Syncing) -> bool:
        """Take a file through all steps, to prove that they work; returns whether the disk ignores case in names."""
        lower, upper = f".proof-{(token := token_hex(8))}", f".PROOF-{token}"
        with syncing.batch(self.incoming) as sync, Drafts(self.incoming, sync) as drafts:
            draft = drafts.write(b"proof")
            sync.sync_files()
            drafts.publish(draft, self.root, lower)
            try:
                sync.sync_folders([()], lambda _: self.root)
                os.stat(upper, dir_fd=self.root, follow_symlinks=False)
            except FileNotFoundError:
                return False
            finally:
                os.unlink(lower, dir_fd=self.root)
        return True


class CurrentDirectory:
    """Opens the directory, and opens it again when it was replaced at its path."""

    def __init__(self, directory: Path, syncing: Syncing) -> None:
        self._directory = directory
        self._syncing = syncing
        self._lock = Lock()
        self._place: PictureDirectory | None = None
        self._mount: Path | None = None

    def open(self) -> PictureDirectory:
        """Open the directory; raises `OSError` or `PlaceGone`."""
        self._place = PictureDirectory(self._directory, self._syncing)
        self._mount = self._place.mount
        return self._place

    def close(self) -> None:
        """Close the directory. No user of `current` may be left."""
        if self._place is not None:
            self._place.close()
            self._place = None

    @contextmanager
    def current(self) -> Iterator[PictureDirectory]:
        """The directory that is at the path now. It stays open as long as it is used.

        Raises `OSError`, or `PlaceGone` when its file system is not mounted any more, or is another one on which
        files cannot be synced as wished.
        """
        with self._lock:
            place = self._reopen()
            place.users += 1
        try:
            yield place
        finally:
            with self._lock:
                place.users -= 1
                if place.users == 0 and place is not self._place:
                    place.close()

    def _reopen(self) -> PictureDirectory:
        place = self._place
        if place is not None and place.is_current():
            return place
        self._place = None
        if place is not None and place.users == 0:
            place.close()
        if self._mount is not None and _was_unmounted(self._directory, self._mount):
            # files below an empty mount point are hidden once the disk is mounted again
            raise PlaceGone(
                f"{self._mount} is not mounted any more: mount it again, or restart to do without"
            )
        return self.open()


def _mount_of(directory: Path) -> Path:
    real = directory.resolve()
    return next(path for path in (real, *real.parents) if path.is_mount() or path == path.parent)


def _was_unmounted(directory: Path, mount: Path) -> bool:
    """Whether nothing is mounted any more at the mount point of the directory."""
    return directory.resolve().is_relative_to(mount) and not mount.is_mount()


def trouble(directory: Path, error: OSError) -> TryLater:
    """The sink's error for an error of the whole directory."""
    if error.errno in NO_DESCRIPTORS:
        return TryLater(f"disk: {error.strerror}")
    if error.errno in FULL:
        return PlaceGone("the disk is full")
    if error.errno == errno.ENOENT and not directory.exists():
        return PlaceGone(f"the folder {directory} is gone: make it again, or mount it")
    if error.errno in {errno.ENOTDIR, errno.ELOOP}:
        return PlaceGone(f"{_not_a_folder(directory)} is not a folder: move it away")
    if error.errno in DENIED:
        return PlaceGone(f"the folder {directory} cannot be written: {error.strerror}")
    return PlaceGone(f"disk: {error.strerror}")


def _not_a_folder(directory: Path) -> Path:
    """The path that is not a folder: the directory, or its `.incoming`."""
    try:
        return directory / FOLDER if stat.S_ISDIR(os.stat(directory).st_mode) else directory
    except OSError:
        return directory
