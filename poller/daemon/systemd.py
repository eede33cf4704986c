"""The service manager's notification protocol (sd_notify(3)): one datagram per word."""

import os
import socket
from collections.abc import Callable


def notify(*words: str) -> None:
    """Tell the service manager, if there is one: `READY=1`, `WATCHDOG=1`, `STOPPING=1`, `STATUS=…`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(address)
            sender.sendall("\n".join(words).encode())
    except OSError:
        return  # a service manager that does not listen is no reason to stop


def notify_reloading(monotonic: float) -> None:
    """Say that a reload begins; `READY=1` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={int(monotonic * 1_000_000)}")


def watchdog_seconds() -> float | None:
    """How often the service manager wants to be told that we live; None when it does not ask."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000


class Watchdog:
    """Tells the service manager that we live, as long as every poll loop does."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._beats: dict[str, float] = {}
        seconds = watchdog_seconds()
        self._every = None if seconds is None else seconds / 4
        self._last_sent = 0.0

    def beater(self, source: str) -> Callable[[], None]:
        """What a poll loop calls at every turn, and at least every 60 s: that is the longest poll."""
        self._beats[source] = self._monotonic()

        def beat() -> None:
            now = self._monotonic()
            self._beats[source] = now
            if self._every is None or now - self._last_sent < self._every:
                return
            if now - min(self._beats.values()) < self._every * 2:
                self._last_sent = now
                notify("WATCHDOG=1")

        return beat

    def forget(self, source: str) -> None:
        """Its poll loop has ended, and is not waited for any more."""
        self._beats.pop(source, None)
