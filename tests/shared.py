"""A folder that all processes of one test run share: what is slow to make is made once."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """One process at a time."""
    with (folder / "turn").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def shared_folder(above: Path) -> Iterator[Path]:
    """The folder, below one that the processes have in common. The last process that leaves it removes it.

    A kill leaves it to pytest, which removes the folder above.
    """
    folder = above / "shared"
    with (above / "users").open("wb") as users:
        with turn(above):
            fcntl.flock(users, fcntl.LOCK_SH)
            folder.mkdir(exist_ok=True)
        try:
            yield folder
        finally:
            with turn(above), suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody else holds it
                shutil.rmtree(folder)
