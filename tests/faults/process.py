"""Process and host: kills, signals, power loss, what is there at the start."""

from typing import Final

from .row import row

PAGE: Final = (
    "scenario/test_fail_points.py::test_killed_at_every_step_of_a_page_it_loses_the_poll_in_flight_at_most"
)

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
        "scenario/test_kill.py::test_a_killed_daemon_loses_at_most_the_polls_in_flight",
        "integration/pipeline/test_journal.py::test_a_kept_page_survives_kill_9",
    ),
    row(
        "kill -9 at each step of a picture",
        "no cut picture, none is lost",
        "exit by SIGKILL; the fail point's own last words, or pictures still missing at the kill",
        "scenario/test_fail_points_ways.py::test_killed_at_every_step_of_a_picture_it_leaves_none_that_is_cut",
        "scenario/test_sinks.py::test_pictures_survive_kill_9_whole",
    ),
    row(
        "kill -9 around a push's commit",
        "what was answered 200 is there, once",
        "exit by SIGKILL and the fail point's own last words; or who pushes goes on until nobody answers",
        "scenario/test_fail_points_ways.py"
        "::test_killed_before_and_after_a_pushs_commit_what_was_answered_is_there_once",
        "scenario/test_callbacks.py::test_what_was_answered_200_is_there_after_a_kill_that_follows_at_once",
    ),
    row(
        "kill -9 in a split or an operator's order",
        "each letter is dead or pending, each reject kept or read",
        "exit by SIGKILL; the fail point's own last words, or letters that are pending again already",
        "scenario/test_fail_points_ways.py"
        "::test_killed_in_a_split_or_an_operators_order_it_has_everything_still",
        "scenario/test_operate.py::test_a_daemon_killed_in_the_middle_of_a_retry_has_lost_no_letter",
    ),
    row(
        "SIGTERM, SIGINT under load",
        "nothing lost, nothing twice, exit 0",
        "exit code 0 and `stopped` in the log; signals that met polls in flight are counted",
        "scenario/test_stop.py::test_a_stopped_daemon_loses_nothing",
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
        "scenario/test_held_up.py::test_a_daemon_that_stood_still_goes_on_and_makes_up_for_no_poll",
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
        "scenario/test_operation.py::test_a_second_daemon_on_one_spool_is_refused_and_the_first_goes_on",
        "service/test_exit_codes.py::test_a_second_daemon_on_one_spool_exits_1_says_why_and_polls_nothing",
    ),
    row(
        "root's commands in the service's folder",
        "a check leaves nothing behind; what other commands make belongs to the folder's owner",
        "the owners of all files; the service starts afterwards",
        "service/test_ownership.py"
        "::test_a_check_by_root_before_the_first_start_leaves_nothing_in_the_services_folder",
        "service/test_ownership.py::test_what_commands_of_root_make_belongs_to_the_services_user",
        "service/test_ownership.py::test_a_damaged_spool_that_root_meets_is_moved_aside_for_the_services_user",
        "integration/cli/test_cli.py::test_check_connect_opens_every_part_and_leaves_nothing_behind",
    ),
    row(
        "a log that nobody reads or that cannot be written",
        "the daemon goes on and hears SIGTERM; dropped lines are counted",
        "the pipe is full, its reader is gone, or each write fails; polls are counted",
        "service/test_unread_log.py::test_a_daemon_whose_log_nobody_reads_goes_on_polling_and_hears_sigterm",
        "service/test_unread_log.py::test_a_reader_that_comes_late_gets_the_log_in_its_order",
        "service/test_unread_log.py"
        "::test_lines_without_room_are_counted_and_reported_when_lines_get_through_again",
        "service/test_unread_log.py::test_each_line_that_a_closed_pipe_refuses_is_counted",
        "service/test_unread_log.py::test_the_last_words_of_a_crash_are_written",
    ),
    row(
        "no file descriptor is left",
        "a pause with its reason, no traceback; it goes on when there are some again",
        "the limit is set below what is open, and polls or deliveries fail",
        "scenario/test_no_descriptors.py"
        "::test_a_daemon_that_runs_out_of_descriptors_waits_and_goes_on_and_prints_no_traceback",
        "scenario/test_no_descriptors.py::test_a_daemon_with_64_descriptors_polls_delivers_and_stores",
        "scenario/test_no_descriptors.py::test_a_daemon_raises_its_soft_limit_to_the_hard_one",
        "scenario/test_no_descriptors.py::test_nothing_is_imported_once_the_daemon_runs",
    ),
    row(
        "one spool under two names",
        "links are followed to one daemon; hard links and single files that are mounted are refused",
        "the exit code, and the process id that `status` shows",
        "scenario/test_one_spool.py"
        "::test_a_daemon_on_another_name_of_a_spool_is_refused_and_commands_reach_the_one_that_runs",
        "scenario/test_one_spool.py::test_a_spool_with_a_second_hard_link_is_refused_with_the_remedy",
        "scenario/test_one_spool.py::test_a_journal_with_a_second_hard_link_is_refused_with_the_remedy",
        "scenario/test_one_spool.py"
        "::test_a_daemon_that_reaches_the_folder_by_a_mount_in_another_namespace_is_refused",
        "scenario/test_one_spool.py::test_a_daemon_whose_spool_file_alone_is_mounted_is_refused_with_the_remedy",
        "scenario/test_one_spool.py::test_the_database_itself_is_locked_and_not_only_a_name_beside_it",
    ),
    row(
        "a spool that cannot be written at the start",
        "nothing is polled: a crash loop removes nothing",
        "exit code 1 and why, or the spool's refusal is waited for; requests are counted",
        "service/test_exit_codes.py::test_a_spool_that_cannot_be_written_exits_1_and_polls_nothing",
        "unit/pipeline/test_intake.py::test_nothing_is_polled_before_the_spool_is_proven_and_polling_begins_by_itself",
    ),
    row(
        "a bad configuration",
        "every finding at its place, nothing polled",
        "exit code 78; a port counts who connects",
        "scenario/test_operation.py::test_a_bad_configuration_exits_78_at_the_right_line_and_connects_nowhere",
    ),
    row(
        "an old or a later spool file",
        "migrated in one transaction, or refused",
        "the file's version before and after; the step's error; a kill by SIGKILL with its WAL written",
        "integration/spools/test_migrations.py::test_a_file_of_an_earlier_schema_opens_with_all_that_is_in_it",
        "integration/spools/test_migrations.py::test_a_step_that_fails_leaves_the_old_file",
        "integration/spools/test_migrations.py::test_a_kill_in_the_middle_leaves_the_old_file",
        "unit/spools/sqlite/test_sqlite_spool.py::test_a_file_of_a_later_schema_is_refused",
    ),
    row(
        "a bug in a reader",
        "its page ends in quarantine, no crash loop",
        "the reject names the exception",
        "unit/pipeline/test_intake.py::test_a_bug_in_the_reader_ends_in_quarantine_and_polling_goes_on",
        "unit/pipeline/test_push_intake.py"
        "::test_a_bug_in_the_reader_ends_in_quarantine_and_its_sender_does_not_repeat_it_for_ever",
    ),
    row(
        "everything at random, for long",
        "the books balance; nothing comes again without a reason, each recording and state is reported once",
        "each kind of fault is counted, and none may be 0",
        "scenario/test_random_faults.py::test_after_random_faults_on_all_sides_the_books_balance",
    ),
    row(
        "the wall clock is set while the daemon runs, or is wrong at a start or a stop",
        "nothing is given up, expires or waits longer for it; one line says so",
        "`clock_jumped` in the log",
        "scenario/test_wrong_clock.py::test_deliveries_that_wait_are_not_given_up_when_the_clock_is_set",
        "scenario/test_wrong_clock.py"
        "::test_no_dead_letter_expires_at_a_start_with_a_wrong_clock_that_is_set_right",
        "scenario/test_wrong_clock.py"
        "::test_what_waited_with_the_clock_a_day_ahead_goes_soon_after_a_start_with_it_right",
        "unit/runtime/test_clock.py::test_a_dead_letter_expires_when_its_time_has_passed_and_not_at_a_jump",
        "unit/runtime/test_clock.py"
        "::test_over_a_restart_an_age_grows_by_the_time_that_the_clock_can_be_believed_to_show",
    ),
)
