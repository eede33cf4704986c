"""What every spool promises of events that come first in a provisional reading, then in one that is not."""

from pathlib import Path

import msgspec
import pytest

from poller.core.model import Batch, Dead, Done, Event, Filter, Outcome, ParsedPage, PollOutcome, Retry
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

FOREIGN = "http://elsewhere.example/picture.jpg"
KNOWN_WAYS = ("dead", "waiting", "in hand and refused", "in hand and failed", "not claimed")


def announced(*numbers: int, url: str | None = FOREIGN, stream: str = "room") -> ParsedPage:
    """A provisional reading of these events; `url` is theirs, None for the right one."""
    events = tuple(some_event(number, url=url, stream=stream) for number in numbers)
    return ParsedPage(events=events, rejects=(), outcome=PollOutcome.PARTIAL, provisional=True)


def _as_it_is(got: Event, number: int) -> None:
    """The very event that the queue brings."""
    assert got == some_event(number), got


async def _meet(spool: SpoolAdmin, way: str) -> Batch | None:
    """Bring the first event that sink `a` is owed into a state; the batch that is in hand then."""
    if way == "not claimed":
        return None
    batch = await spool.claim("a", 1)
    if way.startswith("in hand"):
        return batch
    outcome: Outcome = Dead(reason="refused") if way == "dead" else Retry(after=30, reason="failed")
    await spool.settle(batch, [outcome])
    return None


class Corrections(SpoolWorld):
    """A provisional event gets the URL that a reading which is not provisional brings."""

    @pytest.mark.parametrize("ordered", [False, True])
    @pytest.mark.parametrize("way", KNOWN_WAYS)
    def test_an_event_that_was_announced_wrongly_arrives_as_the_queue_has_it(
        self, tmp_path: Path, way: str, ordered: bool
    ) -> None:
        """Wherever it is at that time: dead, waiting, in hand or not yet claimed. It is not new."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered)
            assert (await spool.append("pushed", [announced(1)])).total() == 1
            hand = await _meet(spool, way)
            assert (await spool.append("polled", [some_reading(1)])).total() == 0
            if hand is not None:
                refused = Dead(reason="refused") if way.endswith("refused") else Retry(after=0, reason="no")
                await spool.settle(hand, [refused])
            clock.pass_time(30)
            (got,) = await all_owed(spool, "a", 10)
            _as_it_is(got, 1)
            assert await spool.dead(9) == []
            assert (await spool.backlog("a")).dead == 0
            assert (await spool.append("polled", [some_reading(1)])).total() == 0
            assert await claims_nothing(spool, "a")

        self._run(tmp_path, scenario)

    def test_a_sink_that_delivered_it_does_not_get_it_again(self, tmp_path: Path) -> None:
        """Whether it was settled before, or is in hand and succeeds."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            for sink in ("a", "b", "c"):
                await spool.attach(sink, anything)
            await spool.append("pushed", [announced(1)])
            early, late = await spool.claim("a", 1), await spool.claim("b", 1)
            await spool.settle(early, done(early))
            await spool.append("polled", [some_reading(1)])
            await spool.settle(late, done(late))
            for sink in ("a", "b"):
                assert await claims_nothing(spool, sink)
                assert (await spool.backlog(sink)).events == 0
            _as_it_is((await spool.claim("c", 1)).events[0], 1)

        self._run(tmp_path, scenario)

    @pytest.mark.parametrize("way", ["dead", "in hand and refused"])
    def test_an_event_that_was_announced_too_early_is_tried_again(self, tmp_path: Path, way: str) -> None:
        """Its URL was right, but the picture was not there yet; only the first confirmation counts."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("pushed", [announced(1, url=None)])
            hand = await _meet(spool, way)
            await spool.append("polled", [some_reading(1)])
            if hand is not None:
                await spool.settle(hand, [Dead(reason="HTTP 404")])
            again = await spool.claim("a", 1)
            _as_it_is(again.events[0], 1)
            await spool.settle(again, [Dead(reason="HTTP 404")])
            await spool.append("polled", [some_reading(1)])
            assert await claims_nothing(spool, "a")
            assert len(await spool.dead(9)) == 1

        self._run(tmp_path, scenario)

    def test_only_what_confirms_it_corrects_it(self, tmp_path: Path) -> None:
        """Not another provisional reading, and not what came by the queue first."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("pushed", [announced(1)])
            await spool.append("pushed", [announced(1, url="http://third.example/p.jpg")])
            await spool.append("polled", [some_reading(2)])
            await spool.append("pushed", [announced(2)])
            await spool.append("other", [some_reading(2)])
            first, second = await all_owed(spool, "a", 10)
            assert first.url == FOREIGN
            _as_it_is(second, 2)

        self._run(tmp_path, scenario)

    def test_neighbours_of_a_corrected_event_stay_as_they_are(self, tmp_path: Path) -> None:
        """In its page, its batch, its halves and its stream; time, stream and place stay its own."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.attach("b", anything, True)
            await spool.append("pushed", [announced(1, 2, 3, 4)])
            batch = await spool.claim("a", 4)
            first, second = await spool.split(batch)
            genuine = msgspec.structs.replace(some_event(2), stream_id="hall")
            await spool.append(
                "polled", [ParsedPage(events=(genuine,), rejects=(), outcome=PollOutcome.PARTIAL)]
            )
            await spool.settle(first, [Retry(after=0, reason="no")] * 2)
            await spool.settle(second, [Done(), Dead(reason="refused")])
            again = await spool.claim("a", 4)
            assert [event.url for event in again.events] == [FOREIGN, some_event(2).url]
            assert [event.stream_id for event in again.events] == ["room", "room"]
            assert [event.url for event in await all_owed(spool, "b", 2)] == [
                FOREIGN,
                some_event(2).url,
                FOREIGN,
                FOREIGN,
            ]
            (letter,) = await spool.dead(9, Filter(of="a"))
            assert letter.event.url == FOREIGN

        self._run(tmp_path, scenario)

    def test_a_dead_letter_of_a_sink_that_is_not_attached_stays_dead(self, tmp_path: Path) -> None:
        """Nobody would deliver it."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("pushed", [announced(1)])
            await spool.settle(await spool.claim("a", 1), [Dead(reason="refused")])
            await spool.detach("a")
            await spool.append("polled", [some_reading(1)])
            assert len(await spool.dead(9)) == 1

        self._run(tmp_path, scenario)


class CorrectionsAfterwards(SpoolWorld):
    """The same over a restart."""

    @pytest.mark.parametrize("ordered", [False, True])
    @pytest.mark.parametrize("way", KNOWN_WAYS)
    @pytest.mark.parametrize("confirmed", ["before", "after"])
    def test_an_announced_event_is_corrected_over_a_restart(
        self, tmp_path: Path, way: str, ordered: bool, confirmed: str
    ) -> None:
        """Whether the queue's message comes before the end or after it."""

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered)
            await spool.append("pushed", [announced(1, 2)])
            await _meet(spool, way)
            if confirmed == "before":
                await spool.append("polled", [some_reading(1)])

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything, ordered)
            if confirmed == "after":
                await spool.append("polled", [some_reading(1)])
            clock.pass_time(30)
            got = await all_owed(spool, "a", 10)
            _as_it_is(next(event for event in got if event.id == some_event(1).id), 1)
            assert [event.url for event in got if event.id == some_event(2).id] == [FOREIGN]
            assert len(got) == 2
            assert await spool.dead(9) == []

        self._run(tmp_path, before, after)
