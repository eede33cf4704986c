"""Every fault that the project promises to survive, its promise in a few words, and the tests that show it.

A test is named by its file below `tests/` and its name. Where a fault is one of the sandbox's own, `sandbox` names it
as `table:fault` (see `poller/sandbox/faults.py`); the test then asserts that it fired. `fired` says, for all others, by
what a test knows that the fault happened.
"""

from typing import Final, NamedTuple


class Row(NamedTuple):
    """One fault."""

    fault: str
    promise: str
    fired: str
    tests: tuple[str, ...]
    sandbox: tuple[str, ...] = ()


def row(fault: str, promise: str, fired: str, *tests: str, sandbox: str = "") -> Row:
    """A row of the table; `sandbox` is `table:fault fault …`."""
    table, _, names = sandbox.partition(":")
    return Row(fault, promise, fired, tests, tuple(f"{table}:{name}" for name in names.split()))


PAGE: Final = (
    "story/test_fail_points.py::test_killed_at_every_step_of_a_page_it_loses_the_poll_in_flight_at_most"
)
API: Final = "story/test_every_fault.py::test_every_fault_of_the_queue_costs_at_most_its_own_answer"
MIX: Final = (
    "story/test_faults.py::test_what_a_broken_connection_takes_is_counted_and_nothing_else_is_missing"
)
QUERY: Final = "story/test_every_fault.py::test_every_fault_of_lists_and_states_is_got_over"
COS: Final = (
    "story/test_every_fault.py::test_every_fault_of_the_store_ends_in_a_whole_picture_or_a_dead_letter"
)
CALLBACK: Final = (
    "story/test_every_fault.py::test_every_fault_of_callbacks_is_got_over_by_the_platforms_repeats"
)
STATUS: Final = "sinks/test_webhook_answers.py::test_each_status_comes_to_one_thing_and_is_sent_once"
HEALS: Final = (
    "sinks/download/test_download.py::test_an_answer_that_may_heal_is_tried_again_and_leaves_nothing"
)
UPLOAD: Final = (
    "story/test_every_fault.py"
    "::test_an_upload_that_is_late_is_waited_for_and_one_that_never_comes_is_a_dead_letter"
)
FLOOD: Final = "story/test_held_up.py::test_slow_readers_and_floods_on_every_port_slow_no_poll"
ORDER: Final = "sources/test_callbacks.py::test_the_checks_come_in_the_order_of_what_they_cost"
CHECKS: Final = "sources/test_callbacks.py::test_each_check_refuses_for_its_own_reason"

