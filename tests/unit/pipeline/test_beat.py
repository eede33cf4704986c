"""What is known of a beat, and how it changes the pace."""

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest

from poller.core.model import PollOutcome
from poller.pipeline.beat import KEEP, Beat
from poller.pipeline.pace import Pace, next_pace

from .on_beat import MOST, answer, bursts, pace, poisson

BURST = (3.0, 4.0)
"""Where in a beat of ten seconds the messages come, in the tests of one known beat."""
MIDST, BEFORE, LONG_BEFORE = 1_003.5, 1_001.0, 1_005.0


def known(
    streams: int = 50, beats: int = 5, period: float = 10.0, burst: tuple[float, float] = BURST
) -> Beat:
    """A beat that was polled four times a second in the last beats before 1,000 s on the clock."""
    dice, began = random.Random(7), 1_000.0 - beats * period
    arrivals = [began + n * period + dice.uniform(*burst) for n in range(beats) for _ in range(streams)]
    return polled(Beat.new(period), sorted(arrivals), began, 1_000.0)


def polled(beat: Beat, arrivals: Sequence[float], begin: float, end: float) -> Beat:
    """What is known after four polls a second between two times. The arrivals are in order."""
    for step in range(round((end - begin) * 4) + 1):
        asked = begin + step * 0.25
        count = bisect_right(arrivals, asked) - bisect_right(arrivals, asked - 0.25)
        beat = beat.note(asked, count, full=False)
    return beat


def due(beat: Beat, asked: float) -> float:
    """When the next poll is due; there have to be bursts."""
    found = beat.due(asked)
    assert found is not None
    return found


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
    assert beat.note(80.0, 0, full=False).bursts
    assert not night.bursts
    assert night.due(LONG_BEFORE) is None


# ---------------------------------------------------------------- what is expected


@pytest.mark.parametrize("period", [3.0, 5.0, 7.3, 10.0, 20.0, 60.0])
@pytest.mark.parametrize("streams", [5, 50, 500])
def test_a_poll_is_due_soon_in_a_burst_and_else_when_the_first_messages_of_the_next_have_come(
    period: float, streams: int
) -> None:
    beat = known(streams=streams, period=period, burst=(1.0, 2.0))
    assert due(beat, 1_001.2) <= 0.35
    for asked in (1_000.5, 1_002.4):
        begin = 1_001.0 + (0.0 if asked < 1_001.0 else period)
        assert begin <= asked + due(beat, asked) <= begin + 0.45


def test_few_messages_wait_longer_for_a_poll_than_many() -> None:
    def mixed(between: int) -> Beat:
        """Bursts, and so many messages each second between them."""
        arrivals = [960.0 + n * 10.0 + 3.0 + k / 100 for n in range(4) for k in range(100)]
        arrivals += [960.0 + second + k / between for second in range(40) for k in range(between)]
        return polled(Beat.new(10.0), sorted(arrivals), 960.0, 1_000.0)

    dues = [due(mixed(between), 1_005.0) for between in (0, 1, 2, 4)]
    assert dues == sorted(dues, reverse=True)
    assert dues[0] > 7.5
    assert dues[3] < 3.0
    assert mixed(100).due(1_005.0) is None, "a few more messages at one time are no burst"


@pytest.mark.parametrize("each", [1, 3, 40])
def test_messages_at_all_times_are_no_burst(each: int) -> None:
    beat = Beat.new(10.0).note(20.0, 0, full=False)
    for step in range(1, 200):
        beat = beat.note(20.0 + step * 0.25, each, full=False)
        assert not beat.bursts or step < 32, "the rest of the first beat is not known yet"
    for step in range(40):
        assert beat.due(80.0 + step * 0.25) is None


@pytest.mark.parametrize("rate", [0.2, 1.0, 5.0, 50.0])
def test_chance_is_rarely_taken_for_a_burst(rate: float) -> None:
    taken = 0
    for seed in range(100):
        arrivals = poisson(random.Random(seed), rate, 900.0, 1_000.0)
        taken += polled(Beat.new(10.0), arrivals, 900.0, 1_000.0).bursts
    assert taken <= 15


def test_two_messages_are_too_few_and_four_tell_when_to_look() -> None:
    beat = Beat.new(10.0).note(20.0, 0, full=False).note(20.2, 2, full=False)
    assert beat.due(25.0) is None
    assert 5.0 <= due(beat.note(20.25, 2, full=False), 25.0) <= 6.0


@pytest.mark.parametrize("period", [1.0, 10.0, 60.0])
def test_whatever_was_learned_a_poll_is_due_within_two_beats(period: float) -> None:
    dice = random.Random(period)
    for _ in range(200):
        beat, now = Beat.new(period), 1_000.0
        for _ in range(30):
            now += dice.uniform(0.0, period / 2)
            beat = beat.note(now, dice.choice([0, 0, 1, 100]), full=False)
        wait = beat.due(now)
        assert wait is None or 0.0 < wait <= 2 * period


