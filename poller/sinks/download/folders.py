"""Opens folders below a directory, each from its parent's descriptor, without following links.

All functions here block. They run in threads.
"""

import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from poller.runtime.durable_files import Identity, identity_of, make_in

Folders = tuple[str, ...]

MOST_OPEN: Final = 32

_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OpenFolders:
    """A cache of open folders below a root, at most `MOST_OPEN`. Leaving the context closes them.

    `made` is called before a missing folder is created. If it is None, a missing folder is a
    `FileNotFoundError`.
    """

    def __init__(self, root: int, *, made: Callable[[Folders], None] | None) -> None:
        self._root = root
        self._made = made
        self._open: OrderedDict[Folders, int] = OrderedDict()
        self.identities: dict[Folders, Identity] = {}
        """The identity of the folder at each path when it was opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def open(self, folders: Folders) -> int:
        """The descriptor of a folder, valid until the next call; raises `OSError` or `FolderChanged`."""
        if not folders:
            return self._root
        if folders not in self._open:
            self._add(folders, self._step(self.open(folders[:-1]), folders))
        self._open.move_to_end(folders)
        return self._open[folders]

    def _step(self, parent: int, folders: Folders) -> int:
        name = folders[-1]
        try:
            return os.open(name, _FOLDER, dir_fd=parent)
        except FileNotFoundError:
            if self._made is None:
                raise
            self._made(folders)
            make_in(parent, name)
            return os.open(name, _FOLDER, dir_fd=parent)

    def _add(self, folders: Folders, descriptor: int) -> None:
        self._open[folders] = descriptor
        found = identity_of(descriptor)
        if self.identities.setdefault(folders, found) != found:
            raise FolderChanged
        if len(self._open) > MOST_OPEN:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest)


def read_below(directory: Path, folders: Folders, name: str, most: int) -> bytes | None:
    """The content of a file below a directory; None for a missing file, and for anything but a file of up to `most`
    bytes, such as a link or a pipe."""
    try:
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with OpenFolders(root, made=None) as opened:
            return _read_file(opened.open(folders), name, most)
    except OSError:
        return None
    finally:
        os.close(root)


def _read_file(folder: int, name: str, most: int) -> bytes | None:
    descriptor = os.open(name, _FILE, dir_fd=folder)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            return None
        content = file.read(status.st_size)
        return content if len(content) == status.st_size else None


class FolderChanged(Exception):
    """A folder was replaced while it was in use."""
