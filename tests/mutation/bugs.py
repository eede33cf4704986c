"""Deliberate bugs, each with the tests that must turn red when it is in the code.

Whoever changes a line that a bug replaces changes the bug along with it: `test_bugs.py` says so in the ordinary run.
"""

from typing import NamedTuple


class Bug(NamedTuple):
    """A text of a file, which stands there once, and what takes its place; every one of `tests` must fail then."""

    name: str
    file: str
    text: str
    becomes: str
    tests: tuple[str, ...]


CONTRACT = "tests/contracts/test_spools.py::TestSqliteSpool::"

POLLING = (
    Bug(
        "a cut answer without a length counts as whole",
        "poller/qcloud/wire/client.py",
        "whole = complete(body, encoding)",
        "whole = True",
        ("tests/integration/qcloud/test_client.py::test_a_cut_body_without_a_length_is_not_whole",),
    ),
    Bug(
        "a stop cancels the poll in flight",
        "poller/pipeline/intake.py",
        "await asyncio.shield(task)",
        "await task",
        (
            "tests/unit/pipeline/test_intake.py::test_stopping_waits_for_the_poll_in_flight_and_commits_its_answer",
            "tests/unit/pipeline/test_intake.py::test_a_cancelled_intake_still_keeps_the_answer_of_the_poll_in_flight",
        ),
    ),
    Bug(
        "polling that is broken off in the step in which a poll ends goes on",
        "poller/pipeline/intake.py",
        "            if task.cancelled():\n",
        "            if task.done():\n",
        (
            "tests/unit/pipeline/test_intake.py::test_a_broken_spool_ends_polling_in_whatever_moment_the_next_poll_is",
        ),
    ),
    Bug(
        "the next poll does not wait until the page is durable",
        "poller/pipeline/journal.py",
        "await self._thread.submit(_Write(frame, payload))",
        "self._thread.submit(_Write(frame, payload)).add_done_callback(_ignore)",
        (
            "tests/integration/pipeline/test_journal.py::test_a_failed_write_is_reported_and_never_believed_again",
        ),
    ),
    Bug(
        "polling begins before the spool is proven",
        "poller/pipeline/intake.py",
        "        await self._spool.check_writable()\n        reached(",
        "        reached(",
        (
            "tests/unit/pipeline/test_intake.py"
            "::test_nothing_is_polled_before_the_spool_is_proven_and_polling_begins_by_itself",
        ),
    ),
    Bug(
        "a page is released from the journal before its commit",
        "poller/pipeline/intake.py",
        "        if readings and not await self._append(readings):\n            return\n",
        "        for number, _ in group:\n            if number is not None:\n"
        "                self._journal.release(number)\n"
        "        group = []\n"
        "        if readings and not await self._append(readings):\n            return\n",
        (
            "tests/unit/pipeline/test_intake.py::test_stopping_on_a_full_disk_leaves_the_page_to_the_journal",
            "tests/unit/pipeline/test_intake.py::test_a_broken_spool_ends_the_process_and_the_page_waits_in_the_journal",
        ),
    ),
    Bug(
        "what the journal held is not read in before the first poll",
        "poller/pipeline/intake.py",
        "for number, page in left_over:",
        "for number, page in ():",
        (
            "tests/unit/pipeline/test_intake.py::test_pages_left_in_the_journal_are_read_in_before_the_first_poll",
        ),
    ),
    Bug(
        "one message that cannot be read takes its batch along",
        "poller/qcloud/wire/replies.py",
        "            rejects.append((str(error), raw))",
        "            return (), tuple((str(error), one) for one in found)",
        ("tests/unit/sources/test_poison.py::test_a_poisoned_message_hurts_no_neighbour_and_is_kept",),
    ),
    Bug(
        "a clock that is wrong by hours is believed",
        "poller/qcloud/wire/skew.py",
        "0 < skew.seconds <= CORRECTABLE",
        "0 < skew.seconds",
        (
            "tests/unit/qcloud/wire/test_skew.py::test_only_an_expired_signature_that_the_skew_explains_corrects",
        ),
    ),
    Bug(
        "a bug in a reader ends the process",
        "poller/pipeline/ingest.py",
        "except Exception as error:",
        "except ArithmeticError as error:",
        (
            "tests/unit/pipeline/test_intake.py::test_a_bug_in_the_reader_ends_in_quarantine_and_polling_goes_on",
        ),
    ),
)

