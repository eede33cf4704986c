"""What every spool promises of deliveries."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from poller.core.model import Backlog, Dead, Done, Filter, Retry
from poller.core.spool import SpoolAdmin, anything
from poller.runtime.clock import Clock
from poller.testing.factories import (
    START,
    ManualClock,
    claim_now,
    claims_nothing,
    done,
    some_event,
    some_reading,
)
from poller.testing.spool import SpoolWorld


class Deliveries(SpoolWorld):
    """What every spool promises of deliveries."""

    def test_what_is_appended_is_claimed_in_order(self, tmp_path: Path) -> None:
        """Events come out in the order in which they went in, in batches of up to the limit."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            assert (await spool.append("source", [some_reading(1, 2), some_reading(3, 4, 5)])).total() == 5
            first, second = await spool.claim("a", 3), await spool.claim("a", 3)
            assert first.events == tuple(some_event(n) for n in (1, 2, 3))
            assert second.events == tuple(some_event(n) for n in (4, 5))
            assert (first.sink, first.attempt) == ("a", 1)
            assert first.id != second.id
            assert first.first_attempt_at is None

        self._run(tmp_path, scenario)

    def test_an_id_seen_before_changes_nothing(self, tmp_path: Path) -> None:
        """Twins in one reading, in one append and in a later one are stored once."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            assert (await spool.append("source", [some_reading(1, 1, 2), some_reading(2, 3)])).total() == 3
            assert (await spool.append("source", [some_reading(3, 2, 1)])).total() == 0
            assert [e.id for e in (await spool.claim("a", 10)).events] == [
                some_event(n).id for n in (1, 2, 3)
            ]
            assert await claims_nothing(spool, "a")

        self._run(tmp_path, scenario)

    def test_a_new_sink_starts_at_now(self, tmp_path: Path) -> None:
        """What was appended before a sink was known is not owed to it."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("old", anything)
            await spool.append("source", [some_reading(1)])
            await spool.attach("new", anything)
            await spool.append("source", [some_reading(2)])
            assert (await spool.claim("new", 10)).events == (some_event(2),)
            assert (await spool.claim("old", 10)).events == (some_event(1), some_event(2))

        self._run(tmp_path, scenario)

    def test_a_claim_wakes_when_something_is_appended(self, tmp_path: Path) -> None:
        """A waiting claim gets the next event, without polling."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            claim = asyncio.ensure_future(spool.claim("a", 10))
            await asyncio.sleep(0)
            await spool.append("source", [some_reading(7)])
            assert (await claim).events == (some_event(7),)

        self._run(tmp_path, scenario)

    def test_a_cancelled_claim_has_taken_nothing(self, tmp_path: Path) -> None:
        """After a cancelled wait, the event goes to the next claim."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            assert await claims_nothing(spool, "a")
            await spool.append("source", [some_reading(1)])
            assert (await spool.claim("a", 10)).events == (some_event(1),)

        self._run(tmp_path, scenario)

    def test_a_claim_that_lingers_fills_its_batch(self, tmp_path: Path) -> None:
        """With `linger`, a batch that is not full waits for more, and goes when it is full."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1)])
            claim = asyncio.ensure_future(spool.claim("a", 2, 20.0))
            await asyncio.sleep(0.01)
            assert not claim.done()
            await spool.append("source", [some_reading(2)])
            assert (await claim).events == (some_event(1), some_event(2))
            await spool.append("source", [some_reading(3)])
            assert (await spool.claim("a", 2, 0.01)).events == (some_event(3),)

        self._run(tmp_path, scenario)

    def test_what_is_done_is_not_pending_any_more(self, tmp_path: Path) -> None:
        """Settled deliveries leave the backlog, whatever order batches are settled in."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(*range(10))])
            batches = [await spool.claim("a", 3) for _ in range(4)]
            assert (await spool.backlog("a")).events == 10
            for batch in reversed(batches):
                await spool.settle(batch, done(batch))
            backlog = await spool.backlog("a")
            assert (backlog.events, backlog.retrying, backlog.oldest) == (0, 0, None)
            assert await claims_nothing(spool, "a")

        self._run(tmp_path, scenario)

    def test_a_retry_comes_back_when_it_is_due_with_the_same_members(self, tmp_path: Path) -> None:
        """The batch keeps its id and members; its attempt counts on."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2)])
            batch = await spool.claim("a", 2)
            await spool.settle(batch, [Retry(after=60, reason="no")] * 2)
            assert await claims_nothing(spool, "a")
            assert (await spool.backlog("a")).retrying == 2
            clock.pass_time(60)
            await spool.append("source", [some_reading(3)])
            again = await spool.claim("a", 1)
            assert (again.id, again.events, again.attempt) == (batch.id, batch.events, 2)
            assert again.first_attempt_at == START

        self._run(tmp_path, scenario)

    def test_a_waiting_claim_wakes_when_a_retry_is_due(self, tmp_path: Path) -> None:
        """By itself: nothing else comes meanwhile."""

        async def scenario() -> None:
            async with self.open(tmp_path, Clock()) as spool:
                await spool.attach("a", anything)
                await spool.append("source", [some_reading(1)])
                await spool.settle(await spool.claim("a", 1), [Retry(after=0.05, reason="no")])
                assert (await spool.claim("a", 1)).attempt == 2

        asyncio.run(asyncio.wait_for(scenario(), 10))

    def test_a_partial_failure_keeps_only_what_failed(self, tmp_path: Path) -> None:
        """Of a batch, the done are done, the dead are dead letters, the rest comes again together."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2, 3, 4)])
            batch = await spool.claim("a", 4)
            retry = Retry(after=5, reason="again")
            await spool.settle(batch, [Done(), retry, Dead(reason="never"), retry])
            (letter,) = await spool.dead(10)
            assert (letter.event, letter.sink, letter.reason) == (some_event(3), "a", "never")
            clock.pass_time(5)
            again = await spool.claim("a", 10)
            assert again.events == (some_event(2), some_event(4))
            assert (await spool.backlog("a")).dead == 1

        self._run(tmp_path, scenario)

    def test_one_long_wait_holds_back_nobody_else(self, tmp_path: Path) -> None:
        """What failed for a moment comes again in a moment, and what asked for an hour after that hour."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(*range(32))])
            soon, later = Retry(after=1, reason="HTTP 404"), Retry(after=3600, reason="HTTP 503")
            batch = await spool.claim("a", 32)
            await spool.settle(batch, [later if n == 7 else soon for n in range(32)])
            clock.pass_time(1)
            again = await spool.claim("a", 99)
            assert again.events == tuple(some_event(n) for n in range(32) if n != 7)
            await spool.settle(again, done(again))
            clock.pass_time(3598)
            assert await claims_nothing(spool, "a")
            clock.pass_time(1)
            assert (await spool.claim("a", 99)).events == (some_event(7),)
            assert (await spool.backlog("a")).events == 1

        self._run(tmp_path, scenario)

    def test_a_wait_that_was_asked_for_is_no_attempt(self, tmp_path: Path) -> None:
        """What failed beside it comes again on its own; the first attempt stays the first."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2)])
            asked, failed = Retry(after=2, reason="busy", counted=False), Retry(after=2, reason="no")
            await spool.settle(await spool.claim("a", 2), [asked, failed])
            clock.pass_time(2)
            found = [await spool.claim("a", 2) for _ in range(2)]
            assert {batch.events: batch.attempt for batch in found} == {
                (some_event(1),): 1,
                (some_event(2),): 2,
            }
            assert {batch.first_attempt_at for batch in found} == {START}

        self._run(tmp_path, scenario)

    def test_a_thousand_different_waits_make_few_batches(self, tmp_path: Path) -> None:
        """Nobody waits for less than it asked for, or for a quarter more."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(*range(1000))])
            batch = await spool.claim("a", 1000)
            waits = {event.id: 3.6 * n for n, event in enumerate(batch.events)}
            await spool.settle(batch, [Retry(after=waits[e.id], reason="busy") for e in batch.events])
            batches, passed = 0, 0.0
            while waits:
                # each retry is in memory, so no answer of a server is needed
                while (batch := await claim_now(spool, "a", 1000, 0.0)) is not None:  # type: ignore[assignment]
                    batches += 1
                    for event in batch.events:
                        wait = waits.pop(event.id)
                        assert wait <= passed <= 1.25 * wait + 2.0
                    await spool.settle(batch, done(batch))
                clock.pass_time(1.0)
                passed += 1.0
            assert (await spool.backlog("a")).events == 0
            assert batches <= 50

        self._run(tmp_path, scenario)

    @pytest.mark.parametrize("fresh", [True, False])
    def test_halves_of_a_batch_whose_waits_differ_come_again_each_in_its_time(
        self, tmp_path: Path, fresh: bool
    ) -> None:
        """Mixed with what is done and what is dead."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(*range(8))])
            if not fresh:
                await spool.settle(await spool.claim("a", 8), [Retry(after=0, reason="no")] * 8)
            soon, later = Retry(after=5, reason="soon"), Retry(after=60, reason="later")
            for half in await spool.split(await spool.claim("a", 8)):
                await spool.settle(half, [soon, later, Done(), Dead(reason="bad")])
            clock.pass_time(5)
            first = [await spool.claim("a", 8) for _ in range(2)]
            assert {batch.events for batch in first} == {(some_event(0),), (some_event(4),)}
            clock.pass_time(55)
            second = [await spool.claim("a", 8) for _ in range(2)]
            assert {batch.events for batch in second} == {(some_event(1),), (some_event(5),)}
            assert {letter.event.id for letter in await spool.dead(9)} == {some_event(n).id for n in (3, 7)}
            for batch in (*first, *second):
                await spool.settle(batch, done(batch))
            assert (await spool.backlog("a")).events == 0

        self._run(tmp_path, scenario)

    def test_a_dead_letter_tells_its_history(self, tmp_path: Path) -> None:
        """Every failed attempt is there with its reason, oldest first."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1)])
            await spool.settle(await spool.claim("a", 1), [Retry(after=3, reason="first")])
            clock.pass_time(3)
            await spool.settle(await spool.claim("a", 1), [Dead(reason="second")])
            (letter,) = await spool.dead(10, Filter(of="a"))
            assert [(a.at, a.reason) for a in letter.history] == [
                (START, "first"),
                (START + timedelta(seconds=3), "second"),
            ]
            assert (letter.attempts, letter.first_attempt_at) == (2, START)
            assert letter.died_at == START + timedelta(seconds=3)
            assert await spool.dead(10, Filter(of="b")) == []

        self._run(tmp_path, scenario)

    def test_a_split_batch_is_settled_half_by_half(self, tmp_path: Path) -> None:
        """Halves are batches of their own, fresh or from a retry."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2, 3)])
            for halves in (1, 2):
                batch = await spool.claim("a", 10)
                parts = await spool.split(batch)
                assert [event for part in parts for event in part.events] == list(batch.events)
                assert len(parts) == 2
                await spool.settle(parts[0], done(parts[0]))
                await spool.settle(parts[1], [Retry(after=0, reason="no")] * len(parts[1].events))
                assert (await spool.backlog("a")).events == 3 - halves
            last = await spool.claim("a", 10)
            assert (last.events, last.attempt, last.id) == ((some_event(3),), 3, some_event(3).id)

        self._run(tmp_path, scenario)

    def test_sinks_do_not_hold_each_other_back(self, tmp_path: Path) -> None:
        """One sink's claims and failures change nothing for another."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("stuck", anything)
            await spool.attach("quick", anything)
            for number in range(20):
                await spool.append("source", [some_reading(number)])
                batch = await spool.claim("quick", 10)
                await spool.settle(batch, done(batch))
            assert (await spool.backlog("quick")).events == 0
            assert (await spool.backlog("stuck")).events == 20
            assert (await spool.backlog("stuck")).oldest == some_event(0).received_at

        self._run(tmp_path, scenario)

    def test_a_sink_gets_only_what_it_wants(self, tmp_path: Path) -> None:
        """Unwanted events are passed, and are not owed."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("odd", lambda event: event.occurred_at.second % 20 == 15)
            await spool.append("source", [some_reading(*range(6))])
            batch = await spool.claim("odd", 10)
            assert batch.events == tuple(some_event(n) for n in (1, 3, 5))
            await spool.settle(batch, done(batch))
            assert (await spool.backlog("odd")).events == 0

        self._run(tmp_path, scenario)

    @pytest.mark.parametrize("ordered", [False, True])
    def test_a_sink_that_is_attached_anew_stays_where_it_was(self, tmp_path: Path, ordered: bool) -> None:
        """What was done is done, what waits for a retry waits, what was in hand is owed; other events are wanted."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=ordered)
            unread = some_reading(3, stream="room-3")  # an ordered sink would have read it ahead
            for number in range(3):
                await spool.append("source", [some_reading(number, stream=f"room-{number}")])
            if not ordered:
                await spool.append("source", [unread])
            first, second, third = [await spool.claim("a", 1) for _ in range(3)]
            await spool.settle(first, done(first))
            await spool.settle(second, [Retry(after=10, reason="no")])
            await spool.attach("a", lambda event: event.stream_id != "room-3", ordered=ordered)
            await spool.append("source", [unread])
            assert (await spool.claim("a", 9)).events == third.events
            assert await claims_nothing(spool, "a")
            clock.pass_time(10)
            again = await spool.claim("a", 9)
            assert (again.events, again.attempt) == (second.events, 2)
            await spool.settle(again, done(again))
            await spool.append("source", [some_reading(9)])
            assert (await spool.claim("a", 9)).events == (some_event(9),)

        self._run(tmp_path, scenario)

    def test_a_sink_that_is_detached_is_where_it_was_when_it_comes_back(self, tmp_path: Path) -> None:
        """It got nothing meanwhile, and misses nothing that is still there."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2)])
            batch = await spool.claim("a", 1)
            await spool.settle(batch, done(batch))
            await spool.detach("a")
            await spool.append("source", [some_reading(3)])
            assert await spool.backlog("a") == Backlog(events=0, retrying=0, dead=0, oldest=None)
            await spool.attach("a", anything)
            assert (await spool.claim("a", 9)).events == (some_event(2), some_event(3))

        self._run(tmp_path, scenario)

    @pytest.mark.parametrize("detached", [False, True])
    @pytest.mark.parametrize("ordered", [False, True])
    def test_what_a_sink_passed_is_not_pending_when_it_is_attached_anew(
        self, tmp_path: Path, ordered: bool, detached: bool
    ) -> None:
        """Also where it wants everything now: what it did not want then it has behind it."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", lambda event: False, ordered=ordered)
            await spool.append("source", [some_reading(1, 2)])
            while (await spool.backlog("a")).events:  # a claim passes what the sink does not want
                assert await claims_nothing(spool, "a")
            if detached:
                await spool.detach("a")
            await spool.attach("a", anything, ordered=ordered)
            assert (await spool.backlog("a")).events == 0

        self._run(tmp_path, scenario)
