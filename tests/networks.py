"""Network namespaces of Linux: a thread or a process sees the interfaces of one. Making and entering one needs root."""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

CLONE_NEWNET: Final = 0x40000000
OF_ANY_KIND: Final = 0
OWN: Final = "/proc/thread-self/ns/net"

Result = TypeVar("Result")


def enter(namespace: int) -> None:
    """Let the calling thread, and all that it starts from now on, live in a namespace that an open file names.

    It may be one of mounts as well, in a process with one thread.
    """
    _call("setns", namespace, OF_ANY_KIND)


def leave() -> None:
    """Let the calling thread, and all that it starts from now on, live in a new namespace without a network."""
    _call("unshare", CLONE_NEWNET)


def apart(work: Callable[[], Result]) -> Result:
    """Run in a thread whose network no other process sees. It ends with what was started in it.

    Interfaces that come and go there are no news for the processes of the machine. Chromium, for one, breaks off
    every load of a page when it hears of a new interface.
    """

    def alone() -> Result:
        leave()
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(alone).result()


def new() -> int:
    """A new namespace, as an open file. It ends when the file is closed and no process lives in it."""
    return apart(lambda: os.open(OWN, os.O_RDONLY | os.O_CLOEXEC))


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name} of a namespace: {os.strerror(number)}")
