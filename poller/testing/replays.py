"""What every spool must do when a sink gets retained events again, and with a sink that starts in the past."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from poller.core.history import Replay, ReplayState
from poller.core.model import Dead, Done, Event, Retry, unchanged
from poller.core.replays import MOST_REPLAYED, NoSuchReplay, ReplayPlan
from poller.core.selection import ALL_EVENTS, Selection
from poller.core.spool import SpoolAdmin, anything
from poller.testing.factories import (
    START,
    ManualClock,
    all_owed,
    claim_now,
    claims_nothing,
    done,
    elsewhere,
    some_event,
    some_reading,
)
from poller.testing.spool import SpoolWorld

EARLIEST = datetime.min.replace(tzinfo=UTC)


async def counted(spool: SpoolAdmin, planned: ReplayPlan) -> tuple[list[Event], frozenset[str]]:
    """The events of a plan, and the ids that it leaves out."""
    found: list[Event] = []
    start: int | None = planned.at
    while start is not None and start < planned.until:
        step = await spool.scan(planned.chosen, start, 100)
        found += [e for number, e in step.found if number < planned.until and planned.wants(e)]
        start = step.following
    return (
        [event for event in found if not planned.leaves_out(event)],
        frozenset(event.id for event in found if planned.leaves_out(event)),
    )


async def order(spool: SpoolAdmin, sink: str, chosen: Selection = ALL_EVENTS) -> Replay:
    """Order a replay of all that it selects now."""
    planned = await spool.replays.plan(sink, chosen)
    with spool.replays.keep(planned):
        found, left_out = await counted(spool, planned)
        return await spool.replays.order(planned, len(found), left_out)


async def state_of(spool: SpoolAdmin, number: int) -> ReplayState:
    return next(one.state for one in spool.replays.all() if one.number == number)


async def replayed(
    spool: SpoolAdmin, sink: str, limit: int = 100, rebuild: Callable[[Event], Event] = unchanged
) -> list[Event]:
    """What a sink gets until nothing is left to replay, all of it taken."""
    got: list[Event] = []
    while any(one.state is ReplayState.RUNNING and one.sink == sink for one in spool.replays.all()):
        await spool.replays.fill(sink, rebuild)
        while (batch := await claim_now(spool, sink, limit)) is not None:
            assert len(batch.events) <= limit
            got += batch.events
            await spool.settle(batch, done(batch))
    return got


async def takes_all(spool: SpoolAdmin, sink: str, *numbers: int, stream: str = "room") -> None:
    """Append events that the sink takes at once."""
    await spool.append("source", [some_reading(*numbers, stream=stream)])
    await all_owed(spool, sink, 100)


class Replaying(SpoolWorld):
    """The promises of `Replays`, and of `start`."""

    @pytest.mark.parametrize("ordered", [False, True])
    def test_a_replay_sends_what_it_counted_and_is_done(self, tmp_path: Path, ordered: bool) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", lambda event: event.stream_id != "hall", ordered)
            for n in range(40):
                await takes_all(spool, "a", n)
                await spool.append("source", [some_reading(n, stream="hall")])
                if n % 8 == 7:
                    assert await claims_nothing(spool, "a")
            some = Selection(since=some_event(5).received_at, until=some_event(35).received_at)
            replay = await order(spool, "a", some)
            expected = [some_event(n) for n in range(5, 35)]
            assert (replay.total, replay.state) == (len(expected), ReplayState.RUNNING)
            assert (await replayed(spool, "a")) == expected
            (after,) = spool.replays.all()
            assert (after.state, after.queued) == (ReplayState.DONE, len(expected))
            assert (await spool.backlog("a")).replaying == 0
            assert await claims_nothing(spool, "a")

        self._run(tmp_path, scenario)

    def test_what_the_sink_gets_anyway_and_dead_letters_are_left_out(self, tmp_path: Path) -> None:
        """Although they are settled while the replay runs."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(*range(6))])
            for outcome in (Done(), Retry(after=5, reason="no"), Dead(reason="bad"), Done()):
                await spool.settle(await spool.claim("a", 1), [outcome])
            in_hand = await spool.claim("a", 1)
            replay = await order(spool, "a")
            assert replay.total == 2
            await spool.settle(in_hand, done(in_hand))
            clock.pass_time(5)
            assert await all_owed(spool, "a", 1) == [some_event(1), some_event(5)]
            assert await replayed(spool, "a") == [some_event(0), some_event(3)]
            assert [letter.event for letter in await spool.dead(9)] == [some_event(2)]

        self._run(tmp_path, scenario)

    def test_a_plan_has_a_fixed_end(self, tmp_path: Path) -> None:
        """`below` is the end of an earlier plan, so that later events are not counted."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await takes_all(spool, "a", 0, 1, 2)
            first = await spool.replays.plan("a", ALL_EVENTS)
            await takes_all(spool, "a", 3, 4)
            again = await spool.replays.plan("a", ALL_EVENTS, first.until)
            assert (again.at, again.until) == (first.at, first.until) == (1, 4)
            assert (await spool.replays.plan("a", ALL_EVENTS)).until == 6
            assert (await spool.replays.plan("a", ALL_EVENTS, 99)).until == 6

        self._run(tmp_path, scenario)

    @pytest.mark.parametrize("ordered", [False, True])
    def test_fresh_events_and_retries_go_before_replayed_events(self, tmp_path: Path, ordered: bool) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered)
            await takes_all(spool, "a", *range(10))
            await order(spool, "a")
            await spool.replays.fill("a")
            assert (await spool.claim("a", 2)).events == (some_event(0), some_event(1))
            await spool.append("source", [some_reading(20, 21, stream="hall")])
            first = await spool.claim("a", 1)
            assert first.events == (some_event(20, stream="hall"),)
            await spool.settle(first, [Retry(after=5, reason="no")])
            clock.pass_time(5)
            retried = await spool.claim("a", 1)
            assert retried.events == (some_event(20, stream="hall"),)
            backlog = await spool.backlog("a")
            assert (backlog.events, backlog.replaying) == (2, 10)
            assert backlog.oldest is not None
            assert backlog.oldest >= some_event(20).received_at

        self._run(tmp_path, scenario)

    def test_a_replay_takes_no_place_from_what_waits_for_a_retry(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await takes_all(spool, "a", *range(1_600))
            await order(spool, "a")
            for _ in range(20):
                await spool.replays.fill("a")
            backlog = await spool.backlog("a")
            assert (backlog.events, backlog.retrying) == (0, 0)
            assert 0 < backlog.replaying <= MOST_REPLAYED
            assert await replayed(spool, "a") == [some_event(n) for n in range(1_600)]

        self._run(tmp_path, scenario)

    def test_a_replayed_event_that_fails_is_retried_and_may_die(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await takes_all(spool, "a", 0, 1, 2)
            replay = await order(spool, "a")
            await spool.replays.fill("a")
            batch = await spool.claim("a", 9)
            assert (batch.attempt, batch.first_attempt_at) == (1, None)
            await spool.settle(batch, [Done(), Retry(after=5, reason="no"), Dead(reason="bad")])
            await spool.replays.fill("a")
            assert await state_of(spool, replay.number) is ReplayState.RUNNING
            assert spool.replays.unsettled(spool.replays.all()[0]) == 1
            assert await claims_nothing(spool, "a")
            clock.pass_time(5)
            batch = await spool.claim("a", 9)
            assert (batch.events, batch.attempt, batch.id) == ((some_event(1),), 2, some_event(1).id)
            await spool.settle(batch, done(batch))
            await spool.replays.fill("a")
            assert await state_of(spool, replay.number) is ReplayState.DONE
            assert [letter.event for letter in await spool.dead(9)] == [some_event(2)]

        self._run(tmp_path, scenario)

    def test_a_refused_replayed_batch_is_halved(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            for sink, ordered in (("a", False), ("b", True)):
                await spool.attach(sink, anything, ordered)
            await spool.append("source", [some_reading(*range(5))])
            for sink in ("a", "b"):
                await all_owed(spool, sink, 9)
                await order(spool, sink)
                await spool.replays.fill(sink)
                for half in await spool.split(await spool.claim(sink, 4)):
                    again = Retry(after=0.0, reason="refused", counted=False)
                    await spool.settle(half, [again] * len(half.events))
                got = await replayed(spool, sink, 2)
                assert got == [some_event(n) for n in range(5)]

        self._run(tmp_path, scenario)

    def test_urls_are_rebuilt_once_when_an_event_is_queued(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await takes_all(spool, "a", 1)
            await order(spool, "a")
            await spool.replays.fill("a", elsewhere)
            batch = await spool.claim("a", 1)
            assert batch.events == (elsewhere(some_event(1)),)
            assert batch.id == some_event(1).id
            await spool.settle(batch, [Retry(after=0, reason="no")])
            assert (await spool.claim("a", 1)).events == batch.events

        self._run(tmp_path, scenario)

    def test_replays_of_one_sink_run_one_after_the_other_and_others_beside_them(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            for sink in ("a", "b"):
                await spool.attach(sink, anything)
            await spool.append("source", [some_reading(0, 1)])
            for sink in ("a", "b"):
                await all_owed(spool, sink, 9)
            replays = [await order(spool, sink) for sink in ("a", "a", "b")]
            assert [replay.number for replay in replays] == [1, 2, 3]
            for _ in range(3):
                await spool.replays.fill("a")
            batch = await spool.claim("a", 9)
            assert batch.events == (some_event(0), some_event(1))
            assert await claims_nothing(spool, "a")
            await spool.replays.fill("b")
            assert (await spool.claim("b", 9)).events == batch.events
            await spool.settle(batch, done(batch))
            assert (await spool.replays.fill("a")) == spool.replays.all()[0]
            await spool.replays.fill("a")
            assert (await spool.claim("a", 9)).events == batch.events

        self._run(tmp_path, scenario)

    @pytest.mark.parametrize("ordered", [False, True])
    def test_a_paused_replay_hands_nothing_out_and_goes_on(self, tmp_path: Path, ordered: bool) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered)
            await takes_all(spool, "a", 0, 1, 2)
            replay = await order(spool, "a")
            await spool.replays.fill("a")
            await spool.replays.change(replay.number, ReplayState.PAUSED)
            assert await claims_nothing(spool, "a")
            await spool.attach("a", anything, ordered)
            assert await claims_nothing(spool, "a")
            claim = asyncio.ensure_future(spool.claim("a", 1))
            await asyncio.sleep(0)
            await spool.replays.change(replay.number, ReplayState.RUNNING)
            batch = await asyncio.wait_for(claim, 10)
            assert batch.events == (some_event(0),)
            await spool.settle(batch, done(batch))
            assert await replayed(spool, "a") == [some_event(1), some_event(2)]

        self._run(tmp_path, scenario)

    @pytest.mark.parametrize("ordered", [False, True])
    def test_a_cancelled_replay_leaves_nothing_but_what_is_in_hand(
        self, tmp_path: Path, ordered: bool
    ) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered)
            await takes_all(spool, "a", *range(9))
            replay = await order(spool, "a")
            later = await order(spool, "a", Selection(ids=frozenset({some_event(0).id})))
            await spool.replays.fill("a")
            in_hand = await spool.claim("a", 1)
            assert in_hand.events == (some_event(0),)
            await spool.replays.change(replay.number, ReplayState.CANCELLED)
            assert (await spool.backlog("a")).replaying == 1
            await spool.replays.fill("a")
            assert await claims_nothing(spool, "a"), "the next one waits for the batch in hand"
            await spool.settle(in_hand, [Retry(after=0, reason="no")])
            assert (await spool.backlog("a")).replaying == 0
            assert await replayed(spool, "a") == [some_event(0)]
            assert await state_of(spool, later.number) is ReplayState.DONE
            for number in (replay.number, later.number, 99):
                with pytest.raises(NoSuchReplay):
                    await spool.replays.change(number, ReplayState.PAUSED)

        self._run(tmp_path, scenario)

    def test_a_cancelled_replay_counts_only_what_the_sink_got(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await takes_all(spool, "a", *range(9))
            replay = await order(spool, "a")
            await spool.replays.fill("a")
            batch = await spool.claim("a", 2)
            await spool.settle(batch, done(batch))
            in_hand = await spool.claim("a", 1)
            cancelled = await spool.replays.change(replay.number, ReplayState.CANCELLED)
            assert cancelled.queued == 3
            assert spool.replays.all() == [cancelled]
            await spool.settle(in_hand, done(in_hand))
            assert spool.replays.unsettled(cancelled) == 0

        self._run(tmp_path, scenario)

    def test_a_replay_that_is_cancelled_while_its_sink_is_away_counts_only_what_the_sink_got(
        self, tmp_path: Path
    ) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await takes_all(spool, "a", *range(9))
            replay = await order(spool, "a")
            await spool.replays.fill("a")
            batch = await spool.claim("a", 2)
            await spool.settle(batch, done(batch))
            await spool.detach("a")
            cancelled = await spool.replays.change(replay.number, ReplayState.CANCELLED)
            assert (cancelled.queued, spool.replays.unsettled(cancelled)) == (2, 0)

        self._run(tmp_path, scenario)

    def test_halves_of_a_cancelled_batch_are_not_retried(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await takes_all(spool, "a", 0, 1)
            replay = await order(spool, "a")
            await spool.replays.fill("a")
            batch = await spool.claim("a", 2)
            await spool.replays.change(replay.number, ReplayState.CANCELLED)
            for half in await spool.split(batch):
                await spool.settle(half, [Retry(after=0, reason="no")])
            assert (await spool.backlog("a")).replaying == 0
            assert await claims_nothing(spool, "a")

        self._run(tmp_path, scenario)

    def test_no_more_replayed_batches_are_in_hand_than_allowed(self, tmp_path: Path) -> None:
        """So that a carrier is left for what is fresh."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, replays=2)
            await takes_all(spool, "a", *range(9))
            await order(spool, "a")
            await spool.replays.fill("a")
            first = await spool.claim("a", 1)
            await spool.claim("a", 1)
            claim = asyncio.ensure_future(spool.claim("a", 1))
            await asyncio.sleep(0.01)
            assert not claim.done()
            await spool.settle(first, done(first))
            assert (await asyncio.wait_for(claim, 10)).events == (some_event(2),)

        self._run(tmp_path, scenario)

    def test_whoever_fills_wakes_up_when_there_is_something_to_do(self, tmp_path: Path) -> None:
        async def woken(spool: SpoolAdmin) -> "asyncio.Task[None]":
            waiting = asyncio.ensure_future(spool.replays.ready())
            for _ in range(5):
                await asyncio.sleep(0)
            return waiting

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await takes_all(spool, "a", 0)
            waiting = await woken(spool)
            assert not waiting.done()
            await order(spool, "a")
            await asyncio.wait_for(waiting, 10)
            await spool.replays.fill("a")
            waiting = await woken(spool)
            assert not waiting.done(), "nothing can be done before the event is settled"
            batch = await spool.claim("a", 1)
            await spool.settle(batch, done(batch))
            await asyncio.wait_for(waiting, 10)

        self._run(tmp_path, scenario)

    def test_an_ordered_sink_gets_no_replayed_event_beside_another_of_its_stream(
        self, tmp_path: Path
    ) -> None:
        """And a fresh event waits for a replayed batch in hand, but not for one that waits for its retry."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, True, replays=9)
            await takes_all(spool, "a", 0, 1)
            await takes_all(spool, "a", 2, 3, stream="hall")
            await order(spool, "a")
            await spool.replays.fill("a")
            await spool.append("source", [some_reading(10)])
            fresh = await spool.claim("a", 9)
            assert fresh.events == (some_event(10),)
            hall = await spool.claim("a", 1)
            assert hall.events == (some_event(2, stream="hall"),), "the room has an event in hand"
            assert await claims_nothing(spool, "a")
            await spool.settle(fresh, done(fresh))
            room = await spool.claim("a", 1)
            assert room.events == (some_event(0),)
            await spool.append("source", [some_reading(11)])
            assert await claims_nothing(spool, "a"), "a replayed event of the room is in hand"
            await spool.settle(room, [Retry(after=5, reason="no")])
            fresh = await spool.claim("a", 9)
            assert fresh.events == (some_event(11),)
            await spool.settle(fresh, done(fresh))
            assert await claims_nothing(spool, "a"), "the later replayed event waits for the earlier one"
            await spool.settle(hall, done(hall))
            clock.pass_time(5)
            got = await replayed(spool, "a", 9)
            assert [event for event in got if event.stream_id == "room"] == [some_event(0), some_event(1)]
            assert [e for e in got if e.stream_id == "hall"] == [some_event(3, stream="hall")]

        self._run(tmp_path, scenario)

    def test_pruning_keeps_what_a_replay_has_yet_to_queue(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await takes_all(spool, "a", *range(5))
            await order(spool, "a")
            await takes_all(spool, "a", *range(10, 3_000))
            clock.pass_time(40 * 86_400)
            while (await spool.prune()).more:
                pass
            assert await replayed(spool, "a") == [some_event(n) for n in range(5)]

        self._run(tmp_path, scenario)

    @pytest.mark.parametrize("ordered", [False, True])
    def test_a_new_sink_starts_at_its_moment_exactly_and_a_known_one_goes_on(
        self, tmp_path: Path, ordered: bool
    ) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            for n in range(9):
                await spool.append("source", [some_reading(n)])
            start = some_event(4).received_at
            for sink, moment, first in (
                ("exactly", start, 4),
                ("after", start + timedelta(seconds=1), 5),
                ("earliest", EARLIEST, 0),
            ):
                await spool.attach(sink, anything, ordered, start=moment)
                assert await all_owed(spool, sink, 2) == [some_event(n) for n in range(first, 9)]
                await spool.attach(sink, anything, ordered, start=EARLIEST)
                assert (await spool.backlog(sink)).events == 0
            await spool.attach("now", anything, ordered)
            await spool.attach("future", anything, ordered, start=START + timedelta(days=9))
            assert await claims_nothing(spool, "now")
            assert await claims_nothing(spool, "future")

        self._run(tmp_path, scenario)


class ReplayingAfterwards(SpoolWorld):
    """What a spool that outlives its process promises of replays."""

    @pytest.mark.parametrize("ordered", [False, True])
    def test_a_replay_goes_on_after_a_restart_and_stays_behind_fresh_events(
        self, tmp_path: Path, ordered: bool
    ) -> None:
        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered)
            await takes_all(spool, "a", *range(600))
            await order(spool, "a")
            await spool.replays.fill("a")
            first = await spool.claim("a", 2)
            await spool.settle(first, [Done(), Retry(after=5, reason="no")])
            await claim_now(spool, "a", 2)

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered)
            await spool.append("source", [some_reading(1_000)])
            fresh = await spool.claim("a", 9)
            assert fresh.events == (some_event(1_000),)
            await spool.settle(fresh, done(fresh))
            assert (await spool.backlog("a")).replaying == 249
            clock.pass_time(5)
            got = await replayed(spool, "a", 50)
            assert sorted(got, key=_taken) == [some_event(n) for n in range(1, 600)]
            assert not ordered or got == sorted(got, key=_taken)
            assert [one.state for one in spool.replays.all()] == [ReplayState.DONE]
            (replay,) = spool.replays.all()
            assert (replay.total, replay.queued) == (600, 600)

        self._run(tmp_path, before, after)

    def test_what_a_replay_leaves_out_a_pause_and_a_cancellation_hold_over_a_restart(
        self, tmp_path: Path
    ) -> None:
        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.attach("b", anything)
            await spool.append("source", [some_reading(*range(4))])
            for outcome in (Done(), Retry(after=0, reason="no"), Done(), Done()):
                batch = await spool.claim("a", 1)
                if batch.attempt == 1:
                    await spool.settle(batch, [outcome])
            await all_owed(spool, "b", 9)
            paused, cancelled = await order(spool, "a"), await order(spool, "b")
            await spool.replays.fill("b")
            await spool.replays.change(paused.number, ReplayState.PAUSED)
            await spool.replays.change(cancelled.number, ReplayState.CANCELLED)

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.attach("b", anything)
            paused, cancelled = spool.replays.all()
            assert (paused.state, cancelled.state) == (ReplayState.PAUSED, ReplayState.CANCELLED)
            assert await claims_nothing(spool, "b")
            assert await all_owed(spool, "a", 9)
            await spool.replays.fill("a")
            assert await claims_nothing(spool, "a")
            await spool.replays.change(paused.number, ReplayState.RUNNING)
            got = await replayed(spool, "a")
            assert len(got) == paused.total
            assert some_event(1) not in got

        self._run(tmp_path, before, after)

    def test_pruning_keeps_what_a_replay_has_yet_to_queue_after_a_restart(self, tmp_path: Path) -> None:
        """When the newest events are no longer in memory."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await takes_all(spool, "a", *range(5))
            await order(spool, "a")
            clock.pass_time(40 * 86_400)
            while (await spool.prune()).more:
                pass

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            assert await replayed(spool, "a") == [some_event(n) for n in range(5)]

        self._run(tmp_path, before, after)

    def test_nobody_knows_how_much_of_its_replay_a_sink_got_that_is_not_there(self, tmp_path: Path) -> None:
        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await takes_all(spool, "a", 0, 1)
            replay = await order(spool, "a")
            assert spool.replays.unsettled(replay) == 0
            await spool.replays.fill("a")

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            (replay,) = spool.replays.all()
            assert (replay.queued, spool.replays.unsettled(replay)) == (2, None)
            await spool.attach("a", anything)
            assert spool.replays.unsettled(replay) == 2

        self._run(tmp_path, before, after)

    def test_a_batch_in_hand_of_a_cancelled_replay_does_not_come_again(self, tmp_path: Path) -> None:
        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await takes_all(spool, "a", 0, 1)
            replay = await order(spool, "a")
            await spool.replays.fill("a")
            await spool.settle(await spool.claim("a", 1), [Retry(after=5, reason="no")])
            await spool.claim("a", 1)
            await spool.replays.change(replay.number, ReplayState.CANCELLED)

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            clock.pass_time(5)
            assert await claims_nothing(spool, "a")

        self._run(tmp_path, before, after)

    def test_a_sink_that_started_in_the_past_goes_on_from_its_position(self, tmp_path: Path) -> None:
        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.append("source", [some_reading(*range(6))])
            await spool.attach("a", anything, True, start=EARLIEST)
            batch = await spool.claim("a", 2)
            await spool.settle(batch, done(batch))

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, True, start=EARLIEST)
            assert await all_owed(spool, "a", 9) == [some_event(n) for n in range(2, 6)]

        self._run(tmp_path, before, after)


def _taken(event: Event) -> datetime:
    return event.occurred_at
