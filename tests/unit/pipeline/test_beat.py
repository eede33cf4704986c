"""What is known of a beat, and how it changes the pace."""

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest

from poller.core.model import PollOutcome
from poller.pipeline.beat import KEEP, Beat, Forecast
from poller.pipeline.pace import Pace, next_pace

from .on_beat import MOST, answer, bursts, pace

BURST = (3.0, 4.0)
"""Where in a beat of ten seconds the messages come, in the tests of one known beat."""
MIDST, BEFORE, LONG_BEFORE = 1_003.5, 1_001.0, 1_005.0


def known(streams: int = 50, beats: int = 5, period: float = 10.0) -> Beat:
    """A beat that was polled four times a second in the last beats before 1,000 s on the clock."""
    dice, beat = random.Random(7), Beat.new(period)
    began = 1_000.0 - beats * period
    arrivals = [began + n * period + dice.uniform(*BURST) for n in range(beats) for _ in range(streams)]
    for step in range(round(beats * period * 4) + 1):
        asked = began + step * 0.25
        count = sum(asked - 0.25 < came <= asked for came in arrivals)
        beat = beat.note(asked, count, full=False)
    return beat


def with_beat(beat: Beat, *, min_delay: float = 0.25, max_delay: float = 5.0) -> Pace:
    return msgspec.structs.replace(pace(None, min_delay=min_delay, max_delay=max_delay), beat=beat)


def held(beat: Beat) -> dict[int, float]:
    """What the bins hold, without those that are empty."""
    return {number: round(count, 6) for number, count in enumerate(beat.bins) if count}


# ---------------------------------------------------------------- what an answer says


def test_messages_are_spread_over_the_time_in_which_they_may_have_come() -> None:
    beat = Beat.new(10.0).note(20.0, 0, full=False).note(20.5, 0, full=False)
    assert held(beat.note(21.0, 8, full=False)) == {2: 4.0, 3: 4.0}
    assert held(beat.note(20.625, 8, full=False)) == {2: 8.0}
    assert held(beat.note(20.875, 9, full=False)) == {2: 6.0, 3: 3.0}


def test_messages_are_spread_by_what_is_known_of_the_time_in_which_they_may_have_come() -> None:
    beat = known()
    waiting = beat.note(1_000.1, 0, full=False)
    late, none = (waiting.note(1_003.9, count, full=False) for count in (50, 0))
    came = [one - other for one, other in zip(late.bins, none.bins, strict=True)]
    assert sum(came) == pytest.approx(50.0)
    assert sum(came[11:16]) > 40.0, "the burst is where it was"


def test_messages_around_the_turn_of_the_beat_lie_at_both_ends_of_it() -> None:
    beat = Beat.new(10.0).note(29.75, 0, full=False)
    assert held(beat.note(30.25, 8, full=False)) == {39: 4.0, 0: 4.0}


def test_full_answers_are_placed_when_the_queue_is_empty_again() -> None:
    beat = Beat.new(10.0).note(20.0, 0, full=False)
    beat = beat.note(20.5, 100, full=True).note(20.51, 100, full=True)
    assert not any(beat.bins)
    beat = beat.note(20.52, 8, full=False)
    assert sum(beat.bins) == pytest.approx(208.0)
    assert beat.bins[0] == pytest.approx(100.0)
    assert held(beat.note(20.52, 0, full=False)) == held(beat)


@pytest.mark.parametrize("pause", [None, 10.0, 3_600.0])
def test_messages_that_may_have_come_at_any_time_teach_nothing(pause: float | None) -> None:
    """The first answers, and those after an outage: whatever waited since nobody knows when."""
    beat = Beat.new(10.0)
    if pause is not None:
        beat = beat.note(20.0, 0, full=False)
    asked = 20.0 + (pause or 0.0)
    beat = beat.note(asked, 100, full=True).note(asked + 0.01, 40, full=False)
    assert not any(beat.bins)
    assert sum(beat.note(asked + 0.3, 6, full=False).bins) == pytest.approx(6.0)


def test_lanes_that_overtake_each_other_lose_no_message() -> None:
    beat = Beat.new(10.0).note(20.0, 0, full=False).note(20.30, 5, full=False)
    assert sum(beat.note(20.29, 7, full=False).bins) == pytest.approx(12.0)


