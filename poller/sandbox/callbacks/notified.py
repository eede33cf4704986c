"""The sandbox's own log of every notification answered: what tests of receivers balance their books against."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

LOG = "notified.ndjson"
OLD = "notified.ndjson.old"


@dataclass(frozen=True, kw_only=True)
class Notified:
    """One notification that was answered with 200, at the epoch `at`, by its attempt of that number.

    `path` is `pic_url` without its leading slash, `vid` is `video_id`; what the body has not, or has as neither text
    nor whole number, is None. `fault` is what went wrong with it on purpose.
    """

    customer: int
    event_type: int | str | None
    stream_id: int | str | None
    path: str | None
    vid: int | str | None
    sequence: int | str | None
    attempts: int
    fault: str | None
    at: float


def facts(body: Mapping[str, object]) -> dict[str, Any]:
    """The members of a body that a line of the log has."""

    def field(name: str) -> int | str | None:
        value = body.get(name)
        return value if isinstance(value, int | str) else None

    path = field("pic_url")
    return {
        "event_type": field("event_type"),
        "stream_id": field("stream_id"),
        "path": path.removeprefix("/") if isinstance(path, str) else None,
        "vid": field("video_id"),
        "sequence": field("sequence"),
    }


class NotifiedLog:
    """Appends to the log. A written line survives the death of any process, but not a power cut."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOG
        self._old = directory / OLD
        self._fd = -1
        self._torn = False
        """Whether the last line lacks its end, because of a kill or a full disk."""

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def note(self, one: Notified) -> None:
        """Adds a line by one system call. Raises OSError."""
        line = b"\n" * self._torn + json.dumps(asdict(one)).encode() + b"\n"
        self._torn = os.write(self._fd, line) < len(line)
        if self._torn:
            raise OSError("the disk took only a part of it")

    def forget(self, before: float) -> None:
        """Moves the log aside if its first line is older than that epoch. The log moved before is overwritten."""
        with self._path.open("rb") as file:
            found = _read(file.readline())
        if found and found[0].at < before:
            self._path.replace(self._old)
            os.close(self._fd)
            self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(self._fd).st_size
        self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"


def read_notified(directory: Path, customer: int | None = None) -> list[Notified]:
    """Every line of a sandbox's log in order, of one customer or of all; what is half written is left out.

    The sandbox may be running or dead. What is older than its retention may be missing.
    """
    found = [one for name in (OLD, LOG) for one in _read(_content(directory / name))]
    return [one for one in found if customer is None or one.customer == customer]


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def _read(text: bytes) -> list[Notified]:
    found = []
    for line in text.split(b"\n"):
        try:
            found.append(Notified(**json.loads(line)))
        except ValueError:
            continue  # cut short by a full disk or a kill; also what follows the last end of line
    return found
