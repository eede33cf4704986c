"""One member of the benches of the shared spool: a process that appends, that claims and settles, or that only follows.

    python -m tests.bench.shared_member TASK

TASK is JSON (`Task`). The process opens its spool, prints a line when it is ready, waits for a line on its standard
input, works, and prints what it did (`Result`).
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import uvloop

from poller.core.model import Done as Delivered
from poller.core.model import ParsedPage
from poller.core.spool import SpoolAdmin, anything
from poller.runtime.log import configure
from poller.spools.postgres import PostgresSpool
from poller.spools.sqlite import SqliteSpool
from tests.bench.growth import readings
from tests.bench.parts import EACH
from tests.bench.shared_bare import Bare

BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)
NOTHING_MORE: Final = 1.5
"""Seconds without an event after which there are no more."""


Ready = Callable[[], Awaitable[None]]
"""Says that a member is ready, and waits until all are."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a member does.

    way:      which spool, with `settings`; for `bare` they are its `dsn`
    work:     append `events` events from the number `first` on, `together` pages a commit; carry what `sink` gets; or
              follow while another member appends `events` events
    """

    way: Literal["postgres", "bare", "sqlite"]
    settings: dict[str, Any]
    work: Literal["append", "carry", "follow"]
    events: int = 0
    first: int = 0
    together: int = 1
    sink: str = "hook"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a member did: how many events, when (monotonic, the machine's), and the CPU of that in seconds."""

    events: int
    began: float
    ended: float
    cpu: float


class Watch:
    """The time and the CPU of a piece of work, until the last `lap`."""

    def __init__(self) -> None:
        self.began, self._cpu = time.monotonic(), time.process_time()
        self.events = 0
        self.ended, self.cpu = self.began, 0.0

    def lap(self, events: int) -> None:
        """So many events more are done."""
        self.events += events
        self.ended, self.cpu = time.monotonic(), time.process_time() - self._cpu

    def result(self) -> Result:
        """All of it."""
        return Result(events=self.events, began=self.began, ended=self.ended, cpu=self.cpu)


# ---------------------------------------------------------------- the ways


def spool_of(task: Task) -> SpoolAdmin:
    """A spool, not entered."""
    if task.way == "sqlite":
        return SqliteSpool("spool", SqliteSpool.Settings.model_validate(task.settings), {})
    return PostgresSpool("spool", PostgresSpool.Settings.model_validate(task.settings), {})


@asynccontextmanager
async def appending(task: Task) -> AsyncIterator[Callable[[Sequence[ParsedPage]], Any]]:
    """What appends pages, and waits until they are durable."""
    if task.way == "bare":
        bare = await Bare.connect(task.settings["dsn"])
        yield bare.append
        await bare.close()
        return
    async with spool_of(task) as spool:

        async def append(pages: Sequence[ParsedPage]) -> int:
            return (await spool.append("screenshots", pages)).total()

        yield append


async def append(task: Task, ready: Ready) -> Result:
    """Append all events. Fails if one is not new."""
    pages = readings(task.events, task.first)
    async with appending(task) as put:
        await ready()
        watch = Watch()
        for start in range(0, len(pages), task.together):
            watch.lap(await put(pages[start : start + task.together]))
    assert watch.events == task.events
    return watch.result()


async def carry(task: Task, ready: Ready) -> Result:
    """Claim and settle batches of 100 until there are no more."""
    if task.way == "bare":
        return await _carry_bare(task, ready)
    async with spool_of(task) as spool:
        await spool.attach(task.sink, anything, start=BEGINNING)
        await ready()
        watch = Watch()
        try:
            while True:
                async with asyncio.timeout(NOTHING_MORE):
                    batch = await spool.claim(task.sink, EACH)
                await spool.settle(batch, [Delivered()] * len(batch.events))
                watch.lap(len(batch.events))
        except TimeoutError:
            return watch.result()


async def _carry_bare(task: Task, ready: Ready) -> Result:
    bare = await Bare.connect(task.settings["dsn"])
    await ready()
    watch = Watch()
    share = None
    while (share := await bare.take(task.sink, share)) is not None:
        for batch in await bare.batches(share, EACH):
            watch.lap(len(batch))
    watch.lap(0)
    await bare.close()
    return watch.result()


async def follow(task: Task, ready: Ready) -> Result:
    """Learn what another member appends."""
    async with spool_of(task) as spool:
        head = spool.head
        await ready()
        watch = Watch()
        await spool.wait_beyond(head + task.events - 1)
        watch.lap(task.events)
        return watch.result()


WORKS: Final = {"append": append, "carry": carry, "follow": follow}


# ---------------------------------------------------------------- from outside


def together(tasks: Sequence[Task]) -> list[Result]:
    """Let members work at the same time, each in a process of its own."""
    with ExitStack() as stack:
        members = [stack.enter_context(_started(task)) for task in tasks]
        for member in members:
            _said(member)
        for member in members:
            assert member.stdin is not None
            member.stdin.write("\n")
            member.stdin.flush()
        return [Result(**_said(member)) for member in members]


def _started(task: Task) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.bench.shared_member", json.dumps(asdict(task))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _said(member: "subprocess.Popen[str]") -> dict[str, Any]:
    assert member.stdout is not None
    line = member.stdout.readline()
    assert line, "a member has failed"
    found: dict[str, Any] = json.loads(line)
    return found


async def _ready() -> None:
    print(json.dumps({}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    configure("error", "json")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(asdict(runner.run(WORKS[task.work](task, _ready)))), flush=True)


if __name__ == "__main__":
    main()
