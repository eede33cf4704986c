"""How old something is while somebody sets the clock: tables, and a spool that is opened again."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.core.model import Dead, Retry
from poller.runtime import ages
from poller.runtime.clock import Clock
from poller.testing import START, ManualClock, anything, some_event, some_reading
from poller.testing.factories import claims_nothing
from tests.fakes import sqlite_spool
from tests.patience import patiently

HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
JUMPS = [4 * DAY, 40 * DAY, -DAY, -10 * YEAR, 60.0, -60.0]


@pytest.mark.parametrize("by", [*JUMPS, 5.0, -5.0])
def test_an_age_grows_with_the_monotonic_clock_however_the_clock_is_set(by: float) -> None:
    clock = ManualClock()
    clock.jumps()
    stamp = clock.now()
    for _ in range(100):
        clock.pass_time(1)
        clock.jumps()
    clock.jump(by)
    near = 10 if abs(by) <= 10 else 61 if by == -60.0 else 2  # a minute that comes twice is the later one
    assert clock.age(stamp) == pytest.approx(100, abs=near)
    later = clock.now()
    clock.pass_time(50)
    assert clock.age(stamp) == pytest.approx(150, abs=near)
    assert clock.age(later) == pytest.approx(50, abs=10)
    assert len(clock.jumps()) == (abs(by) > 10)
    assert not clock.jumps()


@pytest.mark.parametrize("by", [by for by in JUMPS if abs(by) > 200])
def test_a_jump_that_is_set_right_again_changes_no_age(by: float) -> None:
    clock = ManualClock()
    stamps = []
    for step in (0.0, by, -by):
        clock.jump(step)
        clock.jumps()  # the daemon looks every second
        clock.pass_time(1)
        stamps.append(clock.now())
        clock.pass_time(99)
    assert [round(clock.age(stamp)) for stamp in stamps] == [299, 199, 99]


@pytest.mark.parametrize("by", JUMPS)
def test_a_stamp_taken_between_a_jump_and_the_next_look_is_young(by: float) -> None:
    clock = ManualClock()
    clock.jumps()
    clock.pass_time(30)
    clock.jump(by)
    stamp = clock.now()
    clock.pass_time(30)
    assert clock.age(stamp) <= 31
    assert any(start <= stamp.timestamp() <= end for start, end in clock.young(60))


def test_nothing_is_old_that_a_clock_from_the_future_wrote() -> None:
    clock = ManualClock()
    assert clock.age(clock.now() + timedelta(days=4000)) == 0.0
    assert clock.age(clock.now() - timedelta(days=4000)) == 4000 * DAY


Move = Callable[[ManualClock], None]


def lives(folder: Path, *moves: Move, kill: bool = False) -> tuple[ManualClock, list[float]]:
    """Lives of a spool with these moves between; the age of a stamp of the first, at each start but the first."""
    clock, ages = ManualClock(), []
    stamp = clock.now()

    async def live(last: bool) -> None:
        spool = sqlite_spool(folder, clock)
        await spool.__aenter__()
        ages.append(clock.age(stamp))
        kept = (folder / "spool.db.clock").read_bytes()
        await spool.__aexit__(None, None, None)
        if kill and not last:
            (folder / "spool.db.clock").write_bytes(kept)

    for move in (*moves, None):
        asyncio.run(live(move is None))
        if move is not None:
            move(clock)
    return clock, ages[1:]


def passes(seconds: float) -> Move:
    return lambda clock: clock.pass_time(seconds)


def jumps(seconds: float) -> Move:
    return lambda clock: clock.jump(seconds)


@pytest.mark.parametrize(
    ("moves", "kill", "age"),
    [
        ([passes(HOUR)], False, HOUR),
        ([passes(HOUR)], True, HOUR),
        ([jumps(40 * DAY)], True, 0.0),  # no orderly stop: nobody knows whether that long went by
        ([jumps(-DAY)], False, 0.0),
        ([jumps(-10 * YEAR)], True, 0.0),
        ([jumps(-DAY), jumps(DAY)], False, 0.0),
        ([jumps(-10 * YEAR), jumps(10 * YEAR)], False, 0.0),
        ([jumps(40 * DAY), jumps(-40 * DAY)], True, 0.0),
    ],
)
def test_over_a_restart_an_age_grows_by_the_time_that_the_clock_can_be_believed_to_show(
    tmp_path: Path, moves: list[Move], kill: bool, age: float
) -> None:
    assert lives(tmp_path, *moves, kill=kill)[1][-1] == pytest.approx(age, abs=1)


def test_a_long_stop_in_an_orderly_way_counts_a_moment_after_the_start(tmp_path: Path) -> None:
    clock, ages = lives(tmp_path, passes(40 * DAY))
    assert ages == [0.0]
    clock.pass_time(25)
    assert clock.age(START) == pytest.approx(40 * DAY + 25)
    assert clock.jumps() == []


def test_a_clock_that_is_set_right_after_the_start_ages_nothing(tmp_path: Path) -> None:
    clock, _ = lives(tmp_path, passes(HOUR), jumps(40 * DAY))
    clock.pass_time(5)
    clock.jump(-40 * DAY)
    clock.jumps()
    clock.pass_time(25)
    assert clock.age(START) == pytest.approx(HOUR + 30, abs=1)


def test_a_long_time_after_a_kill_never_counts(tmp_path: Path) -> None:
    clock, _ = lives(tmp_path, jumps(40 * DAY), kill=True)
    clock.pass_time(25)
    assert clock.age(START) == pytest.approx(25, abs=1)


def test_a_clock_that_is_set_right_after_the_start_is_reported_once(tmp_path: Path) -> None:
    clock, _ = lives(tmp_path, jumps(40 * DAY))
    clock.pass_time(5)
    clock.jump(-40 * DAY)
    assert len(clock.jumps()) == 1


@pytest.mark.parametrize("ahead", [DAY, 4 * DAY, 10 * YEAR, -DAY])
@pytest.mark.parametrize("ordered", [False, True])
def test_waits_from_disk_end_within_the_longest_wait_when_the_clock_was_wrong(
    tmp_path: Path, ahead: float, ordered: bool
) -> None:
    clock = ManualClock()

    async def before() -> None:
        async with sqlite_spool(tmp_path, clock) as spool:
            clock.jump(ahead)
            await spool.attach("a", anything, ordered=ordered)
            await spool.append("source", [some_reading(1)])
            await spool.settle(await spool.claim("a", 1), [Retry(after=600, reason="no")])

    async def after() -> None:
        async with sqlite_spool(tmp_path, clock) as spool:
            await spool.attach("a", anything, ordered=ordered)
            clock.pass_time(HOUR)
            assert (await spool.claim("a", 1)).events == (some_event(1),)

    asyncio.run(before())
    clock.jump(-ahead)
    asyncio.run(after())


def test_what_waits_goes_at_once_when_it_is_asked_to(tmp_path: Path) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with sqlite_spool(tmp_path, clock) as spool:
            await spool.attach("a", anything)
            await spool.append("source", [some_reading(1)])
            await spool.settle(await spool.claim("a", 1), [Retry(after=600, reason="no")])
            assert await claims_nothing(spool, "a")
            await spool.retry_now("a")
            assert (await spool.claim("a", 1)).events == (some_event(1),)

    asyncio.run(patiently(scenario()))


@pytest.mark.parametrize("by", JUMPS)
def test_a_dead_letter_expires_when_its_time_has_passed_and_not_at_a_jump(tmp_path: Path, by: float) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with sqlite_spool(tmp_path, clock) as spool:
            await spool.attach("a", anything)
            for number, step in enumerate((0.0, by, -by)):
                clock.jump(step)
                await spool.append("source", [some_reading(number)])
                await spool.settle(await spool.claim("a", 1), [Dead(reason="bad")])
                clock.pass_time(DAY)
                assert not (await spool.prune()).dead
            clock.pass_time(26.5 * DAY)
            assert len(await spool.dead(9)) == 3
            clock.pass_time(45 * DAY)  # a stamp that two settings explain counts as the younger one
            await spool.prune()
            assert await spool.dead(9) == []

    asyncio.run(patiently(scenario()))


def test_the_machines_clock_gives_ages() -> None:
    clock = Clock()
    assert 0.0 <= clock.age(clock.now()) < 10.0


def test_a_wait_from_disk_is_bounded_where_no_setting_explains_it() -> None:
    clock = ManualClock()
    assert clock.wait_for(clock.now() + timedelta(days=1), HOUR) == HOUR
    assert clock.wait_for(clock.now() + timedelta(seconds=5), HOUR) == 5.0
    assert clock.wait_for(clock.now() - timedelta(days=1), HOUR) == 0.0


@given(
    steps=st.lists(st.tuples(st.floats(0, 5e6), st.floats(-1e7, 1e7)), min_size=1, max_size=4),
    stamp=st.floats(1e9 - 2e7, 1e9 + 4e7),
    age=st.sampled_from([60.0, 86400.0, 30 * 86400.0]),
)
def test_whatever_is_not_older_than_an_age_lies_in_its_stretches(
    steps: list[tuple[float, float]], stamp: float, age: float
) -> None:
    now, known = 1e9, []
    for lasted, offset in steps:
        known.append(ages.Setting(now, now + lasted, offset))
        now += lasted
    settings = tuple(known)
    taken = ages.steady_of(settings, stamp, now)
    young = any(start <= stamp <= end for start, end in ages.young_stamps(settings, now, age))
    if now - taken < age - 1e-3:
        assert young
    at_an_edge = any(
        abs(stamp - edge - one.offset) < 1e-3 for one in settings for edge in (one.since, one.until)
    )
    if young and not at_an_edge:
        assert now - taken < age + 1e-3
