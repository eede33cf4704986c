"""Members of a shared spool that write at once: no two transactions wait for each other."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import asyncpg

from poller.core.errors import StorageFull
from poller.core.model import Batch, Dead, Done, Outcome, ParsedPage, PollOutcome, Retry
from poller.core.selection import Selection
from poller.core.spool import anything
from poller.spools.postgres import PostgresSpool, duties, sessions
from poller.testing.factories import elsewhere, some_event
from tests.patience import patiently
from tests.servers.databases import Database, database, started
from tests.servers.postgres_spools import dsn_of, schema_of, spool_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

SINKS = {"shares": (False, 1), "also": (False, 1), "ordered": (True, 1), "lanes": (True, 4)}
"""Whether each sink is ordered, and in how many lanes it is divided."""
MEMBERS = 4
TURNS = 100


@asynccontextmanager
async def no_deadlock(server: Database) -> AsyncIterator[None]:
    """The server finds two transactions that wait for each other at once, and there are none."""
    asked = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'live'"
    await server.ask("ALTER ROLE poller SET deadlock_timeout = '10ms'")
    ((before,),) = await server.ask(asked)
    try:
        yield
    finally:
        await server.ask("ALTER ROLE poller RESET deadlock_timeout")
    ((after,),) = await server.ask(asked)
    assert after == before, b"\n".join(line for line in server.log().splitlines() if b"eadlock" in line)[
        -3000:
    ]
    assert b"deadlock detected" not in server.log()


class Work:
    """All that the members do at random, in `TURNS` steps."""

    def __init__(self, spools: list[PostgresSpool], seed: int) -> None:
        self._spools = spools
        self._random = random.Random(seed)
        self._numbers = count()
        self._serving = {(spool, sink): asyncio.Lock() for spool in spools for sink in SINKS}
        """A sink is served, or changed: a daemon ends its deliveries first."""
        self.turns = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for spool in self._spools:
                for work in (self._append, self._order, self._upkeep, self._change, *[self._carry] * 2):
                    group.create_task(self._again(work, spool))

    async def _again(self, work: Callable[[PostgresSpool], Awaitable[None]], spool: PostgresSpool) -> None:
        while self.turns < TURNS:
            await work(spool)
            self.turns += 1
            await asyncio.sleep(self._random.random() * 0.02)

    async def _append(self, spool: PostgresSpool) -> None:
        """A page that is provisional, and then the same with better addresses, at any member."""
        events = [some_event(next(self._numbers), stream=f"room{n}") for n in range(8)]
        await spool.append("source", [page(*events, provisional=True)])
        await asyncio.sleep(self._random.random() * 0.05)
        await self._random.choice(self._spools).append("source", [page(*map(elsewhere, events))])

    async def _carry(self, spool: PostgresSpool) -> None:
        for sink in self._shuffled():
            async with self._serving[spool, sink]:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        batch = await spool.claim(sink, 5)
                    await spool.settle(batch, self._outcomes(batch))

    def _outcomes(self, batch: Batch) -> list[Outcome]:
        some: tuple[Outcome, ...] = (Done(), Dead(reason="bad"), Retry(after=0.05, reason="busy"))
        return [self._random.choice(some) for _ in batch.events]

    async def _order(self, spool: PostgresSpool) -> None:
        """What operators ask for."""
        for sink in self._shuffled():
            letters = [letter.number for letter in await spool.dead(40) if letter.sink == sink]
            await spool.retry_dead(sink, self._random.sample(letters, len(letters)), 3)
            await spool.purge_dead(self._random.sample(letters, len(letters) // 2))
            await spool.pause(sink, self._random.random() < 0.5)

    async def _upkeep(self, spool: PostgresSpool) -> None:
        await spool.prune()
        for sink in self._shuffled():
            await spool.backlog(sink)
            try:
                planned = await spool.replays.plan(sink, Selection(stream="room1"))
            except StorageFull:  # the sink is just being attached anew
                continue
            if len(spool.replays.all()) < 6:
                await spool.replays.order(planned, 0, planned.pending | planned.dead)
            await spool.replays.fill(sink)

    async def _change(self, spool: PostgresSpool) -> None:
        """A sink is left and served again."""
        sink = self._random.choice(list(SINKS))
        async with self._serving[spool, sink]:
            await attach(spool, sink)
        await asyncio.sleep(0.2)

    def _shuffled(self) -> list[str]:
        return self._random.sample(list(SINKS), len(SINKS))


def page(*events: object, provisional: bool = False) -> ParsedPage:
    return ParsedPage(events=events, rejects=(), outcome=PollOutcome.PARTIAL, provisional=provisional)  # type: ignore[arg-type]


async def attach(spool: PostgresSpool, sink: str) -> None:
    ordered, lanes = SINKS[sink]
    spool.divide(sink, lanes)
    await spool.attach(sink, anything, ordered)


def test_members_that_do_everything_at_once_never_wait_for_each_other(
    tmp_path: Path, database: Database, fault_seed: int
) -> None:
    async def scenario() -> None:
        async with no_deadlock(database), AsyncExitStack() as stack:
            spools = [
                await stack.enter_async_context(spool_of(database, tmp_path, lease=60))
                for _ in range(MEMBERS)
            ]
            for spool in spools:
                for sink in SINKS:
                    await attach(spool, sink)
            await Work(spools, fault_seed).run()

    asyncio.run(patiently(scenario()))


@asynccontextmanager
async def two_links(server: Database, folder: Path) -> AsyncIterator[tuple[asyncpg.Connection, ...]]:
    async with spool_of(server, folder):
        pass
    settings = {"search_path": schema_of(folder)}
    links = [await asyncpg.connect(dsn_of(server), server_settings=settings) for _ in range(2)]
    try:
        yield tuple(links)
    finally:
        for link in links:
            await link.close()


def test_members_that_want_the_same_duties_in_another_order_do_not_wait_for_each_other(
    tmp_path: Path, database: Database
) -> None:
    names = [f"source:{n}" for n in range(500)]

    async def scenario() -> None:
        async with no_deadlock(database), two_links(database, tmp_path) as (one, other):
            for _ in range(10):
                got = await asyncio.gather(
                    duties.take(one, 1, names), duties.take(other, 2, list(reversed(names)))
                )
                assert sorted([*got[0], *got[1]]) == sorted(names)
                await one.execute("DELETE FROM duty")

    asyncio.run(patiently(scenario()))


def test_members_that_end_at_once_do_not_wait_for_each_other(tmp_path: Path, database: Database) -> None:
    """The counts of both are added to the same rows."""
    put = (
        "INSERT INTO tally SELECT 'sink' || n, 'delivered', $1, 1, 1 FROM generate_series(1, $2::bigint) AS n"
    )

    async def scenario() -> None:
        counts = 2_000, 200
        async with no_deadlock(database), two_links(database, tmp_path) as links:
            for turn in range(5):
                numbers = [await sessions.begin(link, "spool", f"member {turn}", 60) for link in links]
                for link, number, sinks in zip(links, numbers, counts, strict=True):
                    await link.execute(put, number, sinks)
                await asyncio.gather(
                    *(sessions.end(link, number) for link, number in zip(links, numbers, strict=True))
                )
            assert await links[0].fetchval("SELECT sum(count) FROM tally WHERE session = 0") == 5 * sum(
                counts
            )

    asyncio.run(patiently(scenario()))
