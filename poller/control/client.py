"""The client of the control socket: one request to a running daemon."""

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from poller.control.place import reachable
from poller.core.errors import PollerError
from poller.operations.requests import (
    ControlError,
    EventRow,
    Request,
    Row,
    encode,
    read_event_line,
    read_reply_line,
)

SILENCE = 60.0
"""Seconds without any line of an answer after which the request fails."""
HEARD_WITHIN = 5.0
"""Seconds for the first, empty line, with which a daemon says at once that it has read the request."""


CUT = "the daemon's answer was cut: it may have ended"
RECEIVED = 1 << 18
"""The most bytes of an answer that are read at once."""


class NotRunning(PollerError):
    """No process listens on the socket: no daemon runs, or it has not opened its socket yet."""


def ask(path: Path, request: Request) -> Iterator[Row]:
    """Send a request and yield the rows of the answer as they arrive.

    Raises `NotRunning` if the request was not sent because no daemon listens; it may be repeated. Raises `ControlError`
    for every other failure; then the request may have been carried out.
    """
    with _asking(path, request) as connection:
        yield from _rows(connection)


def ask_events(path: Path, request: Request) -> Iterator[Sequence[EventRow]]:
    """The same for `events` and `tap`: the rows that arrived together, as they arrive. Those of `tap` never end."""
    with _asking(path, request) as connection:
        yield from _event_rows(connection)


@contextmanager
def _asking(path: Path, request: Request) -> Iterator[socket.socket]:
    """A connection on which a request was sent. Failures while the answer is read become a `ControlError`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(HEARD_WITHIN)
        _connect(connection, path)
        try:
            connection.sendall(encode(request) + b"\n")
            _wait_until_heard(connection)
            connection.settimeout(SILENCE)
            yield connection
        except TimeoutError:
            raise ControlError(f"the daemon says nothing for {SILENCE:.0f} s") from None
        except (OSError, msgspec.DecodeError) as error:
            raise ControlError(f"the daemon's answer was cut: {error}") from None


def _wait_until_heard(connection: socket.socket) -> None:
    """Wait for the first line of the answer, and take it if it is empty: a request that is refused has none."""
    try:
        if connection.recv(1, socket.MSG_PEEK) == b"\n":
            connection.recv(1)
    except TimeoutError:
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        raise ControlError(
            f"the daemon (pid {pid}) lives, and says nothing for {HEARD_WITHIN:.0f} s: it is frozen, or its machine is"
            f" overloaded. `ps -o stat,wchan -p {pid}` says more: T is stopped, and goes on with `kill -CONT {pid}`."
            " Other daemons that share its spool can be asked on their machines"
        ) from None


def _connect(connection: socket.socket, path: Path) -> None:
    try:
        with reachable(path) as address:
            connection.connect(address)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise NotRunning(f"no daemon listens at {path}") from None
    except PermissionError:
        raise ControlError(f"{path}: no permission: run this as the daemon's user, or as root") from None
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror or 'no answer'}") from None


def _rows(connection: socket.socket) -> Iterator[Row]:
    with connection.makefile("rb") as lines:
        for text in lines:
            if not text.strip():
                continue
            line = read_reply_line(text)
            if line.error is not None:
                raise ControlError(line.error)
            if line.end:
                return
            if line.row is not None:
                yield line.row
    raise ControlError(CUT)


def _event_rows(connection: socket.socket) -> Iterator[Sequence[EventRow]]:
    rest = b""
    while received := connection.recv(RECEIVED):
        *lines, rest = (rest + received).split(b"\n")
        rows: list[EventRow] = []
        for line in filter(None, map(read_event_line, filter(None, lines))):
            if line.row is not None:
                rows.append(line.row)
                continue
            if rows or line.error is None:
                yield rows
            if line.error is not None:
                raise ControlError(line.error)
            return
        yield rows
    raise ControlError(CUT)
