"""A PostgreSQL spool with several members that die, freeze and lose their connections."""

import asyncio
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from poller.core.errors import Fenced, StorageError, StorageFull
from poller.core.model import Dead, Event, Retry
from poller.core.spool import anything
from poller.spools.postgres import PostgresSpool, meta, sessions
from poller.spools.postgres.writer import Writer
from poller.testing.factories import done, some_event, some_reading
from tests.patience import PATIENCE
from tests.servers.counting import Simulation
from tests.servers.databases import Database, database, started
from tests.servers.members import LEASE, Future, Members, Thread, members_of, until
from tests.servers.postgres_spools import schema_of
from tests.servers.sql_sinks import POSTGRESQL
from tests.servers.standbys import WAITS, hung, standby_away

__all__ = ["database", "started"]  # the fixtures

pytestmark = POSTGRESQL

SLACK = 15.0
"""Seconds that a crowded machine may take beside what is measured."""


@pytest.fixture
def members(tmp_path: Path, database: Database) -> Iterator[Members]:
    with members_of(database, tmp_path) as found:
        yield found


def joined(members: Members, *, ordered: bool = False) -> Thread:
    """A member that has the sink attached."""
    member = members.join()
    member.do(lambda spool: spool.attach("s", anything, ordered))
    return member


def append(member: Thread, *numbers: int) -> int:
    count = member.do(lambda spool: spool.append("source", [some_reading(*numbers)]))
    return int(count.total())


def drained(member: Thread, count: int) -> list[Event]:
    """The next `count` events of the sink, which are delivered."""

    async def drain(spool: PostgresSpool) -> list[Event]:
        got: list[Event] = []
        while len(got) < count:
            batch = await spool.claim("s", 100)
            got += batch.events
            await spool.settle(batch, done(batch))
        return got

    found: list[Event] = member.do(drain)
    assert member.do(lambda spool: spool.backlog("s")).events == 0
    return found


def ids(*numbers: int) -> list[str]:
    return sorted(some_event(number).id for number in numbers)


def settled_in(*members: Thread) -> None:
    """Wait until members may end the sessions of others."""
    until(lambda: all(member.may_end_others() for member in members), what="for half a lease")


# ---------------------------------------------------------------- a member that dies or freezes


@pytest.mark.parametrize("ordered", [False, True])
def test_what_a_killed_member_held_goes_to_another_one(members: Members, ordered: bool) -> None:
    first, second = joined(members, ordered=ordered), joined(members, ordered=ordered)
    append(first, *range(10))
    waits = first.claim("s", 2)
    first.do(lambda spool: spool.settle(waits, [Retry(after=0.0, reason="busy")] * 2))
    first.claim("s", 3)
    until(lambda: second.do(lambda spool: spool.backlog("s")).retrying == 2 or ordered)
    settled_in(first, second)
    first.kill()
    died = time.monotonic()
    got = second.claim("s")
    assert time.monotonic() - died < LEASE + 1.0 + SLACK
    second.do(lambda spool: spool.settle(got, done(got)))
    rest = drained(second, 10 - len(got.events))
    assert sorted(event.id for event in (*got.events, *rest)) == ids(*range(10))
    assert [member.number for member in second.do(lambda spool: spool.members())] == [second.number]


@pytest.mark.parametrize("ordered", [False, True])
def test_a_member_that_was_frozen_for_too_long_writes_and_hands_out_nothing(
    members: Members, ordered: bool
) -> None:
    """It had a batch in hand and one whose retry came due, and it was waiting for events."""
    first, second = joined(members, ordered=ordered), joined(members, ordered=ordered)
    first.do(lambda spool: spool.append("source", [some_reading(1, 2), some_reading(3, 4, stream="hall")]))
    batch, waits = first.claim("s", 2), first.claim("s", 2)
    settled_in(first, second)
    first.do(lambda spool: spool.settle(waits, [Retry(after=LEASE / 2, reason="busy")] * 2))
    claim = first.begin(lambda spool: spool.claim("s", 9))
    with first.frozen():
        got = drained(second, 4)
    until(lambda: not first.is_proven())
    with pytest.raises(Fenced):
        until(lambda: first.do(lambda spool: spool.settle(batch, done(batch))))
    with pytest.raises(Fenced):
        append(first, 8)
    assert {event.id for event in got} == {event.id for event in (*batch.events, *waits.events)}
    with pytest.raises(TimeoutError):
        claim.result(0.5)


