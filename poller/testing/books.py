"""What every spool must record about deliveries, and count."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from poller.core.history import Book, Delivery, SinkProgress, Stage
from poller.core.model import Attempt, Dead, Done, Event, Outcome, Retry
from poller.core.selection import ALL_EVENTS
from poller.core.spool import SpoolAdmin, anything
from poller.testing.factories import (
    START,
    ManualClock,
    claim_now,
    done,
    some_event,
    some_reading,
)
from poller.testing.spool import SpoolWorld


async def delivered(spool: SpoolAdmin) -> dict[int, list[Delivery]]:
    """The deliveries of every event in the log, by number."""
    step = await spool.scan(ALL_EVENTS, None, 10_000)
    return {number: await spool.deliveries(number, event.id) for number, event in step.found}


async def progress_of(spool: SpoolAdmin, number: int, event: Event) -> dict[str, SinkProgress]:
    """How an event stands, by sink."""
    return {one.sink: one for one in await spool.progress(number, event.id, event)}


async def settle_next(spool: SpoolAdmin, sink: str, outcomes: Sequence[Outcome]) -> None:
    """Claim an event for each outcome, and settle them."""
    await spool.settle(await spool.claim(sink, len(outcomes)), outcomes)


async def counts(spool: SpoolAdmin) -> dict[tuple[str, Book], int]:
    """The counts."""
    return {(tally.owner, tally.book): tally.count for tally in await spool.tallies()}


class Books(SpoolWorld):
    """The promises of `SpoolHistory` about deliveries and counts."""

    def test_every_delivery_is_recorded_with_its_time_attempt_and_failures(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("shots", [some_reading(*range(6))])
            await settle_next(spool, "a", [Done(), Done(), Retry(after=5, reason="HTTP 503"), Done()])
            failed = Attempt(at=clock.now(), reason="HTTP 503")
            assert list(map(len, (await delivered(spool)).values())) == [1, 1, 0, 1, 0, 0]
            clock.pass_time(5)
            batch = await spool.claim("a", 9)
            clock.pass_time(2)
            await spool.settle(batch, done(batch))
            found = await delivered(spool)
            first = Delivery(sink="a", at=START, attempt=1, took=0.0, history=())
            assert [found[n] for n in (1, 2, 4)] == [[first]] * 3
            assert found[3] == [Delivery(sink="a", at=clock.now(), attempt=2, took=2.0, history=(failed,))]
            assert found[5] == found[6] == []

        self._run(tmp_path, scenario)

    def test_each_sink_has_its_own_deliveries(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.attach("b", anything)
            await spool.append("shots", [some_reading(*range(60))])
            outcomes: list[Outcome] = [Done(), Dead(reason="no")]
            for size in (1, 2, 3, 5, 8, 13):
                await settle_next(spool, "a", outcomes[: size % 2 + 1] * size)
            await settle_next(spool, "b", [Done()] * 7)
            found = await delivered(spool)
            letters = {letter.event.id for letter in await spool.dead(99)}
            settled = 60 - (await spool.backlog("a")).events
            expected = [n + 1 for n in range(60) if n < settled and some_event(n).id not in letters]
            assert [n for n, some in found.items() if "a" in {one.sink for one in some}] == expected
            assert [n for n, some in found.items() if "b" in {one.sink for one in some}] == [*range(1, 8)]
            assert all(len(some) <= 2 for some in found.values())

        self._run(tmp_path, scenario)

    def test_a_delivery_is_found_however_far_apart_the_settled_events_lie(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            wanted = {some_event(n).id for n in (*range(0, 300, 3), 2_000, 2_001, 19_999)}
            await spool.attach("a", lambda event: event.id in wanted)
            for start in range(0, 20_000, 1_000):
                await spool.append("shots", [some_reading(*range(start, start + 1_000))])
            batch = await spool.claim("a", 1_000)
            while len(batch.events) < len(wanted):
                await spool.settle(batch, done(batch))
                wanted -= {event.id for event in batch.events}
                batch = await spool.claim("a", 1_000)
            await spool.settle(batch, done(batch))
            for n in (0, 1, 3, 297, 299, 300, 1_999, 2_000, 2_001, 2_002, 19_998, 19_999):
                found = await spool.deliveries(n + 1, some_event(n).id)
                assert len(found) == (n in (0, 3, 297, 2_000, 2_001, 19_999)), n

        self._run(tmp_path, scenario)

    def test_the_delivery_of_a_retried_dead_letter_is_recorded(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("shots", [some_reading(1, 2)])
            await settle_next(spool, "a", [Dead(reason="HTTP 422"), Done()])
            (letter,) = await spool.dead(9)
            assert await spool.deliveries(1, some_event(1).id) == []
            await spool.retry_dead("a", [letter.number], 10)
            clock.pass_time(1)
            await settle_next(spool, "a", [Done()])
            (found,) = await spool.deliveries(1, some_event(1).id)
            assert (found.sink, found.at, found.attempt) == ("a", clock.now(), 1)
            assert [one.reason for one in found.history] == ["HTTP 422"]
            assert await spool.deliveries(0, some_event(1).id) == [found]
            assert len(await spool.deliveries(2, some_event(2).id)) == 1

        self._run(tmp_path, scenario)

    @pytest.mark.parametrize("ordered", [False, True])
    def test_an_event_stands_where_its_sink_has_it(self, tmp_path: Path, ordered: bool) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", lambda event: event != some_event(9), ordered)
            await spool.attach("b", anything)
            await spool.append("shots", [some_reading(n, stream=f"room{n}") for n in range(5)])
            await spool.append("shots", [some_reading(9)])
            events = [*(some_event(n, stream=f"room{n}") for n in range(5)), some_event(9)]
            retry = Retry(after=60, reason="HTTP 503")
            await settle_next(spool, "a", [Done(), retry, Dead(reason="HTTP 422")])
            in_hand = await spool.claim("a", 1)
            found = [(await progress_of(spool, n, event))["a"] for n, event in enumerate(events, 1)]
            assert [one.stage for one in found] == [
                Stage.SETTLED,
                Stage.RETRYING,
                Stage.DEAD,
                Stage.IN_HAND,
                Stage.PENDING,
                Stage.UNWANTED,
            ]
            assert found[1].due is not None
            assert (found[1].due - clock.now()).total_seconds() == 60
            assert [one.reason for one in found[1].history] == ["HTTP 503"]
            assert [(one.attempts, one.reason) for one in found[1:3]] == [(1, "HTTP 503"), (1, "HTTP 422")]
            assert {(await progress_of(spool, n, e))["b"].stage for n, e in enumerate(events, 1)} == {
                Stage.PENDING
            }
            await spool.settle(in_hand, done(in_hand))
            assert (await progress_of(spool, 4, events[3]))["a"].stage is Stage.SETTLED

        self._run(tmp_path, scenario)

    def test_an_event_stands_for_a_sink_that_is_not_attached_any_more(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("shots", [some_reading(*range(4))])
            await settle_next(spool, "a", [Done(), Retry(after=60, reason="no"), Dead(reason="bad")])
            await spool.detach("a")
            found = [(await progress_of(spool, n + 1, some_event(n)))["a"].stage for n in range(4)]
            assert found == [Stage.SETTLED, Stage.RETRYING, Stage.DEAD, Stage.PENDING]

        self._run(tmp_path, scenario)

    def test_an_event_that_waits_for_its_stream_is_pending(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, True)
            await spool.append("shots", [some_reading(1, 2)])
            await settle_next(spool, "a", [Retry(after=60, reason="no")])
            assert await claim_now(spool, "a", 9) is None
            assert (await progress_of(spool, 2, some_event(2)))["a"].stage is Stage.PENDING
            assert (await progress_of(spool, 1, some_event(1)))["a"].stage is Stage.RETRYING

        self._run(tmp_path, scenario)

    def test_what_is_taken_delivered_dead_and_possibly_lost_is_counted(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            assert await spool.tallies() == []
            await spool.attach("a", anything)
            await spool.append("shots", [some_reading(*range(6))])
            await spool.append("more", [some_reading(5, 6, 7)])
            await settle_next(spool, "a", [Done(), Done(), Dead(reason="bad"), Retry(after=9, reason="no")])
            clock.pass_time(7)
            spool.count_loss("source shots", 1)
            spool.count_loss("journal", 3)
            assert await counts(spool) == {
                ("a", Book.DEAD): 1,
                ("a", Book.DELIVERED): 2,
                ("journal", Book.POSSIBLY_LOST): 3,
                ("more", Book.TAKEN): 2,
                ("shots", Book.TAKEN): 6,
                ("source shots", Book.POSSIBLY_LOST): 1,
            }
            at = {tally.owner: tally.at for tally in await spool.tallies()}
            assert (at["shots"], at["journal"]) == (START, clock.now())

        self._run(tmp_path, scenario)

    def test_the_ids_of_taken_events_are_remembered(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.append("shots", [some_reading(1)])
            assert await spool.remembers(some_event(1).id)
            assert not await spool.remembers(some_event(2).id)

        self._run(tmp_path, scenario)


class BooksAfterwards(SpoolWorld):
    """Deliveries and counts survive a restart."""

    def test_deliveries_and_counts_are_there_after_a_restart(self, tmp_path: Path) -> None:
        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("shots", [some_reading(*range(4))])
            await settle_next(spool, "a", [Done(), Dead(reason="bad"), Retry(after=9, reason="no")])
            spool.count_loss("spool", 2)

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            assert await counts(spool) == {
                ("a", Book.DEAD): 1,
                ("a", Book.DELIVERED): 1,
                ("shots", Book.TAKEN): 4,
                ("spool", Book.POSSIBLY_LOST): 2,
            }
            assert list(map(len, (await delivered(spool)).values())) == [1, 0, 0, 0]
            stages = [(await progress_of(spool, n + 1, some_event(n)))["a"].stage for n in range(4)]
            assert stages == [Stage.SETTLED, Stage.DEAD, Stage.RETRYING, Stage.PENDING]

        self._run(tmp_path, before, after)

    def test_deliveries_are_pruned_with_their_events(self, tmp_path: Path) -> None:
        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("shots", [some_reading(1, 2)])
            await settle_next(spool, "a", [Done(), Dead(reason="bad")])
            (letter,) = await spool.dead(9)
            await spool.retry_dead("a", [letter.number], 10)
            await settle_next(spool, "a", [Done()])
            clock.pass_time(20 * 86400)
            await spool.append("shots", [some_reading(3)])
            await settle_next(spool, "a", [Done()])

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            assert [bool(await spool.deliveries(n, some_event(n).id)) for n in (1, 2, 3)] == [True] * 3
            while (await spool.prune()).more:
                pass
            assert [bool(await spool.deliveries(n, some_event(n).id)) for n in (1, 2)] == [False] * 2
            assert await spool.remembers(some_event(1).id)
            assert await counts(spool) == {
                ("a", Book.DEAD): 1,
                ("a", Book.DELIVERED): 3,
                ("shots", Book.TAKEN): 3,
            }

        self._run(tmp_path, before, after)