PROCESS: Final = (
    row(
        "kill -9 at each step of a page",
        "what was committed stays; at most the poll in flight is lost",
        "exit by SIGKILL, and the fail point's own last words",
        PAGE,
    ),
    row(
        "kill -9 at random moments under load",
        "at most the outstanding polls are lost",
        "exit by SIGKILL; kills that met polls in flight are counted",
        "story/test_kill.py::test_a_killed_daemon_loses_at_most_the_polls_in_flight",
        "core/test_journal.py::test_a_kept_page_survives_kill_9",
    ),
    row(
        "kill -9 at each step of a picture",
        "no cut picture, none is lost",
        "exit by SIGKILL; the fail point's own last words, or pictures still missing at the kill",
        "story/test_fail_points_ways.py::test_killed_at_every_step_of_a_picture_it_leaves_none_that_is_cut",
        "story/test_sinks.py::test_pictures_survive_kill_9_whole",
    ),
    row(
        "kill -9 around a push's commit",
        "what was answered 200 is there, once",
        "exit by SIGKILL and the fail point's own last words; or who pushes goes on until nobody answers",
        "story/test_fail_points_ways.py"
        "::test_killed_before_and_after_a_pushs_commit_what_was_answered_is_there_once",
        "story/test_callbacks.py::test_what_was_answered_200_is_there_after_a_kill_that_follows_at_once",
    ),
    row(
        "kill -9 in a split or an operator's order",
        "each letter is dead or owed, each reject kept or read",
        "exit by SIGKILL; the fail point's own last words, or letters that are owed again already",
        "story/test_fail_points_ways.py"
        "::test_killed_in_a_split_or_an_operators_order_it_has_everything_still",
        "story/test_operate.py::test_a_daemon_killed_in_the_middle_of_a_retry_has_lost_no_letter",
    ),
    row(
        "SIGTERM, SIGINT under load",
        "nothing lost, nothing twice, exit 0",
        "exit code 0 and `stopped` in the log; signals that met polls in flight are counted",
        "story/test_stop.py::test_a_stopped_daemon_loses_nothing",
        "service/test_signals.py::test_a_signal_while_polls_are_in_flight_exits_0_and_every_message_taken_is_kept",
    ),
    row(
        "signals twice and without end",
        "nothing lost; no poll is ended",
        "the process lives when the second signal is sent; those without end are counted",
        "service/test_signals.py::test_a_second_signal_does_not_end_a_poll",
        "service/test_signals.py::test_signals_without_end_until_the_process_is_gone_lose_nothing",
    ),
    row(
        "SIGTERM at start-up",
        "nothing lost, exit 0",
        "its handler is there at each signal; some come before the first poll, some after",
        "service/test_signals.py::test_sigterm_at_any_moment_of_start_up_exits_0_and_loses_nothing",
    ),
    row(
        "SIGSTOP for longer than the deadlines, and SIGCONT",
        "it goes on; nothing lost, no poll made up for",
        "the process's state is T and no request comes meanwhile",
        "story/test_held_up.py::test_a_daemon_that_stood_still_goes_on_and_makes_up_for_no_poll",
    ),
    row(
        "power loss",
        "nothing committed is lost, no empty picture",
        "the file system is shut down; the rig sees losses where a sync is left out",
        "power/test_power_cuts.py::test_a_power_cut_loses_nothing_that_was_acknowledged",
        "power/test_power_cuts.py::test_the_rig_sees_events_lost_with_synchronous_normal",
        "power/test_power_cuts.py::test_the_rig_sees_pages_lost_without_fdatasync",
        "power/test_power_cuts.py::test_the_rig_sees_empty_pictures_without_fsync",
        "power/test_power_cuts.py::test_the_rig_sees_pictures_lost_without_an_fsync_of_their_folders",
    ),
    row(
        "a second daemon on one spool",
        "refused with a clear message",
        "its exit code and its log",
        "story/test_operation.py::test_a_second_daemon_on_one_spool_is_refused_and_the_first_goes_on",
        "service/test_exit_codes.py::test_a_second_daemon_on_one_spool_exits_1_says_why_and_polls_nothing",
    ),
    row(
        "a spool that cannot be written at the start",
        "nothing is polled: a crash loop removes nothing",
        "exit code 1 and why, or the spool's refusal is waited for; requests are counted",
        "service/test_exit_codes.py::test_a_spool_that_cannot_be_written_exits_1_and_polls_nothing",
        "core/test_intake.py::test_nothing_is_polled_before_the_spool_is_proven_and_polling_begins_by_itself",
    ),
    row(
        "a bad configuration",
        "every finding at its place, nothing polled",
        "exit code 78; a port counts who connects",
        "story/test_operation.py::test_a_bad_configuration_exits_78_at_the_right_line_and_connects_nowhere",
    ),
    row(
        "an old or a later spool file",
        "migrated in one transaction, or refused",
        "the file's version before and after; the step's error; a kill by SIGKILL with its WAL written",
        "spools/test_migrations.py::test_a_file_of_an_earlier_schema_opens_with_all_that_is_in_it",
        "spools/test_migrations.py::test_a_step_that_fails_leaves_the_old_file",
        "spools/test_migrations.py::test_a_kill_in_the_middle_leaves_the_old_file",
        "core/test_sqlite_spool.py::test_a_file_of_a_later_schema_is_refused",
    ),
    row(
        "a bug in a reader",
        "its page ends in quarantine, no crash loop",
        "the reject names the exception",
        "core/test_intake.py::test_a_bug_in_the_reader_ends_in_quarantine_and_polling_goes_on",
        "core/test_reception.py"
        "::test_a_bug_in_the_reader_ends_in_quarantine_and_its_sender_does_not_repeat_it_for_ever",
    ),
    row(
        "everything at random, for long",
        "the books balance",
        "each kind of fault is counted, and none may be 0",
        "story/test_random_faults.py::test_after_random_faults_on_all_sides_the_books_balance",
    ),
)

