"""Opens folders below a directory, each from its parent's descriptor, without following links.

All functions here block. They run in threads.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from poller.runtime.durable_files import Identity, identity_of, make_in

Folders = tuple[str, ...]

MOST_OPEN: Final = 32

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


class FolderChanged(Exception):
    """A folder was replaced while it was in use."""