JOURNAL = (
    Bug(
        "a frame's checksum is not compared",
        "poller/pipeline/journal_file.py",
        "if len(payload) != length or _checksum(number, payload) != checksum:",
        "if len(payload) != length:",
        (
            "tests/integration/pipeline/test_journal.py::test_a_damaged_frame_is_left_out_and_hurts_no_neighbour",
        ),
    ),
    Bug(
        "the journal's mark is the same in every file",
        "poller/pipeline/journal.py",
        "self._mark = os.urandom(16)",
        'self._mark = b"POLLER JOURNAL 1"',
        ("tests/integration/pipeline/test_journal.py::test_a_page_cannot_forge_a_frame",),
    ),
    Bug(
        "the journal believes the sync after one that failed",
        "poller/pipeline/journal.py",
        "            self._broken = error\n",
        "",
        (
            "tests/integration/spools/test_failed_syncs.py"
            "::test_after_a_failed_sync_the_journal_acknowledges_nothing_and_has_what_it_did",
        ),
    ),
    Bug(
        "a page is not synced",
        "poller/pipeline/journal.py",
        "        os.fdatasync(self._fd)\n        if writes:\n",
        "        if writes:\n",
        (
            "tests/integration/spools/test_failed_syncs.py"
            "::test_after_a_failed_sync_the_journal_acknowledges_nothing_and_has_what_it_did",
        ),
    ),
    Bug(
        "the journal's space is not written in advance",
        "poller/pipeline/journal.py",
        "            pwrite_all(self._fd, zeros[: self._size - offset], offset)\n",
        "            os.ftruncate(self._fd, self._size)\n",
        ("tests/integration/pipeline/test_journal.py::test_its_space_is_all_there_from_the_start",),
    ),
    Bug(
        "an unreadable journal is deleted",
        "poller/pipeline/journal.py",
        "os.rename(self.path, aside)",
        "os.unlink(self.path)",
        (
            "tests/integration/pipeline/test_journal.py::test_an_unreadable_journal_is_moved_aside_and_not_deleted",
        ),
    ),
)