STORAGE: Final = (
    row(
        "a full disk before a poll",
        "no poll, readiness says why, sinks drain on, polling resumes by itself",
        "`polling_paused` names the disk, or strace's INJECTED; polls are counted",
        "story/test_operation.py::test_a_full_disk_pauses_polling_and_nothing_else_and_ends_by_itself",
        "story/test_operation.py"
        "::test_a_disk_below_min_free_is_told_before_anything_is_polled_and_its_end_is_noticed",
        "story/test_failing_disk.py::test_a_write_for_which_there_is_no_space_pauses_polling_until_there_is",
    ),
    row(
        "a full disk between GET and commit",
        "the bytes are in the journal's own space",
        "no byte is free, or the spool's refusal is waited for; the journal holds pages",
        "story/test_operation.py::test_what_was_in_flight_when_the_disk_filled_is_in_the_journals_own_space",
        "core/test_intake.py::test_a_disk_that_fills_between_get_and_commit_loses_nothing_and_pauses_polling",
    ),
    row(
        "EIO or ENOSPC in a write of spool or journal",
        "the process ends, the next one has everything",
        "strace's INJECTED",
        "story/test_failing_disk.py"
        "::test_a_write_that_failed_ends_the_daemon_and_the_next_one_has_everything",
    ),
    row(
        "a failed fsync",
        "never retried and called durable",
        "strace's INJECTED",
        "core/test_failed_syncs.py"
        "::test_after_a_failed_sync_the_spool_acknowledges_nothing_and_has_what_it_did",
        "core/test_failed_syncs.py"
        "::test_after_a_failed_sync_the_journal_acknowledges_nothing_and_has_what_it_did",
        "story/test_damage.py::test_a_daemon_whose_sync_failed_ends_and_the_next_one_has_everything",
    ),
    row(
        "a slow fsync",
        "nothing lost or reordered",
        "strace's DELAYED",
        "story/test_failing_disk.py::test_a_disk_whose_syncs_take_long_loses_and_reorders_nothing",
    ),
    row(
        "a corrupted spool",
        "moved aside whole, a new one starts",
        "`spool_began_anew` in the log, `StorageCorrupt`, or the file that was moved",
        "story/test_damage.py::test_a_damaged_spool_is_moved_aside_said_once_and_polling_goes_on",
        "core/test_damaged_spool.py"
        "::test_damage_met_while_running_ends_the_work_and_the_next_start_moves_the_file",
        "core/test_damaged_spool.py::test_a_move_that_was_cut_short_goes_on_under_the_same_name",
        "core/test_damaged_spool.py::test_an_event_that_does_not_read_back_is_damage_and_no_crash_loop",
    ),
    row(
        "bad pages in a spool file",
        "salvage brings back all else",
        "the test overwrites the pages, and `check` finds them",
        "spools/test_salvage.py::test_a_bad_page_costs_only_what_is_on_it",
        "spools/test_salvage.py::test_check_finds_a_damaged_page",
        "spools/test_salvage.py::test_without_its_first_page_the_tables_are_found_all_the_same",
    ),
    row(
        "a damaged journal",
        "the frame is left out, its neighbours live; a file that cannot be read is kept",
        "the overwritten frame is missing; the file stands aside",
        "core/test_journal.py::test_a_damaged_frame_is_left_out_and_hurts_no_neighbour",
        "core/test_journal.py::test_an_unreadable_journal_is_moved_aside_and_not_deleted",
    ),
    row(
        "the limits in bytes, age and free space",
        "polling pauses at the high mark, goes on under the low one",
        "what is refused is `StorageFull`; what is pruned is counted",
        "core/test_disk_limits.py"
        "::test_above_max_bytes_nothing_is_taken_until_the_slowest_sink_has_brought_it_under_the_low_mark",
        "core/test_disk_limits.py::test_a_disk_that_others_fill_is_noticed_and_so_is_room_on_it",
        "core/test_sqlite_spool.py::test_settled_pages_are_pruned_after_retain_in_bounded_steps",
    ),
    row(
        "a second connection that writes or checkpoints",
        "refused: one connection does both",
        "`StorageError` for each statement",
        "core/test_sqlite_spool.py::test_the_connection_that_reads_can_neither_write_nor_checkpoint",
    ),
)

