"""A process and all that descends from it, as one: frozen, let go on, killed, and asked for its port.

The processes of a server may have sessions of their own, so that no process group holds them.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.patience import PATIENCE

_LISTENS: Final = "0A"
_STANDS_STILL: Final = "TtZX"
_IS_GONE: Final = "ZX"


def born(pid: int) -> int:
    """When a process began, in ticks since the machine's start; 0 if there is none. Tells it from a later one."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def cpu(pid: int) -> float:
    """Seconds of CPU that all have used, user and system, also their children that have ended."""
    ticks = sum(sum(map(int, _stat(one)[11:15])) for one in family(pid))
    return ticks / os.sysconf("SC_CLK_TCK")


def written(pid: int) -> int:
    """Bytes that all have given to the disk, also their children that have ended."""
    found = 0
    for one in family(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += int(Path(f"/proc/{one}/io").read_text().partition("\nwrite_bytes: ")[2].split()[0])
    return found


def freeze(pid: int) -> list[int]:
    """Stop all processes; returns them, parents first.

    A parent stands still before its children are looked for. It could make another child otherwise, which would
    escape.
    """
    found: list[int] = []
    waiting = [pid]
    while waiting:
        one = waiting.pop(0)
        _send(one, signal.SIGSTOP)
        _until_state(one, _STANDS_STILL)
        found.append(one)
        waiting += _children(one)
    return found


def thaw(pid: int) -> None:
    """Let all go on. The children go first: a parent may judge them as soon as it runs."""
    for one in reversed(family(pid)):
        _send(one, signal.SIGCONT)


def kill(pid: int) -> None:
    """End all processes, none of which can react to another's end. They are gone on return."""
    found = freeze(pid)
    for one in reversed(found):
        _send(one, signal.SIGKILL)
    for one in found:
        _until_state(one, _IS_GONE)


def listens(pid: int, port: int) -> bool:
    """Whether one of these processes listens on a TCP port, in the network of the first."""
    sockets = _listeners(pid, port)
    return bool(sockets) and any(not sockets.isdisjoint(_files(one)) for one in family(pid))


def family(pid: int) -> list[int]:
    """The processes, parents first."""
    found = [pid]
    for one in found:
        found += _children(one)
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):  # the process may end meanwhile
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # or a thread of it
                found += map(int, (thread / "children").read_text().split())
    return found


def _stat(pid: int) -> list[str]:
    """The fields of its state file, from the state on; none if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _until_state(pid: int, states: str) -> None:
    began = time.monotonic()
    while (fields := _stat(pid)) and fields[0] not in states:
        assert time.monotonic() - began < PATIENCE, f"process {pid} does not obey: {fields[0]}"
        time.sleep(0.001)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _listeners(pid: int, port: int) -> set[str]:
    """The sockets that listen on a port in a process's network, as links of open files name them."""
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        for line in _table(Path(f"/proc/{pid}/net/{table}")):
            fields = line.split()
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _table(file: Path) -> list[str]:
    """The lines below the head; none if the process has ended."""
    try:
        return file.read_text().splitlines()[1:]
    except OSError:
        return []


def _files(pid: int) -> set[str]:
    found: set[str] = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for file in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError, ProcessLookupError):
                found.add(os.readlink(f"/proc/{pid}/fd/{file}"))
    return found