SPOOL = (
    Bug(
        "synchronous=NORMAL",
        "poller/spools/sqlite/writer.py",
        'SYNCHRONOUS = "FULL"',
        'SYNCHRONOUS = "NORMAL"',
        ("tests/unit/spools/sqlite/test_sqlite_spool.py::test_every_commit_is_synced",),
    ),
    Bug(
        "the connection that reads may write and checkpoint",
        "poller/spools/sqlite/reader.py",
        "?mode=ro",
        "?mode=rw",
        (
            "tests/unit/spools/sqlite/test_sqlite_spool.py::test_the_connection_that_reads_can_neither_write_nor_checkpoint",
        ),
    ),
    Bug(
        "the spool believes the commit after a sync that failed",
        "poller/spools/sqlite/writer.py",
        "if unknown or isinstance(failure, StorageCorrupt):",
        "if isinstance(failure, StorageCorrupt):",
        (
            "tests/integration/spools/test_failed_syncs.py"
            "::test_after_a_failed_sync_the_spool_acknowledges_nothing_and_has_what_it_did",
        ),
    ),
    Bug(
        "two processes share a spool",
        "poller/runtime/durable_files.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        (
            CONTRACT + "test_a_second_owner_is_refused",
            "tests/integration/pipeline/test_journal.py::test_a_second_process_is_refused",
        ),
    ),
    Bug(
        "ids are remembered for a day",
        "poller/spools/retention.py",
        "IDS_REMEMBERED = 30 * 86400.0",
        "IDS_REMEMBERED = 86400.0",
        (
            "tests/unit/spools/sqlite/test_sqlite_spool.py::test_ids_are_remembered_for_thirty_days_whatever_is_retained",
        ),
    ),
    Bug(
        "a recording's vid is not remembered beside its file",
        "poller/spools/sqlite/seen.py",
        "self._is_fresh(event.ids, now)",
        "self._is_fresh((event.id,), now)",
        (CONTRACT + "test_a_recording_is_stored_once_whether_it_was_reported_by_its_file_or_by_its_vid",),
    ),
    Bug(
        "a position passes batches that are in hand",
        "poller/spools/sink_queue.py",
        "return min(self._spans, default=self.next)",
        "return self.next",
        (CONTRACT + "test_in_a_reopened_spool_what_was_not_settled_is_pending",),
    ),
    Bug(
        "what waits for a retry is not written",
        "poller/spools/sqlite/writer.py",
        "for waiting in changes.put:",
        "for waiting in ():",
        (CONTRACT + "test_in_a_reopened_spool_what_was_not_settled_is_pending",),
    ),
    Bug(
        "the halves of a split retry are not written",
        "poller/spools/sink_queue.py",
        "position=self.position, put=put, dropped=ticket.rows\n        )\n\n    def _part",
        "position=self.position, dropped=ticket.rows\n        )\n\n    def _part",
        (CONTRACT + "test_half_of_a_split_retry_is_pending_after_a_restart",),
    ),
    Bug(
        "a dead letter that is retried stays dead",
        "poller/spools/sqlite/dead_letters.py",
        "        purge_dead(connection, [letter.number for letter in letters])\n",
        "",
        (
            CONTRACT + "test_a_dead_letter_that_is_retried_is_pending_again",
            CONTRACT + "test_a_retried_dead_letter_is_pending_and_not_dead_after_a_restart",
        ),
    ),
    Bug(
        "a dead letter is retried only in memory",
        "poller/spools/sqlite/dead_letters.py",
        "connection.execute(PUT_WAITING, waiting_row(sink, waiting))",
        "pass",
        (CONTRACT + "test_a_retried_dead_letter_is_pending_and_not_dead_after_a_restart",),
    ),
    Bug(
        "pruning takes what is pending for a sink",
        "poller/spools/sqlite/pruning.py",
        "if last < floor and not any(",
        "if not any(",
        (CONTRACT + "test_what_is_pending_is_there_after_pruning_and_a_restart",),
    ),
    Bug(
        "an ordered queue gives out a stream that is held",
        "poller/spools/ordered_sink_queue.py",
        "if not line.ranks:",
        "if line is not None:",
        (CONTRACT + "test_halves_of_an_ordered_sinks_batch_go_out_one_after_the_other",),
    ),
    Bug(
        "an ordered queue lets a stream go that another batch holds",
        "poller/spools/ordered_sink_queue.py",
        "if line.parked and not line.ranks:",
        "if line.parked:",
        (CONTRACT + "test_halves_of_an_ordered_sinks_batch_go_out_one_after_the_other",),
    ),
    Bug(
        "an ordered queue does not write what is parked behind a retry",
        "poller/spools/ordered_sink_queue.py",
        "put = (*changes.put, *self._save(line for line in self._to_save.union(lines) if line.waits))",
        "put = changes.put",
        (
            "tests/unit/spools/sqlite/test_sqlite_spool.py"
            "::test_a_kill_while_a_stream_waits_repeats_nothing_that_others_got",
        ),
    ),
    Bug(
        "an ordered sink is done with what came behind a retry",
        "poller/core/model.py",
        "kept.append(waits.get(stream, outcome))",
        "kept.append(outcome)",
        (CONTRACT + "test_an_ordered_sink_gets_again_what_was_settled_behind_a_retry",),
    ),
    Bug(
        "an ordered queue writes what is parked behind a batch that only the position remembers",
        "poller/spools/ordered_sink_queue.py",
        "if not self._fresh.isdisjoint(line.ranks):",
        "if False:",
        (CONTRACT + "test_a_letter_that_waits_lets_nothing_in_hand_pass_for_settled",),
    ),
    Bug(
        "the disk marks have no gap",
        "poller/spools/sqlite/watermarks.py",
        "(low, clear) if full else (max_bytes, min_free)",
        "(max_bytes, min_free)",
        ("tests/integration/spools/test_disk_limits.py::test_the_marks",),
    ),
    Bug(
        "a full spool still takes pages",
        "poller/spools/sqlite/writer.py",
        "if self._marks.full is not None:",
        "if False:",
        (
            "tests/integration/spools/test_disk_limits.py"
            "::test_a_disk_with_less_than_min_free_is_refused_before_the_first_poll",
        ),
    ),
    Bug(
        "a damaged spool file is deleted",
        "poller/spools/sqlite/corrupt_file.py",
        "os.rename(_beside(path, end), _beside(aside, end))",
        "os.unlink(_beside(path, end))",
        ("tests/unit/spools/sqlite/test_damaged_spool.py::test_what_is_no_database_is_moved_aside_as_it_is",),
    ),
    Bug(
        "a damaged spool's WAL is left behind",
        "poller/spools/sqlite/corrupt_file.py",
        'ENDS = ("-wal", "-shm", "")',
        'ENDS = ("",)',
        ("tests/unit/spools/sqlite/test_damaged_spool.py::test_its_wal_goes_along",),
    ),
    Bug(
        "salvage gives up at the first bad page",
        "poller/spools/sqlite/salvage.py",
        "            if low == high or tries > MOST_TRIES:",
        "            if True:",
        ("tests/integration/spools/test_salvage.py::test_rows_around_damage_come_once",),
    ),
    Bug(
        "salvage leaves out what lies behind the damage",
        "poller/spools/sqlite/salvage.py",
        "for part in ((low, middle), (middle + 1, high)):",
        "for part in ((low, middle),):",
        ("tests/integration/spools/test_salvage.py::test_a_bad_page_costs_only_what_is_on_it",),
    ),
    Bug(
        "a migration's steps are committed one by one",
        "poller/spools/sqlite/migrations.py",
        "            step(connection)\n",
        '            step(connection)\n            connection.execute("COMMIT")\n'
        '            connection.execute("BEGIN IMMEDIATE")\n',
        ("tests/integration/spools/test_migrations.py::test_a_step_that_fails_leaves_the_old_file",),
    ),
)