UPSTREAM: Final = (
    row(
        "nothing sent: DNS, refused, TLS",
        "back off, nothing counted as lost",
        "`NotSent` is raised, or `failed` counted; servers count connections and requests",
        "qcloud/test_client.py::test_nobody_there_and_no_such_name_are_not_sent",
        "qcloud/test_client.py::test_a_server_that_speaks_no_tls_is_sent_nothing",
        "qcloud/test_client.py::test_an_untrusted_certificate_sends_nothing_and_a_trusted_one_does",
        "core/test_intake.py::test_what_never_left_this_machine_is_a_failure_and_takes_no_room",
    ),
    row(
        "sent, and no whole answer",
        "`uncertain`, counted; never sent again",
        "the sandbox's `fired` equals the metric (`hang` with --soak); the answer is not whole",
        MIX,
        API,
        "qcloud/test_client.py::test_a_request_whose_connection_fails_is_never_sent_again",
        sandbox="api:reset_before reset_after reset_headers close hang drip",
    ),
    row(
        "a hang and a drip that do not end",
        "left at a deadline for the whole",
        "the answer is not whole though its server goes on; the server is asked, and holds back",
        "qcloud/test_client.py::test_a_dripping_answer_ends_at_the_deadline_for_the_whole",
        "qcloud/test_client.py"
        "::test_a_server_that_never_finishes_its_handshake_is_left_at_the_connect_deadline",
        "service/test_notifications.py"
        "::test_a_poll_that_hangs_starves_the_watchdog_and_is_still_waited_for_at_the_stop",
    ),
    row(
        "cut bodies",
        "whole messages in them are saved, the rest is quarantined, nothing invented",
        "the sandbox's `fired`; every offset in turn; what came is not whole",
        MIX,
        API,
        "sources/test_answer_forms.py::test_whole_messages_before_any_cut_are_events_and_the_rest_is_kept",
        "sources/test_answer_forms.py::test_a_cut_that_http_did_not_notice_is_uncertain_too",
        "qcloud/test_client.py::test_all_that_came_of_a_cut_body_is_kept",
        sandbox="api:cut cut_chunked cut_close",
    ),
    row(
        "HTML, text, 3xx, 4xx, 5xx, a wrong type",
        "quarantined up to a cap, back off; messages in it are events",
        "the sandbox's `fired`; the status and the reject",
        API,
        "sources/test_screenshot_queue.py::test_an_error_page_is_kept_up_to_64_kib_and_without_secrets",
        "qcloud/test_client.py::test_a_redirect_is_an_answer_and_is_not_followed",
        sandbox="api:status redirect html text wrong_type",
    ),
    row(
        "bombs: gzip, depth, digits, an endless body",
        "bounded memory, neighbours live",
        "the sandbox's `fired`; what was kept of the bomb and of the endless body",
        API,
        "sources/test_answer_forms.py::test_a_bomb_is_opened_within_bounds",
        "qcloud/test_client.py::test_an_endless_body_is_left_at_four_mebibytes",
        "sources/test_poison.py::test_a_poisoned_message_hurts_no_neighbour_and_is_kept",
        sandbox="api:bomb endless",
    ),
    row(
        "a poisoned message",
        "alone in quarantine",
        "the sandbox's `fired`; the reject's bytes",
        API,
        "sources/test_poison.py::test_many_poisons_in_one_page_are_rejected_each_alone",
        "story/test_drain.py::test_poison_hurts_no_neighbour_and_none_of_it_is_lost",
        sandbox="api:poison",
    ),
    row(
        "`ret`: nothing there, too frequent, not allowed",
        "three different things, with their delays",
        "the sandbox's `fired`; the outcome of each",
        API,
        "sources/test_screenshot_queue.py::test_nothing_there_too_frequent_not_allowed_and_broken_are_four_things",
        "core/test_intake.py::test_not_allowed_waits_five_seconds_also_where_the_source_is_quick",
        sandbox="api:wrong_ret too_frequent",
    ),
    row(
        "a wrong clock",
        "measured, corrected up to an hour, said once",
        "the metric, or the log, shows the offset that was set",
        "story/test_operation.py::test_a_clock_wrong_by_ten_minutes_is_corrected_and_said_once",
        "story/test_operation.py::test_a_clock_wrong_by_two_hours_is_an_alarm_and_not_followed",
        "qcloud/test_account.py::test_a_date_two_hours_ahead_is_an_alarm_and_mints_no_long_lived_signature",
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
        "story/test_stop.py::test_a_stopped_daemon_loses_nothing",
        sandbox="api:latency",
    ),
    row(
        "a proxy of the environment, or a cache on the way",
        "no poll goes by the one, or is answered by the other",
        "both servers count requests; the request's head",
        "qcloud/test_client.py::test_proxies_of_the_environment_are_ignored_and_the_account_s_own_is_used",
        "qcloud/test_client.py::test_a_request_asks_for_plain_bytes_from_no_cache",
    ),
    row(
        "a poll's URL in strange hands",
        "it is good for a minute, and found nowhere",
        "the platform reads its `t`; every signature of a run is looked for",
        "qcloud/test_account.py::test_a_poll_is_one_signed_get_of_the_queue",
        "qcloud/test_account.py::test_a_date_two_hours_ahead_is_an_alarm_and_mints_no_long_lived_signature",
        "story/test_secrets.py::test_no_secret_is_found_anywhere_after_a_run_through_all_faults",
    ),
    row(
        "all of these in the lists and states",
        "got over; each change told once",
        "the sandbox's `fired` (`hang` with --soak); `poll_failed` in the log",
        QUERY,
        sandbox="query:latency wrong_ret wrong_type cut cut_chunked cut_close reset_after reset_headers close hang drip"
        " reset_before status redirect html text too_frequent endless bomb",
    ),
)

