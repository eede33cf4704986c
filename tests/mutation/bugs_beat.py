"""Deliberate bugs in what is learned of the beat, and in what follows for the polls."""

from .bugs import Bug

BEAT = "poller/pipeline/beat.py"
PACE = "poller/pipeline/pace.py"
KNOWN = "tests/unit/pipeline/test_beat.py::"
SIMULATED = "tests/unit/pipeline/test_beat_simulation.py::"

BEATS = (
    Bug(
        "a beat is never forgotten",
        BEAT,
        "        bins = [held * KEEP**whole for held in self.bins]\n",
        "        bins = list(self.bins)\n",
        (KNOWN + "test_each_beat_forgets_a_fifth_and_a_silent_night_all",),
    ),
    Bug(
        "a backlog teaches a beat",
        BEAT,
        "asked - self.since < self.period:",
        "asked:",
        (KNOWN + "test_messages_that_may_have_come_at_any_time_teach_nothing",),
    ),
    Bug(
        "messages of full answers teach nothing",
        BEAT,
        "unplaced=self.unplaced + count)",
        "unplaced=self.unplaced)",
        (KNOWN + "test_full_answers_are_placed_when_the_queue_is_empty_again",),
    ),
    Bug(
        "all messages of an answer came when it was asked for",
        BEAT,
        "range(int(since / width), int(until / width) + 1)",
        "range(int(until / width), int(until / width) + 1)",
        (KNOWN + "test_messages_are_spread_over_the_time_in_which_they_may_have_come",),
    ),
    Bug(
        "scatter is taken for a burst",
        BEAT,
        " and variance >= CHANCE * mean + UNEVEN * mean**2\n",
        "\n",
        (
            KNOWN + "test_messages_at_all_times_are_no_burst",
            KNOWN + "test_chance_is_rarely_taken_for_a_burst",
            KNOWN + "test_without_bursts_pauses_grow_as_without_a_beat",
        ),
    ),
    Bug(
        "any certain unevenness is taken for bursts, however slight",
        BEAT,
        "CHANCE * mean + UNEVEN * mean**2\n",
        "CHANCE * mean\n",
        (SIMULATED + "test_a_wide_spread_is_never_worse",),
    ),
    Bug(
        "messages wait for as many others as they would in a large beat",
        BEAT,
        "WAIT * (sum(self.bins) + MORE)",
        "WAIT * (sum(self.bins) + 40 * MORE)",
        (SIMULATED + "test_few_lives_with_a_few_streams_meet_a_burst_late",),
    ),
    Bug(
        "a full answer waits for the next burst",
        PACE,
        "    if full:\n        return pace if again",
        "    if full and due <= pace.step:\n        return pace if again",
        (KNOWN + "test_a_full_answer_is_followed_at_once_whenever_it_comes",),
    ),
    Bug(
        "each full answer in a burst opens a lane",
        PACE,
        "        return pace if again or due > pace.step else",
        "        return pace if full else",
        (
            KNOWN + "test_in_a_burst_only_a_second_full_answer_opens_a_lane",
            SIMULATED + "test_bursts_each_ten_seconds_are_met",
        ),
    ),
    Bug(
        "a message where none was expected changes nothing",
        PACE,
        "pace.step if reading.outcome is PollOutcome.PARTIAL else max(pace.step, due)",
        "max(pace.step, due)",
        (KNOWN + "test_a_message_in_a_quiet_time_is_followed_by_a_step_and_then_by_sleep",),
    ),
    Bug(
        "messages are spread evenly over a pause, whatever is known of it",
        BEAT,
        "(self._likely(number) + surprise)",
        "surprise",
        (KNOWN + "test_messages_are_spread_by_what_is_known_of_the_time_in_which_they_may_have_come",),
    ),
    Bug(
        "a quiet time is slept through to its end, however long it is",
        PACE,
        "    delay = min(max(pace.min_delay, asked + pause - now), pace.max_delay)\n",
        "    delay = max(pace.min_delay, asked + pause - now)\n",
        (
            KNOWN + "test_a_quiet_time_is_slept_through_but_no_longer_than_the_longest_delay",
            KNOWN + "test_no_pause_is_shorter_or_longer_than_the_settings_say",
        ),
    ),
    Bug(
        "a burst is polled without a pause where answers are slow",
        PACE,
        "max(pace.min_delay, asked + pause - now)",
        "max(0.0, asked + pause - now)",
        (KNOWN + "test_the_time_that_a_poll_takes_is_a_part_of_the_step",),
    ),
    Bug(
        "a beat is learned by the times of the answers",
        "poller/pipeline/intake.py",
        "asked=asked, now=now)",
        "asked=now, now=now)",
        (
            "tests/unit/pipeline/test_intake.py"
            "::test_the_beat_is_learned_by_the_times_of_the_polls_not_of_their_answers",
        ),
    ),
)
