"""What every spool must do when somebody looks back."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from poller.core.model import Event
from poller.core.selection import ALL_EVENTS, Selection
from poller.core.spool import SpoolAdmin
from poller.testing.factories import ManualClock, some_event, some_reading
from poller.testing.spool import SpoolWorld


async def scan_all(
    spool: SpoolAdmin, chosen: Selection = ALL_EVENTS, *, limit: int = 1_000, newest_first: bool = False
) -> list[tuple[int, Event]]:
    """All selected events, step by step."""
    found: list[tuple[int, Event]] = []
    start: int | None = None
    while True:
        step = await spool.scan(chosen, start, limit, newest_first=newest_first)
        assert len(step.found) <= limit
        found += step.found
        if step.following is None:
            return found
        start = step.following


async def newest_events(spool: SpoolAdmin, limit: int) -> list[Event]:
    """The newest events, newest first, settled or not."""
    return [event for _, event in await scan_all(spool, newest_first=True)][:limit]


class History(SpoolWorld):
    """The promises of `SpoolHistory`."""

    @pytest.mark.parametrize("limit", [1, 7, 1_000])
    def test_a_scan_meets_every_event_once_in_both_directions(self, tmp_path: Path, limit: int) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            for start in range(0, 40, 4):
                await spool.append("shots", [some_reading(*range(start, start + 4))])
            upwards = await scan_all(spool, limit=limit)
            assert upwards == [(n + 1, some_event(n)) for n in range(40)]
            assert await scan_all(spool, limit=limit, newest_first=True) == upwards[::-1]
            assert spool.head == 41

        self._run(tmp_path, scenario)

    def test_a_scan_finds_what_is_selected_and_nothing_else(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            await spool.append("shots", [some_reading(*range(20))])
            one = some_event(7)
            within = Selection(
                taken_since=one.occurred_at, taken_until=one.occurred_at + timedelta(seconds=1)
            )
            for chosen in (Selection(ids=frozenset({one.id})), within):
                expected = [(n + 1, some_event(n)) for n in range(20) if chosen.selects(some_event(n))]
                assert (8, one) in expected
                assert await scan_all(spool, chosen) == expected
            assert await scan_all(spool, Selection(account="another")) == []
            assert await scan_all(spool, Selection(kinds=frozenset({"recording"}))) == []

        self._run(tmp_path, scenario)

    def test_an_empty_log_has_no_events_and_the_first_number_comes(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            assert await scan_all(spool) == await scan_all(spool, newest_first=True) == []
            assert await spool.number_at(clock.now()) == spool.head == 1

        self._run(tmp_path, scenario)

    def test_whoever_waits_for_the_next_event_wakes_up_when_it_is_stored(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            waiting = asyncio.ensure_future(spool.wait_beyond(spool.head))
            await asyncio.sleep(0)
            assert not waiting.done()
            await spool.append("shots", [some_reading(1)])
            await asyncio.wait_for(waiting, 10)
            assert [n for n, _ in (await spool.scan(ALL_EVENTS, 1, 9)).found] == [1]

        self._run(tmp_path, scenario)

    def test_a_moment_has_the_number_of_the_first_event_received_since(self, tmp_path: Path) -> None:
        async def scenario(spool: SpoolAdmin, clock: ManualClock) -> None:
            for n in (0, 10, 20):
                await spool.append("shots", [some_reading(n)])
            stored = await scan_all(spool)
            moments = sorted({event.received_at for _, event in stored})
            for moment in moments:
                first = next(n for n, event in stored if event.received_at >= moment)
                assert await spool.number_at(moment) == first
            assert await spool.number_at(moments[-1] + timedelta(seconds=1)) == spool.head

        self._run(tmp_path, scenario)