SINKS = (
    Bug(
        "a stop cancels the delivery in flight",
        "poller/pipeline/courier.py",
        "self._end_shift(_CarrierState.CARRYING)",
        "self._end_shift(_CarrierState.CARRYING + 1)",
        ("tests/unit/pipeline/test_courier.py::test_stopping_lets_a_delivery_finish_and_claims_no_more",),
    ),
    Bug(
        "every carrier probes a sink that fails",
        "poller/pipeline/courier.py",
        "            async with self._gate:  # one probe at a time\n",
        "            async with asyncio.Lock():\n",
        (
            "tests/unit/pipeline/test_courier.py::test_a_sink_that_keeps_failing_is_probed_by_one_carrier_only",
        ),
    ),
    Bug(
        "a refused batch dies as a whole",
        "poller/pipeline/courier.py",
        "len(batch.events) > 1 and isinstance",
        "len(batch.events) > 1000 and isinstance",
        (
            "tests/unit/pipeline/test_courier.py::test_a_refused_batch_is_split_until_only_the_guilty_event_dies",
        ),
    ),
    Bug(
        "deliveries are given up by count",
        "poller/pipeline/retry.py",
        "if age >= policy.give_up_after:",
        "if attempt >= 10:",
        ("tests/unit/pipeline/test_courier.py::test_a_day_of_outage_kills_nothing",),
    ),
    Bug(
        "what a Retry-After asks for has no bounds",
        "poller/pipeline/retry.py",
        "min(max(error.after, 0.0), policy.longest_wait)",
        "max(error.after, 0.0)",
        ("tests/unit/pipeline/test_retry.py::test_an_attempt_has_one_outcome",),
    ),
    Bug(
        "the signature does not cover the batch's brackets",
        "poller/sinks/webhook.py",
        "text = body.decode()",
        'text = body.decode().strip("[]")',
        ("tests/integration/sinks/test_webhook.py::test_the_library_verifies_what_a_real_server_received",),
    ),
    Bug(
        "a webhook's id is new for each attempt",
        "poller/sinks/webhook.py",
        '"webhook-id": batch_id,',
        '"webhook-id": f"{batch_id}-{now.timestamp():.6f}".replace(".", "-"),',
        (
            "tests/integration/sinks/test_webhook.py::test_the_id_is_the_same_on_every_attempt_and_holds_no_dot",
        ),
    ),
    Bug(
        "a webhook that is gone is asked again",
        "poller/sinks/webhook.py",
        "if status == 410:",
        "if status == 411:",
        (
            "tests/integration/sinks/test_webhook_answers.py::test_each_status_comes_to_one_thing_and_is_sent_once",
        ),
    ),
    Bug(
        "only names are judged, and addresses in URLs pass",
        "poller/runtime/http_client.py",
        "else self.guard\n",
        "or _host(url)[:1].isdigit() else self.guard\n",
        (
            "tests/integration/runtime/test_outbound.py::test_no_spelling_of_a_loopback_target_reaches_a_server_there",
        ),
    ),
    Bug(
        "an IPv4 address inside an IPv6 one passes for public",
        "poller/runtime/outbound.py",
        "    if isinstance(address, IPv4Address):\n        return not any",
        "    if isinstance(address, IPv6Address) and address.ipv4_mapped is None and address.sixtofour:\n"
        "        return True\n"
        "    if isinstance(address, IPv4Address):\n        return not any",
        (
            "tests/integration/runtime/test_outbound.py::test_an_address_that_is_not_global_unicast_is_refused",
        ),
    ),
)

