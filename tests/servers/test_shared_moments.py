"""What a member of a shared spool does at moments that a test chooses: a stop, a failure, a share being taken."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from poller.core.errors import StorageError
from poller.core.model import Batch, Dead, Retry
from poller.core.selection import Selection
from poller.core.spool import anything
from poller.spools.postgres import PostgresSpool
from poller.spools.postgres.links import StorageAway
from poller.testing.factories import done, some_event, some_reading
from tests.patience import PATIENCE, patiently
from tests.servers.databases import Database, database, started
from tests.servers.postgres_locks import end_who_waits, locked, until_one_waits
from tests.servers.postgres_spools import delivered, owed_by, plain_dsn_of, schema_of, spool_of
from tests.servers.sql_sinks import POSTGRESQL

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

SINK = "s"
A_MOMENT = 0.2
"""Seconds in which something would come that must not come."""
LATER = Retry(after=60.0, reason="busy")


@asynccontextmanager
async def members(
    server: Database, folder: Path, count: int, *, ordered: bool = False, lanes: int = 1
) -> AsyncIterator[list[PostgresSpool]]:
    """Members of the spool of a folder, which know its sink."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            spool = await stack.enter_async_context(spool_of(server, folder, dsn=plain_dsn_of(server)))
            spool.divide(SINK, lanes)
            await spool.attach(SINK, anything, ordered)
            found.append(spool)
        yield found


async def append(spool: PostgresSpool, *numbers: int) -> None:
    await spool.append("source", [some_reading(*numbers)])


async def serve(spool: PostgresSpool, queues: int = 1) -> None:
    """Let a member serve the sink, which has nothing for it now. Its claim waits at each queue, and is cancelled."""
    claim = asyncio.ensure_future(spool.claim(SINK, 9))
    async with asyncio.timeout(PATIENCE):
        while len(spool._dispatcher.queues) < queues or claims() < queues:
            await asyncio.sleep(0.01)
    claim.cancel()
    await asyncio.wait({claim})


def claims() -> int:
    """How many claims wait at a queue."""
    return sum(
        getattr(task.get_coro(), "__qualname__", "") in ("Dispatcher.claim", "PostgresSpool.claim")
        for task in asyncio.all_tasks()
    )


def ids(numbers: Sequence[int]) -> list[str]:
    return sorted(some_event(number).id for number in numbers)


