"""Sinks: who refuses, hangs, breaks off or is gone."""

from typing import Final

from .row import row

STATUS: Final = (
    "integration/sinks/test_webhook_answers.py::test_each_status_comes_to_one_thing_and_is_sent_once"
)

SINKS: Final = (
    row(
        "429 and 503 with Retry-After in every form",
        "honoured within bounds",
        "the wait asked for is what is raised",
        "integration/sinks/test_webhook_answers.py::test_whoever_says_when_is_waited_for",
        "integration/sinks/test_webhook_answers.py::test_each_form_of_retry_after_is_a_bounded_wait_or_none",
        "integration/sinks/test_webhook_answers.py::test_an_absurd_retry_after_over_the_wire_does_no_harm",
        "unit/pipeline/test_courier.py::test_what_a_retry_after_asks_for_holds_for_the_whole_sink",
    ),
    row(
        "5xx, a reset, a hang, a drip",
        "again with full jitter; a body that drips holds up nothing",
        "the server counts requests and connections; the delivery ends at its deadline",
        STATUS,
        "integration/sinks/test_webhook_connections.py::test_a_reset_is_tried_later_and_sent_once",
        "integration/sinks/test_webhook_answers.py"
        "::test_a_2xx_counts_whatever_its_body_does_and_its_connection_is_not_used_again",
        "integration/sinks/test_webhook_connections.py"
        "::test_a_server_that_hangs_is_left_at_the_deadline_and_harms_no_later_delivery",
        "unit/pipeline/test_retry.py::test_backoff_has_full_jitter",
        "unit/pipeline/test_courier.py::test_a_delivery_that_takes_too_long_comes_again",
    ),
    row(
        "an answer without end, or a bomb",
        "bounded",
        "the server counts the bytes it sent; the bomb is asked for as it is; what comes goes on while it is left",
        "integration/sinks/test_webhook_answers.py::test_a_huge_answer_is_left_after_its_first_part",
        "integration/sinks/test_webhook_answers.py::test_a_compressed_bomb_is_not_unpacked",
        "integration/sinks/test_webhook_odd_answers.py"
        "::test_informational_answers_without_end_are_left_and_starve_nothing",
        "scenario/test_polling_goes_on.py::test_polls_go_on_while_receivers_send_informational_answers_without_end",
    ),
    row(
        "an answer that HTTP does not allow",
        "its status counts, and its connection is not used again",
        "the server counts requests and connections",
        "integration/sinks/test_webhook_odd_answers.py"
        "::test_a_2xx_is_believed_whatever_follows_it_and_its_connection_is_not_used_again",
        "integration/sinks/test_webhook_odd_answers.py::test_another_status_keeps_its_meaning_under_an_odd_head",
        "integration/sinks/test_webhook_odd_answers.py::test_what_is_no_status_line_of_http_1_is_no_delivery",
    ),
    row(
        "names of receivers that are never resolved",
        "polls go on, and their own names are resolved",
        "the silent name server counts questions",
        "integration/runtime/test_resolver.py::test_names_that_are_never_resolved_delay_no_other_part",
        "scenario/test_polling_goes_on.py::test_polls_go_on_while_the_names_of_receivers_are_never_resolved",
    ),
    row(
        "3xx",
        "a failure, not followed",
        "the target counts requests",
        "integration/sinks/test_webhook_answers.py::test_a_redirect_is_a_failure_and_its_target_is_not_asked",
    ),
    row(
        "401, 403, 404 in bursts",
        "the sink pauses and is probed, nothing dropped",
        "`sink_paused` in the log with its status, attempts at the receiver",
        STATUS,
        "scenario/test_sinks.py::test_a_burst_of_refusals_pauses_the_sink_and_drops_nothing",
        "unit/pipeline/test_courier.py::test_a_sink_that_keeps_failing_is_probed_by_one_carrier_only",
        "scenario/test_operate.py::test_a_sink_that_fails_for_long_is_seen_everywhere_and_reported_once",
    ),
    row(
        "410",
        "disabled, deliveries kept",
        "`sink_disabled` in the log",
        "unit/pipeline/test_courier.py::test_gone_disables_the_sink_and_keeps_its_deliveries",
        "scenario/test_operate.py::test_a_sink_that_fails_for_long_is_seen_everywhere_and_reported_once",
    ),
    row(
        "accepted, and the answer lost",
        "again, with the same id",
        "the receiver has both requests",
        "integration/sinks/test_webhook_connections.py::test_an_answer_that_was_lost_is_carried_again_with_the_same_id",
    ),
    row(
        "one sink down for long",
        "the others do not notice; nothing is dropped",
        "its receiver gets nothing while the others get all",
        "scenario/test_sinks.py::test_a_sink_that_is_down_holds_no_other_back_and_gets_everything_later",
        "unit/pipeline/test_courier.py::test_a_day_of_outage_kills_nothing",
    ),
    row(
        "a message that kills a sink",
        "ends as a dead letter, its neighbours are delivered",
        "the dead letter's reason",
        "unit/pipeline/test_courier.py::test_a_refused_batch_is_split_until_only_the_guilty_event_dies",
        "scenario/test_drain.py::test_a_dead_delivery_makes_drain_fail_and_takes_no_neighbour_along",
        "unit/pipeline/test_courier.py::test_any_exception_means_again_with_the_same_batch",
    ),
    row(
        "a full, slow or closed pipe under stdout",
        "whole lines, nothing mixed, the loop goes on",
        "the pipe is full, EPIPE, or EFBIG",
        "integration/sinks/test_stdout.py::test_a_full_pipe_holds_back_its_delivery_and_not_the_loop",
        "integration/sinks/test_stdout.py::test_a_closed_pipe_is_a_delivery_to_try_later",
        "integration/sinks/test_stdout.py::test_a_line_that_was_cut_by_a_full_disk_is_finished_before_the_next",
    ),
    row(
        "one event of a batch asks for an hour, or waits that all differ",
        "each waits for itself, in few groups; a wait that was asked for counts as no attempt",
        "what is claimed when the clock stands at each wait",
        "unit/pipeline/test_courier.py::test_one_picture_that_asks_for_an_hour_does_not_keep_the_others_waiting",
        "unit/pipeline/test_courier.py::test_the_halves_of_a_refused_batch_do_not_wait_for_the_refusals",
        "integration/sinks/download/test_download.py::test_one_failing_picture_that_asks_for_an_hour_asks_for_itself_alone",
        "unit/spools/test_sink_queue.py::test_waits_of_one_step_differ_by_less_than_a_quarter",
    ),
)