PICTURES = (
    Bug(
        "a picture is renamed before its fsync",
        "poller/sinks/download/store.py",
        '            self._sync.sync_files()\n            reached("picture.synced")\n'
        "            with self._place.turn:\n                self._each(files, publish)",
        "            self._each(files, publish)\n            self._sync.sync_files()",
        (
            "tests/integration/sinks/download/test_disk.py"
            "::test_files_are_synced_before_their_renames_and_folders_after_and_before_returning",
            "tests/integration/sinks/download/test_disk.py::test_a_file_whose_sync_failed_is_not_published",
        ),
    ),
    Bug(
        "no fsync of a picture's directory",
        "poller/sinks/download/syncing.py",
        "os.fsync(opened(one))",
        "opened(one)",
        (
            "tests/integration/sinks/download/test_disk.py"
            "::test_files_are_synced_before_their_renames_and_folders_after_and_before_returning",
        ),
    ),
    Bug(
        "a link in a picture's way is followed",
        "poller/sinks/download/folders.py",
        "_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
        "_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC",
        (
            "tests/integration/sinks/download/test_disk.py"
            "::test_a_planted_link_to_a_folder_is_not_followed_and_its_neighbours_are_stored",
        ),
    ),
    Bug(
        "a picture that ends in the right two bytes counts as whole",
        "poller/qcloud/pictures/jpeg.py",
        "    width, height = _walk(body)\n",
        '    width, height = (16, 16) if body.endswith(b"\\xff\\xd9") else _walk(body)\n',
        (
            "tests/unit/qcloud/pictures/test_jpeg.py"
            "::test_a_thumbnail_with_an_end_of_its_own_does_not_make_a_cut_picture_whole",
        ),
    ),
    Bug(
        "the store's checksum is not compared",
        "poller/qcloud/pictures/jpeg.py",
        "if checksum is not None and str(crc64.xz(body)) != checksum.strip():",
        "if checksum is None:",
        ("tests/unit/qcloud/pictures/test_jpeg.py::test_the_checksum_is_the_stores_crc_in_decimal",),
    ),
    Bug(
        "an endless picture is read to its end",
        "poller/qcloud/pictures/fetch.py",
        "if self._size > self._max_bytes:",
        "if self._size > 2**40:",
        ("tests/integration/sinks/download/test_download.py::test_an_endless_body_is_cut_off",),
    ),
    Bug(
        "pictures are fetched from any address",
        "poller/qcloud/pictures/handle.py",
        "if not self._guard.allows(host):",
        "if host == '0.0.0.0':",
        (
            "tests/integration/runtime/test_outbound.py::test_no_spelling_of_a_loopback_target_reaches_a_server_there",
        ),
    ),
    Bug(
        "a picture's turn is waited for while it connects",
        "poller/qcloud/pictures/transfers.py",
        "        self._multi = pycurl.CurlMulti()\n",
        "        self._multi = pycurl.CurlMulti()\n"
        "        self._multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, self._per_host)\n"
        "        self._per_host = 10_000\n",
        (
            "tests/integration/qcloud/pictures/test_transfers.py::test_waiting_for_a_turn_is_not_taken_for_slow_connecting",
        ),
    ),
    Bug(
        "a picture's URL is spelled anew",
        "poller/qcloud/pictures/handle.py",
        "        self.curl.setopt(pycurl.REQUEST_TARGET, target)",
        "        self.curl.unsetopt(pycurl.REQUEST_TARGET)",
        ("tests/integration/qcloud/pictures/test_transfers.py::test_the_url_is_sent_as_it_stands",),
    ),
    Bug(
        "a picture that is not there yet is given up at once",
        "poller/qcloud/pictures/fetch.py",
        "return latest + UPLOAD + MARGIN",
        "return latest",
        (
            "tests/integration/sinks/download/test_download.py"
            "::test_a_picture_that_is_not_there_yet_is_asked_for_again_soon",
        ),
    ),
    Bug(
        "pictures are fetched from any host",
        "poller/qcloud/pictures/hosts.py",
        "if port > 65535 or not hosts.holds(host, port):",
        "if port > 65535:",
        (
            "tests/integration/qcloud/pictures/test_hosts.py::test_no_url_whose_host_is_not_allowed_makes_a_request",
        ),
    ),
)

