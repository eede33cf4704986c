"""A thread that runs jobs in groups, so that one fsync or one commit serves all waiting jobs."""

import asyncio
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
Work = Callable[[list[Job]], list[Result | Exception]]


class GroupThread(Generic[Job, Result]):
    """Runs `work` over all jobs that wait at the time; each job gets its own result or exception.

    The thread is a daemon: a disk that hangs cannot keep the process from ending.
    """

    def __init__(self, name: str, work: Work[Job, Result], *, most: int = 64) -> None:
        self._work = work
        self._most = most
        self._jobs: SimpleQueue[tuple[Job, asyncio.Future[Result]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin; called inside the event loop that will submit."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def submit(self, job: Job) -> asyncio.Future[Result]:
        """Queue a job; the future gets its result. Cancelling the future does not stop the job."""
        future: asyncio.Future[Result] = self._live_loop().create_future()
        self._jobs.put((job, future))
        return future

    async def stop(self) -> None:
        """End after all that was submitted is done."""
        if self._thread.is_alive():
            self._jobs.put(None)
            await self._live_loop().run_in_executor(None, self._thread.join)

    def _live_loop(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None, "not started"
        return self._loop

    def _run(self) -> None:
        while (group := self._gather()) is not None:
            try:
                results = self._work([job for job, _ in group])
            except Exception as error:  # every job of the group gets it, so that no caller waits for ever
                results = [error for _ in group]
            futures = [future for _, future in group]
            try:
                self._live_loop().call_soon_threadsafe(_resolve, futures, results)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def _gather(self) -> list[tuple[Job, asyncio.Future[Result]]] | None:
        first = self._jobs.get()
        if first is None:
            return None
        group = [first]
        while len(group) < self._most:
            try:
                more = self._jobs.get_nowait()
            except Empty:
                break
            if more is None:
                self._jobs.put(None)
                break
            group.append(more)
        return group


def _resolve(futures: list[asyncio.Future[Result]], results: list[Result | Exception]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
