"""The object store's contents: objects as files and rows, each there only once its upload is over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b, md5
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

from fastcrc import crc64

from poller.sandbox.database import Database
from poller.sandbox.faults import Faults
from poller.sandbox.wakeup import Wakeup

LINKS = 10_000  # file systems limit the names of one file, ext4 to 65,000
COMING = ""  # the bucket, without a name, of what is under way; its keys are NUMBER/BUCKET/KEY

_COLUMNS = "size, etag, crc64, type, ready_at, metadata"
_PUT = f"INSERT OR REPLACE INTO object (bucket, key, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """One object. `etag` is its hex MD5, `crc64` a decimal CRC-64/XZ, `ready_at` the end of its upload (epoch).

    metadata: headers that its upload had and its readers get
    """

    bucket: str
    key: str
    size: int
    etag: str
    crc64: str
    type: str
    ready_at: float
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Coming:
    """An upload that is under way, and the number that tells it from others of the same key."""

    number: int
    bucket: str
    key: str

    @property
    def row(self) -> tuple[str, str]:
        """Bucket and key of its row."""
        return COMING, f"{self.number:016d}/{_folder_of(self.bucket)}/{self.key}"


class Pictures:
    """Stores objects by bucket and key; used by the event loop's thread alone.

    An object that is there is the file `BUCKET/KEY` (percent-encoded) and a row. One under way is both as well,
    but the file lies in `.coming/` until it is ready, and the row in a bucket without a name: so it survives a
    `kill -9`, and an older object of the same key is served until then.
    """

    def __init__(
        self,
        database: Database,
        directory: Path,
        *,
        delay: tuple[float, float],
        faults: Faults,
        rng: random.Random,
        wakeup: Wakeup,
    ) -> None:
        self.delay = delay
        self.stored = 0
        self.lost = 0
        self._database = database
        self._directory = directory
        self._faults = faults
        self._rng = rng
        self._wakeup = wakeup
        self._number = 0
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def __enter__(self) -> Self:
        """Continues the uploads of an earlier process. An upload whose time has passed arrives at once."""
        (self._directory / ".coming").mkdir(parents=True, exist_ok=True)
        rows = self._database.execute(
            "SELECT key, ready_at FROM object WHERE bucket = ? ORDER BY ready_at, key", (COMING,)
        ).fetchall()
        coming = [(_read(key), ready_at) for key, ready_at in rows]
        self._number = max((one.number for one, _ in coming), default=0)
        self._sweep({self._coming_file(one) for one, _ in coming})
        for one, ready_at in coming:
            self._arrive_at(one, ready_at)
        return self

    def __exit__(self, *exc: object) -> None:
        """Leaves unfinished uploads on the disk."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    @property
    def on_the_way(self) -> int:
        return len(self._timers)

    def upload(
        self,
        bucket: str,
        path: str,
        content: bytes,
        *,
        spent: float = 0.0,
        arrived: Callable[[], None] | None = None,
    ) -> None:
        """Begins the upload of a picture; `spent` seconds of its delay are over already.

        `arrived` is called once it can be fetched, but not by a later run of the sandbox.
        """
        fault = self._faults.draw()
        if fault is not None and fault.name == "lost":
            self.lost += 1
            return
        delay = self._rng.uniform(*self.delay) + (fault.seconds if fault is not None else 0.0)
        stored = _new_object(bucket, path, content, "image/jpeg", time.time() + max(0.0, delay - spent))
        self._arrive_at(self._begin(stored, content), stored.ready_at, arrived)

    def put(
        self,
        bucket: str,
        path: str,
        content: bytes,
        type: str = "image/jpeg",
        metadata: Mapping[str, str] | None = None,
    ) -> StoredObject:
        """Stores an object at once."""
        stored = replace(_new_object(bucket, path, content, type, time.time()), metadata=dict(metadata or {}))
        self._arrive(self._begin(stored, content))
        return stored

    def put_many(self, bucket: str, paths: list[str], content: bytes) -> None:
        """Stores the same picture under many paths, which share files."""
        shared = f"{self._directory}/.coming/shared"
        said = _row(_new_object(bucket, "", content, "image/jpeg", time.time()))
        self._folder(bucket)
        for start in range(0, len(paths), LINKS):
            some = paths[start : start + LINKS]
            _write(shared, content)
            for path in some:
                _link(shared, self._file(bucket, path))
            os.unlink(shared)
            self._database.many(_PUT, ((bucket, path, *said) for path in some))
        self._count_stored(len(paths))

    def find(self, bucket: str, path: str) -> StoredObject | None:
        """The object of that key, if it is there."""
        row = self._database.execute(
            f"SELECT key, {_COLUMNS} FROM object WHERE bucket = ? AND key = ?",  # noqa: S608 - constants
            (bucket, path),
        ).fetchone()
        return None if row is None else _object_of_row(bucket, row)

    def since(self, bucket: str, key: str) -> Iterator[StoredObject]:
        """The objects of a bucket from that key on, in the order of their keys' UTF-8 bytes."""
        rows = self._database.execute(
            f"SELECT key, {_COLUMNS} FROM object WHERE bucket = ? AND key >= ? ORDER BY key",  # noqa: S608 - constants
            (bucket, key),
        )
        return (_object_of_row(bucket, row) for row in rows)

    def bytes_of(self, stored: StoredObject, part: range | None = None) -> bytes | None:
        """An object's bytes, or a part of them; None if its file was taken away."""
        part = range(stored.size) if part is None else part
        try:
            file = os.open(self._file(stored.bucket, stored.key), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.pread(file, len(part), part.start)
        finally:
            os.close(file)

    def content(self, bucket: str, path: str) -> bytes | None:
        """The object's bytes, or None while it is not there."""
        stored = self.find(bucket, path)
        return None if stored is None else self.bytes_of(stored)

    def delete(self, bucket: str, path: str) -> None:
        """Removes an object, if it is there. An upload that is under way still arrives."""
        self._unlink(bucket, path)
        self._database.execute("DELETE FROM object WHERE bucket = ? AND key = ?", (bucket, path))

    def forget(self, before: float) -> int:
        """Removes what was stored before that moment (epoch); returns how many objects it was."""
        old = self._database.execute(
            "SELECT bucket, key FROM object WHERE ready_at < ? AND bucket != ?", (before, COMING)
        ).fetchall()
        # The files first: what a crash leaves is a row without a file, which the next turn removes.
        for bucket, key in old:
            self._unlink(bucket, key)
        self._database.many("DELETE FROM object WHERE bucket = ? AND key = ?", old)
        return len(old)

    def file(self, bucket: str, path: str) -> Path:
        """Where an object lies; no path, however hostile, leads out of the directory."""
        return Path(self._file(bucket, path))

    # ---------------------------------------------------------------- the way of an upload

    def _begin(self, stored: StoredObject, content: bytes) -> _Coming:
        """Writes the file before the row, so that no row lacks its bytes."""
        self._number += 1
        coming = _Coming(number=self._number, bucket=stored.bucket, key=stored.key)
        _write(self._coming_file(coming), content)
        self._database.execute(_PUT, (*coming.row, *_row(stored)))
        return coming

    def _arrive_at(self, coming: _Coming, ready_at: float, arrived: Callable[[], None] | None = None) -> None:
        left = ready_at - time.time()
        if left <= 0:
            self._arrive(coming, arrived)
            return
        loop = asyncio.get_running_loop()
        self._timers[coming.number] = loop.call_later(left, self._arrive, coming, arrived)

    def _arrive(self, coming: _Coming, arrived: Callable[[], None] | None = None) -> None:
        """Moves the file before the row. After a kill between the two steps, the next start repeats them."""
        self._timers.pop(coming.number, None)
        self._folder(coming.bucket)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._coming_file(coming), self._file(coming.bucket, coming.key))
        self._database.execute(
            "UPDATE OR REPLACE object SET bucket = ?, key = ? WHERE bucket = ? AND key = ?",
            (coming.bucket, coming.key, *coming.row),
        )
        if arrived is not None:
            arrived()
        self._count_stored(1)

    def _count_stored(self, number: int) -> None:
        self.stored += number
        self._wakeup.ring()

    def _sweep(self, known: set[str]) -> None:
        """Removes files that a kill left half written."""
        for entry in os.scandir(self._directory / ".coming"):
            if entry.path not in known:
                os.unlink(entry.path)

    # ---------------------------------------------------------------- places on the disk

    def _file(self, bucket: str, key: str) -> str:
        return f"{self._directory}/{_folder_of(bucket)}/{_name(key)}"

    def _coming_file(self, coming: _Coming) -> str:
        return f"{self._directory}/.coming/{coming.number:016d}-{_name(coming.key)}"

    def _folder(self, bucket: str) -> None:
        os.makedirs(f"{self._directory}/{_folder_of(bucket)}", exist_ok=True)

    def _unlink(self, bucket: str, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file(bucket, key))


