"""What durable engines promise: opened again, nothing is forgotten."""

from pathlib import Path

import pytest

from poller.core.catalogue import Stream
from poller.core.errors import StorageLocked
from poller.core.model import Dead, Done, Filter, Retry
from poller.core.spool import Shared, SpoolAdmin, anything
from poller.testing.factories import (
    FOUR,
    START,
    ManualClock,
    claims_nothing,
    done,
    elsewhere,
    some_event,
    some_reading,
    some_reject,
    two_sinks_with_dead_letters,
)
from poller.testing.spool import SpoolWorld


class Afterwards(SpoolWorld):
    """Opened again, nothing is forgotten."""

    def test_in_a_reopened_spool_what_was_not_settled_is_pending(self, tmp_path: Path) -> None:
        """Positions, retries, dead letters and ids survive; what was only claimed is owed again."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(*range(8), memory=b"m")])
            for outcome in (Done(), Retry(after=10, reason="no"), Dead(reason="bad")):
                batch = await spool.claim("a", 2)
                await spool.settle(batch, [outcome] * 2)
            await spool.claim("a", 1)

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            assert await spool.memory("source") == {"": b"m"}
            assert (await spool.backlog("a")).events == 4
            assert (await spool.claim("a", 10)).events == (some_event(6), some_event(7))
            clock.pass_time(10)
            assert (await spool.claim("a", 10)).events == (some_event(2), some_event(3))
            assert [letter.event for letter in await spool.dead(9)] == [some_event(5), some_event(4)]
            assert (await spool.append("source", [some_reading(*range(8))])).total() == 0

        self._run(tmp_path, before, after)

    def test_a_reopened_spool_knows_its_streams(self, tmp_path: Path) -> None:
        """The catalogue survives."""
        known: list[Stream] = []

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.append("source", [some_reading(1, 2), some_reading(5, stream="hall")])
            clock.pass_time(60)
            await spool.append("source", [some_reading(3)])
            known.extend(spool.streams())

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            assert sorted(spool.streams(), key=str) == sorted(known, key=str)
            assert len(known) == 2

        self._run(tmp_path, before, after)

    def test_each_wait_of_a_batch_is_kept_over_a_restart(self, tmp_path: Path) -> None:
        """With its attempts, and the moment of the first one."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2, 3, 4, 5)])
            asked, failed = Retry(after=60, reason="busy", counted=False), Retry(after=5, reason="no")
            batch = await spool.claim("a", 5)
            await spool.settle(batch, [asked, failed, Done(), Dead(reason="bad"), failed])

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            assert [letter.event for letter in await spool.dead(9)] == [some_event(4)]
            assert await claims_nothing(spool, "a")
            clock.pass_time(5)
            failed = await spool.claim("a", 9)
            assert (failed.events, failed.attempt) == ((some_event(2), some_event(5)), 2)
            assert await claims_nothing(spool, "a")
            clock.pass_time(55)
            asked = await spool.claim("a", 9)
            assert (asked.events, asked.attempt) == ((some_event(1),), 1)
            assert asked.first_attempt_at == failed.first_attempt_at == START
            assert (await spool.backlog("a")).events == 3

        self._run(tmp_path, before, after)

    def test_a_retry_behind_a_batch_in_hand_is_pending_once_after_a_restart(self, tmp_path: Path) -> None:
        """The place in the log and the waiting batch are one debt."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2)])
            await spool.claim("a", 1)
            await spool.settle(await spool.claim("a", 1), [Retry(after=5, reason="no")])

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            assert (await spool.backlog("a")).events == 2
            assert (await spool.claim("a", 10)).events == (some_event(1),)
            clock.pass_time(5)
            assert (await spool.claim("a", 10)).events == (some_event(2),)
            assert (await spool.backlog("a")).events == 2

        self._run(tmp_path, before, after)

    def test_half_of_a_split_retry_is_pending_after_a_restart(self, tmp_path: Path) -> None:
        """Settling one half must not take the other one off the disk."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2)])
            await spool.settle(await spool.claim("a", 2), [Retry(after=0, reason="no")] * 2)
            first, _ = await spool.split(await spool.claim("a", 2))
            assert await spool.dead(9) == []  # so that the split alone is written
            await spool.settle(first, done(first))

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            again = await spool.claim("a", 10)
            assert (again.events, again.attempt) == ((some_event(2),), 2)

        self._run(tmp_path, before, after)

    def test_half_of_a_split_batch_is_pending_after_a_restart(self, tmp_path: Path) -> None:
        """Settling one half must not take the place in the log past the other one; settling both must."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.attach("b", anything)
            await spool.append("source", [some_reading(1, 2)])
            first, _ = await spool.split(await spool.claim("a", 2))
            await spool.settle(first, done(first))
            for half in await spool.split(await spool.claim("b", 2)):
                await spool.settle(half, done(half))

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.attach("b", anything)
            assert some_event(2) in (await spool.claim("a", 10)).events
            assert (await spool.backlog("b")).events == 0

        self._run(tmp_path, before, after)

    def test_half_of_a_split_batch_that_waits_for_its_retry_is_pending_once_after_a_restart(
        self, tmp_path: Path
    ) -> None:
        """Although the other half keeps the place in the log before both."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2)])
            first, _ = await spool.split(await spool.claim("a", 2))
            assert await spool.dead(9) == []  # so that the split alone is written
            await spool.settle(first, [Retry(after=5, reason="no")])

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            assert (await spool.backlog("a")).events == 2
            assert (await spool.claim("a", 10)).events == (some_event(2),)
            clock.pass_time(5)
            assert (await spool.claim("a", 10)).events == (some_event(1),)
            assert await claims_nothing(spool, "a")

        self._run(tmp_path, before, after)

    def test_a_retried_dead_letter_takes_no_other_events_place(self, tmp_path: Path) -> None:
        """Also where the first event of all is still in hand at the stop."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2)])
            await spool.claim("a", 1)
            await spool.settle(await spool.claim("a", 1), [Dead(reason="bad")])
            (letter,) = await spool.dead(9)
            assert await spool.retry_dead("a", [letter.number], 10) == 1

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            got: set[str] = set()
            while (await spool.backlog("a")).events:
                batch = await spool.claim("a", 9)
                got |= {event.id for event in batch.events}
                await spool.settle(batch, done(batch))
            assert got == {some_event(1).id, some_event(2).id}

        self._run(tmp_path, before, after)

    @pytest.mark.parametrize("ordered", [False, True])
    @pytest.mark.parametrize("when", ["before the end", "after the end", "delivered before", "purged before"])
    def test_an_event_is_not_acknowledged_from_the_log_and_as_a_retried_dead_letter(
        self, tmp_path: Path, when: str, ordered: bool
    ) -> None:
        """Although a batch in hand kept the place in the log before it."""
        got: list[str] = []

        async def retry(spool: SpoolAdmin) -> None:
            (letter,) = await spool.dead(9)
            assert await spool.retry_dead("a", [letter.number], 10) == 1

        async def deliver(spool: SpoolAdmin) -> None:
            batch = await spool.claim("a", 9)
            got.extend(event.id for event in batch.events)
            await spool.settle(batch, done(batch))

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered)
            await spool.append("source", [some_reading(1), some_reading(2, stream="hall")])
            await spool.claim("a", 1)
            await spool.settle(await spool.claim("a", 1), [Dead(reason="bad")])
            if when == "purged before":
                await spool.purge_dead([letter.number for letter in await spool.dead(9)])
            elif when != "after the end":
                await retry(spool)
            if when == "delivered before":
                await deliver(spool)

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered)
            if when == "after the end":
                await retry(spool)
            assert (await spool.backlog("a")).events == (1 if when.endswith("ed before") else 2)
            while (await spool.backlog("a")).events:
                await deliver(spool)
            letter = [] if when == "purged before" else [some_event(2, stream="hall").id]
            assert sorted(got) == sorted([some_event(1).id, *letter])

        self._run(tmp_path, before, after)

    def test_a_retried_dead_letter_is_as_it_was_rebuilt_after_a_restart(self, tmp_path: Path) -> None:
        """Its URL of then is forgotten."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await two_sinks_with_dead_letters(spool, clock)
            letters = await spool.dead(100, Filter(of="a"))
            assert await spool.retry_dead("a", [letter.number for letter in letters], 9, elsewhere) == 4

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            assert (await spool.claim("a", 10)).events == tuple(elsewhere(event) for event in FOUR)

        self._run(tmp_path, before, after)

    def test_a_retried_dead_letter_is_pending_and_not_dead_after_a_restart(self, tmp_path: Path) -> None:
        """So are purged ones gone, a pause in force, and what was read again not in quarantine."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await two_sinks_with_dead_letters(spool, clock)
            letters = await spool.dead(100, Filter(of="a"))
            assert await spool.retry_dead("a", [letter.number for letter in letters[1:]], 2) == 3
            assert await spool.purge_dead([letters[0].number]) == 1
            await spool.pause("b", True)
            await spool.append("one", [some_reading(rejects=[some_reject(0)])])
            (kept,) = await spool.quarantined(100)
            await spool.read_again("one", {kept.number: some_reading(9)})

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.attach("b", anything)
            assert [letter.sink for letter in await spool.dead(100)] == ["b"]
            assert (await spool.backlog("a")).events == 4
            first = await spool.claim("a", 10)
            assert first.events in ((some_event(0), some_event(1)), (some_event(2),))
            assert await spool.paused() == {"b"}
            assert await spool.quarantine_size() == 0
            assert (await spool.claim("b", 10)).events == (some_event(9),)

        self._run(tmp_path, before, after)

    def test_what_is_pending_is_there_after_pruning_and_a_restart(self, tmp_path: Path) -> None:
        """Pruning takes only what every sink has settled from the log itself, not merely from memory."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.attach("b", anything)
            await spool.append("source", [some_reading(1), some_reading(2), some_reading(3)])
            await spool.settle(await spool.claim("a", 3), [Done()] * 3)
            await spool.settle(await spool.claim("b", 1), [Done()])

        async def pruned(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.attach("b", anything)
            clock.pass_time(20 * 86400)
            while (await spool.prune()).more:
                pass

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("b", anything)
            assert (await spool.claim("b", 9)).events == (some_event(2), some_event(3))

        self._run(tmp_path, before, pruned, after)

    def test_a_second_owner_is_refused(self, tmp_path: Path) -> None:
        """One process owns a spool, unless it is `Shared`."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            if isinstance(spool, Shared):
                async with self.open(tmp_path, clock) as other:
                    assert isinstance(other, Shared)
                    assert other.member > spool.member
                return
            with pytest.raises(StorageLocked):
                async with self.open(tmp_path, clock):
                    pass

        self._run(tmp_path, scenario)
