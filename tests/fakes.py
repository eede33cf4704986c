"""Fakes of our own ports: a source that answers from a script, a sink that does as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from poller.core.errors import NotSent, StorageError, StorageFull
from poller.core.model import Batch, ParsedPage, PollOutcome, RawPage, Reject
from poller.core.spool import Away, Member, Shared, SpoolAdmin
from poller.pipeline.journal import Journal
from poller.runtime.clock import Clock
from poller.spools.memory import MemorySpool
from poller.spools.sqlite import SqliteSpool
from poller.testing import START, some_event

JOURNAL_SIZE = 32 * 1024 * 1024
Answer = dict[str, object]
"""What the fake platform says: `events` (numbers), `outcome`, `bad` (a reject), `raises`, `not_sent`, `hold`."""


class ScriptedSource:
    """Answers polls from a script, then with empty answers; counts what it was asked."""

    account = "main"
    destructive = True
    beat: float | None = None

    def __init__(
        self,
        script: Sequence[Answer] = (),
        *,
        min_delay: float = 0.0,
        max_delay: float = 0.0,
        lanes: int = 1,
        latency: float = 0.0,
    ) -> None:
        self.name = "shots"
        self.min_delay = min_delay
        self.max_delay = max_delay
        self.max_in_flight = lanes
        self.latency = latency
        self.script = list(script)
        self.fetches = 0
        self.answered = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.hold: asyncio.Event | None = None
        self.begun = asyncio.Event()
        self.cancelled = 0
        self.exhausted = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return None

    async def ready(self) -> None:
        return None

    async def fetch(self) -> RawPage:
        self.fetches += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.begun.set()
        answer = self.script.pop(0) if self.script else {"outcome": "empty"}
        try:
            if self.hold is not None:
                await self.hold.wait()
            else:
                await asyncio.sleep(self.latency)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        if answer.get("not_sent"):
            raise NotSent("refused")
        self.answered += 1
        if not self.script:
            self.exhausted.set()
        body = b"" if answer.get("silent") else json.dumps(answer).encode()
        return RawPage(
            source=self.name,
            received_at=START,
            status=200,
            encoding="",
            whole=True,
            body=body,
            about=str(answer.get("about", "")),
        )

    def read(self, page: RawPage, memory: bytes) -> ParsedPage:
        answer = json.loads(page.body or b'{"outcome": "uncertain"}')
        if answer.get("raises"):
            raise KeyError("a bug in the reader")
        rejects = (
            [Reject(received_at=START, reason="bad", encoding="", body=answer["bad"].encode())]
            if "bad" in answer
            else []
        )
        return ParsedPage(
            events=tuple(some_event(n) for n in answer.get("events", ())),
            rejects=tuple(rejects),
            outcome=PollOutcome(answer.get("outcome", "partial")),
            expired=bool(answer.get("expired")),
            memory=memory + b"." if answer.get("remember") else memory,
            about=page.about,
        )


class ScriptedSink:
    """Delivers into a list, or raises what `says` returns for a batch."""

    def __init__(
        self, name: str = "sink", says: Callable[[Batch], Exception | None] = lambda batch: None
    ) -> None:
        self.name = name
        self.says = says
        self.batches: list[Batch] = []
        self.delivered: list[str] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.hold: asyncio.Event | None = None
        self.begun = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return None

    async def deliver(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.begun.set()
        try:
            if self.hold is not None:
                await self.hold.wait()
            else:
                await asyncio.sleep(0)
        finally:
            self.in_flight -= 1
        if (error := self.says(batch)) is not None:
            raise error
        self.delivered.extend(event.id for event in batch.events)


def memory_spool(clock: Clock | None = None, max_events: int = 100_000) -> MemorySpool:
    return MemorySpool("spool", MemorySpool.Settings(type="memory", max_events=max_events), {}, clock)


def sqlite_spool(folder: Path, clock: Clock | None = None, retain: float = 86400.0) -> SqliteSpool:
    settings = SqliteSpool.Settings(type="sqlite", path=folder / "spool.db", retain=retain)
    return SqliteSpool("spool", settings, {}, clock)


async def opened(stack: AsyncExitStack, folder: Path, spool: SpoolAdmin) -> tuple[SpoolAdmin, Journal]:
    """A spool and a journal, entered."""
    await stack.enter_async_context(spool)
    return spool, await stack.enter_async_context(Journal(folder / "journal", JOURNAL_SIZE))


class SharedMemory(MemorySpool, Shared):
    """A spool in memory, as one of several daemons sees it. What the others do is set by the test."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__("spool", MemorySpool.Settings(type="memory", max_events=100_000), {}, clock)
        self.proven = asyncio.Event()
        self.proven.set()
        self.count = 1
        self.others: list[Member] = []
        self.free = asyncio.Event()
        """Set while no other daemon has any duty."""
        self.free.set()
        self.duties: list[str] = []
        self.resumes: dict[str, int] = {}
        self.changed = asyncio.Event()
        self.outage: Away | None = None
        self.waiting: dict[str, str] = {}
        self.broken: asyncio.Future[StorageError] = asyncio.Future()
        self.released: list[str] = []
        self.refusals = 0
        """How many of the next calls of `release` fail."""

    @property
    def identity(self) -> str:
        return "shared"

    @property
    def member(self) -> int:
        return 1

    @property
    def live_members(self) -> int:
        return self.count

    @property
    def away(self) -> Away | None:
        return self.outage

    def waits_for(self, sink: str) -> str:
        return self.waiting.get(sink, "")

    def divide(self, sink: str, lanes: int) -> None:
        pass

    async def check_answers(self) -> None:
        if self.outage is not None:
            raise StorageFull("spool: the database does not answer")

    async def release(self, sink: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise StorageFull("spool: the database does not answer")
        self.released.append(sink)

    @asynccontextmanager
    async def duty(self, name: str) -> AsyncIterator[None]:
        await self.free.wait()
        self.duties.append(name)
        try:
            yield
        finally:
            self.duties.remove(name)

    async def members(self) -> list[Member]:
        own = Member(number=1, name="here", since=START, expires=2.0, duties=tuple(self.duties))
        return [own, *self.others]

    async def pause(self, sink: str, paused: bool) -> None:
        await super().pause(sink, paused)
        self.resumes[sink] = self.resumes.get(sink, 0) + (not paused)
        self.changed.set()

    async def resumed(self) -> Mapping[str, int]:
        return dict(self.resumes)

    async def wait_for_change(self) -> None:
        await self.changed.wait()
        self.changed.clear()

    async def failed(self) -> StorageError:
        return await asyncio.shield(self.broken)
