"""Polls by what was learned of the beat, beside polls without a beat, on the same messages.

Each row is a way in which messages come, for a quarter of an hour of the simulation's clock, a few times with other
dice. The dice have fixed seeds: a row gives the same figures each time.
"""

import random
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import pytest

from .on_beat import Arrivals, Measured, Poller, bursts, merge, pace, poisson, uniform

BEGIN, LEARNED, END = 1_000.0, 1_060.0, 1_900.0
SEEDS, MORE_SEEDS = range(3), range(15)
Make = Callable[[random.Random], Arrivals]


class Compared(NamedTuple):
    """Medians over the seeds, without a beat and with it."""

    off: Measured
    on: Measured


def compare(make: Make, beat: float = 10.0, seeds: range = SEEDS) -> Compared:
    """Both pollers on the same messages. What comes in the first minute is not measured."""
    found: tuple[list[Measured], list[Measured]] = ([], [])
    for seed in seeds:
        arrivals = make(random.Random(seed))
        for known, measured in zip((None, beat), found, strict=True):
            measured.append(Poller(pace(known), BEGIN).drain(arrivals, END).measure(LEARNED, END))
    return Compared(*(_medians(measured) for measured in found))


def _medians(measured: list[Measured]) -> Measured:
    names = ("polls", "mean", "p50", "p99")
    return Measured(**{name: median(getattr(one, name) for one in measured) for name in names})


def on_beat(streams: int, period: float = 10.0, spread: tuple[float, float] = (0.2, 2.0)) -> Make:
    return lambda dice: bursts(dice, streams, BEGIN, END, period=period, spread=spread)


# ---------------------------------------------------------------- messages on a beat


@pytest.mark.parametrize("streams", [5, 20, 50, 200, 500])
def test_bursts_each_ten_seconds_are_met(streams: int) -> None:
    off, on = compare(on_beat(streams))
    assert off.p99 > 4.0, "without a beat the poller is met asleep"
    assert on.p50 <= 0.3
    assert on.p99 <= 0.6
    assert on.polls <= (1.2 if streams == 5 else 1.1) * off.polls


