"""The sandbox's own log of every message it gave away: what tests balance their books against."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

LOG = "removed.ndjson"


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
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


class RemovedLog:
    """Appends to the log; a line written is safe from the death of any process, not from a power cut."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOG
        self._fd = -1

    def __enter__(self) -> Self:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
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


class Oracle:
    """Reads the log of a sandbox, running or dead."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOG

    def removed(self, customer: int | None = None) -> list[Removed]:
        """Every message given away, in order; a last line cut short by a crash is left out."""
        if not self._path.exists():
            return []
        lines = self._path.read_bytes().split(b"\n")[:-1]
        found = [Removed(**json.loads(line)) for line in lines]
        return [one for one in found if customer is None or one.customer == customer]

    def paths(self, customer: int | None = None) -> list[str]:
        """The paths of all messages given away that have one."""
        return [one.path for one in self.removed(customer) if one.path is not None]