CALLBACKS = (
    Bug(
        "a notification is answered 200 before its commit",
        "poller/pipeline/push_intake.py",
        "                await commit\n",
        "                await asyncio.sleep(0)\n",
        (
            "tests/unit/pipeline/test_push_intake.py::test_a_page_is_in_the_spool_when_its_sender_is_answered",
            "tests/unit/pipeline/test_push_intake.py"
            "::test_a_commit_that_takes_too_long_is_no_commit_and_others_do_not_wait_for_it",
        ),
    ),
    Bug(
        "t need not be ten digits",
        "poller/qcloud/wire/signed_bodies.py",
        "_T.fullmatch(digits)",
        "_T.match(digits)",
        (
            "tests/unit/qcloud/events/test_notifications.py"
            "::test_a_t_of_any_other_form_or_time_is_refused_whatever_its_signature",
        ),
    ),
    Bug(
        "a signature never grows old",
        "poller/qcloud/wire/signed_bodies.py",
        "if ahead < -LATE:",
        "if ahead < -1e12:",
        (
            "tests/unit/qcloud/events/test_notifications.py"
            "::test_a_t_of_any_other_form_or_time_is_refused_whatever_its_signature",
        ),
    ),
    Bug(
        "a wrong signature is good",
        "poller/qcloud/wire/signed_bodies.py",
        'return None if any(matches) else "wrong signature"',
        "return None if matches else None",
        ("tests/unit/qcloud/events/test_notifications.py::test_any_other_signature_is_refused",),
    ),
    Bug(
        "the allow list lets everybody in",
        "poller/sources/callbacks/receiver.py",
        "if allowed and (who is None or not holds(allowed, who)):",
        "if allowed and who is None:",
        (
            "tests/integration/sources/test_callbacks.py::test_an_allow_list_holds_for_signed_notifications_too",
        ),
    ),
    Bug(
        "anybody's X-Forwarded-For is believed",
        "poller/sources/callbacks/callers.py",
        "while hop is not None and hops and holds(trusted, hop):",
        "while hop is not None and hops:",
        (
            "tests/integration/sources/test_callbacks.py::test_the_caller_is_the_rightmost_hop_that_is_no_trusted_proxy",
        ),
    ),
    Bug(
        "a captured notification is taken again",
        "poller/sources/callbacks/receiver.py",
        "if self._replays.holds(digest, monotonic):",
        "if False:",
        (
            "tests/integration/sources/test_callbacks.py"
            "::test_a_captured_notification_that_is_sent_again_is_answered_and_stored_once",
        ),
    ),
    Bug(
        "what could not be committed is taken for known",
        "poller/sources/callbacks/receiver.py",
        "        await self._handler.accept(page)\n"
        "        self._replays.add(digest, monotonic + _lives_until(fields, now) - now, monotonic)\n",
        "        self._replays.add(digest, monotonic + _lives_until(fields, now) - now, monotonic)\n"
        "        await self._handler.accept(page)\n",
        (
            "tests/integration/sources/test_callbacks.py"
            "::test_what_could_not_be_committed_is_refused_and_taken_when_it_comes_again",
        ),
    ),
    Bug(
        "push secrets are kept",
        "poller/qcloud/wire/redaction.py",
        '_PUSH_WORDS: Final = ("txsecret", "txtime", "streamparam")',
        '_PUSH_WORDS: Final = ("nothing",)',
        (
            "tests/unit/qcloud/events/test_notifications.py::test_nothing_that_opens_a_stream_or_signs_is_kept",
        ),
    ),
)

