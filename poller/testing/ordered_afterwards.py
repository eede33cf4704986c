"""What durable engines promise of ordered sinks besides: opened again, the order holds."""

from pathlib import Path

import pytest

from poller.core.model import Dead, Done, Outcome, Retry
from poller.core.spool import SpoolAdmin, anything
from poller.testing.factories import (
    ManualClock,
    all_owed,
    claims_nothing,
    done,
    some_event,
    some_reading,
)
from poller.testing.spool import SpoolWorld


class OrderedAfterwards(SpoolWorld):
    """What durable engines promise of them besides."""

    def test_a_reopened_spool_keeps_an_ordered_sinks_order(self, tmp_path: Path) -> None:
        """What waits behind a retry waits on disk; an orderly stop gives nobody anything twice."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2, 3), some_reading(4, stream="hall")])
            await spool.settle(await spool.claim("a", 1), [Retry(after=10, reason="no")])
            hall = await spool.claim("a", 9)
            assert hall.events == (some_event(4, stream="hall"),)
            await spool.settle(hall, done(hall))

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            assert (await spool.backlog("a")).events == 3
            await spool.append("source", [some_reading(5), some_reading(6, stream="hall")])
            assert (await spool.claim("a", 9)).events == (some_event(6, stream="hall"),)
            clock.pass_time(10)
            for expected in ((some_event(1),), tuple(some_event(n) for n in (2, 3, 5))):
                batch = await spool.claim("a", 9)
                assert batch.events == expected
                await spool.settle(batch, done(batch))

        async def at_last(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            assert (await spool.claim("a", 9)).events == (some_event(6, stream="hall"),)
            assert (await spool.backlog("a")).events == 1

        self._run(tmp_path, before, after, at_last)

    def test_an_ordered_sinks_waits_that_were_asked_for_hold_over_a_restart(self, tmp_path: Path) -> None:
        """Though nothing counts as an attempt, they wait for their time, and their streams behind them."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2), some_reading(3, stream="hall")])
            asked, failed = Retry(after=60, reason="busy", counted=False), Retry(after=5, reason="no")
            await spool.settle(await spool.claim("a", 1), [asked])
            await spool.settle(await spool.claim("a", 1), [failed])

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            assert await claims_nothing(spool, "a")
            clock.pass_time(5)
            assert (await spool.claim("a", 9)).events == (some_event(3, stream="hall"),)
            assert await claims_nothing(spool, "a")
            clock.pass_time(55)
            for number in (1, 2):
                room = await spool.claim("a", 9)
                assert (room.events, room.attempt) == ((some_event(number),), 1)
                await spool.settle(room, done(room))

        self._run(tmp_path, before, after)

    def test_an_orderly_stop_writes_what_waited_for_its_turn(self, tmp_path: Path) -> None:
        """So that what other streams got behind it does not come again."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2), some_reading(3, stream="hall")])
            first = await spool.claim("a", 1)
            hall = await spool.claim("a", 9)
            assert hall.events == (some_event(3, stream="hall"),)
            await spool.settle(hall, done(hall))
            await spool.settle(first, done(first))

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            assert (await spool.backlog("a")).events == 1
            assert (await spool.claim("a", 9)).events == (some_event(2),)

        self._run(tmp_path, before, after)

    def test_halves_of_an_ordered_sinks_batch_stay_in_order_over_a_restart(self, tmp_path: Path) -> None:
        """Also a half of a half; what was settled of them does not come again."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(*range(1, 6))])
            first, _ = await spool.split(await spool.claim("a", 4))
            first, _ = await spool.split(first)
            await spool.settle(first, done(first))

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            for expected in ((some_event(2),), (some_event(3), some_event(4)), (some_event(5),)):
                batch = await spool.claim("a", 9)
                assert batch.events == expected
                await spool.settle(batch, done(batch))

        self._run(tmp_path, before, after)

    def test_what_a_stop_found_in_hand_of_an_ordered_sink_comes_again(self, tmp_path: Path) -> None:
        """Before the later events of its stream, which waited for it."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2)])
            await spool.claim("a", 1)
            assert await claims_nothing(spool, "a")

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            assert (await spool.claim("a", 9)).events == (some_event(1), some_event(2))

        self._run(tmp_path, before, after)

    @pytest.mark.parametrize("first", [Done(), Dead(reason="bad")])
    def test_what_an_ordered_sink_got_never_comes_again_behind_a_later_event(
        self, tmp_path: Path, first: Outcome
    ) -> None:
        """Although a batch in hand at the stop keeps the place in the log back; nor where a dead letter is retried."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, stream="hall"), some_reading(2, 3, 4, 5)])
            await spool.claim("a", 1)
            for outcome in (first, Done(), Retry(after=0, reason="no")):
                await spool.settle(await spool.claim("a", 1), [outcome])
            await spool.retry_dead("a", [letter.number for letter in await spool.dead(9)], 1)

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            got = await all_owed(spool, "a", 1)
            again = (2, 4, 5) if isinstance(first, Dead) else (4, 5)
            room = [event for event in got if event.stream_id == "room"]
            assert room == [some_event(number) for number in again]
            assert some_event(1, stream="hall") in got

        self._run(tmp_path, before, after)

    def test_what_waits_on_disk_and_lies_ahead_in_the_log_as_well_comes_once(self, tmp_path: Path) -> None:
        """Where a batch in hand at the stop keeps the place in the log back."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, stream="hall"), some_reading(2, 3)])
            await spool.claim("a", 1)
            await spool.settle(await spool.claim("a", 1), [Retry(after=5, reason="no")])
            assert await claims_nothing(spool, "a")

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            assert (await spool.backlog("a")).events == 3
            clock.pass_time(5)
            got = await all_owed(spool, "a", 1)
            assert got == [some_event(2), some_event(3), some_event(1, stream="hall")]
            assert await claims_nothing(spool, "a")

        self._run(tmp_path, before, after)

    def test_dead_letters_that_are_retried_keep_their_order_over_a_restart(self, tmp_path: Path) -> None:
        """Before what waits for its turn behind them."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2, 3)])
            await spool.settle(await spool.claim("a", 2), [Dead(reason="bad")] * 2)
            assert await spool.retry_dead("a", [letter.number for letter in await spool.dead(9)], 1) == 2
            assert (await spool.claim("a", 9)).events == (some_event(1),)

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            for number in (1, 2, 3):
                batch = await spool.claim("a", 9)
                assert batch.events == (some_event(number),)
                assert await claims_nothing(spool, "a")
                await spool.settle(batch, done(batch))

        self._run(tmp_path, before, after)

    def test_a_letter_that_waits_lets_nothing_in_hand_pass_for_settled(self, tmp_path: Path) -> None:
        """What waits behind both is written only where the batch in hand is written as well."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2, 3)])
            await spool.settle(await spool.claim("a", 1), [Dead(reason="bad")])
            assert (await spool.claim("a", 1)).events == (some_event(2),)
            assert await claims_nothing(spool, "a")
            assert await spool.retry_dead("a", [letter.number for letter in await spool.dead(9)], 1) == 1

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            assert await all_owed(spool, "a", 1) == [some_event(number) for number in (1, 2, 3)]

        self._run(tmp_path, before, after)

    def test_a_letter_that_is_retried_after_a_crash_comes_once_and_stops_nothing(
        self, tmp_path: Path
    ) -> None:
        """Although the log still holds its event; later ones of its stream go on behind it."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, stream="hall"), some_reading(2)])
            await spool.claim("a", 1)
            await spool.settle(await spool.claim("a", 1), [Dead(reason="bad")])

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            hall = await spool.claim("a", 1)
            assert await claims_nothing(spool, "a")
            assert await spool.retry_dead("a", [letter.number for letter in await spool.dead(9)], 1) == 1
            room = await spool.claim("a", 1)
            assert room.events == (some_event(2),)
            await spool.append("source", [some_reading(3)])
            await spool.settle(hall, done(hall))
            assert await claims_nothing(spool, "a")
            await spool.settle(room, done(room))
            room = await spool.claim("a", 1)
            assert room.events == (some_event(3),)
            await spool.settle(room, done(room))
            assert (await spool.backlog("a")).events == 0

        self._run(tmp_path, before, after)

    def test_what_a_sink_that_became_ordered_got_never_comes_again_behind_a_later_event(
        self, tmp_path: Path
    ) -> None:
        """From the first event on that it got in order."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, stream="hall")])
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(2, 3, 4)])
            await spool.claim("a", 1)
            for outcome in (Done(), Retry(after=0, reason="no")):
                await spool.settle(await spool.claim("a", 1), [outcome])

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            got = await all_owed(spool, "a", 1)
            assert [event for event in got if event.stream_id == "room"] == [some_event(3), some_event(4)]
            assert [event for event in got if event.stream_id == "hall"] == [some_event(1, stream="hall")]

        self._run(tmp_path, before, after)

    def test_a_sink_that_becomes_ordered_loses_nothing(self, tmp_path: Path) -> None:
        """What was in hand comes again, also where a later event of its stream waits for a retry."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2, 3)])
            await spool.claim("a", 1)
            await spool.settle(await spool.claim("a", 1), [Retry(after=0, reason="no")])

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            got = await all_owed(spool, "a", 1)
            assert sorted(event.id for event in got) == sorted(some_event(n).id for n in (1, 2, 3))

        self._run(tmp_path, before, after)
