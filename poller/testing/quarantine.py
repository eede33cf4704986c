"""What every spool promises of what it remembers, shows and forgets."""

from pathlib import Path

from poller.core.model import Event, ParsedPage, PollOutcome, Retry
from poller.core.spool import SpoolAdmin, anything
from poller.testing.factories import (
    ManualClock,
    done,
    some_change,
    some_event,
    some_reading,
    some_recording,
)
from poller.testing.history import newest_events
from poller.testing.spool import SpoolWorld


class Kept(SpoolWorld):
    """What every spool promises of what it remembers, shows and forgets."""

    def test_a_sources_memory_is_the_last_one_committed(self, tmp_path: Path) -> None:
        """Each source has its own, and one for each thing it asks about; an empty one is none."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            assert await spool.memory("one") == {}
            await spool.append("one", [some_reading(1, memory=b"x"), some_reading(2, memory=b"y")])
            await spool.append("two", [some_reading(3, memory=b"z")])
            assert (await spool.memory("one"), await spool.memory("two")) == ({"": b"y"}, {"": b"z"})
            more = [some_reading(memory=about.encode(), about=about) for about in ("a", "b", "a b")]
            await spool.append("one", more)
            assert await spool.memory("one") == {"": b"y", "a": b"a", "b": b"b", "a b": b"a b"}
            await spool.append("one", [some_reading(about="b"), some_reading(memory=b"A", about="a")])
            assert await spool.memory("one") == {"": b"y", "a": b"A", "a b": b"a b"}

        self._run(tmp_path, scenario)

    def test_a_recording_is_stored_once_whether_it_was_reported_by_its_file_or_by_its_vid(
        self, tmp_path: Path
    ) -> None:
        """A list of 2016 names only the vid, the notification of the same segment both."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            async def new(*run_scenario: Event) -> int:
                reading = ParsedPage(events=run_scenario, rejects=(), outcome=PollOutcome.PARTIAL)
                return (await spool.append("tapes", [reading])).total()

            assert await new(some_recording("f1", "v1")) == 1
            assert await new(some_recording(None, "v1"), some_recording(None, "v2")) == 1
            assert await new(some_recording("f2", "v2"), some_recording("f1", "v1")) == 0
            assert await new(some_recording("f3", None), some_recording("f4", None)) == 2

        self._run(tmp_path, scenario)

    def test_the_catalogue_tells_what_is_known_of_each_stream(self, tmp_path: Path) -> None:
        """Derived from events, once each; a change of state that another source has told is not stored again."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append(
                "source", [some_reading(1, 2), some_reading(2, 3), some_reading(9, stream="hall")]
            )
            run_scenario = {stream.stream_id: stream for stream in spool.streams()}
            room = run_scenario["room"]
            assert room.first_seen == some_event(1).received_at
            assert room.last_seen == some_event(3).received_at
            assert (room.last_screenshot, room.cadence) == (some_event(3).occurred_at, 10.0)
            assert (run_scenario["hall"].last_screenshot, run_scenario["hall"].cadence) == (
                some_event(9).occurred_at,
                None,
            )
            changes = [some_change(4, "live"), some_change(5, "live"), some_change(6, "interrupted")]
            readings = [
                ParsedPage(events=(change,), rejects=(), outcome=PollOutcome.PARTIAL) for change in changes
            ]
            assert (await spool.append("status", readings)).total() == 2
            (room,) = (stream for stream in spool.streams() if stream.stream_id == "room")
            assert (room.state, room.state_since) == ("interrupted", changes[2].occurred_at)
            assert await newest_events(spool, 2) == [changes[2], changes[0]]

        self._run(tmp_path, scenario)

    def test_recent_events_come_newest_first(self, tmp_path: Path) -> None:
        """Also those that are settled already."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1, 2), some_reading(3)])
            batch = await spool.claim("a", 10)
            await spool.settle(batch, done(batch))
            assert await newest_events(spool, 2) == [some_event(3), some_event(2)]

        self._run(tmp_path, scenario)

    def test_pruning_never_touches_what_is_pending(self, tmp_path: Path) -> None:
        """However old it is."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1)])
            batch = await spool.claim("a", 1)
            await spool.append("source", [some_reading(2)])
            clock.pass_time(20 * 86400)
            while (await spool.prune()).more:
                pass
            await spool.settle(batch, [Retry(after=1, reason="no")])
            clock.pass_time(20 * 86400)
            while (await spool.prune()).more:
                pass
            assert (await spool.claim("a", 5)).events == (some_event(1),)
            assert (await spool.claim("a", 5)).events == (some_event(2),)

        self._run(tmp_path, scenario)
