"""What every spool promises of dead letters, quarantine and pauses."""

from collections import Counter
from datetime import timedelta
from pathlib import Path

from poller.core.model import Dead, Done, Filter, Reject, Retry, batch_id
from poller.core.spool import SpoolAdmin, anything
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
from poller.testing.history import newest_events
from poller.testing.spool import SpoolWorld


class Letters(SpoolWorld):
    """What every spool promises of dead letters, quarantine and pauses."""

    def test_rejects_are_kept_once_and_newest_first(self, tmp_path: Path) -> None:
        """Quarantine holds the bytes and the reason; reading a page in twice adds nothing."""
        rejects = [
            Reject(
                received_at=START + timedelta(seconds=n), reason=f"r{n}", encoding="", body=bytes([n, 255])
            )
            for n in range(3)
        ]

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.append("source", [some_reading(1, rejects=rejects)])
            await spool.append("source", [some_reading(1, rejects=rejects)])
            kept = await spool.quarantined(10)
            assert [one.reject for one in kept] == rejects[::-1]
            assert {one.source for one in kept} == {"source"}
            assert await spool.quarantine_size() == 3

        self._run(tmp_path, scenario)

    def test_dead_letters_are_chosen_by_what_is_known_of_them(self, tmp_path: Path) -> None:
        """By sink, part of the reason, stream, event, age and place; all that is asked for must hold."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await two_sinks_with_dead_letters(spool, clock)
            ids = [event.id for event in FOUR]
            for chosen, meant in (
                (Filter(of="a"), [3, 2, 1, 0]),
                (Filter(of="nobody"), []),
                (Filter(of="a", reason="o o"), [3, 2]),
                (Filter(of="a", stream="hall"), [3]),
                (Filter(of="a", ids=frozenset((ids[0], "0" * 32))), [0]),
                (Filter(of="a", before=START + timedelta(seconds=10)), [1, 0]),
                (Filter(of="a", since=START + timedelta(seconds=10)), [3, 2]),
                (Filter(of="a", reason="o o", stream="room"), [2]),
            ):
                found = await spool.dead(100, chosen)
                assert [ids.index(letter.event.id) for letter in found] == meant, chosen
            newest, *rest = await spool.dead(100)
            assert await spool.dead(100, Filter(below=newest.number)) == rest
            assert len(rest) == 4
            assert await spool.dead(2) == [newest, rest[0]]

        self._run(tmp_path, scenario)

    def test_a_dead_letter_that_is_retried_is_pending_again(self, tmp_path: Path) -> None:
        """At once, to its sink only, in batches of the size asked for, its attempts counted anew, its history kept."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await two_sinks_with_dead_letters(spool, clock)
            numbers = [letter.number for letter in await spool.dead(100, Filter(of="a"))]
            others = [letter.number for letter in await spool.dead(100, Filter(of="b"))]
            assert await spool.retry_dead("a", [*numbers[1:], *others, 10**9], 2) == 3
            assert [letter.number for letter in await spool.dead(100)] == [*others, numbers[0]]
            assert (await spool.backlog("a")).events == (await spool.backlog("a")).retrying == 3
            assert ((await spool.backlog("a")).dead, (await spool.backlog("b")).dead) == (1, 1)
            assert await spool.retry_dead("a", numbers[1:], 2) == 0
            first, second = await spool.claim("a", 10), await spool.claim("a", 10)
            assert (first.events, second.events) == ((some_event(0), some_event(1)), (some_event(2),))
            assert (first.attempt, first.first_attempt_at) == (1, clock.now())
            await spool.settle(first, done(first))
            await spool.settle(second, [Dead(reason="still")])
            letter = (await spool.dead(1))[0]
            assert [attempt.reason for attempt in letter.history] == ["too old", "still"]
            assert letter.number > max(numbers)
            assert (await spool.backlog("a")).events == 0

        self._run(tmp_path, scenario)

    def test_a_dead_letter_that_is_retried_goes_out_as_it_was_rebuilt(self, tmp_path: Path) -> None:
        """Once, when it is queued: for this sink, in its place, and again under a retry; also when it dies anew."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await two_sinks_with_dead_letters(spool, clock)
            numbers = [letter.number for letter in await spool.dead(100, Filter(of="a"))]
            assert await spool.retry_dead("a", numbers, 10, elsewhere) == 4
            rebuilt = tuple(elsewhere(event) for event in FOUR)
            batch = await spool.claim("a", 10)
            assert (batch.events, batch.id) == (rebuilt, batch_id([event.id for event in FOUR]))
            await spool.settle(batch, [Retry(after=0, reason="busy")] * 4)
            batch = await spool.claim("a", 10)
            assert batch.events == rebuilt
            await spool.settle(batch, [Dead(reason="still"), *[Done()] * 3])
            assert [letter.event for letter in await spool.dead(1)] == [rebuilt[0]]
            assert [letter.event for letter in await spool.dead(9, Filter(of="b"))] == [FOUR[0]]
            assert (await newest_events(spool, 4))[::-1] == list(FOUR)

        self._run(tmp_path, scenario)

    def test_dead_letters_of_an_ordered_sink_are_rebuilt_in_order(self, tmp_path: Path) -> None:
        """They keep their place before what waits of their stream."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2, 3)])
            for number in (1, 2):
                await spool.settle(await spool.claim("a", 1), [Dead(reason=f"bad {number}")])
            numbers = [letter.number for letter in await spool.dead(9)]
            assert await spool.retry_dead("a", numbers, 1, elsewhere) == 2
            for expected in (elsewhere(some_event(1)), elsewhere(some_event(2)), some_event(3)):
                batch = await spool.claim("a", 9)
                assert batch.events == (expected,)
                await spool.settle(batch, done(batch))

        self._run(tmp_path, scenario)

    def test_dead_letters_of_an_ordered_sink_are_retried_in_order(self, tmp_path: Path) -> None:
        """One after the other, and before what was about to go out of their stream."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered=True)
            await spool.append("source", [some_reading(1, 2, 3, 4)])
            for number in (1, 2):
                await spool.settle(await spool.claim("a", 1), [Dead(reason=f"bad {number}")])
            batch = await spool.claim("a", 1)
            assert await claims_nothing(spool, "a")
            await spool.settle(batch, done(batch))
            numbers = [letter.number for letter in await spool.dead(9)]
            assert await spool.retry_dead("a", numbers, 1) == 2
            await spool.append("source", [some_reading(5)])
            for expected in ((some_event(1),), (some_event(2),), (some_event(4), some_event(5))):
                batch = await spool.claim("a", 9)
                assert batch.events == expected
                assert await claims_nothing(spool, "a")
                await spool.settle(batch, done(batch))
            assert (await spool.backlog("a")).events == 0

        self._run(tmp_path, scenario)

    def test_beyond_ten_thousand_events_that_wait_letters_stay_dead_and_nothing_fresh_is_taken(
        self, tmp_path: Path
    ) -> None:
        """Until some of them are settled."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            for start in range(0, 10_000, 1000):
                await spool.append("source", [some_reading(*range(start, start + 1000))])
            await spool.append("source", [some_reading(10_000, 10_001, 10_002)])
            wait = Retry(after=3600, reason="no")
            for _ in range(9):
                await spool.settle(await spool.claim("a", 1000), [wait] * 1000)
            await spool.settle(await spool.claim("a", 1000), [wait] * 999 + [Dead(reason="bad")])
            await spool.settle(await spool.claim("a", 1), [Dead(reason="bad")])
            numbers = [letter.number for letter in await spool.dead(9)]
            assert await spool.retry_dead("a", numbers, 1) == 1
            assert await spool.retry_dead("a", numbers, 1) == 0
            batch = await spool.claim("a", 1)
            assert batch.events == (some_event(9999),)
            await spool.settle(batch, [wait])
            assert await claims_nothing(spool, "a")
            assert ((await spool.backlog("a")).events, (await spool.backlog("a")).dead) == (10_002, 1)
            clock.pass_time(3600)
            batch = await spool.claim("a", 1)
            assert len(batch.events) == 1000
            await spool.settle(batch, done(batch))

        self._run(tmp_path, scenario)

    def test_a_purged_dead_letter_is_gone(self, tmp_path: Path) -> None:
        """That one and no other; twice does nothing."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await two_sinks_with_dead_letters(spool, clock)
            first, *rest = await spool.dead(100)
            assert await spool.purge_dead([first.number, rest[0].number]) == 2
            assert await spool.purge_dead([first.number]) == 0
            assert await spool.dead(100) == rest[1:]
            assert ((await spool.backlog("a")).dead, (await spool.backlog("b")).dead) == (3, 0)

        self._run(tmp_path, scenario)

    def test_rejects_are_chosen_by_what_is_known_of_them(self, tmp_path: Path) -> None:
        """By source, part of the reason, number, age and place; and purged by their numbers."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.append("one", [some_reading(rejects=[some_reject(n) for n in range(3)])])
            await spool.append("two", [some_reading(rejects=[some_reject(0)])])
            newest, third, second, first = await spool.quarantined(100)
            assert (newest.source, third.source, third.reject) == ("two", "one", some_reject(2))
            for chosen, meant in (
                (Filter(of="one"), [third, second, first]),
                (Filter(reason="n 1"), [second]),
                (Filter(ids=frozenset((str(first.number), "x"))), [first]),
                (Filter(of="one", before=START + timedelta(seconds=1)), [first]),
                (Filter(since=START + timedelta(seconds=1)), [third, second]),
                (Filter(below=second.number), [first]),
            ):
                assert await spool.quarantined(100, chosen) == meant, chosen
            assert await spool.purge_quarantine([first.number, second.number, 10**9]) == 2
            assert await spool.quarantined(100) == [newest, third]

        self._run(tmp_path, scenario)

    def test_what_is_read_again_takes_the_rejects_place(self, tmp_path: Path) -> None:
        """Its events are owed, its own rejects kept, the source's memory untouched; once, whoever asks twice."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append(
                "one", [some_reading(1, memory=b"m", rejects=[some_reject(n) for n in range(2)])]
            )
            second, first = await spool.quarantined(100)
            readings = {first.number: some_reading(1, 2, rejects=[some_reject(7)])}
            assert (await spool.read_again("two", readings)).total() == 0
            assert (await spool.read_again("one", readings)).total() == 1
            assert (await spool.read_again("one", {first.number: some_reading(3)})).total() == 0
            assert [one.reject for one in await spool.quarantined(100)] == [some_reject(7), second.reject]
            assert (await spool.claim("a", 10)).events == (some_event(1), some_event(2))
            assert await spool.memory("one") == {"": b"m"}

        self._run(tmp_path, scenario)

    def test_dead_letters_and_quarantine_are_kept_for_30_days(self, tmp_path: Path) -> None:
        """By default, each from its own moment."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await two_sinks_with_dead_letters(spool, clock)
            await spool.append("one", [some_reading(rejects=[some_reject(n) for n in range(0, 100, 10)])])
            clock.pass_time(30 * 86400 - 15)
            run_scenario = [await spool.prune()]
            while run_scenario[-1].more:
                run_scenario.append(await spool.prune())
            assert sum((Counter(step.dead) for step in run_scenario), Counter()) == {"a": 2}
            assert sum(step.rejects for step in run_scenario) == 1
            assert [letter.event for letter in await spool.dead(100, Filter(of="a"))] == [FOUR[3], FOUR[2]]
            assert (await spool.backlog("a")).dead == 2
            assert {one.reject for one in await spool.quarantined(100)} == {
                some_reject(n) for n in range(10, 100, 10)
            }

        self._run(tmp_path, scenario)

    def test_a_pause_by_the_operator_is_remembered(self, tmp_path: Path) -> None:
        """Until it is taken back."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.attach("b", anything)
            await spool.pause("a", True)
            await spool.pause("a", True)
            assert await spool.paused() == {"a"}
            await spool.pause("a", False)
            assert await spool.paused() == frozenset()

        self._run(tmp_path, scenario)