SINKS: Final = (
    row(
        "429 and 503 with Retry-After in every form",
        "honoured within bounds",
        "the wait asked for is what is raised",
        "sinks/test_webhook_answers.py::test_whoever_says_when_is_waited_for",
        "sinks/test_webhook_answers.py::test_each_form_of_retry_after_is_a_bounded_wait_or_none",
        "sinks/test_webhook_answers.py::test_an_absurd_retry_after_over_the_wire_does_no_harm",
        "core/test_courier.py::test_what_a_retry_after_asks_for_holds_for_the_whole_sink",
    ),
    row(
        "5xx, a reset, a hang, a drip",
        "again with full jitter; a body that drips holds up nothing",
        "the server counts requests and connections; the delivery ends at its deadline",
        STATUS,
        "sinks/test_webhook_connections.py::test_a_reset_is_tried_later_and_sent_once",
        "sinks/test_webhook_answers.py"
        "::test_a_2xx_counts_whatever_its_body_does_and_its_connection_is_not_used_again",
        "sinks/test_webhook_connections.py"
        "::test_a_server_that_hangs_is_left_at_the_deadline_and_harms_no_later_delivery",
        "core/test_retry.py::test_backoff_has_full_jitter",
        "core/test_courier.py::test_a_delivery_that_takes_too_long_comes_again",
    ),
    row(
        "an answer without end, or a bomb",
        "bounded",
        "the server counts the bytes it sent; the bomb is asked for as it is; headers that are too large",
        "sinks/test_webhook_answers.py::test_a_huge_answer_is_left_after_its_first_part",
        "sinks/test_webhook_answers.py::test_a_compressed_bomb_is_not_unpacked",
        "sinks/test_webhook_answers.py::test_endless_headers_are_a_failure",
    ),
    row(
        "3xx",
        "a failure, not followed",
        "the target counts requests",
        "sinks/test_webhook_answers.py::test_a_redirect_is_a_failure_and_its_target_is_not_asked",
    ),
    row(
        "401, 403, 404 in bursts",
        "the sink pauses and is probed, nothing dropped",
        "`sink_paused` in the log with its status, attempts at the receiver",
        STATUS,
        "story/test_sinks.py::test_a_burst_of_refusals_pauses_the_sink_and_drops_nothing",
        "core/test_courier.py::test_a_sink_that_keeps_failing_is_probed_by_one_carrier_only",
        "story/test_operate.py::test_a_sink_that_fails_for_long_is_seen_everywhere_and_told_once",
    ),
    row(
        "410",
        "disabled, deliveries kept",
        "`sink_disabled` in the log",
        "core/test_courier.py::test_gone_disables_the_sink_and_keeps_its_deliveries",
        "story/test_operate.py::test_a_sink_that_fails_for_long_is_seen_everywhere_and_told_once",
    ),
    row(
        "accepted, and the answer lost",
        "again, with the same id",
        "the receiver has both requests",
        "sinks/test_webhook_connections.py::test_an_answer_that_was_lost_is_carried_again_with_the_same_id",
    ),
    row(
        "one sink down for long",
        "the others do not notice; nothing is dropped",
        "its receiver gets nothing while the others get all",
        "story/test_sinks.py::test_a_sink_that_is_down_holds_no_other_back_and_gets_everything_later",
        "core/test_courier.py::test_a_day_of_outage_kills_nothing",
    ),
    row(
        "a message that kills a sink",
        "ends as a dead letter, its neighbours are delivered",
        "the dead letter's reason",
        "core/test_courier.py::test_a_refused_batch_is_split_until_only_the_guilty_event_dies",
        "story/test_drain.py::test_a_dead_delivery_makes_drain_fail_and_takes_no_neighbour_along",
        "core/test_courier.py::test_any_exception_means_again_with_the_same_batch",
    ),
    row(
        "a full, slow or closed pipe under stdout",
        "whole lines, nothing mixed, the loop goes on",
        "the pipe is full, EPIPE, or EFBIG",
        "sinks/test_stdout.py::test_a_full_pipe_holds_back_its_delivery_and_not_the_loop",
        "sinks/test_stdout.py::test_a_closed_pipe_is_a_delivery_to_try_later",
        "sinks/test_stdout.py::test_a_line_that_was_cut_by_a_full_disk_is_finished_before_the_next",
    ),
)

