"""Threads for calls that may hang in the kernel, such as a sync on a dying disk."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(Executor):
    """At most `most` threads. Unlike those of a `ThreadPoolExecutor`, a thread that hangs does not keep the process."""

    def __init__(self, most: int, name: str) -> None:
        self._most: Final = most
        self._name = name
        self._lock = Lock()
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._unfinished = 0
        """The calls that were submitted and have not ended."""
        self._ended = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call in a thread, as soon as one is free. Raises `RuntimeError` after the end."""
        future: Future[T] = Future()
        with self._lock:
            if self._ended:
                raise RuntimeError("the threads have ended")
            self._unfinished += 1
            self._queue.put(_Call(future, partial(fn, *args, **kwargs)))
            if len(self._threads) < min(self._most, self._unfinished):
                self._start_one()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work. `wait` waits for the end of the work, however long that takes: see `end`."""
        self._take_no_more(cancel_futures)
        for thread in self._threads if wait else ():
            thread.join()

    def end(self, longest: float) -> bool:
        """Take no more work, and wait up to `longest` seconds for what was submitted; returns whether it is done."""
        self._take_no_more()
        until = monotonic() + longest
        for thread in self._threads:
            thread.join(max(0.0, until - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _take_no_more(self, cancel: bool = False) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
            while cancel and not self._queue.empty():
                with suppress(Empty):  # a thread may have been faster
                    if (call := self._queue.get_nowait()) is not None:
                        call.future.cancel()
            for _ in self._threads:
                self._queue.put(None)

    def _start_one(self) -> None:
        thread = Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            call.run()
            del call  # its arguments must not live on while the thread waits
            with self._lock:
                self._unfinished -= 1


class _Call:
    """A call that waits for a thread, and the future of its result."""

    def __init__(self, future: Future[Any], call: Callable[[], Any]) -> None:
        self.future = future
        self.call = call

    def run(self) -> None:
        """Make the call, unless its future was cancelled."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.call()
        except BaseException as error:  # whoever waits for the future gets it
            self.future.set_exception(error)
            del self  # the traceback of the error refers to this frame: no circle
        else:
            self.future.set_result(result)