def test_a_member_that_was_frozen_for_less_than_its_lease_goes_on(members: Members) -> None:
    first, second = joined(members), joined(members)
    append(first, *range(4))
    batch = first.claim("s", 4)
    settled_in(first, second)
    with first.frozen():
        time.sleep(LEASE * 0.4)
    first.do(lambda spool: spool.settle(batch, done(batch)))
    assert append(first, 4) == 1
    until(lambda: second.do(lambda spool: spool.backlog("s")).events == 1)
    assert len(second.do(lambda spool: spool.members())) == 2


def freeze_within_a_transaction(member: Thread) -> tuple[Future, threading.Event]:
    """Freeze a member while it retries a dead letter. Returns its call, and what lets it go on."""
    append(member, 1)
    batch = member.claim("s")
    member.do(lambda spool: spool.settle(batch, [Dead(reason="bad")]))
    (letter,) = member.do(lambda spool: spool.dead(9))
    stands, goes_on = threading.Event(), threading.Event()

    def stand_still(event: Event) -> Event:
        stands.set()
        goes_on.wait()
        return event

    call = member.begin(lambda spool: spool.retry_dead("s", [letter.number], 1, stand_still))
    assert stands.wait(PATIENCE)
    return call, goes_on


def test_a_dead_letter_that_two_members_retry_at_once_comes_once(members: Members) -> None:
    """The second one looks for dead letters while the first one is within its transaction."""
    first, second = joined(members), joined(members)
    call, goes_on = freeze_within_a_transaction(first)
    other = second.begin(lambda spool: spool.retry_dead("s", [1], 1))
    time.sleep(LEASE / 8)
    goes_on.set()
    assert (call.result(), other.result()) == (1, 0)


def test_a_member_that_freezes_within_a_transaction_holds_nobody_up_for_long(members: Members) -> None:
    """The server ends the transaction, and then another member ends the session."""
    first, second = joined(members), joined(members)
    settled_in(first, second)
    _, goes_on = freeze_within_a_transaction(first)
    froze = time.monotonic()
    try:
        second.do(lambda spool: spool.retry_dead("s", [], 1))
        assert time.monotonic() - froze < LEASE / 2 + SLACK
        until(lambda: len(second.do(lambda spool: spool.members())) == 1)
        assert time.monotonic() - froze < LEASE + 1.0 + SLACK
    finally:
        goes_on.set()
    until(first.spool._failure.done)
    assert len(second.do(lambda spool: spool.dead(9))) == 1


def test_a_member_that_freezes_within_a_statement_holds_nobody_up_for_long(members: Members) -> None:
    """The server takes the statement for one at work. So another member ends the connection, and then the session."""
    first, second = joined(members), joined(members)
    settled_in(first, second)
    stands, goes_on = threading.Event(), threading.Event()

    async def stand_still(writer: Writer) -> None:
        await meta.lock_head(writer.connection)
        await writer.connection.prepare("SELECT $1::bigint")  # the message that runs it does not follow
        stands.set()
        goes_on.wait()

    first.begin(lambda spool: spool._writer.submit(stand_still))
    assert stands.wait(PATIENCE)
    froze = time.monotonic()
    try:
        assert append(second, 1) == 1
        until(lambda: len(second.do(lambda spool: spool.members())) == 1)
        assert time.monotonic() - froze < LEASE * 1.5 + 1.0 + SLACK
    finally:
        goes_on.set()
    until(first.spool._failure.done)


def test_a_member_that_freezes_while_it_ends_other_sessions_holds_nobody_up_for_long(
    members: Members,
) -> None:
    """It has passed the gate, which whoever pauses a sink waits for, and everybody behind that one."""
    first, second = joined(members), joined(members)
    settled_in(first, second)
    stands, goes_on = threading.Event(), threading.Event()

    async def stand_still(spool: PostgresSpool) -> None:
        link: Any = spool._membership._link
        async with spool._membership._turn, link.transaction():
            await sessions.pass_gate(link, alone=False)
            await link.prepare("SELECT $1::bigint")  # the message that runs it does not follow
            stands.set()
            goes_on.wait()

    first.begin(stand_still)
    assert stands.wait(30)
    froze = time.monotonic()
    try:
        second.do(lambda spool: spool.pause("s", True))
        assert time.monotonic() - froze < LEASE * 1.5 + 1.0 + SLACK
    finally:
        goes_on.set()


def test_a_member_whose_transaction_was_ended_within_its_lease_goes_on(members: Members) -> None:
    first = joined(members)
    call, goes_on = freeze_within_a_transaction(first)
    time.sleep(LEASE * 0.8)
    goes_on.set()
    with pytest.raises(StorageFull):
        call.result()
    assert append(first, 2) == 1
    assert drained(first, 1) == [some_event(2)]
    assert len(first.do(lambda spool: spool.dead(9))) == 1