def test_each_beat_forgets_a_fifth_and_a_silent_night_all() -> None:
    beat = Beat.new(10.0).note(20.0, 0, full=False).note(20.2, 100, full=False)
    assert held(beat.note(29.0, 0, full=False)) == {0: 100.0}
    assert held(beat.note(30.1, 0, full=False)) == {0: round(100.0 * KEEP, 6)}
    assert held(beat.note(70.1, 0, full=False)) == {0: round(100.0 * KEEP**5, 6)}
    night = beat.note(20.0 + 8 * 3_600.0, 0, full=False)
    assert sum(night.bins) < 1e-9
    assert night.forecast(LONG_BEFORE) == Forecast()


# ---------------------------------------------------------------- what is expected


@pytest.mark.parametrize("period", [5.0, 7.3, 10.0, 20.0, 60.0])
def test_a_burst_is_expected_where_it_was(period: float) -> None:
    beat = known(period=period)
    turn = math.ceil(1_000.0 / period) * period  # the clock's multiple of the period, where the beat begins
    phase = (1_000.0 - 5 * period) % period
    assert beat.forecast(turn + phase + 3.5).busy
    before = beat.forecast(turn + phase + 1.0)
    assert not before.busy
    assert before.quiet_for == pytest.approx(2.0, abs=0.3)
    after = beat.forecast(turn + phase + 4.5)
    assert not after.busy
    assert after.busy_in == pytest.approx(period - 1.5, abs=0.3)


@pytest.mark.parametrize("each", [1, 3, 40])
def test_messages_at_all_times_are_no_burst(each: int) -> None:
    beat = Beat.new(10.0).note(20.0, 0, full=False)
    for step in range(1, 200):
        beat = beat.note(20.0 + step * 0.25, each, full=False)
    for step in range(40):
        assert beat.forecast(80.0 + step * 0.25) == Forecast()


def test_two_messages_are_too_few_and_four_tell_when_to_look() -> None:
    beat = Beat.new(10.0).note(20.0, 0, full=False).note(20.2, 2, full=False)
    assert beat.forecast(25.0) == Forecast()
    more = beat.note(20.25, 2, full=False).forecast(25.0)
    assert not more.busy
    assert more.busy_in == pytest.approx(5.0, abs=0.3)


# ---------------------------------------------------------------- what follows for the pace


def test_without_knowledge_a_pace_with_a_beat_is_the_pace_without() -> None:
    dice = random.Random(3)
    with_one, without = pace(10.0), pace(None)
    for number in range(300):
        outcome = dice.choice(list(PollOutcome))
        reading = answer({PollOutcome.FULL: MOST, PollOutcome.PARTIAL: 7}.get(outcome, 0), outcome)
        with_one = next_pace(with_one, reading, lambda: 0.5, asked=number * 10.0, now=number * 10.0)
        without = next_pace(without, reading, lambda: 0.5)
        assert msgspec.structs.replace(with_one, beat=None) == without


@pytest.mark.parametrize(
    ("min_delay", "max_delay", "step"), [(0.25, 5, 0.45), (0.1, 5, 0.2), (2, 5, 2), (0.01, 0.01, 0.01)]
)
def test_during_a_burst_polls_are_a_step_apart(min_delay: float, max_delay: float, step: float) -> None:
    before = with_beat(known(), min_delay=min_delay, max_delay=max_delay)
    for count in (0, 7):
        after = next_pace(before, answer(count), asked=MIDST, now=MIDST)
        assert after.delay == pytest.approx(step)
        assert after.lanes == 1


@pytest.mark.parametrize(("took", "delay"), [(0.1, 0.35), (0.15, 0.3), (0.4, 0.25), (7.0, 0.25)])
def test_the_time_that_a_poll_takes_is_a_part_of_the_step(took: float, delay: float) -> None:
    after = next_pace(with_beat(known()), answer(7), asked=MIDST - took, now=MIDST)
    assert after.delay == pytest.approx(delay)


def test_a_quiet_time_is_slept_through_but_no_longer_than_the_longest_delay() -> None:
    before = with_beat(known())
    after = next_pace(before, answer(0), asked=BEFORE - 0.01, now=BEFORE)
    assert BEFORE + after.delay == pytest.approx(1_003.25, abs=0.1), "the first messages have come by then"
    assert next_pace(before, answer(0), asked=LONG_BEFORE - 0.01, now=LONG_BEFORE).delay == 5.0
    assert (
        next_pace(with_beat(known(), max_delay=20.0), answer(0), asked=LONG_BEFORE, now=LONG_BEFORE).delay
        > 7.5
    )


def test_a_message_in_a_quiet_time_is_followed_as_without_a_beat() -> None:
    assert next_pace(with_beat(known()), answer(1), asked=BEFORE - 0.01, now=BEFORE).delay == 0.25


