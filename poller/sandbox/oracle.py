"""The sandbox's own log of every message it gave away: what tests balance their books against."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

LOG = "removed.ndjson"
OLD = "removed.ndjson.old"


class Removed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message that left the queue, with the poll that took it and what then befell the answer.

    `pic_url` is as it was written in the answer, `path` is it without host, query and leading slash;
    both are None for a message that has none. `poison` names a deliberately bad message.
    """

    n: int
    customer: int
    poll: int
    fault: str | None
    at: float
    stream_id: str | None
    path: str | None
    pic_url: str | None
    create_time: int | None = None
    poison: str | None = None


class _Line(msgspec.Struct):
    at: float


_LONGEST = 1 << 20  # bytes that no line exceeds
_decode = msgspec.json.Decoder(Removed).decode


class RemovedLog:
    """Appends to the log. A written line survives the death of any process, but not a power cut."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOG
        self._old = directory / OLD
        self._fd = -1

    def __enter__(self) -> Self:
        self._open()
        self._repair()
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)
        self._fd = -1

    def write(self, heads: Sequence[bytes], *, poll: int, fault: str | None, at: float) -> None:
        """Writes a line per message by one system call; a head is a JSON object without its end."""
        name = "null" if fault is None else f'"{fault}"'
        tail = f',"poll":{poll},"fault":{name},"at":{at:.6f}}}\n'.encode()
        left = memoryview(tail.join((*heads, b"")))
        while left:
            left = left[os.write(self._fd, left) :]

    def forget(self, before: float) -> None:
        """Moves the log aside if its first line is older than that epoch. The log moved before is overwritten."""
        with self.path.open("rb") as file:
            first = file.readline()
        if first.endswith(b"\n") and msgspec.json.decode(first, type=_Line).at < before:
            self.path.replace(self._old)
            os.close(self._fd)
            self._open()

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)

    def _repair(self) -> None:
        """Cuts off a last line that a kill left incomplete. The message of that line is still in the queue."""
        end = os.fstat(self._fd).st_size
        tail = os.pread(self._fd, _LONGEST, max(0, end - _LONGEST))
        os.ftruncate(self._fd, end - len(tail) + tail.rfind(b"\n") + 1)


class Oracle:
    """Reads the log of a sandbox, running or dead."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOG
        self._old = directory / OLD

    def removed(self, customer: int | None = None) -> list[Removed]:
        """Every message given away, in order; a last line cut short by a crash is left out.

        What was given away before the sandbox's retention may be missing.
        """
        lines = [line for text in self._texts() for line in text.split(b"\n")[:-1]]
        found = [_decode(line) for line in lines]
        return [one for one in found if customer is None or one.customer == customer]

    def paths(self, customer: int | None = None) -> list[str]:
        """The paths of all messages given away that have one."""
        return [one.path for one in self.removed(customer) if one.path is not None]

    def _texts(self) -> list[bytes]:
        """The log moved aside, and the log; read again if it was moved just then."""
        while True:
            moved = _inode(self._old)
            texts = [_text(self._old), _text(self._path)]
            if _inode(self._old) == moved:
                return texts


def _text(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def _inode(file: Path) -> int:
    return file.stat().st_ino if file.exists() else 0
