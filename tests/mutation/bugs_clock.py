"""Deliberate bugs in ages, and in the waits of a batch."""

from .bugs import CONTRACT, Bug

CLOCKS = "tests/unit/runtime/test_clock.py::"
HOUR = "tests/unit/pipeline/test_courier.py::test_one_picture_that_asks_for_an_hour_does_not_keep_the_others_waiting"

CLOCK = (
    Bug(
        "a delivery's age is the wall clock's",
        "poller/runtime/clock.py",
        "        return max(0.0, now - taken - passed)\n",
        "        return max(0.0, (self.now() - at).total_seconds())\n",
        (CLOCKS + "test_an_age_grows_with_the_monotonic_clock_however_the_clock_is_set",),
    ),
    Bug(
        "a long time before a start counts without an orderly stop",
        "poller/runtime/ages.py",
        "    return passed if known.stopped or passed <= DAY else 0.0\n",
        "    return passed\n",
        (CLOCKS + "test_a_long_time_after_a_kill_never_counts",),
    ),
    Bug(
        "a clock that is set right after the start was right at the start",
        "poller/runtime/clock.py",
        "            now = self._revise(life, now, wall) if by < 0 else now\n",
        "",
        (CLOCKS + "test_a_clock_that_is_set_right_after_the_start_ages_nothing",),
    ),
    Bug(
        "waits from disk are not bounded",
        "poller/runtime/ages.py",
        "    return 0.0 if waits[0] < 0.0 else longest\n",
        "    return max(0.0, waits[0])\n",
        (CLOCKS + "test_a_wait_from_disk_is_bounded_where_no_setting_explains_it",),
    ),
    Bug(
        "the longest wait of a batch holds for all of it",
        "poller/spools/sink_queue.py",
        "                    group = again.setdefault((step_of(after), counted), [])\n",
        "                    group = again.setdefault((0, counted), [])\n",
        (HOUR, CONTRACT + "test_one_long_wait_holds_back_nobody_else"),
    ),
    Bug(
        "a wait that was asked for counts as an attempt",
        "poller/spools/sink_queue.py",
        "            failed=batch.attempt if longest.counted else batch.attempt - 1,\n",
        "            failed=batch.attempt,\n",
        (HOUR, CONTRACT + "test_a_wait_that_was_asked_for_is_no_attempt"),
    ),
    Bug(
        "each different wait makes a batch",
        "poller/spools/sink_queue.py",
        "                    group = again.setdefault((step_of(after), counted), [])\n",
        "                    group = again.setdefault((hash(after), counted), [])\n",
        (CONTRACT + "test_a_thousand_different_waits_make_few_batches",),
    ),
)