LISTS = (
    Bug(
        "recordings remembers no segment",
        "poller/sources/recordings.py",
        "memory=_packed(remember(seen, ends)) if ends else memory,",
        "memory=memory,",
        ("tests/integration/sources/test_recordings.py::test_a_segment_that_was_seen_is_not_reported_again",),
    ),
    Bug(
        "recordings' memory grows for ever",
        "poller/sources/recordings.py",
        "if end > newest - NEAR}",
        "}",
        ("tests/integration/sources/test_recordings.py::test_the_memory_stays_small",),
    ),
    Bug(
        "channel_status tells an interruption after one answer",
        "poller/sources/channel_status.py",
        "if known.against + 1 < confirm:",
        "if known.against + 1 < 1:",
        (
            "tests/integration/sources/test_channel_status.py"
            "::test_a_change_is_reported_once_and_an_interruption_after_three_answers",
        ),
    ),
    Bug(
        "a source's memory is not committed",
        "poller/spools/sqlite/writer.py",
        "self.connection.execute(_PUT_MEMORY, (source, about, memory, at))",
        "pass",
        (CONTRACT + "test_a_sources_memory_is_the_last_one_committed",),
    ),
)

OPERATION = (
    Bug(
        "listening ports have no deadline",
        "poller/runtime/http_server.py",
        "self._end = self._heard + bounds.deadline",
        "self._end = self._heard + bounds.deadline + 3600.0",
        ("tests/integration/test_admin.py::test_a_client_that_drips_is_cut_at_the_deadline",),
    ),
    Bug(
        "listening ports take any number of connections",
        "poller/runtime/http_server.py",
        "elif len(self._present) >= bounds.most:",
        "elif False:",
        ("tests/integration/test_admin.py::test_connections_beyond_the_bound_are_cut_at_once",),
    ),
    Bug(
        "the control socket is open to everybody",
        "poller/control/server.py",
        "os.chmod(self.path, 0o600)",
        "os.chmod(self.path, 0o666)",
        (
            "tests/scenario/test_operate.py"
            "::test_dead_letters_are_listed_shown_retried_and_purged_while_the_daemon_runs",
        ),
    ),
    Bug(
        "JSON tracebacks show local variables",
        "poller/runtime/log.py",
        "show_locals=False",
        "show_locals=True",
        ("tests/integration/runtime/test_log.py::test_a_traceback_shows_no_local_variables[json]",),
    ),
    Bug(
        "console tracebacks show local variables",
        "poller/runtime/log.py",
        "plain = structlog.dev.plain_traceback",
        "plain = structlog.dev.RichTracebackFormatter(show_locals=True)",
        ("tests/integration/runtime/test_log.py::test_a_traceback_shows_no_local_variables[console]",),
    ),
    Bug(
        "a foreign exception's text is reported",
        "poller/pipeline/retry.py",
        "return type(error).__name__",
        'return f"{type(error).__name__}: {error}"',
        ("tests/unit/pipeline/test_retry.py::test_a_foreign_exceptions_text_is_not_reported",),
    ),
    Bug(
        "an unset variable is empty",
        "poller/settings/scalars.py",
        "if name not in environ:",
        "if not name:",
        ("tests/unit/settings/test_bad_configurations.py",),
    ),
    Bug(
        "of a key given twice the last one counts",
        "poller/settings/yaml.py",
        "            elif key in entries:\n",
        "            elif key in entries and not value:\n",
        ("tests/unit/settings/test_bad_configurations.py",),
    ),
    Bug(
        "metrics need no token",
        "poller/admin/__init__.py",
        "if not _allowed(request, token):",
        "if not _allowed(request, None):",
        ("tests/integration/test_admin.py::test_with_a_token_only_who_brings_it_sees_more_than_health",),
    ),
)