class LateAnswers:
    """The commits of what a member takes, which it hears of late."""

    def __init__(self, spool: PostgresSpool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.committed = asyncio.Event()
        self.heard = asyncio.Event()
        self._commit = spool._claims._commit
        monkeypatch.setattr(spool._claims, "_commit", self._late)

    async def _late(self, *arguments: Any) -> None:
        await self._commit(*arguments)
        self.committed.set()
        await self.heard.wait()

    async def count_meanwhile(self, spool: PostgresSpool) -> int:
        """The backlog, asked for once something is taken in the database; the member hears of that a moment later."""
        await patiently(self.committed.wait())
        counting = asyncio.ensure_future(spool.backlog(SINK))
        await asyncio.wait({counting}, timeout=A_MOMENT)
        self.heard.set()
        return (await counting).events


# ---------------------------------------------------------------- an orderly stop


@pytest.mark.parametrize("running", [False, True], ids=["alone", "while another flush runs"])
@pytest.mark.parametrize("fails", [False, True], ids=["", "after a lost connection"])
def test_an_orderly_stop_writes_what_was_settled_last(
    tmp_path: Path, database: Database, running: bool, fails: bool
) -> None:
    """A flush waits at its end for a row, and its connection may be lost at that moment."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            (spool,) = await stack.enter_async_context(members(database, tmp_path, 1))
            await append(spool, *range(6))
            await spool.check_writable()  # the catalogue of all of them is written
            await append(spool, 6, 7)
            first, last = [await spool.claim(SINK, 4) for _ in range(2)]
            async with locked(
                database, f"SELECT FROM {schema_of(tmp_path)}.written WHERE place = 'writer' FOR UPDATE"
            ):
                await spool.settle(first, done(first))
                if running:
                    await until_one_waits(database)
                await spool.settle(last, done(last))
                leaving = asyncio.create_task(stack.aclose())
                await until_one_waits(database)
                await asyncio.sleep(A_MOMENT)
                if fails:
                    await end_who_waits(database)
            await leaving

    asyncio.run(patiently(scenario()))
    assert owed_by(database, tmp_path) == 0
    assert database.ask_now(f"SELECT value FROM {schema_of(tmp_path)}.meta WHERE name = 'catalogue'") == [
        (b"9",)
    ]


# ---------------------------------------------------------------- a task that fails

TASKS = (
    "_membership.run",
    "_writer.run",
    "_claims.run",
    "_capacity.run",
    "_follower.follow_log",
    "_follower.follow_words",
)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_that_fails_ends_the_member_with_a_reason(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """And whoever wants to write hears of it at once."""

    async def scenario() -> None:
        spool, now = spool_of(database, tmp_path), asyncio.Event()

        async def fails() -> None:
            await now.wait()
            raise ZeroDivisionError

        part, _, name = task.rpartition(".")
        monkeypatch.setattr(getattr(spool, part), name, fails)
        async with spool:
            waits = asyncio.ensure_future(append(spool, 1))
            await asyncio.wait({waits}, timeout=A_MOMENT if task == "_writer.run" else None)
            now.set()
            reason = await patiently(spool.failed())
            assert isinstance(reason, StorageError)
            assert str(reason) == "spool: ZeroDivisionError in one of its tasks"
            assert isinstance(reason.__cause__, ZeroDivisionError)
            if task == "_writer.run":
                with pytest.raises(StorageError, match="in one of its tasks"):
                    await patiently(waits)
            else:
                await waits
            with pytest.raises(StorageError, match="in one of its tasks"):
                await patiently(append(spool, 2))
            assert not spool.proven.is_set()

    asyncio.run(patiently(scenario()))


# ---------------------------------------------------------------- what a member has left behind


@pytest.mark.parametrize(("ordered", "lanes"), [(False, 1), (True, 1), (True, 2)])
def test_a_sink_that_could_not_be_left_is_served_again_with_all_that_was_held(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, ordered: bool, lanes: int
) -> None:
    """As when a reload meets an outage. A share, a batch in hand and batches that wait were left behind."""

    async def no_database(*arguments: object) -> None:
        raise StorageAway("spool: the database is away")

    async def scenario() -> None:
        async with members(database, tmp_path, 1, ordered=ordered, lanes=lanes) as (spool,):
            await append(spool, *range(6))
            waits = await spool.claim(SINK, 2)
            await spool.settle(waits, [Retry(after=0.5, reason="busy")] * 2)
            await spool.check_writable()
            with monkeypatch.context() as patched:
                patched.setattr(spool._sinks, "_flush", no_database)
                with pytest.raises(StorageAway):
                    await spool.attach(SINK, anything, ordered)
            assert await delivered(spool, SINK, 6) == ids(range(6))
            assert (await spool.backlog(SINK)).events == 0

    asyncio.run(patiently(scenario()))


@pytest.mark.parametrize("anew", [False, True], ids=["detached", "attached anew"])
def test_no_claim_of_a_lane_outlives_the_sink(tmp_path: Path, database: Database, anew: bool) -> None:
    """Some have a batch for nobody, others wait."""

    async def scenario() -> None:
        async with members(database, tmp_path, 2, ordered=True, lanes=4) as (spool, other):
            await serve(spool, 4)
            assert claims() == 4
            await append(spool, 1, 2)
            await (spool.attach(SINK, anything, ordered=True) if anew else spool.detach(SINK))
            assert claims() == 0
            assert await delivered(other, SINK, 2) == ids([1, 2])

    asyncio.run(patiently(scenario()))


def test_a_dead_letter_comes_although_whoever_asked_for_its_retry_is_gone(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken in the database at that moment, and the member has not heard of that yet."""

    async def scenario() -> None:
        spool = spool_of(database, tmp_path)
        monkeypatch.setattr(spool._follower, "follow_words", asyncio.Event().wait)  # else that may take it
        async with spool:
            await spool.attach(SINK, anything)
            await append(spool, 1)
            batch = await spool.claim(SINK, 1)
            await spool.settle(batch, [Dead(reason="bad")])
            (letter,) = await spool.dead(9)
            late = LateAnswers(spool, monkeypatch)
            asks = asyncio.ensure_future(spool.retry_dead(SINK, [letter.number], 1))
            await patiently(late.committed.wait())
            asks.cancel()
            await asyncio.wait({asks})
            late.heard.set()
            assert await delivered(spool, SINK, 1) == ids([1])

    asyncio.run(patiently(scenario()))


# ---------------------------------------------------------------- what is pending


def test_a_backlog_counts_a_share_that_is_just_being_taken(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with members(database, tmp_path, 1) as (spool,):
            await append(spool, 0)
            await delivered(spool, SINK, 1)
            await append(spool, *range(1, 5))
            late = LateAnswers(spool, monkeypatch)
            claim = asyncio.ensure_future(spool.claim(SINK, 9))
            assert await late.count_meanwhile(spool) == 4
            assert len((await claim).events) == 4

    asyncio.run(patiently(scenario()))


def test_a_backlog_counts_batches_that_are_just_being_taken_over(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with members(database, tmp_path, 1) as (spool,):
            async with members(database, tmp_path, 1) as (leaving,):
                await append(leaving, *range(3))
                await wait_for_retry(leaving, 3)
                await serve(spool)
                late = LateAnswers(spool, monkeypatch)
            assert await late.count_meanwhile(spool) == 3

    asyncio.run(patiently(scenario()))


async def wait_for_retry(spool: PostgresSpool, count: int) -> Batch:
    """Some events wait for a retry, and that is written."""
    batch = await spool.claim(SINK, count)
    await spool.settle(batch, [LATER] * count)
    await spool.check_writable()
    return batch


def test_what_waits_in_a_share_of_nobody_counts_once(tmp_path: Path, database: Database) -> None:
    """The member that left it had a batch before that in hand."""

    async def scenario() -> None:
        async with members(database, tmp_path, 1) as (spool,):
            async with members(database, tmp_path, 1) as (leaving,):
                await append(leaving, *range(6))
                await leaving.claim(SINK, 2)
                await wait_for_retry(leaving, 2)
            backlog = await spool.backlog(SINK)
            assert (backlog.events, backlog.retrying) == (6, 2)

    asyncio.run(patiently(scenario()))


def test_what_waits_beyond_the_position_and_is_marked_counts_once(tmp_path: Path, database: Database) -> None:
    """It waited in order, and then the sink is served in another way."""

    async def scenario() -> None:
        async with members(database, tmp_path, 1, ordered=True) as (leaving,):
            await append(leaving, *range(6))
            await leaving.claim(SINK, 2)
            await leaving.append("source", [some_reading(6, 7, stream="hall")])
            batch = await leaving.claim(SINK, 9)
            await leaving.settle(batch, [LATER] * len(batch.events))
        async with members(database, tmp_path, 1) as (spool,):
            backlog = await spool.backlog(SINK)
            assert (backlog.events, backlog.retrying) == (8, len(batch.events))

    asyncio.run(patiently(scenario()))


def test_a_replay_leaves_out_what_other_members_have_not_settled(tmp_path: Path, database: Database) -> None:
    """It ends before the first such event, and names what waits for a retry. A replayed event is not one of these."""

    async def scenario() -> None:
        async with members(database, tmp_path, 2) as (asked, other):
            await append(other, *range(8))
            before = await other.claim(SINK, 2)
            waits = await wait_for_retry(other, 2)
            await other.claim(SINK, 2)
            await other.settle(before, done(before))
            await other.check_writable()
            planned = await asked.replays.plan(SINK, Selection())
            assert (planned.at, planned.until) == (1, 5)
            assert planned.pending == {event.id for event in waits.events}
            await asked.replays.order(planned, 2, planned.pending)
            await patiently(other.replays.ready())
            await other.replays.fill(SINK)
            again = await asked.replays.plan(SINK, Selection())
            assert (again.until, again.pending) == (5, planned.pending)

    asyncio.run(patiently(scenario()))
