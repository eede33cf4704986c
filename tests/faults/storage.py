"""Storage: disks that are full, slow or broken, and damaged files."""

from typing import Final

from .row import row

STORAGE: Final = (
    row(
        "a full disk before a poll",
        "no poll, readiness says why, sinks drain on, polling resumes by itself",
        "`polling_paused` names the disk, or strace's INJECTED; polls are counted",
        "scenario/test_operation.py::test_a_full_disk_pauses_polling_and_nothing_else_and_ends_by_itself",
        "scenario/test_operation.py"
        "::test_a_disk_below_min_free_is_reported_before_anything_is_polled_and_its_end_is_noticed",
        "scenario/test_failing_disk.py::test_a_write_for_which_there_is_no_space_pauses_polling_until_there_is",
    ),
    row(
        "a full disk between GET and commit",
        "the bytes are in the journal's own space",
        "no byte is free, or the spool's refusal is waited for; the journal holds pages",
        "scenario/test_operation.py::test_what_was_in_flight_when_the_disk_filled_is_in_the_journals_own_space",
        "unit/pipeline/test_intake.py::test_a_disk_that_fills_between_get_and_commit_loses_nothing_and_pauses_polling",
    ),
    row(
        "EIO or ENOSPC in a write of spool or journal",
        "the process ends, the next one has everything",
        "strace's INJECTED",
        "scenario/test_failing_disk.py"
        "::test_a_write_that_failed_ends_the_daemon_and_the_next_one_has_everything",
    ),
    row(
        "a failed fsync",
        "never retried and called durable",
        "strace's INJECTED",
        "integration/spools/test_failed_syncs.py"
        "::test_after_a_failed_sync_the_spool_acknowledges_nothing_and_has_what_it_did",
        "integration/spools/test_failed_syncs.py"
        "::test_after_a_failed_sync_the_journal_acknowledges_nothing_and_has_what_it_did",
        "scenario/test_damage.py::test_a_daemon_whose_sync_failed_ends_and_the_next_one_has_everything",
    ),
    row(
        "a slow fsync",
        "nothing lost or reordered",
        "strace's DELAYED",
        "scenario/test_failing_disk.py::test_a_disk_whose_syncs_take_long_loses_and_reorders_nothing",
    ),
    row(
        "a corrupted spool",
        "moved aside whole, a new one starts",
        "`spool_began_anew` in the log, `StorageCorrupt`, or the file that was moved",
        "scenario/test_damage.py::test_a_damaged_spool_is_moved_aside_said_once_and_polling_goes_on",
        "unit/spools/sqlite/test_damaged_spool.py"
        "::test_damage_met_while_running_ends_the_work_and_the_next_start_moves_the_file",
        "unit/spools/sqlite/test_damaged_spool.py::test_a_move_that_was_cut_short_goes_on_under_the_same_name",
        "unit/spools/sqlite/test_damaged_spool.py::test_an_event_that_does_not_read_back_is_damage_and_no_crash_loop",
    ),
    row(
        "bad pages in a spool file",
        "salvage brings back all else",
        "the test overwrites the pages, and `check` finds them",
        "integration/spools/test_salvage.py::test_a_bad_page_costs_only_what_is_on_it",
        "integration/spools/test_salvage.py::test_check_finds_a_damaged_page",
        "integration/spools/test_salvage.py::test_without_its_first_page_the_tables_are_found_all_the_same",
    ),
    row(
        "a damaged journal",
        "the frame is left out, its neighbours live; a file that cannot be read is kept",
        "the overwritten frame is missing; the file stands aside",
        "integration/pipeline/test_journal.py::test_a_damaged_frame_is_left_out_and_hurts_no_neighbour",
        "integration/pipeline/test_journal.py::test_a_damaged_first_block_is_said_and_costs_no_page",
        "integration/pipeline/test_journal.py::test_an_unreadable_journal_is_moved_aside_and_not_deleted",
    ),
    row(
        "the spool's folder or files are moved, deleted or replaced under the daemon",
        "nothing more is taken in, the reason is said at once; what comes back heals it",
        "`storage_moved` in the log; polls are counted",
        "scenario/test_storage_moved.py::test_when_the_spools_files_are_no_longer_at_their_paths_nothing_more_is_polled"
        "_and_the_reason_is_said",
        "scenario/test_storage_moved.py::test_a_folder_that_comes_back_heals_the_daemon_and_nothing_is_lost",
        "scenario/test_storage_moved.py"
        "::test_what_was_taken_before_the_folder_was_deleted_still_reaches_the_sinks",
        "scenario/test_storage_moved.py"
        "::test_a_daemon_whose_files_stay_away_ends_unless_that_would_lose_what_sinks_lack",
    ),
    row(
        "journal or WAL damaged after a kill",
        "what lost a page or an acknowledged push is said and counted; the bytes go to quarantine or are copied aside",
        "the test flips, zeroes or cuts the files, and counts what is missing",
        "integration/spools/test_damage_after_a_kill.py::test_damage_that_lost_a_page_or_a_push_is_said",
        "integration/spools/test_damage_after_a_kill.py::test_a_kill_by_itself_loses_nothing_and_raises_no_alarm",
        "integration/spools/test_damage_after_a_kill.py::test_a_damaged_head_file_is_harmless",
    ),
    row(
        "stored bytes that do not read back",
        "the file is moved aside once, all else comes back; a list leaves out the one row",
        "the test changes the rows; the file that was moved",
        "unit/spools/sqlite/test_unreadable_rows.py"
        "::test_an_event_that_cannot_be_read_is_no_crash_loop_and_costs_only_itself",
        "unit/spools/sqlite/test_unreadable_rows.py::test_a_waiting_batch_that_cannot_be_read_is_no_crash_loop",
        "unit/spools/sqlite/test_unreadable_rows.py::test_books_that_cannot_be_read_are_no_crash_loop",
        "unit/spools/sqlite/test_unreadable_rows.py::test_a_dead_letter_that_cannot_be_read_hides_no_other",
    ),
    row(
        "a kill while an event is dead and an earlier one in hand",
        "the event comes from the log or as a retried dead letter, never from both",
        "the backlog after the restart counts it once",
        "contracts/test_spools.py::TestSqliteSpool"
        "::test_an_event_is_not_acknowledged_from_the_log_and_as_a_retried_dead_letter",
    ),
    row(
        "a reload while the spool is full",
        "each page in the journal has an owner: its source's successor, else quarantine",
        "`polling_paused`, bytes in the journal",
        "scenario/test_pages_have_owners.py::test_a_reload_while_the_spool_is_full_loses_no_page_until_a_restart",
        "scenario/test_pages_have_owners.py"
        "::test_pages_of_an_unknown_source_leave_the_journal_once_a_full_spool_has_room",
    ),
    row(
        "a nonsense request on the control socket",
        "refused by itself; who works beside it gets what it asked for",
        "the answer is `not a request of this version`",
        "unit/operations/test_nonsense_requests.py"
        "::test_a_request_with_a_senseless_number_is_refused_whatever_the_verb",
        "unit/operations/test_nonsense_requests.py::test_who_reads_beside_a_read_that_fails_gets_what_it_asked_for",
        "scenario/test_operate.py::test_who_talks_nonsense_or_nothing_is_cut_and_holds_nobody_up",
    ),
    row(
        "the limits in bytes, age and free space",
        "polling pauses at the high mark, goes on under the low one",
        "what is refused is `StorageFull`; what is pruned is counted",
        "integration/spools/test_disk_limits.py"
        "::test_above_max_bytes_nothing_is_taken_until_the_slowest_sink_has_brought_it_under_the_low_mark",
        "integration/spools/test_disk_limits.py::test_a_disk_that_others_fill_is_noticed_and_so_is_room_on_it",
        "unit/spools/sqlite/test_sqlite_spool.py::test_settled_pages_are_pruned_after_retain_in_bounded_steps",
    ),
    row(
        "a second connection that writes or checkpoints",
        "refused: one connection does both",
        "`StorageError` for each statement",
        "unit/spools/sqlite/test_sqlite_spool.py::test_the_connection_that_reads_can_neither_write_nor_checkpoint",
    ),
)
