"""The platform's answers: none, half, wrong, too much, too often."""

from typing import Final

from .row import row

API: Final = "scenario/test_every_fault.py::test_every_fault_of_the_queue_costs_at_most_its_own_answer"
MIX: Final = (
    "scenario/test_faults.py::test_what_a_broken_connection_takes_is_counted_and_nothing_else_is_missing"
)
QUERY: Final = "scenario/test_every_fault.py::test_every_fault_of_lists_and_states_is_got_over"

UPSTREAM: Final = (
    row(
        "plain error pages: HTML with 200, 3xx, 4xx, 5xx",
        "a failed poll with an excerpt; each distinct page is kept once, up to a cap",
        "each page in turn, with a new request id each time",
        "unit/sources/test_screenshot_queue.py"
        "::test_an_error_page_is_a_failed_poll_with_its_words_and_is_kept_once",
        "unit/sources/test_screenshot_queue.py::test_error_pages_that_differ_are_kept_up_to_a_cap",
    ),
    row(
        "a `Date` that something in between wrote: behind, ahead, stored, flapping",
        "an alarm where three agree, no correction without a refusal that it explains; polls and pushes go on",
        "the metric shows the wrong `Date`; the platform counts refusals",
        "scenario/test_operation.py::test_a_proxy_that_writes_a_wrong_date_stops_neither_polls_nor_pushes",
        "unit/qcloud/wire/test_skew.py::test_only_an_expired_signature_that_the_skew_explains_corrects",
        "unit/qcloud/wire/test_skew.py::test_dates_that_flap_are_no_alarm_and_move_no_correction",
    ),
    row(
        "nothing sent: DNS, refused, TLS",
        "back off, nothing counted as lost",
        "`NotSent` is raised, or `failed` counted; servers count connections and requests",
        "integration/qcloud/test_client.py::test_nobody_there_and_no_such_name_are_not_sent",
        "integration/qcloud/test_client.py::test_a_server_that_speaks_no_tls_is_sent_nothing",
        "integration/qcloud/test_client.py::test_an_untrusted_certificate_sends_nothing_and_a_trusted_one_does",
        "unit/pipeline/test_intake.py::test_what_never_left_this_machine_is_a_failure_and_takes_no_room",
    ),
    row(
        "sent, and no whole answer",
        "`uncertain`, counted; never sent again",
        "the sandbox's `fired` equals the metric (`hang` with --soak); the answer is not whole",
        MIX,
        API,
        "integration/qcloud/test_client.py::test_a_request_whose_connection_fails_is_never_sent_again",
        sandbox="api:reset_before reset_after reset_headers close hang drip",
    ),
    row(
        "a hang and a drip that do not end",
        "left at a deadline for the whole",
        "the answer is not whole though its server goes on; the server is asked, and holds back",
        "integration/qcloud/test_client.py::test_a_dripping_answer_ends_at_the_deadline_for_the_whole",
        "integration/qcloud/test_client.py"
        "::test_a_server_that_never_finishes_its_handshake_is_left_at_the_connect_deadline",
        "service/test_notifications.py"
        "::test_a_poll_that_hangs_starves_the_watchdog_and_is_still_waited_for_at_the_stop",
    ),
    row(
        "an answer whose head HTTP does not allow",
        "its bytes are kept, its messages are events, its detail says what is odd",
        "the server counts dequeues; each form in turn",
        "integration/qcloud/test_odd_answers.py"
        "::test_every_message_of_an_answer_comes_out_once_whatever_its_head_looks_like",
        "scenario/test_spoiled_answers.py"
        "::test_no_message_is_lost_behind_a_proxy_that_adds_a_header_of_9000_bytes",
    ),
    row(
        "something between that spoils every answer",
        "four pages in the first minute, one in each later one (minutes with --soak); a reason in `/readyz`",
        "the box between counts requests, the platform dequeues",
        "unit/pipeline/test_intake.py"
        "::test_where_every_answer_is_spoiled_four_pages_are_lost_in_a_minute_and_one_in_each_later_one",
        "scenario/test_spoiled_answers.py"
        "::test_where_every_answer_is_spoiled_the_queue_is_not_emptied_for_nothing",
    ),
    row(
        "informational answers without end",
        "left within bounds",
        "the server counts the bytes it sent",
        "integration/qcloud/test_odd_answers.py"
        "::test_an_answer_that_never_begins_is_left_within_bounds_and_delays_nothing_else",
    ),
    row(
        "cut bodies",
        "whole messages in them are saved, the rest is quarantined, nothing invented",
        "the sandbox's `fired`; every offset in turn; what came is not whole",
        MIX,
        API,
        "unit/sources/test_answer_forms.py::test_whole_messages_before_any_cut_are_events_and_the_rest_is_kept",
        "unit/sources/test_answer_forms.py::test_a_cut_that_http_did_not_notice_is_uncertain_too",
        "integration/qcloud/test_client.py::test_all_that_came_of_a_cut_body_is_kept",
        sandbox="api:cut cut_chunked cut_close",
    ),
    row(
        "HTML, text, 3xx, 4xx, 5xx, a wrong type",
        "quarantined up to a cap, back off; messages in it are events",
        "the sandbox's `fired`; the status and the reject",
        API,
        "unit/sources/test_screenshot_queue.py::test_an_error_page_is_kept_up_to_64_kib_and_without_secrets",
        "integration/qcloud/test_client.py::test_a_redirect_is_an_answer_and_is_not_followed",
        sandbox="api:status redirect html text wrong_type",
    ),
    row(
        "bombs: gzip, depth, digits, an endless body",
        "bounded memory, neighbours live",
        "the sandbox's `fired`; what was kept of the bomb and of the endless body",
        API,
        "unit/sources/test_answer_forms.py::test_a_bomb_is_opened_within_bounds",
        "integration/qcloud/test_client.py::test_an_endless_body_is_left_at_four_mebibytes",
        "unit/sources/test_poison.py::test_a_poisoned_message_hurts_no_neighbour_and_is_kept",
        sandbox="api:bomb endless",
    ),
    row(
        "a poisoned message",
        "alone in quarantine",
        "the sandbox's `fired`; the reject's bytes",
        API,
        "unit/sources/test_poison.py::test_many_poisons_in_one_page_are_rejected_each_alone",
        "scenario/test_drain.py::test_poison_hurts_no_neighbour_and_none_of_it_is_lost",
        sandbox="api:poison",
    ),
    row(
        "`ret`: nothing there, too frequent, not allowed",
        "three different things, with their delays",
        "the sandbox's `fired`; the outcome of each",
        API,
        "unit/sources/test_screenshot_queue.py::test_nothing_there_too_frequent_not_allowed_and_broken_are_four_things",
        "unit/pipeline/test_intake.py::test_not_allowed_waits_five_seconds_also_where_the_source_is_quick",
        sandbox="api:wrong_ret too_frequent",
    ),
    row(
        "a wrong clock",
        "measured, corrected up to an hour, said once",
        "the metric, or the log, shows the offset that was set",
        "scenario/test_operation.py::test_a_clock_wrong_by_ten_minutes_is_corrected_and_said_once",
        "scenario/test_operation.py::test_a_clock_wrong_by_two_hours_is_an_alarm_and_not_followed",
        "integration/qcloud/test_account.py::test_a_date_two_hours_ahead_is_an_alarm_and_mints_no_long_lived_signature",
    ),
    row(
        "duplicates and reordering",
        "stored once",
        "the sandbox's `fired`",
        API,
        MIX,
        sandbox="api:duplicate duplicate_later reorder",
    ),
    row(
        "a slow answer",
        "waited for, also at the stop",
        "the sandbox's `fired`; polls in flight at the signal",
        API,
        "scenario/test_stop.py::test_a_stopped_daemon_loses_nothing",
        sandbox="api:latency",
    ),
    row(
        "a proxy of the environment, or a cache on the way",
        "no poll goes by the one, or is answered by the other",
        "both servers count requests; the request's head",
        "integration/qcloud/test_client.py::test_proxies_of_the_environment_are_ignored_and_the_account_s_own_is_used",
        "integration/qcloud/test_client.py::test_a_request_asks_for_plain_bytes_from_no_cache",
    ),
    row(
        "a poll's URL in strange hands",
        "it is good for a minute, and found nowhere",
        "the platform reads its `t`; every signature of a run is looked for",
        "integration/qcloud/test_account.py::test_a_poll_is_one_signed_get_of_the_queue",
        "integration/qcloud/test_account.py::test_a_date_two_hours_ahead_is_an_alarm_and_mints_no_long_lived_signature",
        "scenario/test_secrets.py::test_no_secret_is_found_anywhere_after_a_run_through_all_faults",
    ),
    row(
        "all of these in the lists and states",
        "got over; each change reported once",
        "the sandbox's `fired` (`hang` with --soak); `poll_failed` in the log",
        QUERY,
        sandbox="query:latency wrong_ret wrong_type cut cut_chunked cut_close reset_after reset_headers close hang drip"
        " reset_before status redirect html text too_frequent endless bomb",
    ),
    row(
        "a change of a channel's state that is dated far ahead or far back",
        "dated when it was received; later changes are reported",
        "the dates of the events themselves",
        "unit/core/test_catalogue.py::test_a_change_that_is_dated_far_off_silences_no_later_one",
        "unit/core/test_catalogue.py::test_a_state_that_was_stored_for_2099_heals_with_the_next_change",
        "unit/qcloud/events/test_notifications.py::test_a_change_is_dated_no_further_ahead_than_it_was_received",
    ),
)
