"""The intake of a pushed source, from the request to the spool.

Invariant: a sender gets a success only after its page is committed. Otherwise it gets an error and repeats the page.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from poller.core.errors import StorageError, StorageFull
from poller.core.model import PushOutcome, RawPage
from poller.core.ports import PushedSource
from poller.core.spool import Spool
from poller.core.tracing import NO_TRACING, Tracing
from poller.pipeline.ingest import Ingest
from poller.pipeline.storage_gate import FULL_AGAIN, StorageGate
from poller.pipeline.storage_watch import StorageWatch
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.runtime.metrics import Metrics

log = structlog.get_logger("push_intake")

COMMIT_TOGETHER = 64
COMMIT_WITHIN = 5.0
"""Seconds that a sender waits for a commit before it gets an error and has to repeat."""
BEAT = 10.0
"""Seconds between two heartbeats during a long wait."""


class PushIntake:
    """Takes the pages that are pushed to one source. It is the source's `PushHandler`."""

    def __init__(
        self,
        source: PushedSource,
        spool: Spool,
        *,
        metrics: Metrics,
        beat: Callable[[], None] = lambda: None,
        commit_within: float = COMMIT_WITHIN,
        watch: StorageWatch | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self.source = source
        self._spool = spool
        self._ingest = Ingest(source, spool, metrics, tracing=tracing)
        self._metrics = metrics
        self._beat = beat
        self._commit_within = commit_within
        self._waiting: list[Waiting] = []
        self._wakeup = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._log = log.bind(source=source.name, account=source.account)
        self._gate = StorageGate(
            watch or StorageWatch(Clock()),
            paused=lambda reason: self._log.error("receiving_paused", reason=reason),
            resumed=lambda: self._log.info("receiving_resumed"),
            beat=beat,
            reason="not begun",
        )

    @property
    def trouble(self) -> str | None:
        """Why pages are refused; None while they are taken."""
        return self._gate.reason

    def stop(self) -> None:
        """Take no more pages. Pages in hand are committed and answered."""
        self._stopping.set()

    # ------------------------------------------------------------ pages

    async def accept(self, page: RawPage) -> None:
        """See `PushHandler.accept`."""
        try:
            await self._wait_until_committed(page)
        except StorageError:
            self._tally(PushOutcome.UNAVAILABLE)
            raise
        self._tally(PushOutcome.ACCEPTED)

    def turn_away(self, outcome: PushOutcome, reason: str = "") -> None:
        """See `PushHandler.turn_away`."""
        self._tally(outcome)
        if reason:
            self._log.warning("callback_refused", reason=reason)

    async def _wait_until_committed(self, page: RawPage) -> None:
        if self.trouble is not None:
            raise StorageFull(self.trouble)
        commit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((page, commit))
        self._wakeup.set()
        try:
            async with asyncio.timeout(self._commit_within):
                await commit
        except TimeoutError:
            reason = f"no commit within {self._commit_within:g} s"
            self._pause(reason)
            raise StorageError(reason) from None

    def _tally(self, outcome: PushOutcome) -> None:
        self._metrics.callbacks.labels(self.source.name, outcome.value).inc()

    # ------------------------------------------------------------ the commit

    async def run(self) -> None:
        """Take pages until `stop`; raises `StorageError` when the spool fails for good."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_forever())
            await self._until_stopped()
            await self.source.close()
            self._ended.set()
            self._wakeup.set()

    async def _until_stopped(self) -> None:
        while not self._stopping.is_set():
            self._beat()
            await _at_most(BEAT, self._stopping)

    async def _write_forever(self) -> None:
        if not await self._begin():
            return
        self._log.info("receiving", at=self.source.address)
        while True:
            self._wakeup.clear()
            if self._waiting:
                turn, self._waiting = self._waiting[:COMMIT_TOGETHER], self._waiting[COMMIT_TOGETHER:]
                await self._write(turn)
            elif self._ended.is_set():
                return
            elif self._gate.shut:
                await _at_most(FULL_AGAIN, self._ended)  # no event reports that a disk has room again
                await self._check()
            else:
                await self._wakeup.wait()

    async def _begin(self) -> bool:
        """Nothing is taken before the spool took a test write; false when we stop first."""
        while not await self._check():
            await _at_most(FULL_AGAIN, self._ended)
            if self._ended.is_set():
                return False
        return True

    async def _check(self) -> bool:
        try:
            await self._spool.check_writable()
        except StorageFull as error:
            self._pause(str(error))
            return False
        self._gate.try_again()
        return True

    async def _write(self, turn: list["Waiting"]) -> None:
        turn = [(page, commit) for page, commit in turn if not commit.done()]
        reached("push.taken")
        try:
            await self._ingest.write([self._ingest.read(page, b"") for page, _ in turn])
        except StorageError as error:
            self._pause(str(error))
            self._fail(turn, error)
            if not isinstance(error, StorageFull):
                raise
            return
        reached("push.committed")
        self._gate.open()
        for _, commit in turn:
            if not commit.done():
                commit.set_result(None)

    def _fail(self, turn: list["Waiting"], error: StorageError) -> None:
        """Fail every sender that waits: those of this turn, and all behind it."""
        waiting, self._waiting = [*turn, *self._waiting], []
        for _, commit in waiting:
            if not commit.done():
                commit.set_exception(type(error)(str(error)))

    def _pause(self, reason: str) -> None:
        self._gate.close(reason)
        self._wakeup.set()


Waiting = tuple[RawPage, "asyncio.Future[None]"]
"""A page, and the future that its sender waits for."""


async def _at_most(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
