"""What every spool must do when somebody looks for events, and asks where they came from."""

import random
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from poller.core.history import Origin
from poller.core.model import Event, ParsedPage, PollOutcome
from poller.core.selection import ALL_EVENTS, Numbered, Selection
from poller.core.spool import SpoolAdmin
from poller.testing.factories import (
    START,
    ManualClock,
    some_change,
    some_event,
    some_reading,
    some_recording,
    some_reject,
)
from poller.testing.history import scan_all
from poller.testing.spool import SpoolWorld


def page_of(*events: Event, asked_at: datetime | None = None, about: str = "") -> ParsedPage:
    """A page with these events."""
    return ParsedPage(
        events=events, rejects=(), outcome=PollOutcome.FULL, asked_at=asked_at, about=about, memory=b"m"
    )


def received(event: Event, seconds: float) -> Event:
    """The event, received this number of seconds after the start."""
    return msgspec.structs.replace(event, received_at=START + timedelta(seconds=seconds))


async def fill(spool: SpoolAdmin) -> list[Numbered]:
    """Pages of several streams and kinds, with times that overlap, and all that is stored of them."""
    rng = random.Random(5)
    for number in range(0, 240, 8):
        streams = rng.sample(["room", "hall", "yard", "attic"], 3)
        pictures = [some_event(n, stream=streams[n % 3]) for n in range(number, number + 8)]
        await spool.append("shots", [page_of(*pictures)])
        if number % 40 == 0:
            await spool.append(
                "changes", [page_of(some_change(number, "live" if number % 80 else "interrupted"))]
            )
    await spool.append("files", [page_of(some_recording("file", "vid"), some_recording("other", None))])
    return await scan_all(spool)


def selections(stored: list[Numbered]) -> list[Selection]:
    """Selections of every sort, some of nothing."""
    rng = random.Random(6)
    some = [event for _, event in rng.sample(stored, 12)]
    minute = timedelta(minutes=1)
    found = [
        *(Selection(ids=frozenset({event.id})) for event in some),
        *(Selection(stream=event.stream_id) for event in some[:3]),
        *(Selection(stream="room", taken_since=event.occurred_at) for event in some),
        *(
            Selection(stream="hall", since=event.received_at - minute, until=event.received_at)
            for event in some
        ),
        *(Selection(taken_since=event.occurred_at, taken_until=event.occurred_at + minute) for event in some),
        *(Selection(taken_until=event.occurred_at) for event in some[:3]),
        *(Selection(since=event.received_at) for event in some[:3]),
        *(Selection(kinds=frozenset({kind})) for kind in ("recording", "channel", "screenshot", "none")),
        Selection(kinds=frozenset({"recording", "channel"})),
        Selection(ids=frozenset(event.id for event in some)),
        Selection(ids=frozenset(event.id for _, event in stored)),
        Selection(ids=frozenset({"", "no id", "f" * 32})),
        Selection(stream="nobody"),
        Selection(taken_since=datetime.max.replace(tzinfo=START.tzinfo)),
        Selection(taken_until=datetime.min.replace(tzinfo=START.tzinfo)),
    ]
    return [*found, *(msgspec.structs.replace(chosen, account="main") for chosen in found[::5])]


