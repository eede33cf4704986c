"""An ordered sink in lanes: several members of one spool serve it, and each stream stays in order."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from poller.core.history import ReplayState
from poller.core.model import Dead, Done, Event, Outcome, Retry
from poller.core.selection import Selection
from poller.core.spool import anything
from poller.spools import postgres
from poller.spools.postgres import PostgresSpool
from poller.testing.factories import some_event, some_reading
from tests.patience import PATIENCE, patiently
from tests.servers.databases import Database, database, started
from tests.servers.postgres_locks import locked, until_one_waits
from tests.servers.postgres_spools import plain_dsn_of, schema_of, spool_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = [POSTGRESQL, pytest.mark.timeout(120)]

SINK = "cover"
STREAMS = 12
Judge = Callable[[Event], Outcome]


def done(event: Event) -> Outcome:
    return Done()


class Serving:
    """A member that serves the sink. `got` has what it was given, in order, over all members."""

    def __init__(
        self, spool: PostgresSpool, got: list[tuple[int, Event]], judge: Judge, *, ordered: bool
    ) -> None:
        self.spool = spool
        self._ordered = ordered
        self._got = got
        self._judge = judge
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, carriers: int = 3) -> None:
        self._tasks = [asyncio.create_task(self._carry()) for _ in range(carriers)]

    async def _carry(self) -> None:
        while True:
            batch = await self.spool.claim(SINK, 5)
            await asyncio.sleep(0)
            outcomes = [self._judge(event) for event in batch.events]
            await self.spool.settle(batch, outcomes)  # it never waits: what is noted is what was settled
            self._note(batch.events, outcomes)

    def _note(self, events: Sequence[Event], outcomes: Sequence[Outcome]) -> None:
        """In an ordered sink, what follows a retry in its stream comes again, behind it."""
        held = set[str]()
        for event, outcome in zip(events, outcomes, strict=True):
            if isinstance(outcome, Retry) and self._ordered:
                held.add(event.stream_id)
            if isinstance(outcome, Done) and event.stream_id not in held:
                self._got.append((self.spool.member, event))

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            if not task.cancelled():
                task.result()


@dataclass(frozen=True)
class World:
    """A spool, and what its sink was given, in order: the number of the member, and the event."""

    server: Database
    folder: Path
    got: list[tuple[int, Event]] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self, lanes: int, members: int, judge: Judge = done) -> AsyncIterator[list[Serving]]:
        """Members that serve the sink in lanes; by shares if `lanes` is 0."""
        async with AsyncExitStack() as stack:
            found = []
            for _ in range(members):
                spool = spool_of(self.server, self.folder, lease="8s", dsn=plain_dsn_of(self.server))
                await stack.enter_async_context(spool)
                spool.divide(SINK, max(1, lanes))
                await spool.attach(SINK, anything, ordered=lanes > 0)
                one = Serving(spool, self.got, judge, ordered=lanes > 0)
                await one.begin()
                stack.push_async_callback(one.end)
                found.append(one)
            yield found


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await holds():
            await asyncio.sleep(0.1)


async def append(spool: PostgresSpool, start: int, count: int) -> None:
    """Events with ascending numbers, of all streams in turn."""
    for number in range(start, start + count):
        await spool.append("source", [some_reading(number, stream=f"room{number % STREAMS}")])


def numbers(events: Sequence[Event]) -> list[int]:
    known = {some_event(n, stream=f"room{n % STREAMS}").id: n for n in range(1000)}
    return [known[event.id] for event in events]


def in_order(events: Sequence[Event]) -> bool:
    """Whether each stream went forward."""
    last: dict[int, int] = defaultdict(lambda: -1)
    for number in numbers(events):
        if number <= last[number % STREAMS]:
            return False
        last[number % STREAMS] = number
    return True


async def served_lanes(spool: PostgresSpool) -> dict[int, int]:
    """How many lanes each member serves."""
    return {
        member.number: sum(duty.startswith(f"sink:{SINK}#") for duty in member.duties)
        for member in await spool.members()
    }


def test_lanes_are_divided_among_all_who_serve_and_each_stream_stays_in_order(
    tmp_path: Path, database: Database
) -> None:
    """While members come and go in order, each event is delivered once."""
    world = World(database, tmp_path)
    got = world.got

    async def scenario() -> None:
        async with world.serving(4, 1) as (first,):
            await append(first.spool, 0, 100)
            async with world.serving(4, 1) as (second,):

                async def balanced() -> bool:
                    return sorted((await served_lanes(first.spool)).values()) == [2, 2]

                appending = asyncio.create_task(append(second.spool, 100, 200))
                await until(balanced)
                await appending
                before = len(got)
                await append(first.spool, 300, 100)

                async def settled() -> bool:
                    return (await first.spool.backlog(SINK)).events == 0

                await until(settled)
                assert {number for number, _ in got[before:]} == {first.spool.member, second.spool.member}

            async def alone() -> bool:
                return list((await served_lanes(first.spool)).values()) == [4]

            await until(alone)
            await append(first.spool, 400, 50)
            await until(settled)

    asyncio.run(scenario())
    events = [event for _, event in got]
    assert sorted(numbers(events)) == list(range(450))
    assert in_order(events)


@pytest.mark.parametrize("ways", [(4, 2, 1, 3), (0, 4, 0, 1, 2)])
def test_a_change_of_the_way_a_sink_is_served_loses_nothing_repeats_nothing_and_keeps_the_order(
    tmp_path: Path, database: Database, ways: tuple[int, ...]
) -> None:
    """Also while batches wait for their retry, and dead letters lie ahead of what is settled."""
    world, rng = World(database, tmp_path), random.Random(7)
    got = world.got

    def judge(event: Event) -> Outcome:
        chance = rng.random()
        if chance < 0.03:
            return Dead(reason="bad")
        return Retry(after=30.0, reason="busy") if chance < 0.1 else Done()

    async def scenario() -> None:
        start = 0
        for lanes in ways:
            async with world.serving(lanes, 1, judge) as (member,):
                await append(member.spool, start, 60)
                await asyncio.sleep(0.3)
                start += 60
        async with world.serving(ways[-1], 2) as members:
            spool = members[0].spool
            letters = await spool.dead(500)
            assert letters
            assert not {letter.event.id for letter in letters} & {event.id for _, event in got}
            assert await spool.retry_dead(SINK, [letter.number for letter in letters], 3) == len(letters)
            for member in members:
                await member.spool.retry_now(SINK)

            async def settled() -> bool:
                for member in members:
                    await member.spool.retry_now(SINK)
                return (await spool.backlog(SINK)).events == 0

            await until(settled)

    asyncio.run(scenario())
    assert sorted(numbers([event for _, event in got])) == list(range(60 * len(ways)))


def test_a_replay_of_a_sink_in_lanes_comes_from_all_who_serve_it(tmp_path: Path, database: Database) -> None:
    world = World(database, tmp_path)
    got = world.got

    async def scenario() -> None:
        async with world.serving(4, 2) as (first, second):

            async def settled() -> bool:
                backlog = await first.spool.backlog(SINK)
                return backlog.events + backlog.replaying == 0

            async def balanced() -> bool:
                return sorted((await served_lanes(first.spool)).values()) == [2, 2]

            await append(first.spool, 0, 48)
            await until(settled)
            await until(balanced)
            leader = first if first.spool._sinks.leads(SINK) else second
            other = second if leader is first else first
            planned = await other.spool.replays.plan(SINK, Selection())
            with other.spool.replays.keep(planned):
                replay = await other.spool.replays.order(planned, 48, frozenset())

            async def over() -> bool:
                await leader.spool.replays.fill(SINK)
                known = {one.number: one.state for one in leader.spool.replays.all()}
                return known.get(replay.number) is ReplayState.DONE

            await until(over)
            await until(settled)

    asyncio.run(scenario())
    first, again = got[:48], got[48:]
    assert sorted(numbers([event for _, event in again])) == list(range(48))
    assert in_order([event for _, event in again])
    assert len({member for member, _ in again}) == 2
    assert in_order([event for _, event in first])


def test_a_member_that_stops_in_order_leaves_nothing_to_be_repeated(
    tmp_path: Path, database: Database
) -> None:
    """Each lane has a batch in hand that nobody got yet, whose events are older than some that were delivered."""
    count, got = 240, list[Event]()

    async def scenario() -> None:
        while len(got) < count // 2:
            async with spool_of(database, tmp_path, dsn=plain_dsn_of(database)) as spool:
                spool.divide(SINK, 4)
                await spool.attach(SINK, anything, ordered=True)
                if not got:
                    await append(spool, 0, count)
                for _ in range(4):
                    pair = [await spool.claim(SINK, 5) for _ in range(2)]
                    for batch in reversed(pair):
                        got.extend(batch.events)
                        await spool.settle(batch, [Done()] * len(batch.events))

    asyncio.run(scenario())
    assert len(set(numbers(got))) == len(got)


def test_a_member_that_leaves_while_it_looks_for_lanes_ends_its_session_at_once(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the row of its first sink, and then looks at the second one. Whatever it would wait for at its end,
    it would wait for longer than this test does."""
    monkeypatch.setattr(postgres, "ENDED_WITHIN", 2 * PATIENCE)

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            spool = await stack.enter_async_context(spool_of(database, tmp_path))
            for sink in ("one", "two"):
                spool.divide(sink, 4)
                await spool.attach(sink, anything, ordered=True)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(spool.claim(sink, 1), 1)
            async with locked(
                database, f"SELECT FROM {schema_of(tmp_path)}.sink WHERE name = 'one' FOR UPDATE"
            ):
                await until_one_waits(database)
                leaving = asyncio.create_task(stack.aclose())
                await asyncio.sleep(0.2)
            await patiently(leaving)

    asyncio.run(scenario())
