"""A replay where others have the events: the member that queues them waits for these others, and asks rarely."""

import asyncio
import operator
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from poller.core.history import Replay, ReplayState
from poller.core.model import unchanged
from poller.core.selection import Selection
from poller.core.spool import anything
from poller.pipeline.replayer import Replayer
from poller.spools import replays
from poller.spools.postgres import PostgresSpool, shared_replays
from poller.testing.factories import some_event, some_reading
from tests.patience import patiently
from tests.servers.databases import Database, database, started
from tests.servers.postgres_spools import delivered, plain_dsn_of, spool_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

SINK = "s"
EVENTS = 10


async def member(stack: AsyncExitStack, server: Database, folder: Path, lanes: int) -> PostgresSpool:
    """A member that knows the sink; 0 lanes: the sink has no order."""
    spool = await stack.enter_async_context(spool_of(server, folder, dsn=plain_dsn_of(server)))
    spool.divide(SINK, max(1, lanes))
    await spool.attach(SINK, anything, ordered=lanes > 0)
    return spool


ALL = sorted(some_event(number).id for number in range(EVENTS))


@asynccontextmanager
async def replaying(spool: PostgresSpool) -> AsyncIterator[list[float]]:
    """A member that does its part in replays. Yields the moments at which it looked for something to do."""
    looked = list[float]()
    fill = spool.replays.fill

    async def noted(*arguments: object) -> Replay | None:
        looked.append(asyncio.get_running_loop().time())
        return await fill(*arguments)  # type: ignore[arg-type]

    spool.replays.fill = noted  # type: ignore[method-assign,assignment]
    running = asyncio.create_task(Replayer(spool, lambda: [SINK], lambda: unchanged).run())
    try:
        yield looked
    finally:
        running.cancel()
        await asyncio.wait({running})


async def order(spool: PostgresSpool) -> Replay:
    while (planned := await spool.replays.plan(SINK, Selection())).until <= EVENTS:
        await asyncio.sleep(0.1)
    return await spool.replays.order(planned, EVENTS, frozenset())


async def is_done(spool: PostgresSpool, replay: Replay) -> bool:
    return {one.number: one.state for one in spool.replays.all()}.get(replay.number) is ReplayState.DONE


@pytest.mark.parametrize(
    "room", [EVENTS, 4], ids=["until the last ones are delivered", "until there is room"]
)
def test_the_member_that_leads_a_replay_waits_while_the_lanes_have_its_events(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    for module in (replays, shared_replays):
        monkeypatch.setattr(module, "MOST", room)
        monkeypatch.setattr(module, "PIECE", room)

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            spool = await member(stack, database, tmp_path, 2)
            await spool.append("source", [some_reading(*range(EVENTS))])
            assert await delivered(spool, SINK, EVENTS) == ALL
            await until_leads(spool)
            replay = await order(spool)
            async with replaying(spool) as looked:
                while (await spool.backlog(SINK)).replaying < room:
                    await asyncio.sleep(0.01)
                before = len(looked)
                while len(looked) < before + 3:
                    await asyncio.sleep(0.01)
                assert (
                    min(map(operator.sub, looked[before + 1 :], looked[before:])) >= shared_replays.LOOK_AGAIN
                )
                assert (await spool.backlog(SINK)).replaying == room
                assert await delivered(spool, SINK, EVENTS) == ALL
                await until_done(spool, replay)

    asyncio.run(patiently(scenario()))


async def until_leads(spool: PostgresSpool) -> None:
    while not spool._sinks.leads(SINK):
        await asyncio.sleep(0.01)


async def until_done(spool: PostgresSpool, replay: Replay) -> None:
    while not await is_done(spool, replay):
        await asyncio.sleep(0.01)


async def leader_and_other(
    stack: AsyncExitStack, database: Database, folder: Path, lanes: int
) -> tuple[PostgresSpool, PostgresSpool]:
    """A member that has delivered all events and leads the sink's replays, and one that came later."""
    leader = await member(stack, database, folder, lanes)
    await leader.append("source", [some_reading(*range(EVENTS))])
    assert await delivered(leader, SINK, EVENTS) == ALL
    await until_leads(leader)
    return leader, await member(stack, database, folder, lanes)


@pytest.mark.parametrize("lanes", [0, 2])
def test_a_replay_goes_on_at_another_member_when_the_one_that_led_it_gives_the_sink_up(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, lanes: int
) -> None:
    """It lives on, as after a reload that has taken the sink from it. A standby confirms the duty late."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            first, other = await leader_and_other(stack, database, tmp_path, lanes)
            monkeypatch.setattr(other._membership, "_until_durable", partial(asyncio.sleep, 0.5))
            async with replaying(other):
                coming = asyncio.create_task(delivered(other, SINK, EVENTS))
                await asyncio.sleep(0.5)
                replay = await order(first)
                await first.detach(SINK)
                assert await patiently(coming) == ALL
                await until_done(other, replay)

    asyncio.run(patiently(scenario()))


@pytest.mark.parametrize("lanes", [0, 1], ids=["by shares", "in order"])
def test_a_piece_that_is_queued_while_its_member_releases_the_sink_comes_at_another(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, lanes: int
) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            first, other = await leader_and_other(stack, database, tmp_path, lanes)
            await order(first)
            coming = asyncio.create_task(delivered(other, SINK, EVENTS))
            writing, write = asyncio.Event(), first._replays._write

            async def write_late(change: replays.ReplayChange) -> None:
                writing.set()
                await asyncio.sleep(0.5)  # a release that does not wait for this ends meanwhile
                await write(change)

            monkeypatch.setattr(first._replays, "_write", write_late)
            filling = asyncio.create_task(first.replays.fill(SINK))
            await writing.wait()
            await first.release(SINK)
            await filling
            assert await coming == ALL

    asyncio.run(patiently(scenario()))
