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
    assert on.polls <= 1.2 * off.polls


@pytest.mark.parametrize(
    ("period", "spread"), [(3.0, 0.8), (5.0, 1.2), (15.0, 2.0), (30.0, 2.0), (60.0, 2.0)]
)
@pytest.mark.parametrize("streams", [5, 50])
def test_bursts_of_another_period_are_met_where_the_setting_names_it(
    period: float, spread: float, streams: int
) -> None:
    off, on = compare(on_beat(streams, period, (0.2, spread)), period)
    assert on.p50 <= 0.3
    assert on.p99 <= 0.7
    assert on.p99 < off.p99
    assert on.polls <= 1.4 * off.polls


@pytest.mark.parametrize("streams", [40, 200])
def test_bursts_each_five_seconds_are_met_by_the_setting_of_ten(streams: int) -> None:
    off, on = compare(on_beat(streams, 5.0))
    assert on.p50 <= 0.27
    assert on.p99 <= 0.6 < off.p99
    assert on.polls <= off.polls


@pytest.mark.parametrize("period", [20.0, 30.0])
def test_bursts_of_a_multiple_of_the_setting_are_met_with_more_polls(period: float) -> None:
    off, on = compare(on_beat(50, period))
    assert on.p50 <= 0.3
    assert on.p99 < off.p99
    assert on.polls <= 2.0 * off.polls


@pytest.mark.parametrize("streams", [5, 20, 200])
@pytest.mark.parametrize("spread", [5.0, 15.0])
def test_a_wide_spread_is_never_worse(streams: int, spread: float) -> None:
    off, on = compare(on_beat(streams, spread=(0.0, spread)))
    assert on.mean <= off.mean + 0.05
    assert on.p50 <= off.p50 + 0.1
    assert on.p99 <= off.p99 + 0.1
    assert on.polls <= 1.25 * off.polls


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
    assert on.polls <= off.polls + 0.4
    assert on.mean <= off.mean + 0.3


# ---------------------------------------------------------------- learning


def beats_of(poller: Poller, first: float, count: int, period: float = 10.0) -> list[Measured]:
    """What happened in each beat from a time on."""
    return [poller.measure(first + n * period, first + (n + 1) * period) for n in range(count)]


def mean_of(lives: list[list[Measured]]) -> list[float]:
    """How late messages were in each beat, on average over the lives."""
    return [sum(beat.mean for beat in beats) / len(beats) for beats in zip(*lives, strict=True)]


def lives(streams: int, *, moves: bool, count: int = 12) -> list[list[Measured]]:
    """The first beats of some phases, each for a poller of its own: a new one, or one that knows another phase."""
    return [one_life(random.Random(seed), streams, moves=moves) for seed in range(count)]


def one_life(dice: random.Random, streams: int, *, moves: bool) -> list[Measured]:
    poller, first, arrivals = Poller(pace(10.0), BEGIN), BEGIN + dice.uniform(0.0, 10.0), Arrivals()
    if moves:
        arrivals = beats_from(dice, streams, first, 20)
        first += 210.0 + dice.uniform(0.0, 10.0)
    arrivals = merge(arrivals, beats_from(dice, streams, first, 12))
    return beats_of(poller.drain(arrivals, first + 120.0), first, 8)


def beats_from(dice: random.Random, streams: int, first: float, beats: int) -> Arrivals:
    return merge(
        first + beat * 10.0 + dice.uniform(0.2, 2.0) for beat in range(beats) for _ in range(streams)
    )


@pytest.mark.parametrize("streams", [20, 50, 200, 500])
def test_a_new_poller_has_learned_a_beat_when_it_comes_the_third_time(streams: int) -> None:
    found = lives(streams, moves=False)
    assert mean_of(found)[0] > 1.0, "nobody can know the first one"
    assert max(mean_of(found)[2:]) <= 0.3
    assert max(beat.p99 for life in found for beat in life[3:]) <= 0.6


def test_a_few_streams_are_learned_by_the_fourth_beat() -> None:
    assert max(mean_of(lives(5, moves=False, count=48))[3:]) <= 0.4


@pytest.mark.parametrize("streams", [5, 20, 50, 200, 500])
def test_a_beat_that_moves_is_found_again(streams: int) -> None:
    means = mean_of(lives(streams, moves=True))
    assert max(means[2:4]) <= 1.1, "a poller without a beat is 1.9 s late"
    assert max(means[6:]) <= 0.6


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
