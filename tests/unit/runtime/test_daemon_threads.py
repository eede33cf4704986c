"""Threads for calls that may hang: bounded, and left behind where they do."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from poller.runtime.daemon_threads import DaemonThreads
from tests.patience import PATIENCE


class Hanging:
    """A call that returns when it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.most = self.running = 0

    def __call__(self) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.release()
        self.go.wait(PATIENCE)
        self.running -= 1
        return threading.current_thread().name

    def wait_for(self, count: int) -> None:
        """Until this number of calls has begun."""
        for _ in range(count):
            assert self.begun.acquire(timeout=PATIENCE)


@pytest.fixture
def threads() -> Iterator[DaemonThreads]:
    made = DaemonThreads(2, "disk")
    yield made
    assert made.end(PATIENCE)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    made = Hanging()
    yield made
    made.go.set()


def test_a_call_gives_its_result_or_its_error(threads: DaemonThreads) -> None:
    assert threads.submit(int, "11", base=2).result(PATIENCE) == 3
    with pytest.raises(ValueError, match="invalid literal"):
        threads.submit(int, "x").result(PATIENCE)
    assert threads.submit(int, "5").result(PATIENCE) == 5


def test_no_more_calls_run_at_once_than_there_are_threads(threads: DaemonThreads, hanging: Hanging) -> None:
    running = [threads.submit(hanging) for _ in range(6)]
    hanging.wait_for(2)
    assert not hanging.begun.acquire(timeout=0)
    hanging.go.set()
    assert {one.result(PATIENCE) for one in running} <= {"disk-0", "disk-1"}
    assert hanging.most == 2


async def test_a_call_whose_waiter_has_gone_is_not_begun(threads: DaemonThreads, hanging: Hanging) -> None:
    for _ in range(2):
        threads.submit(hanging)
    hanging.wait_for(2)
    waiter = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(threads, hanging))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await asyncio.sleep(0)
    hanging.go.set()
    assert threads.end(PATIENCE)
    assert not hanging.begun.acquire(timeout=0)


def test_the_end_waits_for_what_was_submitted_and_refuses_more(
    threads: DaemonThreads, hanging: Hanging
) -> None:
    running = [threads.submit(hanging) for _ in range(4)]
    hanging.wait_for(2)
    threading.Timer(0.01, hanging.go.set).start()
    assert threads.end(PATIENCE)
    assert all(one.done() for one in running)
    with pytest.raises(RuntimeError):
        threads.submit(hanging)


def test_a_shutdown_cancels_what_has_not_begun_where_that_is_asked_for(
    threads: DaemonThreads, hanging: Hanging
) -> None:
    running = [threads.submit(hanging) for _ in range(4)]
    hanging.wait_for(2)
    threads.shutdown(wait=False, cancel_futures=True)
    hanging.go.set()
    assert threads.end(PATIENCE)
    assert sorted(one.cancelled() for one in running) == [False, False, True, True]


def test_the_end_does_not_wait_for_ever(hanging: Hanging) -> None:
    threads = DaemonThreads(1, "disk")
    threads.submit(hanging)
    hanging.wait_for(1)
    assert not threads.end(0.01)
    hanging.go.set()
    assert threads.end(PATIENCE)


def test_nothing_of_a_call_lives_on_in_the_threads(threads: DaemonThreads) -> None:
    class Picture:
        """Something that can be referred to weakly."""

    def fail(picture: Picture) -> None:
        raise OSError

    gc.disable()
    try:
        for call in (id, fail):
            picture = Picture()
            gone = threading.Event()
            weakref.finalize(picture, gone.set)
            future = threads.submit(call, picture)
            assert isinstance(future.exception(PATIENCE), OSError | None)
            del picture, future
            assert gone.wait(PATIENCE)
    finally:
        gc.enable()