from .bugs_audit import AUDIT  # noqa: E402 - they need `Bug`
from .bugs_beat import BEATS  # noqa: E402 - they need `Bug`
from .bugs_books import BOOKS  # noqa: E402 - they need `Bug`
from .bugs_brokers import BROKERS  # noqa: E402 - they need `Bug`
from .bugs_clock import CLOCK  # noqa: E402 - they need `Bug`
from .bugs_http import HTTP  # noqa: E402 - they need `Bug`
from .bugs_metrics import METRICS  # noqa: E402 - they need `Bug`
from .bugs_moves import MOVES  # noqa: E402 - they need `Bug`
from .bugs_objects import OBJECTS  # noqa: E402 - they need `Bug`
from .bugs_pages import PAGES  # noqa: E402
from .bugs_pictures import (  # noqa: E402 - they need `Bug`
    PICTURES_AT_THEIR_PATH,
    PICTURES_OF_THE_PAGES,
    SYNC_OF_A_BATCH,
)
from .bugs_process import PROCESS  # noqa: E402 - they need `Bug`
from .bugs_pushes import PUSHES  # noqa: E402 - they need `Bug`
from .bugs_reading import READING  # noqa: E402 - they need `Bug`
from .bugs_replays import REPLAYS  # noqa: E402 - they need `Bug`
from .bugs_sandbox import SANDBOX  # noqa: E402 - they need `Bug`
from .bugs_secrets import SECRETS  # noqa: E402 - they need `Bug`
from .bugs_shared import SHARED  # noqa: E402 - they need `Bug`
from .bugs_shares import SHARES  # noqa: E402 - they need `Bug`
from .bugs_storage import STORAGE  # noqa: E402 - they need `Bug`
from .bugs_tracing import TRACING  # noqa: E402 - they need `Bug`
from .bugs_web import WEB  # noqa: E402 - they need `Bug`
from .bugs_web_data import ACTIONS_OF_THE_PAGES, LIVE_PAGES, STREAM_PAGE  # noqa: E402

BUGS: tuple[Bug, ...] = (
    *BROKERS,
    *POLLING,
    *JOURNAL,
    *SPOOL,
    *SINKS,
    *PICTURES,
    *CALLBACKS,
    *LISTS,
    *OPERATION,
    *CLOCK,
    *HTTP,
    *MOVES,
    *OBJECTS,
    *PAGES,
    *PICTURES_AT_THEIR_PATH,
    *PICTURES_OF_THE_PAGES,
    *SYNC_OF_A_BATCH,
    *PROCESS,
    *AUDIT,
    *PUSHES,
    *READING,
    *SANDBOX,
    *SECRETS,
    *SHARED,
    *SHARES,
    *STORAGE,
    *BOOKS,
    *BEATS,
    *REPLAYS,
    *TRACING,
    *METRICS,
    *WEB,
    *LIVE_PAGES,
    *ACTIONS_OF_THE_PAGES,
    *STREAM_PAGE,
)
