"""The notification protocol of the service manager, sd_notify(3)."""

import os
import socket
from collections.abc import Callable


def notify(*words: str) -> None:
    """Send words such as `READY=1` or `STOPPING=1` to the service manager in one datagram. Never raises `OSError`."""
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
        return  # the daemon goes on even if the service manager does not listen


def notify_reloading(monotonic: float) -> None:
    """Report that a reload begins. `READY=1` reports its end."""
    notify("RELOADING=1", f"MONOTONIC_USEC={int(monotonic * 1_000_000)}")


def watchdog_seconds() -> float | None:
    """The seconds within which the service manager expects `WATCHDOG=1`; None if it does not expect any."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000


class Watchdog:
    """Sends `WATCHDOG=1` to the service manager as long as the loop of every source sends heartbeats."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._heartbeats: dict[str, float] = {}
        seconds = watchdog_seconds()
        self._every = None if seconds is None else seconds / 4
        self._last_sent = 0.0

    def heartbeat(self, source: str) -> Callable[[], None]:
        """The heartbeat of a source. Its loop calls it at every turn, and at least every 60 s, the longest poll."""
        self._heartbeats[source] = self._monotonic()

        def send() -> None:
            now = self._monotonic()
            self._heartbeats[source] = now
            if self._every is None or now - self._last_sent < self._every:
                return
            if now - min(self._heartbeats.values()) < self._every * 2:
                self._last_sent = now
                notify("WATCHDOG=1")

        return send

    def forget(self, source: str) -> None:
        """Expect no more heartbeats from a source, because its loop has ended."""
        self._heartbeats.pop(source, None)
