"""Computes ages that stay right although the wall clock may be set at any moment. Pure.

Terms
    Steady time grows with the monotonic clock, and over a restart by the time that has passed by the wall
    clock. A `Setting` says how far the wall clock was ahead of steady time, and during which time. A stamp is
    a stored wall time.

The settings give the steady time at which a stamp was taken. If several settings explain a stamp, the latest
moment counts, so that no deadline passes early. All times are seconds; stamps are epochs.
"""

from collections.abc import Iterator, Sequence

import msgspec

DAY = 86400.0
JUMP = 10.0
"""Seconds by which the wall clock must leave the monotonic one in one step to count as set."""
CONFIRMED = 20.0
"""Seconds after a start during which a stop of more than a day does not count: the clock may still be corrected."""
MOST_SETTINGS = 100


class Setting(msgspec.Struct, frozen=True, array_like=True):
    """The wall clock was `offset` ahead of steady time from `since` to `until`; the last setting still holds."""

    since: float
    until: float
    offset: float


Settings = tuple[Setting, ...]


class ClockHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The record over a restart. The last setting ends at the newest known moment. `stopped`: the stop was orderly."""

    settings: Settings
    stopped: bool


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A life's beginning: its settings, which end at the steady time of the start, and the seconds since the last."""

    settings: Settings
    passed: float


def begin(known: ClockHistory | None, wall: float) -> Begun:
    """Continue steady time after a stop or a crash, by the wall clock where that can be believed."""
    if known is None or not known.settings:
        return Begun(settings=(Setting(0.0, wall, 0.0),), passed=0.0)
    passed = _elapsed(known, wall)
    steady = known.settings[-1].until + passed
    if passed > DAY:  # to be told apart, in case it turns out that the clock was ahead
        return Begun(settings=(*known.settings, Setting(steady, steady, wall - steady)), passed=passed)
    return Begun(settings=set_to(known.settings, steady, steady, wall - steady), passed=passed)


def _elapsed(known: ClockHistory, wall: float) -> float:
    """The time between two lives: that of the setting that was in force, else the least that a setting explains."""
    *_, last = known.settings
    if 0.0 <= (passed := wall - last.offset - last.until) <= DAY:
        return passed
    passed = least_elapsed(known.settings, last.until, wall)
    return passed if known.stopped or passed <= DAY else 0.0


def least_elapsed(settings: Settings, then: float, wall: float) -> float:
    """The least time since `then` that a setting of before explains; 0 when the clock shows an earlier time."""
    return min([passed for one in settings if (passed := wall - one.offset - then) >= 0.0], default=0.0)


def set_to(settings: Settings, seen: float, now: float, offset: float) -> Settings:
    """The settings after a look `now`, the one before was at `seen`: a small step moves the last, a jump adds one."""
    *before, last = settings
    if abs(offset - last.offset) <= JUMP:
        return (*before, Setting(last.since, now, offset))
    return (*before[-MOST_SETTINGS:], Setting(last.since, now, last.offset), Setting(seen, now, offset))


def steady_of(settings: Settings, stamp: float, now: float) -> float:
    """The latest steady time at which the wall clock can have shown the stamp; the nearest one if it never did."""
    explained, near = [], [0.0]
    for setting, until in _with_ends(settings, now):
        taken = stamp - setting.offset
        if setting.since <= taken <= until:
            explained.append(taken)
        elif taken > until:
            near.append(until)
    return max(explained or near)


def young_stamps(settings: Settings, now: float, age: float) -> list[tuple[float, float]]:
    """The stretches of stamps, from and to, outside of which everything is older than `age`.

    A stamp that no setting explains is as young as `steady_of` takes it for: what was stored after the last record of a
    life that crashed has such stamps.
    """
    since = now - age
    known = list(_with_ends(settings, now))
    young = [
        (max(since, one.since) + one.offset, until + one.offset) for one, until in known if until >= since
    ]
    explained = _merge([(one.since + one.offset, until + one.offset) for one, until in known])
    after = min(end for _, end in young)
    starts = [*(start for start, _ in explained[1:]), float("inf")]
    gaps = [
        (max(end, after), start) for (_, end), start in zip(explained, starts, strict=True) if start > after
    ]
    return _merge([*young, *gaps])


def _merge(stretches: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same stretches in order, those that meet made one."""
    found: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def wait_for(settings: Settings, due: float, now: float, longest: float) -> float:
    """Seconds until a moment that was written by one of the settings, and at most `longest`."""
    waits = sorted(due - setting.offset - now for setting in settings)
    fitting = [wait for wait in waits if 0.0 <= wait <= longest]
    if fitting:
        return fitting[0]
    return 0.0 if waits[0] < 0.0 else longest


def _with_ends(settings: Sequence[Setting], now: float) -> Iterator[tuple[Setting, float]]:
    for setting in settings[:-1]:
        yield setting, setting.until
    yield settings[-1], now
