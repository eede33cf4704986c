"""Reads the spool file beside the writer, in a thread of its own."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from poller.runtime.clock import Clock
from poller.runtime.group_thread import GroupThread
from poller.spools.sqlite.failures import storage_error
from poller.spools.sqlite.schema import lossy

Result = TypeVar("Result")
Read = Callable[[sqlite3.Connection], object]


class Reader:
    """One connection that only reads. It opens with the first job."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._thread: GroupThread[Read, object] = GroupThread("spool-reader", self._run)
        self._connection: sqlite3.Connection | None = None

    def start(self) -> None:
        """Begin; called inside the event loop."""
        self._thread.start()

    async def stop(self) -> None:
        """End after the last job."""
        await self._thread.stop()

    def close(self) -> None:
        """Close the connection of a stopped reader."""
        if self._connection is not None:
            self._connection.close()

    async def read(self, job: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run a job. Raises `StorageError`."""
        result: Result = await self._thread.submit(job)  # type: ignore[assignment]
        return result

    def _run(self, jobs: list[Read]) -> list[object | Exception]:
        return [self._run_one(job) for job in jobs]

    def _run_one(self, job: Read) -> object | Exception:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    f"{self._path.as_uri()}?mode=ro", uri=True, check_same_thread=False
                )
                self._connection.text_factory = lossy
            return job(self._connection)
        except Exception as error:  # other reads of the group go on
            return storage_error(self._path, error, self._clock.now())
