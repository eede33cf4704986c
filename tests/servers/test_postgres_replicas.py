"""A spool in a PostgreSQL with a synchronous standby: what happens to commits when either of the two is gone."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from poller.core.errors import StorageError
from poller.core.spool import anything
from poller.spools.postgres import PostgresSpool
from poller.testing.factories import some_event, some_reading
from tests.patience import PATIENCE, patiently
from tests.servers.postgres_spools import appended, claimed, schema_of
from tests.servers.replicas import Replicas, replicas
from tests.servers.standbys import hung

LONG_ENOUGH = 1.0
"""Seconds in which a commit is confirmed if anything confirms it."""


@pytest.fixture(scope="module")
def started(shared: Path) -> Iterator[Replicas]:
    with replicas(shared) as both:
        yield both


@pytest.fixture
def both(started: Replicas) -> Iterator[Replicas]:
    yield started
    started.mend()


def spool_of(both: Replicas, folder: Path, lease: float = 60) -> PostgresSpool:
    """The spool of a folder, not entered. Nobody takes over from it meanwhile."""
    settings = {"type": "postgres", "dsn": both.dsn, "schema": schema_of(folder), "lease": lease}
    return PostgresSpool("spool", PostgresSpool.Settings.model_validate(settings), {})


async def nothing_is_handed_out(spool: PostgresSpool) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(spool.claim("a", 9), 0.5)


def test_without_its_standby_a_commit_hangs_and_nothing_is_confirmed_or_handed_out(
    tmp_path: Path, both: Replicas
) -> None:
    async def scenario() -> None:
        async with spool_of(both, tmp_path) as spool:
            await spool.attach("a", anything)
            both.standby.kill()
            appending = asyncio.ensure_future(spool.append("source", [some_reading(1)]))
            await hung(both)
            await nothing_is_handed_out(spool)
            assert not appending.done()
            both.standby.start()
            assert (await patiently(appending)).total() == 1
            assert await claimed(spool, 1) == [some_event(1).id]

    asyncio.run(scenario())


def test_a_standby_that_hangs_holds_up_commits_and_no_longer(tmp_path: Path, both: Replicas) -> None:
    async def scenario() -> None:
        async with spool_of(both, tmp_path) as spool:
            await spool.attach("a", anything)
            with both.standby.frozen():
                appending = asyncio.ensure_future(spool.append("source", [some_reading(1)]))
                await hung(both)
                await nothing_is_handed_out(spool)
                assert not appending.done()
            assert (await patiently(appending)).total() == 1

    asyncio.run(scenario())


def test_a_commit_whose_wait_was_cancelled_is_unknown_and_repeated_after_the_promotion(
    tmp_path: Path, both: Replicas
) -> None:
    """The server answered success with a warning. The event is in the dead primary only."""

    async def scenario() -> None:
        async with spool_of(both, tmp_path) as spool:
            await spool.attach("a", anything)
            both.standby.kill()
            appending = asyncio.ensure_future(spool.append("source", [some_reading(1)]))
            assert await both.ask(f"SELECT pg_cancel_backend({await hung(both)})") == [(True,)]
            await asyncio.sleep(LONG_ENOUGH)
            assert not appending.done(), "the standby does not have it"
            assert await both.ask(f"SELECT head FROM {schema_of(tmp_path)}.log") == [(2,)]
            both.primary.kill()
            both.standby.start()
            await asyncio.to_thread(both.promote)
            await asyncio.to_thread(both.rebuild)
            with pytest.raises(StorageError):
                await patiently(appending)
            assert await both.ask(f"SELECT head FROM {schema_of(tmp_path)}.log") == [(1,)]
            await patiently(appended(spool, 1))
            assert await claimed(spool, 1) == [some_event(1).id]
            await nothing_is_handed_out(spool)

    asyncio.run(scenario())


def test_a_promotion_keeps_what_was_confirmed_and_what_was_not_is_repeated(
    tmp_path: Path, both: Replicas
) -> None:
    async def scenario() -> None:
        async with spool_of(both, tmp_path) as spool:
            await spool.attach("a", anything)
            count = 0
            for _ in range(3):
                before, moving = count, asyncio.ensure_future(asyncio.to_thread(move, both))
                while not moving.done() or count < before + 20:
                    count += 1
                    await patiently(appended(spool, count))
                await moving
            ids = await claimed(spool, count)
            assert ids == [some_event(number).id for number in range(1, count + 1)]
            await nothing_is_handed_out(spool)

    asyncio.run(scenario())


def move(both: Replicas) -> None:
    both.fail_over()
    both.rebuild()


def test_a_promoted_server_confirms_nothing_until_it_has_a_standby(tmp_path: Path, both: Replicas) -> None:
    async def scenario() -> None:
        async with spool_of(both, tmp_path) as spool:
            await spool.attach("a", anything)
            await asyncio.to_thread(both.fail_over)
            appending = asyncio.ensure_future(appended(spool, 1))
            await hung(both)
            await nothing_is_handed_out(spool)
            assert not appending.done()
            await asyncio.to_thread(both.rebuild)
            await patiently(appending)
            assert await claimed(spool, 1) == [some_event(1).id]

    asyncio.run(scenario())


def test_a_daemon_goes_on_at_the_promoted_server_while_the_one_before_hangs_and_when_it_goes_on(
    tmp_path: Path, both: Replicas
) -> None:
    """The hanging server accepts connections and says nothing. It comes first in the address."""

    async def scenario() -> None:
        if both.primary.name == "two":
            await asyncio.to_thread(move, both)
        async with spool_of(both, tmp_path, 4) as spool, AsyncExitStack() as stack:
            await spool.attach("a", anything)
            await patiently(appended(spool, 1))
            before = both.primary
            stack.callback(before.kill)
            before.freeze()
            await asyncio.to_thread(both.promote)
            await asyncio.to_thread(stack.enter_context, both.stand_in())
            await patiently(appended(spool, 2))
            assert await claimed(spool, 2) == [some_event(1).id, some_event(2).id]
            before.thaw()
            await patiently(appended(spool, 3))
            assert await claimed(spool, 1) == [some_event(3).id]
        await asyncio.to_thread(both.rebuild)

    asyncio.run(scenario())


def test_a_duty_whose_commits_are_lost_with_the_server_has_one_holder_and_nobody_is_fenced(
    tmp_path: Path, both: Replicas
) -> None:
    """Signs of life wait for no standby, so the dead primary alone knows that the one daemon gave the duty up."""

    async def scenario() -> None:
        async with spool_of(both, tmp_path, 8) as one, spool_of(both, tmp_path, 8) as other:
            async with AsyncExitStack() as stack:
                await patiently(stack.enter_async_context(one.duty("a")))
                both.standby.kill()
            async with AsyncExitStack() as stack:
                taking = asyncio.create_task(stack.enter_async_context(other.duty("a")))
                await has_duty(both, tmp_path, other)
                await asyncio.sleep(LONG_ENOUGH)
                assert not taking.done(), "the standby does not know it"
                both.primary.kill()
                both.standby.start()
                await asyncio.to_thread(both.promote)
                await asyncio.to_thread(both.rebuild)
                await patiently(taking)
                await has_duty(both, tmp_path, other)
            for spool in (one, other):
                await patiently(spool.check_writable())

    asyncio.run(scenario())


async def has_duty(both: Replicas, folder: Path, spool: PostgresSpool) -> None:
    """Wait until the primary says that this daemon has the duty."""
    async with asyncio.timeout(PATIENCE):
        while await both.ask(f"SELECT holder FROM {schema_of(folder)}.duty WHERE name = 'a'") != [
            (spool.member,)
        ]:
            await asyncio.sleep(0.02)