class Scans(SpoolWorld):
    """Scans of the log, and the origin of its events."""

    def test_every_selection_finds_exactly_what_it_selects_in_both_directions(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            stored = await fill(spool)
            for chosen in selections(stored):
                expected = [member for member in stored if chosen.selects(member[1])]
                assert await scan_all(spool, chosen) == expected, chosen
                assert await scan_all(spool, chosen, limit=3) == expected, chosen
                assert await scan_all(spool, chosen, limit=2, newest_first=True) == expected[::-1], chosen

        self._run(tmp_path, scenario)

    def test_a_scan_begins_at_the_number_that_it_is_given(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            stored = await fill(spool)
            for start in (1, 2, 5, 9, len(stored) - 1, len(stored)):
                up = await spool.scan(ALL_EVENTS, start, 1)
                assert up.found == (stored[start - 1],)
                down = await spool.scan(ALL_EVENTS, start, 1, newest_first=True)
                assert down.found == (stored[start - 1],)
                assert up.following in {None, start + 1}
                assert down.following == (start - 1 or None)
            assert (await spool.scan(ALL_EVENTS, spool.head, 9)).found == ()
            last = await spool.scan(ALL_EVENTS, spool.head + 5, 1, newest_first=True)
            assert last.found == (stored[-1],)

        self._run(tmp_path, scenario)

    def test_a_recording_is_found_by_its_earlier_id(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await fill(spool)
            earlier = some_recording(None, "vid").id
            (found,) = await scan_all(spool, Selection(ids=frozenset({earlier})))
            assert found[1] == some_recording("file", "vid")

        self._run(tmp_path, scenario)

    def test_the_newest_picture_of_a_stream_is_one_read_away(self, tmp_path: Path) -> None:
        """A picture that arrives late is not the newest."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.append("shots", [some_reading(1, 2), some_reading(9, stream="hall")])
            await spool.append("shots", [some_reading(7, 3)])
            await spool.append(
                "changes", [page_of(some_change(8, "live"), some_change(8, "live", stream="yard"))]
            )
            newest = {stream.stream_id: stream.last_number for stream in spool.streams()}
            assert newest == {"room": 4, "hall": 3, "yard": None}
            for stream, number in (("room", 7), ("hall", 9)):
                step = await spool.scan(ALL_EVENTS, newest[stream], 1)
                assert step.found == ((newest[stream], some_event(number, stream=stream)),)

        self._run(tmp_path, scenario)

    def test_an_event_has_the_poll_that_brought_it_first(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            at = START - timedelta(seconds=2)
            first = page_of(*(some_event(n) for n in range(3)), asked_at=at, about="room")
            await spool.append("shots", [first, page_of(some_event(2), some_event(3), asked_at=START)])
            await spool.append("pushed", [page_of(some_event(3), some_event(4))])
            polled = Origin(
                source="shots",
                about="room",
                asked_at=at,
                received_at=some_event(0).received_at,
                outcome="full",
                events=3,
            )
            assert [await spool.origin(number) for number in (1, 2, 3)] == [polled] * 3
            assert await spool.origin(4) == msgspec.structs.replace(
                polled, about="", asked_at=START, received_at=some_event(3).received_at, events=1
            )
            pushed = await spool.origin(5)
            assert pushed is not None
            assert (pushed.source, pushed.asked_at, pushed.events) == ("pushed", None, 1)
            assert await spool.origin(6) is None
            assert await spool.origin(0) is None

        self._run(tmp_path, scenario)

    def test_what_was_read_again_has_the_source_of_its_reject(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.append("shots", [some_reading(rejects=[some_reject(0)])])
            (kept,) = await spool.quarantined(1)
            await spool.read_again("shots", {kept.number: some_reading(9)})
            origin = await spool.origin(1)
            assert origin is not None
            assert (origin.source, origin.asked_at) == ("shots", None)

        self._run(tmp_path, scenario)

    def test_a_moment_is_found_although_the_clock_was_set_and_pages_came_late(self, tmp_path: Path) -> None:
        """The answer is the first number from which on nothing earlier was received."""

        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            times = [
                0.0,
                1,
                2,
                5,
                5,
                6,
                9000,
                9001,
                9002,
                20,
                21,
                22.5,
                21,
                23,
                -500,
                24,
                25,
                25.5,
                25,
                27,
                40,
                39,
            ]
            events = [received(some_event(n), seconds) for n, seconds in enumerate(times)]
            for event in events:
                await spool.append("shots", [page_of(event)])
            for seconds in sorted({*times, *(at + 0.5 for at in times), -900}):
                moment = START + timedelta(seconds=seconds)
                earlier = [n for n, at in enumerate(times, 1) if at < seconds]
                assert await spool.number_at(moment) == (earlier[-1] + 1 if earlier else 1), seconds

        self._run(tmp_path, scenario)


class ScansAfterwards(SpoolWorld):
    """The same over a restart."""

    def test_origins_and_newest_pictures_survive_a_restart(self, tmp_path: Path) -> None:
        known: list[object] = []

        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            stored = await fill(spool)
            known.extend(sorted(spool.streams(), key=str))
            known.extend([await spool.origin(number) for number, _ in stored])

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            origins = [await spool.origin(number) for number in range(1, spool.head)]
            assert [*sorted(spool.streams(), key=str), *origins] == known

        self._run(tmp_path, before, after)