def test_a_share_that_was_taken_away_does_not_grow(members: Members, database: Database) -> None:
    """As after a failover that lost commits: its events and the next ones come at another member."""
    first, second = joined(members), joined(members)
    append(first, *range(4))
    first.claim("s", 2)
    first.do(lambda spool: spool.check_writable())  # what it took is written
    database.ask_now(f"UPDATE {schema_of(members.folder)}.share SET holder = 0")
    append(second, *range(4, 8))
    first.begin(lambda spool: spool.claim("s", 9))
    assert isinstance(first.do(lambda spool: spool.failed()), Fenced)
    assert sorted(event.id for event in drained(second, 8)) == ids(*range(8))


def test_a_sink_that_becomes_ordered_keeps_its_owner(members: Members, database: Database) -> None:
    """Its member ran the replays before, and could not give up that duty at once."""
    first, second = joined(members, ordered=True), joined(members, ordered=True)
    append(first, *range(4))
    first.spool._membership._given_up.add("sink:s")
    batch = first.claim("s", 2)
    waits = second.begin(lambda spool: spool.claim("s", 9))
    with pytest.raises(TimeoutError):
        waits.result(LEASE)
    first.do(lambda spool: spool.settle(batch, done(batch)))
    assert len(drained(first, 2)) == 2


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit"])
def test_a_database_that_may_lose_what_it_confirmed_is_refused(
    members: Members, database: Database, setting: str
) -> None:
    database.ask_now(f"ALTER SYSTEM SET {setting} = off")
    try:
        database.restart()
        with pytest.raises(StorageError, match=setting):
            members.join()
    finally:
        database.ask_now(f"ALTER SYSTEM RESET {setting}")
        database.restart()


# ---------------------------------------------------------------- a database that dies


def test_nobody_is_fenced_when_the_database_is_killed(members: Members, database: Database) -> None:
    all_of_them = [joined(members) for _ in range(3)]
    append(all_of_them[0], *range(30))
    batches = [member.claim("s", 5) for member in all_of_them[:1]]
    settled_in(*all_of_them)
    database.kill()
    until(lambda: not any(member.is_proven() for member in all_of_them))
    database.start()
    until(lambda: all(member.is_proven() for member in all_of_them))
    settled_in(*all_of_them)
    time.sleep(LEASE / 2)  # two signs of life of each, at which it may end the others
    for batch in batches:
        all_of_them[0].do(partial(PostgresSpool.settle, batch=batch, outcomes=done(batch)))
    for number, member in enumerate(all_of_them):
        assert append(member, 100 + number) == 1
    assert [one.number for one in all_of_them[1].do(lambda spool: spool.members())] == [
        member.number for member in all_of_them
    ]
    left = 30 - 5 + 3
    all_of_them[0].do(lambda spool: spool.detach("s"))
    assert sorted(event.id for event in drained(all_of_them[2], left)) == ids(*range(5, 30), 100, 101, 102)


def socket_of(member: Thread) -> Any:
    return member.spool._claims.connection._transport.get_extra_info("socket")


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_share_whose_commit_was_not_answered_is_not_lost(
    members: Members, database: Database, point: str
) -> None:
    """Its commit waits for a standby that is not there, and its connection is cut. The commit is over afterwards, or
    before."""
    first = joined(members)
    append(first, 0)
    drained(first, 1)
    append(first, *range(1, 5))
    with standby_away(database):
        waits = first.begin(lambda spool: spool.claim("s", 9))
        asyncio.run(hung(database))
        ((pid,),) = database.ask_now(WAITS)
        if point == "before":
            socket_of(first).shutdown(2)
            time.sleep(1.5)
        database.ask_now(f"SELECT pg_terminate_backend({pid})")
        time.sleep(0.5)
    batch = waits.result()
    assert batch.events == tuple(some_event(number) for number in range(1, 5))
    first.do(lambda spool: spool.settle(batch, done(batch)))
    append(first, *range(5, 9))
    assert [event.id for event in drained(first, 4)] == [some_event(number).id for number in range(5, 9)]
    first.do(lambda spool: spool.check_writable())  # what was settled is written
    left = f"SELECT first FROM {schema_of(members.folder)}.share WHERE first < upto AND first < 10"
    assert database.ask_now(left) == []


# ---------------------------------------------------------------- all at random


@pytest.mark.timeout(7200)  # a million events take their time
def test_each_event_is_delivered_once_whatever_happens_to_members(
    members: Members, database: Database, fault_seed: int, soak: bool
) -> None:
    count, pause = (1_000_000, 0.02) if soak else (8_000, 0.1)
    simulation = Simulation(members, count, fault_seed, pause)
    simulation.run(100 if soak else 8)
    simulation.drain()
    simulation.books.check_counts()
    simulation.books.check_order()
    assert b"deadlock detected" not in database.log()
