"""Deliberate bugs in the spool that several daemons share: the traps that its engine has to avoid."""

from .bugs import Bug

MEMBERS = "tests/contracts/test_postgres_spool.py::TestSharedPostgresSpool::"
FAULTS = "tests/servers/test_shared_spool.py::"
CONNECTIONS = "tests/servers/test_postgres_connections.py::"
QUEUE = "tests/unit/spools/test_share_queue.py::"

SHARES = (
    Bug(
        "two members read the same cursor",
        "poller/spools/postgres/shares.py",
        'WHERE name = $1 FOR UPDATE", sink)\n    freed =',
        'WHERE name = $1", sink)\n    freed =',
        (f"{MEMBERS}test_each_event_goes_to_one_member",),
    ),
    Bug(
        "the cursor moves although the share did not grow",
        "poller/spools/postgres/shares.py",
        "    if affected(grown) != 1:\n",
        "    if affected(grown) > 1:\n",
        (f"{FAULTS}test_a_share_that_was_taken_away_does_not_grow",),
    ),
    Bug(
        "a claim does not wait until its member may serve the sink",
        "poller/spools/postgres/served_sinks.py",
        "while not (served.admitted.is_set() and self._membership.proven.is_set()):",
        "while not self._membership.proven.is_set():",
        (f"{MEMBERS}test_an_ordered_sink_is_served_by_one_member_and_taken_over_in_order",),
    ),
    Bug(
        "a commit that is not over yet counts as undone",
        "poller/spools/postgres/sessions.py",
        'WHERE session = $1 AND place = $2 FOR SHARE"',
        'WHERE session = $1 AND place = $2"',
        (f"{FAULTS}test_a_share_whose_commit_was_not_answered_is_not_lost[before-postgresql]",),
    ),
    Bug(
        "an unsafe database is taken",
        "poller/spools/postgres/links.py",
        "    if found := await _refusals(link):\n",
        "    if found := (await _refusals(link))[:0]:\n",
        (f"{FAULTS}test_a_database_that_may_lose_what_it_confirmed_is_refused",),
    ),
    Bug(
        "a cancelled claim leaves what it began to take",
        "poller/spools/postgres/served_sinks.py",
        "        await asyncio.shield(task)\n",
        "        await task\n",
        (f"{MEMBERS}test_a_claim_that_is_cancelled_while_it_takes_a_share_takes_nothing",),
    ),
    Bug(
        "writers wait for each other's rows",
        "poller/spools/postgres/sessions.py",
        "{'' if alone else '_shared'}",
        "_shared",
        (
            f"{FAULTS}test_a_dead_letter_that_two_members_retry_at_once_comes_once",
            "tests/servers/test_shared_locks.py::test_members_that_do_everything_at_once_never_wait_for_each_other",
        ),
    ),
    Bug(
        "a member that froze within a statement is left alone with its locks",
        "poller/spools/postgres/membership.py",
        "                await sessions.end_hanging(link, self._lease / 2)\n",
        "",
        (f"{FAULTS}test_a_member_that_freezes_within_a_statement_holds_nobody_up_for_long",),
    ),
    Bug(
        "a lease counts as proven until somebody looks at the clock",
        "poller/spools/postgres/membership.py",
        "return super().is_set() and asyncio.get_running_loop().time() < self.until",
        "return super().is_set()",
        (f"{FAULTS}test_a_member_that_was_frozen_for_too_long_writes_and_hands_out_nothing",),
    ),
    Bug(
        "events that another share has are taken where the log begins late",
        "poller/spools/share_queue.py",
        "held = [_below(upto, chunk) for chunk in log if chunk.first < upto]",
        "held = [chunk for chunk in log if chunk.first < upto]",
        (f"{QUEUE}test_events_behind_the_share_are_not_taken_although_its_beginning_was_pruned",),
    ),
    Bug(
        "a share that was pruned is looked for for ever",
        "poller/spools/share_queue.py",
        "            self.next = upto\n        return super()",
        "            pass\n        return super()",
        (f"{QUEUE}test_a_share_that_was_pruned_is_passed",),
    ),
    Bug(
        "what was adopted and delivered comes again with its share",
        "poller/spools/share_queue.py",
        "        return {number for number in settled if number > 0}\n",
        "        return set()\n",
        (
            f"{QUEUE}test_what_was_adopted_and_is_settled_is_noted_for_who_takes_its_share_over",
            f"{MEMBERS}test_an_event_that_another_member_finished_does_not_come_with_its_share",
        ),
    ),
    Bug(
        "a member of an ended session splits what it has in hand",
        "poller/spools/table_spool.py",
        "            raise self._writer.broken\n        halves",
        "            pass\n        halves",
        (f"{MEMBERS}test_a_member_whose_session_has_ended_writes_nothing",),
    ),
    Bug(
        "a duty that is given up while it is taken stays taken",
        "poller/spools/postgres/membership.py",
        "        if self._wanted.pop(name, None) is None:\n",
        "        if self._wanted.pop(name, None) is None or name not in self._held:\n",
        (f"{MEMBERS}test_a_duty_that_nobody_wants_any_more_is_free",),
    ),
    Bug(
        "a duty that was given up is ended although it was taken again",
        "poller/spools/postgres/served_sinks.py",
        "        if served.mode.ordered:\n            await self._membership.keep",
        "        if not served.mode.ordered:\n            await self._membership.keep",
        (f"{FAULTS}test_a_sink_that_becomes_ordered_keeps_its_owner",),
    ),
    Bug(
        "a full spool deletes what nobody has taken yet",
        "poller/spools/postgres/writer.py",
        "            return False  # no daemon knows a sink, so nobody knows what is settled\n",
        "            pass\n",
        (
            "tests/servers/test_postgres_large.py::"
            "test_a_full_spool_deletes_nothing_before_its_sinks_are_known[somebody is about to append-postgresql]",
        ),
    ),
    Bug(
        "a server that says nothing holds up the next one",
        "poller/spools/postgres/links.py",
        "for dsn in servers.values()]",
        "for dsn in [address.dsn for _ in servers]]",
        (f"{CONNECTIONS}test_a_first_server_that_says_nothing_keeps_no_daemon_from_the_second[postgresql]",),
    ),
    Bug(
        "a connection that has ended when it is made ends the daemon",
        "poller/spools/postgres/links.py",
        "    if wire is None or wire.fileno() < 0:\n        raise ConnectionResetError\n",
        "",
        (f"{CONNECTIONS}test_a_connection_that_has_ended_when_it_is_made_is_an_outage[require-postgresql]",),
    ),
    Bug(
        "connections on which nothing comes back are kept",
        "poller/spools/postgres/membership.py",
        "                    self._returned()\n",
        "",
        (
            f"{CONNECTIONS}test_a_daemon_whose_connections_have_all_gone_silent_goes_on_over_new_ones[postgresql]",
        ),
    ),
    Bug(
        "what a replaced server lacks counts as pruned",
        "poller/spools/postgres/pages.py",
        "    if not pages and await",
        "    if pages and await",
        (
            f"{CONNECTIONS}test_events_that_a_replaced_server_does_not_have_are_not_taken_for_pruned[postgresql]",
        ),
    ),
    Bug(
        "the isolation of the role counts",
        "poller/spools/postgres/links.py",
        '        "default_transaction_isolation": "read committed",',
        "",
        (
            f"{CONNECTIONS}"
            "test_daemons_share_a_log_whatever_isolation_their_role_has[repeatable read-postgresql]",
        ),
    ),
)
