"""Deliberate bugs in what keeps stored bytes honest: damage that is said, pages that have an owner."""

from .bugs import Bug

INDEX = "tests/integration/spools/test_page_index.py::"
FLIPS = "tests/integration/spools/test_damage_after_a_kill.py::"
SQLITE = "tests/unit/spools/sqlite/test_sqlite_spool.py::"

STORAGE = (
    Bug(
        "a damaged page of the journal is not missed",
        "poller/pipeline/journal.py",
        "self._missing = set(range(first, last + 1)) - self._live.keys()",
        "self._missing = set()",
        (f"{FLIPS}test_damage_that_lost_a_page_or_a_push_is_said[journal-payload]",),
    ),
    Bug(
        "the journal does not say how far it is synced",
        "poller/pipeline/journal.py",
        "            synced=self._synced,\n",
        "",
        (f"{FLIPS}test_damage_that_lost_a_page_or_a_push_is_said[journal-payload]",),
    ),
    Bug(
        "a WAL that lost its end is not noticed",
        "poller/spools/sqlite/writer.py",
        "self.lost = self._missed(version)",
        "self.lost = None",
        (f"{FLIPS}test_damage_that_lost_a_page_or_a_push_is_said",),
    ),
    Bug(
        "a page's checksum is not compared",
        "poller/spools/pages.py",
        "if crc is not None and checksum(blob_of(blob)) != crc:",
        "if crc is not None and checksum(blob_of(blob)) == -1:",
        (f"{INDEX}test_an_event_that_was_altered_in_a_stopped_file_is_never_delivered",),
    ),
    Bug(
        "salvage brings back an altered page",
        "poller/spools/sqlite/salvage.py",
        "check_page(number, blob, _checksum(db, number, last))",
        "check_page(number, blob, None)",
        (f"{INDEX}test_an_event_that_was_altered_in_a_stopped_file_is_never_delivered",),
    ),
    Bug(
        "the catalogue counts as written with the first portion of a round",
        "poller/spools/catalogue_rounds.py",
        "last = self._written == len(self._left)\n",
        "last = bool(self._written)\n",
        (
            "tests/integration/spools/test_catalogue_rows.py::test_streams_are_known_wherever_a_round_is_cut_short_by_a_kill",
        ),
    ),
    Bug(
        "a burst waits until the catalogue is written",
        "poller/spools/catalogue_rounds.py",
        "self._in_burst = events > BURST",
        "self._in_burst = False",
        (
            "tests/integration/spools/test_catalogue_rows.py::test_a_burst_is_not_held_up_and_the_rest_is_written_when_it_ends",
        ),
    ),
    Bug(
        "bursts without end keep the catalogue from being written",
        "poller/spools/catalogue_rounds.py",
        "self._in_burst and since < OVERDUE",
        "self._in_burst",
        (
            "tests/integration/spools/test_catalogue_rows.py::test_a_burst_that_does_not_end_holds_up_no_round_for_long",
        ),
    ),
    Bug(
        "the newest events fill the memory where there are many streams",
        "poller/spools/table_spool.py",
        "min(max(TAIL_BYTES, wanted), MOST_TAIL_BYTES)",
        "max(TAIL_BYTES, wanted)",
        ("tests/integration/spools/test_tail_size.py::test_with_very_many_streams_memory_is_bounded",),
    ),
    Bug(
        "the ids of a burst that goes on fill the memory",
        "poller/spools/sqlite/seen.py",
        "len(self._added) > BURST and not self._anyway",
        "len(self._added) > BURST",
        (
            "tests/integration/spools/test_dedup_index.py::test_a_burst_is_merged_after_it_or_while_too_many_ids_are_in_memory",
        ),
    ),
    Bug(
        "a correction does not reach what was read from the file",
        "poller/spools/dispatcher.py",
        "        self._loaded = {sink: correct_chunks(loaded, by) for sink, loaded in self._loaded.items()}\n",
        "",
        (f"{SQLITE}test_a_correction_reaches_what_was_read_from_the_file_before",),
    ),
    Bug(
        "escapes in ids are not read",
        "poller/core/event_lines.py",
        """([^"\\\\]*)\"""",
        """([^"]*)\"""",
        ("tests/unit/core/test_event_lines.py::test_an_id_with_escapes_is_decoded",),
    ),
    Bug(
        "a released page stays in the journal's file",
        "poller/pipeline/journal.py",
        "            wipe(self._fd, frame.offset, frame.span)\n",
        "",
        (f"{FLIPS}test_a_released_page_is_overwritten_in_the_journal",),
    ),
    Bug(
        "an intake that ends keeps its pages for itself",
        "poller/pipeline/intake.py",
        "            self._journal.hand_back(self._held)\n",
        "",
        (
            "tests/unit/pipeline/test_intake.py::test_what_a_stopped_intake_could_not_commit_its_successor_takes",
        ),
    ),
    Bug(
        "pages of a source that is gone wait for a restart",
        "poller/pipeline/recovery.py",
        "                await self._report_leftovers(source, keys)\n",
        "                pass\n",
        (
            "tests/integration/test_daemon.py::test_a_page_of_a_source_that_left_the_configuration_goes_to_quarantine",
        ),
    ),
)