@pytest.mark.parametrize(("streams", "period"), [(20, 10.0), (50, 10.0), (200, 10.0), (40, 5.0), (200, 5.0)])
def test_no_life_meets_its_bursts_late(streams: int, period: float) -> None:
    for on in short_lives(streams, 1_500 // streams, period):
        assert on.p50 <= 0.3
        assert on.p99 <= 0.5


def test_few_lives_with_a_few_streams_meet_a_burst_late() -> None:
    """A life has 50 messages: its p99 is its latest one."""
    late = sorted(on.p99 for on in short_lives(5, 300))
    assert late[150] <= 0.5
    assert late[225] <= 0.6, "three of four lives"
    assert late[285] <= 1.0
    assert late[297] <= 2.0, "no part of a burst is slept through for five seconds"


def short_lives(streams: int, count: int, period: float = 10.0) -> list[Measured]:
    """Ten beats or more of each of these lives, after the time to learn."""
    return [
        Poller(pace(10.0), BEGIN)
        .drain(bursts(random.Random(seed), streams, BEGIN, BEGIN + 140.0, period=period), BEGIN + 140.0)
        .measure(BEGIN + 42.0, BEGIN + 135.0)
        for seed in range(count)
    ]


@pytest.mark.parametrize(
    ("period", "spread"), [(3.0, 0.8), (5.0, 1.2), (15.0, 2.0), (30.0, 2.0), (60.0, 2.0)]
)
@pytest.mark.parametrize("streams", [5, 50])
def test_bursts_of_another_period_are_met_where_the_setting_names_it(
    period: float, spread: float, streams: int
) -> None:
    off, on = compare(on_beat(streams, period, (0.2, spread)), period)
    assert on.p50 <= 0.3
    assert on.p99 <= 0.8
    assert on.p99 < off.p99
    assert on.polls <= 1.4 * off.polls


@pytest.mark.parametrize("streams", [40, 200])
def test_bursts_each_five_seconds_are_met_by_the_setting_of_ten(streams: int) -> None:
    off, on = compare(on_beat(streams, 5.0))
    assert on.p50 <= 0.25
    assert on.p99 <= 0.5 < off.p99
    assert on.polls <= 0.85 * off.polls


@pytest.mark.parametrize("period", [20.0, 30.0])
@pytest.mark.parametrize("streams", [5, 50])
def test_bursts_of_a_multiple_of_the_setting_are_met_with_more_polls(streams: int, period: float) -> None:
    off, on = compare(on_beat(streams, period))
    assert on.p50 <= 0.3
    assert on.p99 < off.p99
    assert on.polls <= 2.1 * off.polls


@pytest.mark.parametrize(
    ("streams", "spread", "polls"),
    [(5, 5.0, 1.3), (20, 5.0, 1.2), (200, 5.0, 1.0), (5, 15.0, 1.1), (20, 15.0, 1.05), (200, 15.0, 1.02)],
)
def test_a_wide_spread_is_never_worse(streams: int, spread: float, polls: float) -> None:
    seeds = SEEDS if streams == 200 else MORE_SEEDS  # few messages differ much
    off, on = compare(on_beat(streams, spread=(0.0, spread)), seeds=seeds)
    assert on.mean <= off.mean + 0.01
    assert on.p50 <= off.p50 + 0.1
    assert on.p99 <= off.p99 + 0.1
    assert on.polls <= polls * off.polls


def test_streams_of_two_beats_and_of_none_are_served_better_than_without() -> None:
    for make in (
        lambda dice: merge(on_beat(20)(dice), on_beat(20, 15.0)(dice)),
        lambda dice: merge(on_beat(50)(dice), on_beat(50, 5.0)(dice)),
        lambda dice: merge(on_beat(100)(dice), poisson(dice, 1.0, BEGIN, END)),
    ):
        off, on = compare(make)
        assert on.mean <= off.mean
        assert on.p99 <= off.p99


# ---------------------------------------------------------------- messages without a beat


@pytest.mark.parametrize("rate", [0.2, 1.0, 3.0, 10.0, 100.0])
@pytest.mark.parametrize("come", [poisson, uniform])
def test_messages_without_a_beat_are_taken_as_before(come: Callable[..., Arrivals], rate: float) -> None:
    seeds = MORE_SEEDS if rate <= 1.0 else SEEDS  # few messages differ much
    off, on = compare(lambda dice: come(dice, rate, BEGIN, END), seeds=seeds)
    assert on.mean <= off.mean + 0.1
    assert on.p50 <= off.p50 + 0.1
    assert on.polls <= 1.02 * off.polls


def test_bursts_at_any_time_cost_few_polls() -> None:
    def rare(dice: random.Random) -> Arrivals:
        starts = [dice.uniform(BEGIN, END) for _ in range(6)]
        return merge(start + dice.random() for start in starts for _ in range(300))

    off, on = compare(rare, seeds=MORE_SEEDS)  # six bursts differ much
    assert on.polls <= off.polls + 0.55
    assert on.mean <= off.mean


# ---------------------------------------------------------------- learning


def beats_of(poller: Poller, first: float, count: int, period: float = 10.0) -> list[Measured]:
    """What happened in each beat from a time on."""
    return [poller.measure(first + n * period, first + (n + 1) * period) for n in range(count)]


def mean_of(lives: list[list[Measured]]) -> list[float]:
    """How late messages were in each beat, on average over the lives."""
    return [sum(beat.mean for beat in beats) / len(beats) for beats in zip(*lives, strict=True)]


def latest_of(lives: list[list[Measured]], share: float) -> list[float]:
    """The p99 in each beat that this share of the lives kept."""
    return [
        sorted(beat.p99 for beat in beats)[int(share * (len(beats) - 1))]
        for beats in zip(*lives, strict=True)
    ]


def new_lives(streams: int, count: int, *, before: int = 0, silence: float = 0.0) -> list[list[Measured]]:
    """The first beats of some phases, each for a poller of its own.

    The poller is new, or it has met so many bursts at another phase, and then none for some seconds.
    """
    return [one_life(random.Random(seed), streams, before, silence) for seed in range(count)]


def one_life(dice: random.Random, streams: int, before: int, silence: float) -> list[Measured]:
    first, arrivals = BEGIN + dice.uniform(0.0, 10.0), Arrivals()
    if before:
        arrivals = beats_from(dice, streams, first, before)
        first += before * 10.0 + silence + dice.uniform(0.0, 10.0)
    arrivals = merge(arrivals, beats_from(dice, streams, first, 9))
    return beats_of(Poller(pace(10.0), BEGIN).drain(arrivals, first + 90.0), first, 8)


def beats_from(dice: random.Random, streams: int, first: float, beats: int) -> Arrivals:
    return merge(
        first + beat * 10.0 + dice.uniform(0.2, 2.0) for beat in range(beats) for _ in range(streams)
    )


@pytest.mark.parametrize(("streams", "count"), [(20, 100), (50, 60), (200, 20), (500, 10)])
def test_a_new_poller_has_learned_a_beat_when_it_comes_the_second_time(streams: int, count: int) -> None:
    found = new_lives(streams, count)
    assert mean_of(found)[0] > 1.0, "nobody can know the first one"
    assert max(mean_of(found)[1:]) <= 0.3
    assert max(latest_of(found, 1.0)[2:]) <= 0.7
    assert max(latest_of(found, 0.95)[2:]) <= 0.5


def test_a_few_streams_are_learned_when_they_come_the_third_time() -> None:
    found = new_lives(5, 300)
    assert max(mean_of(found)[2:]) <= 0.35
    assert max(latest_of(found, 0.95)[2:]) <= 1.0
    assert max(latest_of(found, 0.99)[3:]) <= 1.5


@pytest.mark.parametrize(("streams", "count"), [(5, 100), (20, 30), (50, 20), (200, 6), (500, 3)])
def test_a_beat_that_moves_is_found_again_within_three_beats(streams: int, count: int) -> None:
    found = new_lives(streams, count, before=20)
    assert max(mean_of(found)[1:2]) <= 0.6, "a poller without a beat is 1.9 s late"
    assert max(mean_of(found)[2:]) <= 0.35
    assert max(latest_of(found, 0.95)[3:]) <= 1.0


@pytest.mark.parametrize(("streams", "count"), [(5, 60), (20, 20), (200, 4)])
def test_after_a_silent_night_another_beat_is_learned_as_by_a_new_poller(streams: int, count: int) -> None:
    found = new_lives(streams, count, before=10, silence=900.0)
    assert max(mean_of(found)[2:]) <= 0.6
    assert max(mean_of(found)[3:]) <= 0.35


def test_after_a_silence_or_an_outage_the_beat_is_still_known_or_soon_learned_again() -> None:
    for seed in range(6):
        dice = random.Random(seed)
        phase = dice.uniform(0.0, 10.0)
        before = beats_from(dice, 50, BEGIN + phase, 30)
        silent = [came for came in before if not BEGIN + 100.0 < came < BEGIN + 200.0]
        after = beats_of(Poller(pace(10.0), BEGIN).drain(silent, BEGIN + 300.0), BEGIN + 200.0 + phase, 9)
        assert max(beat.mean for beat in after[2:]) <= 0.3
        outage = Poller(pace(10.0), BEGIN, refused=lambda now: BEGIN + 100.0 < now < BEGIN + 140.0)
        after = beats_of(outage.drain(before, BEGIN + 300.0), BEGIN + 200.0 + phase, 9)
        assert max(beat.mean for beat in after) <= 0.3


def test_a_night_without_messages_costs_no_more_polls_than_without_a_beat() -> None:
    dice = random.Random(1)
    evening = beats_from(dice, 200, BEGIN, 30)
    night, dawn = BEGIN + 700.0, BEGIN + 4_000.0
    quiet = [Poller(pace(beat), BEGIN).drain(evening, dawn).measure(night, dawn) for beat in (None, 10.0)]
    assert quiet[0].polls == pytest.approx(quiet[1].polls, abs=0.01)