def _object_of_row(bucket: str, row: tuple[str, int, str, str, str, float, str]) -> StoredObject:
    key, size, etag, crc, type, ready_at, metadata = row
    return StoredObject(
        bucket=bucket,
        key=key,
        size=size,
        etag=etag,
        crc64=crc,
        type=type,
        ready_at=ready_at,
        metadata=json.loads(metadata),
    )


def _read(row_key: str) -> _Coming:
    number, bucket, key = row_key.split("/", 2)
    return _Coming(number=int(number), bucket=unquote(bucket), key=key)


def _new_object(bucket: str, key: str, content: bytes, type: str, ready_at: float) -> StoredObject:
    return StoredObject(
        bucket=bucket,
        key=key,
        size=len(content),
        etag=md5(content, usedforsecurity=False).hexdigest(),
        crc64=str(crc64.xz(content)),
        type=type,
        ready_at=ready_at,
    )


def _row(stored: StoredObject) -> tuple[int, str, str, str, float, str]:
    """The row, without bucket and key."""
    metadata = json.dumps(dict(stored.metadata))
    return stored.size, stored.etag, stored.crc64, stored.type, stored.ready_at, metadata


def _name(key: str) -> str:
    name = quote(key, safe="")
    if len(name) > 200 or name.startswith((".", "-")):
        name = "-" + blake2b(name.encode(), digest_size=16).hexdigest()
    return name


@lru_cache(maxsize=64)
def _folder_of(bucket: str) -> str:
    return quote(bucket, safe="").replace(".", "%2E")


def _write(file: str, content: bytes) -> None:
    with open(file, "wb") as opened:
        opened.write(content)


def _link(file: str, name: str) -> None:
    try:
        os.link(file, name)
    except FileExistsError:
        os.unlink(name)
        os.link(file, name)
