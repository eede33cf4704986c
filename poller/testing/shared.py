"""What a spool promises that several daemons share: several of them are open at once here, in one process."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from poller.core.errors import Fenced
from poller.core.history import Book, ReplayState, Stage
from poller.core.model import Batch, Dead, Done, Event, ParsedPage, PollOutcome, Retry
from poller.core.selection import Numbered, Selection
from poller.core.spool import Shared, SpoolAdmin, anything
from poller.runtime.clock import Clock
from poller.testing.factories import (
    START,
    ManualClock,
    done,
    elsewhere,
    some_change,
    some_event,
    some_reading,
)

WITHIN = 30.0
"""Seconds within which what one member does reaches the others."""
AT_ONCE = 0.5
"""Seconds in which nothing may come that would come by now."""

Story = Callable[..., Awaitable[None]]


class SharedSpoolContract:
    """What a shared spool promises beside `SpoolContract`. Its members are called a, b and c."""

    def open(self, folder: Path, clock: Clock) -> SpoolAdmin:
        """Build a spool, not entered. Several of one folder are members of one spool."""
        raise NotImplementedError

    async def end_session(self, spool: SpoolAdmin) -> None:
        """End the session of an open spool from outside, as other members do when its lease has ended."""
        raise NotImplementedError

    def _tell(self, folder: Path, members: int, story: Story) -> None:
        clock = ManualClock()

        async def tell() -> None:
            async with AsyncExitStack() as stack:
                opened = [await stack.enter_async_context(self.open(folder, clock)) for _ in range(members)]
                await story(*opened, clock)

        asyncio.run(asyncio.wait_for(tell(), 2 * WITHIN))

    # ------------------------------------------------------------ shares

    def test_each_event_goes_to_one_member(self, tmp_path: Path) -> None:
        """Claims at all members at once get every event, and none twice."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, c: SpoolAdmin, clock: ManualClock) -> None:
            await attach(a, b, c)
            got: list[str] = []

            async def carry(spool: SpoolAdmin) -> None:
                while True:
                    batch = await spool.claim("s", 7)
                    got.extend(event.id for event in batch.events)
                    await spool.settle(batch, done(batch))

            carriers = [asyncio.ensure_future(carry(spool)) for spool in (a, b, c)]
            for start in range(0, 300, 30):
                await (a, b, c)[start // 30 % 3].append("source", [some_reading(*range(start, start + 30))])
            await until(lambda: len(got) >= 300)
            assert sorted(got) == sorted(some_event(n).id for n in range(300))
            await until(lambda: pending(c, 0))
            for task in carriers:
                task.cancel()

        self._tell(tmp_path, 3, story)

    def test_the_order_of_numbers_is_that_of_the_commits(self, tmp_path: Path) -> None:
        """Two members append at once: a reader of the log finds each event once, without gaps."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await asyncio.gather(
                *(
                    spool.append("source", [some_reading(n, n + 1)])
                    for n in range(0, 80, 2)
                    for spool in (a, b)
                )
            )
            await until(lambda: (a.head, b.head) == (81, 81))
            found = await whole_log(b)
            assert [number for number, _ in found] == list(range(1, 81))
            assert {event.id for _, event in found} == {some_event(n).id for n in range(80)}

        self._tell(tmp_path, 2, story)

    def test_a_change_of_state_is_decided_once(self, tmp_path: Path) -> None:
        """Both members saw it, from another source each."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            polled = page(some_change(1, "active", delay=1))
            also = page(some_change(2, "active", delay=0))
            counts = await asyncio.gather(a.append("one", [polled]), b.append("two", [also]))
            assert sum(count.total() for count in counts) == 1
            await until(lambda: a.streams() == b.streams() and a.streams()[0].state == "active")

        self._tell(tmp_path, 2, story)

    def test_members_say_the_same_of_their_spool_and_no_other_does(self, tmp_path: Path) -> None:
        """They do after a restart too."""
        found: list[str] = []

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            assert shared(a).identity == shared(b).identity
            found.append(shared(a).identity)

        for name in ("one", "other", "one"):
            self._tell(tmp_path / name, 2, story)
        one, other, again = found
        assert one == again != other

    # ------------------------------------------------------------ the sink of all

    def test_a_sink_is_that_of_all_members(self, tmp_path: Path) -> None:
        """Backlog, dead letters, quarantine, books and progress are the same wherever one asks."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await attach(a, b)
            await a.append("source", [some_reading(*range(10))])
            mine = await a.claim("s", 4)
            await a.settle(mine, [Done(), Retry(after=5, reason="busy"), Dead(reason="bad"), Done()])
            await until(lambda: pending(b, 7))
            for spool in (a, b):
                backlog = await spool.backlog("s")
                assert (backlog.events, backlog.retrying, backlog.dead) == (7, 1, 1)
                assert backlog.oldest == mine.events[1].received_at
                (letter,) = await spool.dead(9)
                assert letter.event == mine.events[2]
                books = {(tally.owner, tally.book): tally.count for tally in await spool.tallies()}
                assert books["source", Book.TAKEN] == 10
                assert books["s", Book.DELIVERED] == 2
                stages = [await stage_of(spool, number) for number in (1, 2, 3, 6)]
                assert stages == [Stage.SETTLED, Stage.RETRYING, Stage.DEAD, Stage.PENDING]

        self._tell(tmp_path, 2, story)

    def test_what_a_member_leaves_comes_to_another_as_it_was(self, tmp_path: Path) -> None:
        """A batch that waits keeps its id, its members and its attempts; what was in hand is pending."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await attach(b)
            async with self.open(tmp_path, clock) as leaving:
                await attach(leaving)
                await leaving.append("source", [some_reading(*range(6))])
                first = await leaving.claim("s", 3)
                await leaving.settle(first, [Retry(after=5, reason="busy")] * 3)
                await leaving.claim("s", 2)
            rest = await asyncio.wait_for(b.claim("s", 9), WITHIN)
            assert rest.events == tuple(some_event(n) for n in (3, 4, 5))
            clock.pass_time(5)
            again = await asyncio.wait_for(b.claim("s", 9), WITHIN)
            assert (again.id, again.events, again.attempt) == (first.id, first.events, 2)
            assert again.first_attempt_at == START
            await b.settle(again, done(again))
            await b.settle(rest, done(rest))
            await until(lambda: pending(a, 0))

        async def attached(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await attach(a)
            await story(a, b, clock)

        self._tell(tmp_path, 2, attached)

    @pytest.mark.parametrize("lanes", [None, 1, 4])
    def test_what_a_member_releases_comes_to_another_until_it_claims_again(
        self, tmp_path: Path, lanes: int | None
    ) -> None:
        """It had a batch that waits, and events that it had not handed out; by shares, in order, and in lanes."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await attach_divided(lanes, a)
            await a.append("source", [some_reading(*range(6))])
            waits = await a.claim("s", 2)
            await a.settle(waits, [Retry(after=5, reason="busy")] * 2)
            await attach_divided(lanes, b)
            await shared(a).release("s")
            clock.pass_time(5)
            got = await taken(b, 6)
            assert sorted(event.id for event in got) == sorted(some_event(n).id for n in range(6))
            assert lanes is None or got == [some_event(n) for n in range(6)]
            await until(lambda: pending(a, 0))
            await shared(b).release("s")
            await a.append("source", [some_reading(6)])
            assert await taken(a, 1) == [some_event(6)]

        self._tell(tmp_path, 2, story)

    @pytest.mark.parametrize("lanes", [None, 1, 4])
    def test_retries_that_are_asked_for_while_the_sink_is_released_are_due_once_it_is_served(
        self, tmp_path: Path, lanes: int | None
    ) -> None:
        async def story(a: SpoolAdmin, clock: ManualClock) -> None:
            await attach_divided(lanes, a)
            await a.append("source", [some_reading(*range(6))])
            waits = await a.claim("s", 2)
            await a.settle(waits, [Retry(after=3_600, reason="busy")] * 2)
            await shared(a).release("s")
            await a.retry_now("s")
            got = await taken(a, 6)
            assert sorted(event.id for event in got) == sorted(some_event(n).id for n in range(6))
            await a.append("source", [some_reading(6)])
            again = await a.claim("s", 1)
            await a.settle(again, [Retry(after=3_600, reason="busy")])
            await shared(a).release("s")
            late = asyncio.ensure_future(a.claim("s", 1))
            await until(lambda: pending(a, 1))
            assert not late.done(), "what was asked for once is over"
            clock.pass_time(3_600)
            assert (await asyncio.wait_for(late, WITHIN)).events == (some_event(6),)

        self._tell(tmp_path, 1, story)

    def test_an_event_that_another_member_finished_does_not_come_with_its_share(self, tmp_path: Path) -> None:
        """Its batch waited when its member left, and went to one member; the share goes to another one."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await attach(a)
            async with self.open(tmp_path, clock) as leaving:
                await attach(leaving)
                await leaving.append("source", [some_reading(*range(6))])
                held = await leaving.claim("s", 2)
                waits = await leaving.claim("s", 2)
                await leaving.settle(waits, [Retry(after=5, reason="busy")] * 2)
            assert held.events == (some_event(0), some_event(1))
            clock.pass_time(5)
            again = await asyncio.wait_for(a.claim("s", 1), WITHIN)
            while again.attempt == 1:
                again = await asyncio.wait_for(a.claim("s", 1), WITHIN)
            await a.settle(again, done(again))
            await attach(b)
            await a.detach("s")
            got: list[Event] = []
            while len(got) < 4:
                batch = await asyncio.wait_for(b.claim("s", 9), WITHIN)
                got += batch.events
                await b.settle(batch, done(batch))
            assert sorted(event.id for event in got) == sorted(some_event(n).id for n in (0, 1, 4, 5))
            await until(lambda: pending(b, 0))

        self._tell(tmp_path, 2, story)

    def test_a_claim_that_is_cancelled_while_it_takes_a_share_takes_nothing(self, tmp_path: Path) -> None:
        """Wherever it is cancelled, the events come with the next claim, at this member."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            for turns in range(0, 40, 3):
                sink = f"s{turns}"
                await a.attach(sink, anything)
                await a.append("source", [some_reading(turns)])
                claim = asyncio.ensure_future(a.claim(sink, 5))
                for _ in range(turns):
                    await asyncio.sleep(0.0005)
                claim.cancel()
                await asyncio.wait({claim})
                if claim.cancelled():
                    batch = await asyncio.wait_for(a.claim(sink, 5), WITHIN)
                    assert batch.events == (some_event(turns),)

        self._tell(tmp_path, 2, story)

    # ------------------------------------------------------------ in order

    def test_an_ordered_sink_is_served_by_one_member_and_taken_over_in_order(self, tmp_path: Path) -> None:
        """Another member gets nothing, until the first one leaves; then it goes on where that one was."""

        async def story(b: SpoolAdmin, clock: ManualClock) -> None:
            async with self.open(tmp_path, clock) as a:
                await attach(a, b, ordered=True)
                await b.append("source", [some_reading(*range(6))])
                first = await a.claim("s", 2)
                waits = asyncio.ensure_future(b.claim("s", 9))
                await a.settle(first, [Done(), Retry(after=5, reason="busy")])
                assert not (await asyncio.wait({waits}, timeout=AT_ONCE))[0]
            clock.pass_time(5)
            again = await asyncio.wait_for(waits, WITHIN)
            assert (again.events, again.attempt) == ((some_event(1),), 2)
            await b.settle(again, done(again))
            rest = await asyncio.wait_for(b.claim("s", 9), WITHIN)
            assert rest.events == tuple(some_event(n) for n in (2, 3, 4, 5))

        self._tell(tmp_path, 1, story)

    @pytest.mark.parametrize("ordered", [False, True])
    def test_a_sink_is_served_in_a_new_way_once_nobody_serves_it_in_the_old(
        self, tmp_path: Path, ordered: bool
    ) -> None:
        """Two members disagree for a while, as during a reload of each."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await attach(a, ordered=ordered)
            await a.append("source", [some_reading(*range(4))])
            old = await a.claim("s", 2)
            await a.settle(old, done(old))
            await attach(b, ordered=not ordered)
            waits = asyncio.ensure_future(b.claim("s", 9))
            assert not (await asyncio.wait({waits}, timeout=AT_ONCE))[0]
            await attach(a, ordered=not ordered)
            got = [*(await asyncio.wait_for(waits, WITHIN)).events]
            while len(got) < 2:
                got += (await asyncio.wait_for(b.claim("s", 9), WITHIN)).events
            in_order = [some_event(2), some_event(3)]
            assert got == in_order or (ordered and got == in_order[::-1])

        self._tell(tmp_path, 2, story)

    # ------------------------------------------------------------ orders from any member

    def test_dead_letters_are_retried_from_any_member(self, tmp_path: Path) -> None:
        """Twice at once counts once."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await attach(a, b)
            await a.append("source", [some_reading(1, 2)])
            await refuse(a)
            await until(lambda: dead(b, 2))
            numbers = [letter.number for letter in await b.dead(9)]
            counts = await asyncio.gather(*(spool.retry_dead("s", numbers, 9) for spool in (a, b)))
            assert sorted(counts) == [0, 2]
            claims = {asyncio.ensure_future(spool.claim("s", 9)) for spool in (a, b)}
            came, waits = await asyncio.wait(claims, timeout=WITHIN, return_when=asyncio.FIRST_COMPLETED)
            assert {e.id for task in came for e in task.result().events} == {some_event(n).id for n in (1, 2)}
            assert not (await asyncio.wait(waits, timeout=AT_ONCE))[0]
            for task in waits:
                task.cancel()

        self._tell(tmp_path, 2, story)

    def test_a_pause_is_known_to_all_and_wakes_them(self, tmp_path: Path) -> None:
        """And how often the sink was resumed."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await attach(a, b)
            waits = asyncio.ensure_future(changed(b, b.paused, frozenset({"s"})))
            await a.pause("s", True)
            await asyncio.wait_for(waits, WITHIN)
            waits = asyncio.ensure_future(changed(b, b.paused, frozenset()))
            before = dict(await shared(a).resumed())
            await a.pause("s", False)
            await asyncio.wait_for(waits, WITHIN)
            assert (await shared(b).resumed())["s"] == before.get("s", 0) + 1

        self._tell(tmp_path, 2, story)

    def test_a_replay_is_ordered_paused_and_cancelled_at_any_member(self, tmp_path: Path) -> None:
        """The member that serves the sink queues its events, whoever ordered it."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await attach(a, ordered=True)
            await b.attach("s", anything, ordered=True)
            await a.append("source", [some_reading(*range(4))])
            batch = await a.claim("s", 9)
            await a.settle(batch, done(batch))
            await until(lambda: pending(b, 0))
            replay = await order(b)
            await asyncio.wait_for(a.replays.ready(), WITHIN)
            assert [one.number for one in a.replays.all()] == [replay.number]
            await a.replays.fill("s")
            await b.replays.change(replay.number, ReplayState.PAUSED)
            await until(lambda: a.replays.all()[0].state is ReplayState.PAUSED)
            waits = asyncio.ensure_future(a.claim("s", 2))
            assert not (await asyncio.wait({waits}, timeout=AT_ONCE))[0]
            await b.replays.change(replay.number, ReplayState.RUNNING)
            again = await asyncio.wait_for(waits, WITHIN)
            assert again.events == batch.events[:2]
            await b.replays.change(replay.number, ReplayState.CANCELLED)
            await until(lambda: a.replays.all()[0].state is ReplayState.CANCELLED)
            await a.settle(again, done(again))
            await until(lambda: replaying(b, 0))

        self._tell(tmp_path, 2, story)

    # ------------------------------------------------------------ corrections

    def test_a_correction_reaches_what_other_members_have(self, tmp_path: Path) -> None:
        """In memory, in hand, and waiting for a retry."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await attach(b)
            await b.append("source", [page(*map(some_event, range(6)), provisional=True)])
            waits = await b.claim("s", 2)
            await b.settle(waits, [Retry(after=5, reason="busy")] * 2)
            held = await b.claim("s", 2)
            await a.append("source", [page(*(elsewhere(some_event(n)) for n in range(6)))])
            await until(lambda: has_url(b, 6, elsewhere(some_event(5)).url))
            await b.settle(held, [Retry(after=5, reason="busy")] * 2)
            rest = await asyncio.wait_for(b.claim("s", 9), WITHIN)
            clock.pass_time(5)
            got = [*rest.events]
            while len(got) < 6:
                got += (await asyncio.wait_for(b.claim("s", 9), WITHIN)).events
            assert {event.id: event.url for event in got} == {
                some_event(n).id: elsewhere(some_event(n)).url for n in range(6)
            }

        self._tell(tmp_path, 2, story)

    # ------------------------------------------------------------ members

    def test_a_duty_is_held_by_one_member(self, tmp_path: Path) -> None:
        """The next one gets it when the first gives it up, also after a wait that was cancelled."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            for _ in range(3):
                held = asyncio.Event()
                async with shared(a).duty("poll"):
                    waits = asyncio.ensure_future(hold(shared(b), "poll", held))
                    assert not (await asyncio.wait({waits}, timeout=AT_ONCE))[0]
                    assert not held.is_set()
                    assert await duties_of(b) == {shared(a).member: {"poll"}}
                await asyncio.wait_for(held.wait(), WITHIN)
                assert await duties_of(a) == {shared(b).member: {"poll"}}
                waits.cancel()
                await asyncio.wait({waits})

        self._tell(tmp_path, 2, story)

    def test_a_duty_that_nobody_wants_any_more_is_free(self, tmp_path: Path) -> None:
        """Whenever its wait was cancelled."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            for turns in range(0, 30, 2):
                wait = asyncio.ensure_future(hold(shared(a), "poll", asyncio.Event()))
                for _ in range(turns):
                    await asyncio.sleep(0.0005)
                wait.cancel()
                await asyncio.wait({wait})
                held = asyncio.Event()
                wait = asyncio.ensure_future(hold(shared(b), "poll", held))
                await asyncio.wait_for(held.wait(), WITHIN)
                wait.cancel()
                await asyncio.wait({wait})

        self._tell(tmp_path, 2, story)

    def test_members_are_all_that_share_the_spool(self, tmp_path: Path) -> None:
        """With numbers that grow, and with what each holds."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await attach(a, b)
            await a.append("source", [some_reading(*range(5))])
            batch = await b.claim("s", 5)
            await b.settle(batch, [Retry(after=60, reason="busy")] * 2 + [Done()] * 3)
            await until(lambda: held_by(a, shared(b).member, {"s": 2}))
            first, second = await shared(a).members()
            assert (first.number, second.number) == (shared(a).member, shared(b).member)
            assert first.number < second.number
            assert min(first.expires, second.expires) > 0
            await until(lambda: (shared(a).live_members, shared(b).live_members) == (2, 2))
            waits = asyncio.ensure_future(changed(a, lambda: live(a), 3))
            async with self.open(tmp_path, clock) as third:
                await asyncio.wait_for(waits, WITHIN)
                assert shared(third).member > second.number
            await until(lambda: shared(a).live_members == 2)

        self._tell(tmp_path, 2, story)

    def test_a_member_whose_session_has_ended_writes_nothing(self, tmp_path: Path) -> None:
        """Each call that writes raises `Fenced`, and what it held goes to others."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await attach(a, b)
            await a.append("source", [some_reading(*range(4))])
            batch = await a.claim("s", 4)
            await self.end_session(a)
            assert isinstance(await asyncio.wait_for(shared(a).failed(), WITHIN), Fenced)
            assert not shared(a).proven.is_set()
            for call in (
                lambda: a.append("source", [some_reading(9)]),
                lambda: a.settle(batch, done(batch)),
                lambda: a.split(batch),
                lambda: a.attach("s", anything),
                lambda: a.retry_dead("s", [1], 1),
                lambda: a.purge_dead([1]),
                lambda: a.pause("s", True),
                a.check_writable,
                shared(a).check_answers,
                lambda: a.purge_quarantine([1]),
            ):
                with pytest.raises(Fenced):
                    await call()
            taken = await asyncio.wait_for(b.claim("s", 9), WITHIN)
            assert taken.events == batch.events
            await b.settle(taken, done(taken))
            await until(lambda: pending(b, 0))
            assert await b.paused() == frozenset()

        self._tell(tmp_path, 2, story)

    def test_one_member_prunes(self, tmp_path: Path) -> None:
        """At another one, `prune` deletes nothing."""

        async def story(a: SpoolAdmin, b: SpoolAdmin, clock: ManualClock) -> None:
            await attach(a)
            await a.append("source", [some_reading(1, 2)])
            await refuse(a)
            clock.pass_time(timedelta(days=90).total_seconds())
            await until(lambda: dead(b, 2))
            assert (await b.prune()).dead == {}
            assert len(await b.dead(9)) == 2
            assert (await a.prune()).dead == {"s": 2}
            assert await b.dead(9) == []

        self._tell(tmp_path, 2, story)


# ---------------------------------------------------------------- what the stories are told with


def shared(spool: SpoolAdmin) -> Shared:
    """The spool as what it is besides."""
    assert isinstance(spool, Shared)
    return spool


async def attach(*spools: SpoolAdmin, ordered: bool = False) -> None:
    """Attach the sink of the stories."""
    for spool in spools:
        await spool.attach("s", anything, ordered)


async def attach_divided(lanes: int | None, spool: SpoolAdmin) -> None:
    """Attach the sink of the stories: without order, or in order and divided."""
    shared(spool).divide("s", lanes or 1)
    await attach(spool, ordered=lanes is not None)


async def taken(spool: SpoolAdmin, count: int) -> list[Event]:
    """The next `count` events of the sink, which are delivered."""
    got: list[Event] = []
    while len(got) < count:
        batch = await asyncio.wait_for(spool.claim("s", 9), WITHIN)
        got += batch.events
        await spool.settle(batch, done(batch))
    return got


def page(*events: Any, provisional: bool = False) -> ParsedPage:
    """A page with these events."""
    return ParsedPage(events=events, rejects=(), outcome=PollOutcome.PARTIAL, provisional=provisional)


async def until(condition: Callable[[], Any]) -> bool:
    """Wait until a condition is true; it may be a coroutine function."""
    async with asyncio.timeout(WITHIN):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return True
            await asyncio.sleep(0.05)


async def pending(spool: SpoolAdmin, count: int) -> bool:
    """Whether `count` events are pending."""
    return (await spool.backlog("s")).events == count


async def dead(spool: SpoolAdmin, count: int) -> bool:
    """Whether there are `count` dead letters."""
    return len(await spool.dead(99)) == count


async def whole_log(spool: SpoolAdmin) -> list[Numbered]:
    """All events with their numbers."""
    found: list[Numbered] = []
    start: int | None = 1
    while start is not None:
        step = await spool.scan(Selection(), start, 500)
        found += step.found
        start = step.following
    return found


async def has_url(spool: SpoolAdmin, number: int, url: str | None) -> bool:
    """Whether a member knows the event of this number with this URL."""
    return dict(await whole_log(spool))[number].url == url


async def replaying(spool: SpoolAdmin, count: int) -> bool:
    """Whether `count` replayed events are pending."""
    return (await spool.backlog("s")).replaying == count


async def refuse(spool: SpoolAdmin) -> Batch:
    """Let the sink refuse a batch."""
    batch = await spool.claim("s", 9)
    await spool.settle(batch, [Dead(reason="bad")] * len(batch.events))
    return batch


async def order(spool: SpoolAdmin) -> Any:
    """Order a replay of all that the sink got."""
    planned = await spool.replays.plan("s", Selection())
    return await spool.replays.order(planned, planned.until - planned.at, planned.pending | planned.dead)


async def stage_of(spool: SpoolAdmin, number: int) -> Stage:
    """How far the event of this number is at the sink."""
    event = some_event(number - 1)
    (progress,) = await spool.progress(number, event.id, event)
    return progress.stage


async def changed(spool: SpoolAdmin, look: Callable[[], Awaitable[Any]], to: Any) -> None:
    """Look at each change, until what is seen is `to`."""
    while await look() != to:
        await shared(spool).wait_for_change()


async def live(spool: SpoolAdmin) -> int:
    """How many members there are."""
    return shared(spool).live_members


async def hold(spool: Shared, duty: str, held: asyncio.Event) -> None:
    """Have a duty until the task is cancelled."""
    async with spool.duty(duty):
        held.set()
        await asyncio.Event().wait()


async def duties_of(spool: SpoolAdmin) -> dict[int, set[str]]:
    """Who has the duties of the stories."""
    found = {one.number: {"poll"} & set(one.duties) for one in await shared(spool).members()}
    return {number: duties for number, duties in found.items() if duties}


async def held_by(spool: SpoolAdmin, number: int, held: dict[str, int]) -> bool:
    """Whether a member holds exactly that."""
    return any(one.number == number and dict(one.held) == held for one in await shared(spool).members())
