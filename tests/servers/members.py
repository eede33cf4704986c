"""Members of a shared spool, each in a thread and a loop of its own. Others go on while one is frozen or killed."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poller.core.model import Batch
from poller.spools.postgres import PostgresSpool
from tests.patience import PATIENCE
from tests.servers.databases import Database
from tests.servers.postgres_spools import plain_dsn_of, spool_of

LEASE = 6.0
"""Seconds. A machine may hold a member up for half of it, also amid a transaction."""


class Thread:
    """One member. `do` runs a coroutine on its loop, from outside."""

    def __init__(self, spool: PostgresSpool) -> None:
        self.spool = spool
        self.number = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._frozen: threading.Event | None = None
        self._left = False

    def enter(self) -> None:
        """Begin a session."""
        self._thread.start()
        try:
            self.do(lambda spool: spool.__aenter__())
        except BaseException:
            self._left = True
            self.close()
            raise
        self.number = self.spool.member

    def begin(self, work: Callable[[PostgresSpool], Awaitable[Any]]) -> "Future":
        """Begin something on the member's loop."""

        async def run() -> Any:
            return await work(self.spool)

        return Future(asyncio.run_coroutine_threadsafe(run(), self._loop))

    def do(self, work: Callable[[PostgresSpool], Awaitable[Any]], within: float = PATIENCE) -> Any:
        """Run something on the member's loop to its end."""
        return self.begin(work).result(within)

    def claim(self, sink: str, limit: int = 100, within: float = PATIENCE) -> Batch:
        """Claim a batch; TimeoutError where none comes."""
        batch: Batch = self.do(lambda spool: spool.claim(sink, limit), within)
        return batch

    def is_proven(self) -> bool:
        """Whether its lease is proven."""

        async def look(spool: PostgresSpool) -> bool:
            return spool.proven.is_set()

        return bool(self.do(look))

    def may_end_others(self) -> bool:
        """Whether it may end the sessions of others: its signs of life were answered for half a lease."""

        async def look(spool: PostgresSpool) -> bool:
            return spool._membership._may_end_others(asyncio.get_running_loop().time())

        return bool(self.do(look))

    # ------------------------------------------------------------ faults

    def freeze(self) -> None:
        """Let nothing of it go on until `thaw`, as by SIGSTOP."""
        self._frozen = threading.Event()
        stopped = threading.Event()
        self._loop.call_soon_threadsafe(self._stand_still, self._frozen, stopped)
        assert stopped.wait(PATIENCE)

    @staticmethod
    def _stand_still(thawed: threading.Event, stopped: threading.Event) -> None:
        stopped.set()
        thawed.wait()

    def thaw(self) -> None:
        """Let it go on."""
        if self._frozen is not None:
            self._frozen.set()
            self._frozen = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze it, and let it go on when the context is left."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def kill(self) -> None:
        """End it with all its connections, as by SIGKILL."""
        assert self._frozen is None
        self._loop.call_soon_threadsafe(self._die)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._left = True

    def _die(self) -> None:
        for link in self.links():
            if not link.is_closed():
                link._transport.get_extra_info("socket").shutdown(2)
        self._loop.stop()

    def links(self) -> list[Any]:
        """Its connections."""
        spool = self.spool
        parts = ((spool._membership, "_link"), (spool._reader, "_link"), (spool._writer, "connection"))
        found = [getattr(part, name, None) for part, name in (*parts, (spool._claims, "connection"))]
        return [link for link in found if link is not None]

    def leave(self) -> None:
        """End the session in order."""
        self.do(lambda spool: spool.__aexit__(None, None, None))
        self._left = True

    def close(self) -> None:
        """End whatever is left of it."""
        self.thaw()
        if not self._left:
            self.leave()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
        self._loop.run_until_complete(self._cancel_all())
        self._loop.close()

    @staticmethod
    async def _cancel_all() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Future:
    """What `begin` began."""

    def __init__(self, future: Any) -> None:
        self._future = future

    def result(self, within: float = PATIENCE) -> Any:
        """Its result, or its error; TimeoutError if it takes too long, and then it is cancelled."""
        try:
            return self._future.result(within)
        except TimeoutError:
            self._future.cancel()
            raise

    def done(self) -> bool:
        return bool(self._future.done())

    def cancel(self) -> None:
        self._future.cancel()


class Members:
    """The members of one spool."""

    def __init__(self, server: Database, folder: Path, lease: float = LEASE) -> None:
        self.server, self.folder, self.lease = server, folder, lease
        self.all: list[Thread] = []

    def join(self) -> Thread:
        """One more member."""
        member = Thread(spool_of(self.server, self.folder, lease=self.lease, dsn=plain_dsn_of(self.server)))
        member.enter()
        self.all.append(member)
        return member

    def close(self) -> None:
        """End all of them."""
        for member in self.all:
            member.close()


@contextmanager
def members_of(server: Database, folder: Path, lease: float = LEASE) -> Iterator[Members]:
    """Members of the spool of a folder, which end with the test."""
    members = Members(server, folder, lease)
    try:
        yield members
    finally:
        members.close()


def until(condition: Callable[[], object], within: float = PATIENCE, what: str = "") -> float:
    """Wait until a condition is true; returns how many seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within, f"waited in vain {what}"
        time.sleep(0.02)
    return time.monotonic() - began