DOWNLOADS: Final = (
    row(
        "a picture that is not there yet, or is late",
        "asked for again, no error",
        "the sandbox's `fired`; the first answer is 404",
        COS,
        "sinks/download/test_download.py::test_a_picture_that_is_not_there_yet_is_asked_for_again_soon",
        "sinks/download/test_download.py::test_not_yet_lasts_from_the_later_of_shot_and_receipt",
        sandbox="cos:not_found",
    ),
    row(
        "an upload that is late",
        "asked for again until it is there",
        "the sandbox's `fired`; retries are counted",
        UPLOAD,
        "sinks/download/test_download.py::test_a_picture_that_is_not_there_yet_is_asked_for_again_soon",
        sandbox="upload:late",
    ),
    row(
        "an upload that never comes",
        "a dead letter after the margin; its neighbours are not hurt",
        "404 after the margin; the sandbox's `fired` with --soak",
        UPLOAD,
        "sinks/download/test_download.py"
        "::test_a_picture_that_is_still_missing_later_is_dead_and_its_neighbours_are_not",
        sandbox="upload:lost",
    ),
    row(
        "a cut picture",
        "never published",
        "the sandbox's `fired`; every truncation",
        COS,
        "sinks/download/test_download.py::test_no_cut_of_a_transfer_is_ever_published",
        "sinks/download/test_pictures.py::test_every_truncation_is_refused",
        sandbox="cos:cut cut_chunked cut_close truncated",
    ),
    row(
        "a wrong type, an endless body, a bomb",
        "never published, bounded memory",
        "the sandbox's `fired`; the reason told",
        COS,
        HEALS,
        "sinks/download/test_download.py::test_an_endless_body_is_cut_off",
        "sinks/download/test_pictures.py::test_a_header_that_promises_a_bomb_is_rejected_for_good",
        sandbox="cos:wrong_type html endless bomb",
    ),
    row(
        "statuses, redirects, resets, hangs, drips of the store",
        "tried again; a hang or a drip fails alone",
        "the sandbox's `fired`; the reason told; drops are counted",
        COS,
        HEALS,
        "sinks/download/test_download.py::test_a_picture_that_hangs_fails_alone",
        "sinks/download/test_download.py::test_a_picture_that_drips_fails_alone",
        sandbox="cos:status redirect reset_before reset_headers close hang drip latency",
    ),
    row(
        "a hostile name",
        "cannot leave the directory or meet another",
        "at least 500 names, each written",
        "sinks/download/test_disk.py::test_no_hostile_name_leaves_the_directory_or_meets_another",
        "sinks/download/test_paths.py::test_no_two_hostile_names_meet_and_all_are_plain",
        "sinks/download/test_paths.py::test_there_are_enough_hostile_names",
    ),
    row(
        "a planted link or folder",
        "not followed, not written through",
        "what is in the way is told; the link and its target are looked at afterwards",
        "sinks/download/test_disk.py"
        "::test_a_planted_link_to_a_folder_is_not_followed_and_its_neighbours_are_stored",
        "sinks/download/test_disk.py::test_what_stands_in_a_files_place_is_replaced_and_not_written_through",
    ),
    row(
        "a picture's address that leads inside",
        "only public addresses and the accounts' hosts",
        "servers count who connects, and are reached where it is allowed",
        "test_outbound.py::test_no_spelling_of_a_loopback_target_reaches_a_server_there",
        "test_outbound.py::test_the_same_spellings_reach_the_server_where_they_are_allowed",
        "test_outbound.py::test_an_address_that_is_not_global_unicast_is_refused",
        "test_outbound.py::test_there_are_enough_spellings_and_addresses",
        "sinks/download/test_hosts.py::test_no_url_whose_host_is_not_allowed_makes_a_request",
    ),
    row(
        "a full or read-only disk, a failed sync under pictures",
        "not published; the batch comes again",
        "strace's INJECTED; the disk's own error",
        "sinks/download/test_disk.py::test_a_full_disk_fails_the_batch_as_a_whole_and_heals",
        "sinks/download/test_disk.py::test_a_disk_that_became_read_only_fails_the_batch_as_a_whole",
        "sinks/download/test_disk.py::test_a_file_whose_sync_failed_is_not_published",
    ),
    row(
        "a picture renamed before it is synced",
        "write, fsync, rename, fsync the folder, then settle",
        "the order of system calls in a trace",
        "sinks/download/test_disk.py"
        "::test_files_are_synced_before_their_renames_and_folders_after_and_before_returning",
    ),
)

