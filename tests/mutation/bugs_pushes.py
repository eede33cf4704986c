"""Deliberate bugs in what is pushed: announcements that nothing proves, and strangers at the ports."""

from .bugs import Bug

CORRECTED = "test_an_event_that_was_announced_wrongly_arrives_as_the_queue_has_it"
HEADS = "tests/integration/sources/test_heads.py::"
SQLITE = "tests/contracts/test_spools.py::TestSqliteSpool::"

PUSHES = (
    Bug(
        "what a callback announced is never corrected",
        "poller/spools/table_spool.py",
        "        if written.confirmed:\n",
        "        if not written:\n",
        (f"{SQLITE}{CORRECTED}",),
    ),
    Bug(
        "an announcement counts as much as the queue's message",
        "poller/sources/callbacks/receiver.py",
        "provisional = event.kind in (SHOT, RECORDING)",
        "provisional = False",
        ("tests/integration/sources/test_callbacks.py::test_what_nothing_proves_is_provisional",),
    ),
    Bug(
        "another announcement corrects the first",
        "poller/spools/sqlite/writer.py",
        "if not reading.provisional and len(fresh)",
        "if len(fresh)",
        (f"{SQLITE}test_only_what_confirms_it_corrects_it",),
    ),
    Bug(
        "an event in hand that is refused stays dead although it was corrected",
        "poller/spools/dispatcher.py",
        "            queue.correct_in_hand(by)\n",
        "            pass\n",
        (f"{SQLITE}test_an_event_that_was_announced_too_early_is_tried_again",),
    ),
    Bug(
        "a waiting batch is corrected in memory only",
        "poller/spools/sqlite/writer.py",
        "            correct_waiting(self.connection, differing)\n",
        "            pass\n",
        (f"{SQLITE}test_an_announced_event_is_corrected_over_a_restart",),
    ),
    Bug(
        "an event is confirmed with the events of the same answer, before it is corrected",
        "poller/spools/sqlite/writer.py",
        "            written.confirmed += self.seen.provisional(known)\n",
        "            written.confirmed += self.seen.provisional(known)\n            self.seen.confirm(known)\n",
        (
            "tests/unit/spools/sqlite/test_sqlite_spool.py::test_an_event_stays_provisional_until_its_correction_is_written",
        ),
    ),
    Bug(
        "pictures of days to come may be announced",
        "poller/sources/callbacks/receiver.py",
        "        if ahead > EARLY:\n",
        "        if ahead > EARLY * 1e6:\n",
        ("tests/integration/sources/test_callbacks.py::test_each_check_refuses_for_its_own_reason",),
    ),
    Bug(
        "who holds connections open keeps them from others",
        "poller/runtime/http_server.py",
        "next((one for one in there if not one.whole), newcomer)",
        "newcomer",
        (
            f"{HEADS}test_a_genuine_push_is_taken_beside_a_crowd_of_its_own_address",
            "tests/scenario/test_floods.py::test_a_thousand_slow_connections_lock_out_neither_pushes_nor_health",
        ),
    ),
    Bug(
        "an address has no bound of its own",
        "poller/runtime/http_server.py",
        "self._per_caller[home] >= bounds.each:",
        "self._per_caller[home] < 0:",
        (f"{HEADS}test_who_is_turned_away_is_answered_503",),
    ),
    Bug(
        "whoever a proxy names may have all places",
        "poller/sources/callbacks/receiver.py",
        "if self._present[home] >= MOST_OF_ONE:",
        "if self._present[home] < 0:",
        (f"{HEADS}test_behind_a_proxy_each_forwarded_address_has_its_places",),
    ),
    Bug(
        "each connection that is turned away is a line",
        "poller/runtime/http_server.py",
        "        if self._next is None:\n            self._report()\n",
        "        self._report()\n",
        (
            "tests/scenario/test_floods.py::test_a_thousand_slow_connections_lock_out_neither_pushes_nor_health",
        ),
    ),
    Bug(
        "libraries print to stderr",
        "poller/runtime/log.py",
        "    library_log.install()\n",
        "    assert library_log\n",
        (
            "tests/integration/runtime/test_library_log.py::test_what_a_library_says_is_a_few_lines_of_json_without_its_words",
        ),
    ),
    Bug(
        "a second request on a connection is processed",
        "poller/runtime/http_server.py",
        "        response.force_close()  # what",
        "        pass  # what",
        (f"{HEADS}test_a_second_push_on_a_connection_is_not_taken_without_an_answer",),
    ),
    Bug(
        "a refusal before the request is not counted",
        "poller/runtime/http_server.py",
        "            self._refuse(flaw)\n",
        "",
        (f"{HEADS}test_every_head_that_is_no_request_is_refused_counted_and_logged",),
    ),
)
