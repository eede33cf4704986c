"""Deliberate bugs of what the pages show and order: the live hub, the actions and the page of a stream."""

from .bugs import Bug

HUB = "tests/unit/web/test_hub.py::"
JOBS = "tests/unit/web/test_jobs.py::"
ACTIONS = "tests/scenario/test_web_actions.py::"
STORED = "tests/unit/web/test_stored.py::"
TIMELINE = "tests/unit/web/test_timeline.py::"

LIVE_PAGES = (
    Bug(
        "the hub looks although nobody does",
        "poller/web/hub.py",
        "            await self._watched.wait()\n",
        "",
        (HUB + "test_the_hub_looks_while_it_is_watched_and_not_otherwise",),
    ),
    Bug(
        "a page that was away too long is told of no loss",
        "poller/web/hub.py",
        "                yield self.ring.reset()\n",
        "                yield self.ring._event('', b'{\"s\":[]}')\n",
        (HUB + "test_a_viewer_that_stays_away_longer_begins_anew",),
    ),
    Bug(
        "a place of another run of the daemon is taken",
        "poller/web/ring.py",
        "        if place.epoch != self.epoch or not 0 <= behind",
        "        if not 0 <= behind",
        ("tests/unit/web/test_ring.py::test_a_place_that_was_never_given_is_unknown",),
    ),
    Bug(
        "a stream that is forgotten stays on the pages",
        "poller/web/streams.py",
        "                gone.append(ordinal)\n",
        "",
        (
            "tests/unit/web/test_streams.py::test_a_forgotten_stream_is_gone_and_comes_back_under_a_new_ordinal",
            HUB + "test_a_viewer_that_loses_its_connection_at_random_sees_the_final_state",
        ),
    ),
    Bug(
        "messages are kept without end",
        "poller/web/ring.py",
        "        while self._kept and (",
        "        while not self._kept and (",
        (
            "tests/unit/web/test_ring.py::test_messages_are_forgotten_after_a_minute",
            "tests/unit/web/test_ring.py::test_messages_are_forgotten_when_they_are_too_many",
        ),
    ),
    Bug(
        "viewers are not told that the looks ended with an error",
        "poller/web/hub.py",
        "            self._looking.result()\n",
        "            return\n",
        (HUB + "test_viewers_end_with_the_error_that_ended_the_looks",),
    ),
)

ACTIONS_OF_THE_PAGES = (
    Bug(
        "an action does not look whether the count has changed",
        "poller/web/actions.py",
        "chosen=body.filter.chosen(), expect=body.expect)",
        "chosen=body.filter.chosen())",
        (
            "tests/integration/web/test_actions.py::test_an_operator_is_told_the_new_count_and_then_obeyed",
            ACTIONS + "test_a_count_that_has_changed_is_refused_with_the_new_one_and_nothing_is_done",
        ),
    ),
    Bug(
        "a viewer may count a replay",
        "poller/web/actions.py",
        "        check_operator(request)\n",
        "",
        (ACTIONS + "test_a_viewer_looks_and_changes_nothing",),
    ),
    Bug(
        "a job goes on while the daemon stops",
        "poller/web/jobs.py",
        "                job.advance()\n                if self._closing:\n",
        "                job.advance()\n                if not self._jobs:\n",
        (JOBS + "test_a_stop_waits_for_the_step_in_hand_and_does_not_begin_another",),
    ),
    Bug(
        "jobs are not bounded",
        "poller/web/jobs.py",
        ">= MOST_RUNNING:",
        ">= 100 * MOST_RUNNING:",
        (JOBS + "test_no_more_than_four_jobs_run_at_once",),
    ),
    Bug(
        "the text of a bug is published as the end of a job",
        "poller/web/jobs.py",
        "            job.error = PollerError(BROKEN)\n",
        "            job.error = PollerError(str(__import__('sys').exception()))\n",
        (JOBS + "test_an_error_of_a_command_ends_its_job_with_its_text_and_a_bug_without",),
    ),
    Bug(
        "a count that was cut off is said to be complete",
        "poller/web/stored.py",
        "                return found, some[-1].number\n",
        "                return found, None\n",
        (STORED + "test_a_count_that_takes_too_long_says_where_it_goes_on",),
    ),
    Bug(
        "signatures are shown among the reasons",
        "poller/web/stored.py",
        "(mask(letter.reason), letter.sink",
        "(letter.reason, letter.sink",
        (STORED + "test_signatures_in_reasons_are_masked",),
    ),
)

STREAM_PAGE = (
    Bug(
        "a stream's page has pictures of another time",
        "poller/web/timeline.py",
        "        return self.since <= at < self.until\n",
        "        return self.since <= at\n",
        (
            TIMELINE
            + "test_pictures_of_the_stream_within_the_window_come_in_the_order_in_which_they_were_taken",
        ),
    ),
    Bug(
        "between the parts of an answer a picture is left out",
        "poller/web/timeline.py",
        "            reading.below = start + 1\n",
        "            reading.below = start\n",
        (
            TIMELINE + "test_an_answer_that_would_take_too_long_is_partial_and_the_next_one_goes_on",
            TIMELINE + "test_an_answer_has_so_many_pictures_at_most",
        ),
    ),
    Bug(
        "a gap of another time is shown",
        "poller/web/timeline.py",
        "        taken_until=window.until,\n",
        "",
        (TIMELINE + "test_gaps_that_overlap_the_window_are_included",),
    ),
    Bug(
        "the page of an event shows signed URLs",
        "poller/web/events.py",
        "    return json_answer(msgspec.Raw(public_form(msgspec.json.encode(row))), status)\n",
        "    return json_answer(row, status)\n",
        ("tests/unit/web/test_events.py::test_neither_answer_holds_the_query_of_a_url",),
    ),
)