BODIES: Final = (
    row(
        "a body that is cut at once after its headers",
        "all that came is kept",
        "the answer is not whole, and as long as what was sent",
        "qcloud/test_client.py::test_all_that_came_of_a_cut_body_is_kept",
    ),
    row(
        "a checksum that is wrong",
        "the picture is not published",
        "the sandbox's `fired`; the reason told",
        COS,
        HEALS,
        "sinks/download/test_pictures.py::test_the_checksum_is_the_stores_crc_in_decimal",
        sandbox="cos:wrong_checksum",
    ),
)

RECEIVER: Final = (
    row(
        "any other path or method",
        "404 without a hint",
        "the status answered, or the refusal counted",
        "sources/test_callbacks.py::test_any_other_path_or_method_is_not_there_and_gives_no_hint",
        ORDER,
    ),
    row(
        "too large, a wrong type, cut or no JSON",
        "refused, each for its own reason",
        "the reason told; a notification that is cut would be one page more",
        CHECKS,
        "sources/test_callbacks.py::test_an_endless_body_is_cut_off_at_the_limit",
        "sources/test_callbacks.py::test_a_body_that_is_cut_or_broken_is_nobodys_notification",
        "qcloud/test_notifications.py::test_what_no_two_readers_would_read_alike_is_refused",
    ),
    row(
        "a body that comes slowly",
        "cut at the deadline, others are served",
        "the connection ends without an answer",
        "sources/test_callbacks.py::test_what_is_sent_slowly_is_cut_and_others_are_served_meanwhile",
    ),
    row(
        "a `t` of another form or time",
        "refused; up to an hour late is taken",
        "the sandbox's `fired`; the reason told, or 403",
        CALLBACK,
        "qcloud/test_notifications.py::test_a_t_of_any_other_form_or_time_is_refused_whatever_its_signature",
        "sources/test_callbacks.py::test_the_measured_skew_moves_the_window_as_far_as_it_is_believed",
        sandbox="callback:stale",
    ),
    row(
        "a wrong sign or none",
        "403, rate-limited, never logged",
        "the sandbox's `fired`; refusals are counted",
        CALLBACK,
        "sources/test_callbacks.py::test_wrong_signatures_are_told_a_few_times_and_never_cost_a_good_one_its_answer",
        "story/test_callbacks.py::test_no_secret_of_a_notification_is_found_anywhere",
        sandbox="callback:unsigned wrong_sign",
    ),
    row(
        "repeats and replays",
        "answered and stored once",
        "the sandbox's `fired`; what is known already is counted",
        CALLBACK,
        "sources/test_callbacks.py::test_a_captured_notification_that_is_sent_again_is_answered_and_stored_once",
        "story/test_callbacks.py::test_every_kind_of_notification_arrives_once_however_often_it_is_repeated",
        sandbox="callback:replay twice",
    ),
    row(
        "notifications that are lost, late or out of order",
        "what comes is stored once; other ways tell the rest",
        "the sandbox's `fired`",
        CALLBACK,
        "story/test_every_way.py::test_what_happens_on_the_platform_is_told_once_whichever_way_it_came",
        sandbox="callback:lost late out_of_order",
    ),
    row(
        "a full, failed or slow spool",
        "503, taken when it comes again",
        "503 and `receiving_paused`; the commit is held back, or fails",
        "story/test_callbacks.py::test_a_full_spool_refuses_pushes_and_takes_them_again_when_there_is_room",
        "core/test_reception.py"
        "::test_a_commit_that_takes_too_long_is_no_commit_and_others_do_not_wait_for_it",
        "core/test_reception.py::test_a_spool_that_fails_for_good_refuses_who_waits_and_ends_the_process",
    ),
    row(
        "a stranger, or a proxy's header",
        "the allow list holds; only configured proxies are believed",
        "the status answered",
        "sources/test_callbacks.py::test_an_allow_list_holds_for_signed_notifications_too",
        "sources/test_callbacks.py::test_the_caller_is_the_rightmost_hop_that_is_no_trusted_proxy",
        "sources/test_callbacks.py::test_unsigned_notifications_are_taken_only_where_that_is_allowed_and_from_there",
    ),
    row(
        "a picture's host from a callback",
        "passes the same allow list",
        "the refusal names `allow_hosts`",
        "sources/test_callbacks.py::test_a_picture_may_be_fetched_from_the_accounts_hosts_and_from_no_other",
    ),
)

