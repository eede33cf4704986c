"""What every spool promises of ordered sinks."""

import asyncio
from pathlib import Path

import pytest

from poller.core.model import Dead, Done, Retry, batch_id
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


class Ordered(SpoolWorld):
    """What every spool promises of ordered sinks."""

    def test_an_ordered_sink_gets_each_stream_in_order_and_streams_in_parallel(self, tmp_path: Path) -> None:
        """What is in hand or waits for its retry holds its own stream, and no other; a dead letter lets it go."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            for readings in (some_reading(1, 2, 3), some_reading(4, 5, stream="hall"), some_reading(6)):
                await spool.append("source", [readings])
            room, hall = await spool.claim("a", 1), await spool.claim("a", 1)
            assert (room.events, hall.events) == ((some_event(1),), (some_event(4, stream="hall"),))
            assert await claims_nothing(spool, "a")
            await spool.settle(room, [Retry(after=5, reason="no")])
            await spool.settle(hall, [Done()])
            hall = await spool.claim("a", 1)
            assert hall.events == (some_event(5, stream="hall"),)
            assert await claims_nothing(spool, "a")
            assert (await spool.backlog("a")).events == 5
            clock.pass_time(5)
            room = await spool.claim("a", 9)
            assert (room.events, room.attempt) == ((some_event(1),), 2)
            await spool.settle(room, [Dead(reason="bad")])
            room = await spool.claim("a", 2)
            assert (room.events, room.attempt) == ((some_event(2), some_event(3)), 1)
            assert room.id == batch_id([some_event(2).id, some_event(3).id])
            assert room.first_attempt_at is None
            claim = asyncio.ensure_future(spool.claim("a", 9))
            await asyncio.sleep(0.01)
            await spool.settle(room, done(room))
            assert (await claim).events == (some_event(6),)

        self._run(tmp_path, scenario)

    def test_an_ordered_sink_gets_again_what_was_settled_behind_a_retry(self, tmp_path: Path) -> None:
        """Done or dead, of the same stream and batch: what is settled of a stream is all before some event of it."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append(
                "source", [some_reading(1, 2), some_reading(3, stream="hall"), some_reading(4, 5)]
            )
            batch = await spool.claim("a", 9)
            retry = Retry(after=0, reason="no")
            await spool.settle(batch, [Done(), retry, Done(), Dead(reason="bad"), Done()])
            assert (await spool.claim("a", 9)).events == (some_event(2), some_event(4), some_event(5))
            assert (await spool.backlog("a")).events == 3
            assert await spool.dead(9) == []

        self._run(tmp_path, scenario)

    def test_streams_of_an_ordered_sinks_batch_wait_each_for_its_own_retry(self, tmp_path: Path) -> None:
        """A stream's events stay together and in order, and wait as long as its first one."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            for readings in (some_reading(1, 2, 3), some_reading(4, 5, stream="hall"), some_reading(6)):
                await spool.append("source", [readings])
            soon, later = Retry(after=1, reason="no"), Retry(after=3600, reason="busy", counted=False)
            batch = await spool.claim("a", 9)
            await spool.settle(batch, [Done(), soon, later, later, Done(), Done()])
            assert await claims_nothing(spool, "a")
            clock.pass_time(1)
            room = await spool.claim("a", 9)
            assert (room.events, room.attempt) == ((some_event(2), some_event(3), some_event(6)), 2)
            assert await claims_nothing(spool, "a")
            await spool.settle(room, done(room))
            clock.pass_time(3599)
            hall = await spool.claim("a", 9)
            assert hall.events == (some_event(4, stream="hall"), some_event(5, stream="hall"))
            assert hall.attempt == 1

        self._run(tmp_path, scenario)

    def test_halves_of_an_ordered_sinks_batch_go_out_one_after_the_other(self, tmp_path: Path) -> None:
        """Where they share a stream, whichever is settled first, and the stream's next event after both."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(*range(1, 5))])
            halves = await spool.split(await spool.claim("a", 4))
            await spool.append("source", [some_reading(5)])
            for half in reversed(halves):
                await spool.settle(half, [Retry(after=0, reason="no")] * 2)
            for expected in (halves[0].events, halves[1].events, (some_event(5),)):
                batch = await spool.claim("a", 9)
                assert batch.events == expected
                assert await claims_nothing(spool, "a")
                await spool.settle(batch, done(batch))
            assert (await spool.backlog("a")).events == 0

        self._run(tmp_path, scenario)

    def test_streams_that_are_let_go_go_out_side_by_side_within_the_limit(self, tmp_path: Path) -> None:
        """None is held by a batch that has nothing of it, and fresh events only fill up."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2, 3), some_reading(*range(4, 9), stream="hall")])
            for number in (1, 2):
                room, hall = [await spool.claim("a", 1) for _ in range(2)]
                assert room.events == (some_event(number),)
                assert hall.events == (some_event(number + 3, stream="hall"),)
                assert await claims_nothing(spool, "a")
                for batch in (room, hall):
                    await spool.settle(batch, done(batch))
            await spool.append("source", [some_reading(*range(9, 12), stream="yard")])
            batch = await spool.claim("a", 3)
            assert batch.events == (some_event(3), *(some_event(n, stream="hall") for n in (6, 7)))
            await spool.settle(batch, done(batch))
            assert (await spool.claim("a", 2)).events == (
                some_event(8, stream="hall"),
                some_event(9, stream="yard"),
            )

        self._run(tmp_path, scenario)

    def test_a_batch_holds_few_streams_and_leaves_the_others_to_the_next(self, tmp_path: Path) -> None:
        """Where more waits than it takes; the log has a little of each stream in turn."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            rooms = [f"room{number}" for number in range(10)]
            for start in range(0, 40, 10):
                for number, room in enumerate(rooms, start):
                    await spool.append("source", [some_reading(number, stream=room)])
            batches = [await spool.claim("a", 8) for _ in range(5)]
            assert [{event.stream_id for event in batch.events} for batch in batches] == [
                set(rooms[start : start + 2]) for start in range(0, 10, 2)
            ]
            assert await claims_nothing(spool, "a")

        self._run(tmp_path, scenario)

    @pytest.mark.parametrize("detached", [False, True])
    def test_an_ordered_sink_that_is_attached_anew_gets_nothing_twice(
        self, tmp_path: Path, detached: bool
    ) -> None:
        """What waited for its turn comes; what other streams got behind it does not come again."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2), some_reading(3, stream="hall")])
            first, hall = await spool.claim("a", 1), await spool.claim("a", 9)
            assert hall.events == (some_event(3, stream="hall"),)
            for batch in (hall, first):
                await spool.settle(batch, done(batch))
            if detached:
                await spool.detach("a")
            await spool.attach("a", anything, ordered=True)
            assert (await spool.backlog("a")).events == 1
            assert (await spool.claim("a", 9)).events == (some_event(2),)

        self._run(tmp_path, scenario)

    def test_a_stream_that_is_stuck_lets_thousands_of_others_pass(self, tmp_path: Path) -> None:
        """And goes on where it was."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2, stream="hall")])
            stuck = await spool.claim("a", 1)
            for start in range(0, 3000, 300):
                await spool.append("source", [some_reading(*range(start, start + 300))])
                batch = await spool.claim("a", 300)
                assert len(batch.events) == 300
                await spool.settle(batch, done(batch))
            assert (await spool.backlog("a")).events == 2
            await spool.settle(stuck, done(stuck))
            assert (await spool.claim("a", 9)).events == (some_event(2, stream="hall"),)

        self._run(tmp_path, scenario)

    def test_an_ordered_sink_passes_what_it_does_not_want(self, tmp_path: Path) -> None:
        """And loses nothing that comes after it."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", lambda event: event.stream_id != "hall", ordered=True)
            for number in range(1, 7):
                await spool.append(
                    "source", [some_reading(number, stream=("room", "hall", "yard")[number % 3])]
                )
            batch = await spool.claim("a", 9)
            assert [event.stream_id for event in batch.events] == ["yard", "room", "yard", "room"]
            await spool.settle(batch, done(batch))
            assert (await spool.backlog("a")).events == 0

        self._run(tmp_path, scenario)

    def test_events_of_no_stream_have_no_order(self, tmp_path: Path) -> None:
        """They hold each other back as little as two streams do."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2, stream="")])
            await spool.settle(await spool.claim("a", 1), [Retry(after=5, reason="no")])
            assert (await spool.claim("a", 9)).events == (some_event(2, stream=""),)

        self._run(tmp_path, scenario)

    def test_what_waits_for_its_stream_is_bounded(self, tmp_path: Path) -> None:
        """Behind 10,000 events nothing fresh is taken until the stream is let go; then all come, in order."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(0)])
            first = await spool.claim("a", 100)
            for start in range(1, 12_001, 1000):
                await spool.append("source", [some_reading(*range(start, start + 1000))])
            assert await claims_nothing(spool, "a")
            await spool.append("source", [some_reading(1, stream="hall")])
            assert await claims_nothing(spool, "a")
            assert (await spool.backlog("a")).events == 12_002
            await spool.settle(first, [Done()])
            got = await all_owed(spool, "a", 100)
            assert [e.id for e in got if e.stream_id == "room"] == [
                some_event(n).id for n in range(1, 12_001)
            ]
            assert len(got) == 12_001

        self._run(tmp_path, scenario)

    def test_a_letter_that_is_retried_waits_for_what_is_in_hand_of_its_stream(self, tmp_path: Path) -> None:
        """Never are two batches of a stream in hand."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2, 3)])
            await spool.settle(await spool.claim("a", 1), [Dead(reason="bad")])
            held = await spool.claim("a", 1)
            assert await spool.retry_dead("a", [letter.number for letter in await spool.dead(9)], 1) == 1
            assert await claims_nothing(spool, "a")
            await spool.settle(held, done(held))
            for number in (1, 3):
                batch = await spool.claim("a", 9)
                assert batch.events == (some_event(number),)
                await spool.settle(batch, done(batch))

        self._run(tmp_path, scenario)
