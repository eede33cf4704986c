"""Ends servers, and removes their folders, when the process that runs the tests is gone before it could.

A time limit ends that process at once, and so may an interrupt. The guard is a process of its own. It reads what there
is to end from its standard input, which closes with the process that runs the tests.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Final

from tests.servers import trees

ROOT: Final = Path(__file__).parents[2]


class Guard:
    """The process, started when it is needed first."""

    def __init__(self) -> None:
        self._turn = Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.guard"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # an interrupt at the terminal is not for it
        )

    def watch(self, pid: int) -> None:
        """End this process and its children some day."""
        self._tell(f"process {pid} {trees.born(pid)}")

    def keep(self, folder: Path) -> None:
        """Remove this folder some day."""
        self._tell(f"folder {folder}")

    def forget(self, subject: int | Path) -> None:
        """A process or a folder is gone."""
        self._tell(f"gone {subject}")

    def end(self) -> None:
        """End and remove what is left."""
        self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with self._turn:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()


@cache
def guard() -> Guard:
    """The guard of this process."""
    return Guard()


def end() -> None:
    """Stop the guard, if there is one."""
    if guard.cache_info().currsize:
        guard().end()
        guard.cache_clear()


@contextmanager
def folder_kept(folder: Path) -> Iterator[Path]:
    """A folder that is removed at the end, whatever the end is."""
    guard().keep(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        guard().forget(folder)


def main() -> None:
    """Read until nobody writes any more, then end what is left."""
    processes: dict[str, int] = {}
    folders: set[str] = set()
    for line in sys.stdin:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "process":
            pid, _, born = rest.partition(" ")
            processes[pid] = int(born)
        elif word == "folder":
            folders.add(rest)
        else:
            processes.pop(rest, None)
            folders.discard(rest)
    for pid, began in processes.items():
        if began and trees.born(int(pid)) == began:
            trees.kill(int(pid))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