PORTS: Final = (
    row(
        "an open port without a token",
        "loopback by default; elsewhere refused without a token",
        "findings of bad configurations, each at its place; 401",
        "settings/test_bad_configurations.py::test_a_bad_configuration_is_refused_where_it_is_wrong",
        "core/test_admin.py::test_with_a_token_only_who_brings_it_sees_more_than_health",
    ),
    row(
        "slow-loris and floods on every port",
        "cut at a deadline; polls go on at their pace",
        "more connections than a port takes, each seen to end; drops are counted; the daemon's open files",
        FLOOD,
        "core/test_admin.py::test_a_client_that_drips_is_cut_at_the_deadline",
        "core/test_admin.py"
        "::test_a_flood_of_idle_connections_is_bounded_and_others_are_served_after_the_deadline",
        "sources/test_callbacks.py::test_a_flood_of_connections_is_bounded",
        "story/test_callbacks.py::test_slow_and_strange_clients_hold_up_neither_polls_nor_pushes",
    ),
    row(
        "who does not read its answer",
        "cut at a deadline",
        "the answer ends before its last line, or before its first",
        FLOOD,
        "core/test_admin.py::test_an_answer_that_takes_too_long_is_cut_as_well",
    ),
    row(
        "nonsense and silence on the control socket",
        "answered or cut, nobody held up",
        "some callers are told off, who says nothing is cut",
        "story/test_operate.py::test_who_talks_nonsense_or_nothing_is_cut_and_holds_nobody_up",
    ),
    row(
        "a callback before its commit",
        "200 only after it, else 503",
        "exit by SIGKILL at the points before and after",
        "story/test_fail_points_ways.py"
        "::test_killed_before_and_after_a_pushs_commit_what_was_answered_is_there_once",
        "core/test_reception.py::test_a_page_is_in_the_spool_when_its_sender_is_told",
    ),
)

SECRETS: Final = (
    row(
        "all faults at log level debug",
        "a canary key is found nowhere",
        "every ordered fault is used up; the platform did echo the key",
        "story/test_secrets.py::test_no_secret_is_found_anywhere_after_a_run_through_all_faults",
        "story/test_callbacks.py::test_no_secret_of_a_notification_is_found_anywhere",
    ),
    row(
        "a platform that echoes the key or a signature",
        "masked before it is kept",
        "the answer has asterisks in its place; the platform was sent the signature",
        "qcloud/test_account.py::test_an_answer_that_echoes_our_signature_or_key_is_blanked_before_it_is_kept",
        "qcloud/test_account.py::test_no_key_and_no_signature_comes_out_anywhere",
    ),
    row(
        "a traceback",
        "shows no local variables",
        "it is in the log; a deliberate bug shows the secret in it",
        "core/test_log.py::test_a_traceback_shows_no_local_variables",
    ),
    row(
        "an error's own text",
        "tells no URL, query, header or secret",
        "each failure and each finding has a text",
        "sinks/test_webhook_connections.py::test_no_failure_tells_url_query_headers_or_secret",
        "settings/test_bad_configurations.py::test_a_finding_is_one_line_and_holds_no_secret",
    ),
)

MATRIX: Final = {
    "process and host": PROCESS,
    "storage": STORAGE,
    "upstream": UPSTREAM,
    "sinks": SINKS,
    "downloads": DOWNLOADS,
    "cut bodies and checksums": BODIES,
    "the callback receiver": RECEIVER,
    "listening ports": PORTS,
    "secrets": SECRETS,
}

NOT_APPLICABLE: Final[dict[str, str]] = {}
"""Faults of the sandbox (`table:fault`) that cannot meet the daemon, each with the reason."""
