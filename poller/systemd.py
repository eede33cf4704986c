"""The service manager's notification protocol (sd_notify(3)): one datagram per word."""

import os
import socket


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


def watchdog_seconds() -> float | None:
    """How often the service manager wants to be told that we live; None when it does not ask."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000
