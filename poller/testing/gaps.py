"""What every spool must do with gaps."""

from datetime import timedelta
from pathlib import Path

import msgspec

from poller.core.history import GAPS_KEPT, Gap, LatePicture
from poller.core.selection import ALL_EVENTS, Selection
from poller.core.spool import SpoolAdmin
from poller.testing.factories import START, ManualClock, some_event, some_reading
from poller.testing.history import newest_events
from poller.testing.spool import SpoolWorld


def some_gap(number: int, *, stream: str = "room", missing: int = 3) -> Gap:
    """A gap that begins with the picture of `some_event` with this number."""
    from_at = START + timedelta(seconds=10 * number)
    return Gap(
        id=f"{number:032x}",
        account="main",
        stream_id=stream,
        from_at=from_at,
        to_at=from_at + timedelta(seconds=10 * (missing + 1)),
        missing=missing,
        why="a test",
        cadence=10.0,
        push_started_at=START,
        first_missing_offset=10 * number + 10,
    )


def late_picture(number: int, *, stream: str = "room") -> LatePicture:
    """The picture of `some_event` with this number."""
    at = START + timedelta(seconds=10 * number)
    return LatePicture(account="main", stream_id=stream, taken_at=at)


class Gaps(SpoolWorld):
    """The promises of `SpoolHistory.gaps` and `SpoolHistory.note_gaps`."""

    def test_gaps_are_listed_by_their_end_the_last_first(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            gaps = [some_gap(n) for n in (30, 10, 20)]
            await spool.note_gaps("audit", [], gaps)
            assert list(await spool.gaps(ALL_EVENTS, 9)) == [some_gap(n) for n in (30, 20, 10)]
            assert list(await spool.gaps(ALL_EVENTS, 2)) == [some_gap(n) for n in (30, 20)]

        self._run(tmp_path, scenario)

    def test_gaps_are_selected_by_account_stream_and_time(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            room, hall = some_gap(10), some_gap(20, stream="hall")
            await spool.note_gaps("audit", [], [room, hall])
            end, begin = room.to_at, hall.from_at
            for chosen, expected in (
                (Selection(stream="hall"), [hall]),
                (Selection(account="main"), [hall, room]),
                (Selection(account="other"), []),
                (Selection(taken_since=end), [hall]),
                (Selection(taken_since=end - timedelta(seconds=1)), [hall, room]),
                (Selection(taken_until=begin), [room]),
                (Selection(taken_until=begin + timedelta(seconds=1)), [hall, room]),
            ):
                assert list(await spool.gaps(chosen, 9)) == expected

        self._run(tmp_path, scenario)

    def test_gaps_events_and_memory_are_committed_together(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            new = await spool.note_gaps("audit", [some_reading(1, memory=b"so far")], [some_gap(1)])
            assert new == {"screenshot": 1}
            assert await newest_events(spool, 9) == [some_event(1)]
            assert await spool.memory("audit") == {"": b"so far"}
            assert (await spool.note_gaps("audit", [some_reading(1)], [])).total() == 0

        self._run(tmp_path, scenario)

    def test_a_known_gap_stays_as_it_is(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            gap = some_gap(1)
            await spool.note_gaps("audit", [], [gap])
            await spool.note_gaps("audit", [], [msgspec.structs.replace(gap, missing=9, why="again")])
            assert list(await spool.gaps(ALL_EVENTS, 9)) == [gap]

        self._run(tmp_path, scenario)

    def test_late_pictures_fill_the_gap_that_they_lie_in(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            gap, other = some_gap(1), some_gap(1, stream="hall")
            other = msgspec.structs.replace(other, id="f" * 32)
            await spool.note_gaps("audit", [], [gap, other], [late_picture(2)])
            assert {one.id: one.filled for one in await spool.gaps(ALL_EVENTS, 9)} == {gap.id: 1, other.id: 0}
            outside = [late_picture(n) for n in (1, 5, 6)]
            await spool.note_gaps("audit", [], [], [late_picture(3), *outside])
            await spool.note_gaps("audit", [], [], [late_picture(4)] * 3)
            assert {one.id: one.filled for one in await spool.gaps(ALL_EVENTS, 9)} == {gap.id: 3, other.id: 0}

        self._run(tmp_path, scenario)

    def test_a_gap_is_kept_for_thirty_days(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.note_gaps("audit", [], [some_gap(n) for n in range(100)])
            clock.pass_time(GAPS_KEPT - 60)
            while (await spool.prune()).more:
                pass
            assert len(await spool.gaps(ALL_EVENTS, 999)) == 100
            clock.pass_time(2_000)
            while (await spool.prune()).more:
                pass
            assert list(await spool.gaps(ALL_EVENTS, 999)) == []

        self._run(tmp_path, scenario)


class GapsAfterwards(SpoolWorld):
    """Opened again, no gap is forgotten."""

    def test_gaps_survive(self, tmp_path: Path) -> None:
        async def before(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.note_gaps("audit", [], [some_gap(1), some_gap(20)], [late_picture(2)])

        async def after(spool: SpoolAdmin, clock: ManualClock) -> None:
            filled = msgspec.structs.replace(some_gap(1), filled=1)
            assert list(await spool.gaps(ALL_EVENTS, 9)) == [some_gap(20), filled]

        self._run(tmp_path, before, after)