# ---------------------------------------------------------------- what follows for the pace


def test_without_knowledge_a_pace_with_a_beat_is_the_pace_without() -> None:
    dice = random.Random(3)
    with_one, without = pace(10.0), pace(None)
    for number in range(300):
        outcome = dice.choice(list(PollOutcome))
        reading = answer({PollOutcome.FULL: MOST, PollOutcome.PARTIAL: 7}.get(outcome, 0), outcome)
        with_one = next_pace(with_one, reading, lambda: 0.5, asked=number * 10.0, now=number * 10.0)
        without = next_pace(without, reading, lambda: 0.5, asked=0.0, now=0.0)
        assert msgspec.structs.replace(with_one, beat=None) == without


@pytest.mark.parametrize(
    ("min_delay", "max_delay", "step"), [(0.25, 5, 0.45), (0.1, 5, 0.2), (2, 5, 2), (0.01, 0.01, 0.01)]
)
def test_during_a_burst_polls_are_a_step_apart(min_delay: float, max_delay: float, step: float) -> None:
    before = with_beat(known(), min_delay=min_delay, max_delay=max_delay)
    for count in (0, 7):
        after = next_pace(before, answer(count), asked=MIDST, now=MIDST)
        assert after.delay == pytest.approx(step, abs=0.02)
        assert after.lanes == 1


@pytest.mark.parametrize(("took", "delay"), [(0.1, 0.35), (0.15, 0.3), (0.4, 0.25), (7.0, 0.25)])
def test_the_time_that_a_poll_takes_is_a_part_of_the_step(took: float, delay: float) -> None:
    after = next_pace(with_beat(known()), answer(7), asked=MIDST - took, now=MIDST)
    assert after.delay == pytest.approx(delay)


def test_a_quiet_time_is_slept_through_but_no_longer_than_the_longest_delay() -> None:
    before = with_beat(known())
    after = next_pace(before, answer(0), asked=BEFORE - 0.01, now=BEFORE)
    assert BEFORE + after.delay == pytest.approx(1_003.25, abs=0.2), "the first messages have come by then"
    assert next_pace(before, answer(0), asked=LONG_BEFORE - 0.01, now=LONG_BEFORE).delay == 5.0
    assert (
        next_pace(with_beat(known(), max_delay=20.0), answer(0), asked=LONG_BEFORE, now=LONG_BEFORE).delay
        > 7.5
    )


def test_a_message_in_a_quiet_time_is_followed_by_a_step_and_then_by_sleep() -> None:
    """Others may follow it; if none does, the beat is trusted again."""
    after = next_pace(with_beat(known()), answer(1), asked=BEFORE, now=BEFORE)
    assert after.delay == pytest.approx(0.45)
    now = BEFORE + after.delay
    again = next_pace(after, answer(0), asked=now, now=now)
    assert now + again.delay == pytest.approx(1_003.25, abs=0.2)


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


def test_without_bursts_pauses_grow_as_without_a_beat() -> None:
    beat = polled(Beat.new(10.0), [900.0 + step * 0.1 for step in range(1_000)], 900.0, 1_000.0)
    growing = msgspec.structs.replace(with_beat(beat), delay=1.0, backoff=1.0)
    assert next_pace(growing, answer(0), asked=BEFORE, now=BEFORE).delay == 2.0
    assert next_pace(growing, answer(1), asked=BEFORE, now=BEFORE).delay == 0.25


def test_a_burst_that_is_known_to_lie_somewhere_is_looked_for() -> None:
    """Twenty messages that were found after a long pause: somewhere in four seconds, but nobody knows where."""
    beat = Beat.new(10.0).note(990.0, 0, full=False).note(994.0, 20, full=False)
    at, now, polls = with_beat(beat), 1_000.5, []
    while now < 1_004.0:
        polls.append(now)
        at = next_pace(at, answer(0), asked=now, now=now)
        now += at.delay
    assert len(polls) >= 5


@pytest.mark.parametrize("outcome", ["failed", "throttled", "refused", "uncertain"])
def test_a_failure_is_followed_as_without_a_beat_and_forgets_nothing(outcome: str) -> None:
    before = with_beat(known())
    reading = answer(0, PollOutcome(outcome))
    after = next_pace(before, reading, lambda: 1.0, asked=MIDST - 0.01, now=MIDST)
    alone = next_pace(msgspec.structs.replace(before, beat=None), reading, lambda: 1.0, asked=0.0, now=0.0)
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
