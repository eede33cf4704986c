"""The object store's contents: pictures as files, each there only once its upload is over."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from hashlib import blake2b
from pathlib import Path
from typing import Self
from urllib.parse import quote

from poller.sandbox.bell import Bell
from poller.sandbox.faults import Faults

LINKS = 10_000  # file systems limit the names of one file, ext4 to 65,000


class Pictures:
    """Stores pictures by bucket and path. What is on its way up is held in memory and on no disk."""

    def __init__(
        self, directory: Path, delay: tuple[float, float], faults: Faults, rng: random.Random, bell: Bell
    ) -> None:
        self.delay = delay
        self.stored = 0
        self.lost = 0
        self._directory = directory
        self._faults = faults
        self._rng = rng
        self._bell = bell
        self._serial = itertools.count()
        self._on_the_way: dict[int, tuple[asyncio.TimerHandle, Path, bytes]] = {}

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *exc: object) -> None:
        """What is still on its way arrives at once: its message is out, so it must be found later."""
        for timer, file, content in self._on_the_way.values():
            timer.cancel()
            self._write(file, content)
        self._on_the_way.clear()

    @property
    def on_the_way(self) -> int:
        return len(self._on_the_way)

    def upload(self, bucket: str, path: str, content: bytes, *, spent: float = 0.0) -> None:
        """Begins an upload; `spent` seconds of its delay are over already."""
        fault = self._faults.draw()
        if fault is not None and fault.name == "lost":
            self.lost += 1
            return
        delay = self._rng.uniform(*self.delay) + (fault.seconds if fault is not None else 0.0)
        serial, file = next(self._serial), self.file(bucket, path)
        timer = asyncio.get_running_loop().call_later(max(0.0, delay - spent), self._arrive, serial)
        self._on_the_way[serial] = (timer, file, content)

    def put(self, bucket: str, path: str, content: bytes) -> None:
        """Stores a picture at once."""
        self._write(self.file(bucket, path), content)
        self._landed(1)

    def put_many(self, bucket: str, paths: list[str], content: bytes) -> None:
        """Stores the same picture under many paths, which share files."""
        shared = self.file(bucket, ".shared")
        for number, path in enumerate(paths):
            if number % LINKS == 0:
                self._write(shared, content)
            file = self.file(bucket, path)
            file.unlink(missing_ok=True)
            os.link(shared, file)
        self._landed(len(paths))

    def content(self, bucket: str, path: str) -> bytes | None:
        """The picture's bytes, or None while it is not there."""
        try:
            return self.file(bucket, path).read_bytes()
        except FileNotFoundError:
            return None

    def file(self, bucket: str, path: str) -> Path:
        """Where a picture lies; no path, however hostile, leads out of the directory."""
        name = quote(path, safe="", errors="surrogatepass")
        if len(name) > 200 or name.startswith("."):
            name = "-" + blake2b(name.encode(), digest_size=16).hexdigest()
        return self._directory / quote(bucket, safe="").replace(".", "%2E") / name

    def _arrive(self, serial: int) -> None:
        _, file, content = self._on_the_way.pop(serial)
        self._write(file, content)
        self._landed(1)

    def _landed(self, number: int) -> None:
        self.stored += number
        self._bell.ring()

    def _write(self, file: Path, content: bytes) -> None:
        file.parent.mkdir(exist_ok=True)
        half = file.with_name(".part")
        half.write_bytes(content)
        half.rename(file)
