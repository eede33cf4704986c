"""A disk whose power can be cut: a file system in a file, mounted through a loop device. Needs root."""

import ctypes
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

IOC_SHUTDOWN = 0x8004587D
"""The same number on ext4 and on xfs."""
NO_LOG_FLUSH = 2
CLONE_NEWNS = 0x00020000
SIZE = "1G"
INODES = "200000"
# Without these two ext4 would hide bugs: it commits by itself every 5 s, and guesses which renames want a flush.
OPTIONS = {"ext4": "loop,commit=300,noauto_da_alloc", "xfs": "loop"}
MAKE = {"ext4": ("mkfs.ext4", "-q", "-F", "-N", INODES), "xfs": ("mkfs.xfs", "-q")}
CHECK = {"ext4": ("e2fsck", "-f", "-n"), "xfs": ("xfs_repair", "-n")}
DEADLINE = 30.0
Result = TypeVar("Result")


def unseen(work: Callable[[], Result]) -> Result:
    """Run in a thread whose mounts no other process sees. They end with it, and with what it started.

    A test beside this one may make a mount namespace (`ip netns exec` does). It would hold a copy of our mount,
    which keeps the file system alive after our umount; the next mount would get the one whose power was cut.
    """

    def alone() -> Result:
        _mounts_of_our_own()
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(alone).result()


class Image:
    """One image, mounted from entering to leaving; the loop device goes with the mount. Used by `unseen` work."""

    def __init__(self, folder: Path, kind: str = "ext4") -> None:
        self._kind = kind
        self.root = folder / "disk"
        self._file = folder / "image"

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True)
        _command("truncate", "-s", SIZE, str(self._file))
        _command(*MAKE[self._kind], str(self._file))
        self.mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        try:
            self.unmount()
            if kind is None:
                _command(*CHECK[self._kind], str(self._file))
        finally:
            self._file.unlink()

    def mount(self) -> None:
        """Mount; after a cut, the file system replays its own log."""
        _command("mount", "-o", OPTIONS[self._kind], str(self._file), str(self.root))

    def unmount(self) -> None:
        """Unmount, if it is mounted; nobody may have a file open on it."""
        until = time.monotonic() + DEADLINE
        while self._is_mounted():
            try:
                _command("umount", str(self.root))
            except subprocess.CalledProcessError:  # a killed process takes a moment to let go
                if time.monotonic() > until:
                    _command("umount", "--lazy", str(self.root))
                    raise
                time.sleep(0.02)

    def _is_mounted(self) -> bool:
        try:
            return self.root.is_mount()
        except OSError:  # xfs after a cut
            return True

    def cut(self) -> None:
        """Cut the power: nothing that is not on the disk by now will be there after the next mount."""
        root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(root, IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(root)

    def is_dead(self) -> bool:
        """Whether the disk takes nothing any more."""
        try:
            (self.root / "probe").touch()
        except OSError:
            return True
        return False


def _mounts_of_our_own() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no mounts of our own: {os.strerror(number)}")
    _command("mount", "--make-rprivate", "/")


def _command(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE, check=False)
    if done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr)