def test_a_full_answer_is_followed_at_once_whenever_it_comes() -> None:
    before = msgspec.structs.replace(with_beat(known()), max_in_flight=4)
    for now, lanes in ((BEFORE, 2), (MIDST, 1), (LONG_BEFORE, 2)):
        before = msgspec.structs.replace(before, delay=0.25)
        after = next_pace(before, answer(MOST), asked=now - 0.01, now=now)
        assert (after.delay, after.lanes) == (0.0, lanes)


def test_in_a_burst_only_a_second_full_answer_opens_a_lane() -> None:
    """The rest of what came in a step is often one answer: another lane would find nothing."""
    at, lanes = msgspec.structs.replace(with_beat(known()), max_in_flight=4, delay=0.25), list[int]()
    for number in range(4):
        at = next_pace(at, answer(MOST), asked=MIDST + number * 0.01, now=MIDST + number * 0.01 + 0.005)
        lanes.append(at.lanes)
    assert lanes == [1, 2, 3, 4]


def test_pauses_that_grow_end_before_the_next_burst() -> None:
    """Where a few messages come between the bursts, so that no time is quiet."""
    dice, beat = random.Random(1), Beat.new(10.0)
    for step in range(400):
        asked = 900.0 + step * 0.25
        count = 20 if 3.0 < asked % 10.0 <= 4.0 else dice.randint(1, 3)
        beat = beat.note(asked, count, full=False)
    growing = msgspec.structs.replace(with_beat(beat), backoff=4.0)
    after = next_pace(growing, answer(0), asked=BEFORE - 0.01, now=BEFORE)
    assert BEFORE + after.delay == pytest.approx(1_003.1, abs=0.3)


def test_a_pause_does_not_grow_over_the_time_in_which_a_burst_is_known_to_lie_somewhere() -> None:
    """Few messages that were found after long pauses: somewhere in five seconds, but nobody knows where."""
    beat = Beat.new(10.0)
    for turn in range(3):
        beat = beat.note(970.0 + turn * 10.0, 0, full=False).note(975.0 + turn * 10.0, 4, full=False)
    expected = beat.forecast(1_000.25)
    assert not expected.busy
    assert expected.quiet_for == 0.0
    growing = msgspec.structs.replace(with_beat(beat), backoff=4.0)
    after = next_pace(growing, answer(0), asked=1_000.25, now=1_000.25)
    assert 1.0 <= after.delay <= 2.5


@pytest.mark.parametrize("outcome", ["failed", "throttled", "refused", "uncertain"])
def test_a_failure_is_followed_as_without_a_beat_and_forgets_nothing(outcome: str) -> None:
    before = with_beat(known())
    reading = answer(0, PollOutcome(outcome))
    after = next_pace(before, reading, lambda: 1.0, asked=MIDST - 0.01, now=MIDST)
    alone = next_pace(msgspec.structs.replace(before, beat=None), reading, lambda: 1.0)
    assert msgspec.structs.replace(after, beat=None) == alone
    assert after.beat == before.beat


@pytest.mark.parametrize("delays", [(0.25, 5.0), (0.01, 0.3), (1.0, 1.0), (3.0, 60.0)])
@pytest.mark.parametrize("period", [1.0, 10.0, 60.0])
def test_no_pause_is_shorter_or_longer_than_the_settings_say(delays: Sequence[float], period: float) -> None:
    dice = random.Random(period)
    arrivals = bursts(dice, 30, 1_000.0, 1_200.0, period=period, spread=(0.2, 0.5))
    at, now, taken = pace(period, min_delay=delays[0], max_delay=delays[1]), 1_000.0, 0
    while now < 1_200.0:
        count = min(bisect_right(arrivals, now) - taken, MOST)
        taken += count
        at = next_pace(at, answer(count), asked=now, now=now + 0.02)
        assert at.delay == 0.0 if count == MOST else delays[0] <= at.delay <= delays[1]
        now += 0.02 + at.delay


def test_what_one_account_learns_another_does_not_know() -> None:
    """Nothing is shared, and nothing is changed in place."""
    one = with_beat(known())
    bins = one.beat.bins if one.beat else ()
    next_pace(one, answer(50), asked=MIDST - 0.01, now=MIDST)
    assert one.beat is not None
    assert one.beat.bins is bins
    assert not any(Beat.new(10.0).bins)


def test_the_bins_are_a_quarter_of_a_second_long() -> None:
    for period in (1.0, 5.0, 7.3, 10.0, 60.0):
        assert period / len(Beat.new(period).bins) == pytest.approx(0.25, rel=0.01)
    assert all(later > sooner for sooner, later in pairwise(len(Beat.new(p).bins) for p in (1.0, 5.0, 60.0)))
