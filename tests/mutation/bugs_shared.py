"""Deliberate bugs in what daemons share: the spool in PostgreSQL."""

from .bugs import Bug

LINKS, TRANSACTIONS, MEMBERSHIP, SINKS, SERVING, WRITER, QUERIES, PAGES, DELIVERED, DUTIES, REPLAYS, SPOOL = (
    f"poller/spools/postgres/{name}.py"
    for name in (
        *(
            "links",
            "transactions",
            "membership",
            "served_sinks",
            "serving",
            "writer",
            "queries",
            "pages",
            "delivered",
        ),
        *("duties", "shared_replays", "__init__"),
    )
)
COMMITS, REPLICAS, PLANS = (
    f"tests/servers/test_postgres_{name}.py::" for name in ("commits", "replicas", "plans")
)
LANES = "tests/servers/test_lanes.py::"
MIGRATION = "tests/servers/test_postgres_migration.py::"
MOMENTS, LOCKS, REPLAYED = (
    f"tests/servers/test_shared_{name}.py::" for name in ("moments", "locks", "replays")
)
PLAN = PLANS + "test_no_statement_looks_at_a_long_log_from_its_beginning"
STOP = MOMENTS + "test_an_orderly_stop_writes_what_was_settled_last"
TASK = MOMENTS + "test_a_task_that_fails_ends_the_member_with_a_reason"
LEFT = MOMENTS + "test_a_sink_that_could_not_be_left_is_served_again_with_all_that_was_held"
LEADS = REPLAYED + "test_the_member_that_leads_a_replay_waits_while_the_lanes_have_its_events"

SHARED = (
    Bug(
        "a connection that the server has ended is taken for a living one",
        LINKS,
        "    asyncpg.InternalClientError,\n",
        "",
        (COMMITS + "test_a_connection_that_the_server_ends_at_any_moment_of_a_busy_daemon_is_replaced",),
    ),
    Bug(
        "a commit that the server stopped waiting for counts",
        TRANSACTIONS,
        "            await transaction.commit()\n            await self._wait_for_standby()\n",
        "            await transaction.commit()\n",
        (
            COMMITS + "test_a_commit_counts_once_a_standby_has_it_although_the_server_stopped_waiting",
            REPLICAS + "test_a_commit_whose_wait_was_cancelled_is_unknown_and_repeated_after_the_promotion",
        ),
    ),
    Bug(
        "a duty that a lost server may give back counts",
        MEMBERSHIP,
        "            await self._until_durable()\n",
        "",
        (
            REPLICAS
            + "test_a_duty_whose_commits_are_lost_with_the_server_has_one_holder_and_nobody_is_fenced",
        ),
    ),
    Bug(
        "a batch that a lane has claimed for nobody holds the position at an orderly stop",
        SINKS,
        "            for served in self._served.values():\n                await self._close_lanes(served)\n",
        "            pass\n",
        (LANES + "test_a_member_that_stops_in_order_leaves_nothing_to_be_repeated",),
    ),
    Bug(
        "a read of the log looks at all pages before it",
        PAGES,
        "    WHERE last >= $1 AND first >= coalesce((SELECT max(first) FROM page WHERE first <= $1), 0)\n",
        "    WHERE last >= $1\n",
        (PLAN,),
    ),
    Bug(
        "the deliveries of an event are looked for up to the end of the log",
        DELIVERED,
        '        " WHERE last BETWEEN $1 AND $2 AND first <= $1 ORDER BY n",\n',
        '        " WHERE last >= $1 AND $2::bigint > 0 AND first <= $1 ORDER BY n",\n',
        (PLAN,),
    ),
    Bug(
        "a stop forgets what was settled in its last tenth of a second",
        SPOOL,
        "                await self._flush_last()\n",
        "                pass\n",
        (f"{STOP}[-alone-postgresql]", f"{STOP}[-while another flush runs-postgresql]"),
    ),
    Bug(
        "a stop gives up with the first lost connection",
        SPOOL,
        "            except StorageAway:\n                await asyncio.sleep(FLUSH_AGAIN)\n",
        "            except StorageAway:\n                return\n",
        (f"{STOP}[after a lost connection-alone-postgresql]",),
    ),
    Bug(
        "the next number goes back further than the transaction that was lost",
        WRITER,
        "        self.catalogue_rows.keep(self.next - self._start)\n        self._start = self.next\n",
        "        self.catalogue_rows.keep(self.next - self._start)\n",
        (f"{STOP}[after a lost connection-alone-postgresql]",),
    ),
    Bug(
        "a catalogue that has to be whole counts as written by the transaction before",
        WRITER,
        "        if self._writes_whole:\n            self.whole_catalogue",
        "        if True:\n            self.whole_catalogue",
        (f"{STOP}[-while another flush runs-postgresql]",),
    ),
    Bug(
        "nobody sees that a task fails that serves a connection",
        SPOOL,
        "        for task in (*self._tasks, *self._keepers):\n            task.add",
        "        for task in self._keepers:\n            task.add",
        tuple(f"{TASK}[{task}-postgresql]" for task in ("_membership.run", "_writer.run", "_claims.run")),
    ),
    Bug(
        "nobody sees that a task fails that watches the others",
        SPOOL,
        "        for task in (*self._tasks, *self._keepers):\n            task.add",
        "        for task in self._tasks:\n            task.add",
        tuple(
            f"{TASK}[{task}-postgresql]"
            for task in ("_capacity.run", "_follower.follow_log", "_follower.follow_words")
        ),
    ),
    Bug(
        "who writes waits for ever for a task that has failed",
        TRANSACTIONS,
        "                if not (result := self._jobs.popleft().result).done():\n",
        "                if (result := self._jobs.popleft().result).done():\n",
        (f"{TASK}[_writer.run-postgresql]",),
    ),
    Bug(
        "who writes later waits for ever for a task that has failed",
        TRANSACTIONS,
        "            future.set_exception(self.broken)\n            return future\n",
        "            pass\n",
        (f"{TASK}[_writer.run-postgresql]",),
    ),
    Bug(
        "a share that could not be left stays with its daemon",
        SERVING,
        "        await shares.free(link, session, key)  # what was left behind where leaving failed\n",
        "",
        (f"{LEFT}[False-1-postgresql]",),
    ),
    Bug(
        "what waits in a queue that could not be left stays with its daemon",
        SERVING,
        "    await shares.free(link, session, key)\n    numbers",
        "    numbers",
        (f"{LEFT}[True-1-postgresql]", f"{LEFT}[True-2-postgresql]"),
    ),
    Bug(
        "the claims of a lane outlive the sink",
        SINKS,
        "        await self._close_lanes(served)\n        for key in list(served.taken)",
        "        for key in list(served.taken)",
        (MOMENTS + "test_no_claim_of_a_lane_outlives_the_sink",),
    ),
    Bug(
        "what is taken for somebody who is gone reaches no queue",
        SINKS,
        "        await self._finish(self._adopt_all(sinks))\n",
        "        await self._adopt_all(sinks)\n",
        (MOMENTS + "test_a_dead_letter_comes_although_whoever_asked_for_its_retry_is_gone",),
    ),
    Bug(
        "a backlog lacks what is just being taken",
        "poller/spools/postgres/history.py",
        "                await self._sinks.all_taken(sink)\n",
        "                pass\n",
        (
            MOMENTS + "test_a_backlog_counts_a_share_that_is_just_being_taken",
            MOMENTS + "test_a_backlog_counts_batches_that_are_just_being_taken_over",
        ),
    ),
    Bug(
        "what waits in a share of nobody counts twice",
        QUERIES,
        "        shared -= await _counted_twice(sink, session, reader)\n",
        "        pass\n",
        (MOMENTS + "test_what_waits_in_a_share_of_nobody_counts_once",),
    ),
    Bug(
        "what waits and is marked is taken off twice",
        QUERIES,
        "for number in numbers_of(blob) if number not in marked]",
        "for number in numbers_of(blob)]",
        (MOMENTS + "test_what_waits_beyond_the_position_and_is_marked_counts_once",),
    ),
    Bug(
        "a replay reaches into what other daemons have not settled",
        QUERIES,
        "    position = await shares.floor(reader, [sink])\n",
        '    position = await reader.fetchval("SELECT position FROM sink WHERE name = $1", sink)\n',
        (MOMENTS + "test_a_replay_leaves_out_what_other_members_have_not_settled",),
    ),
    Bug(
        "a replayed event that waits is left out of the next replay",
        QUERIES,
        " AND id NOT LIKE 'replayed %'\"",
        '"',
        (MOMENTS + "test_a_replay_leaves_out_what_other_members_have_not_settled",),
    ),
    Bug(
        "a replay asks again at once while others have its events",
        REPLAYS,
        "            await asyncio.sleep(LOOK_AGAIN)  # other daemons have these events\n",
        "            pass\n",
        (LEADS,),
    ),
    Bug(
        "a replay that can queue nothing lets nothing else go on",
        "poller/pipeline/replayer.py",
        "                    await asyncio.sleep(NOTHING_DONE)\n",
        "                    pass\n",
        (
            "tests/unit/pipeline/test_replayer.py::test_a_step_that_queues_nothing_holds_nobody_up[nothing to do]",
        ),
    ),
    Bug(
        "a replay stands still at the daemon that takes it over",
        MEMBERSHIP,
        "                self._hear(sessions.CHANGED)  # a replay may wait for whoever leads its sink\n",
        "",
        (REPLAYED + "test_a_replay_goes_on_at_another_member_when_the_one_that_led_it_gives_the_sink_up",),
    ),
    Bug(
        "duties are taken in any order",
        DUTIES,
        "AS wanted (name) ORDER BY name\n",
        "AS wanted (name)\n",
        (LOCKS + "test_members_that_want_the_same_duties_in_another_order_do_not_wait_for_each_other",),
    ),
    Bug(
        "the counts of ended sessions are added in any order",
        "poller/spools/postgres/sessions.py",
        "GROUP BY owner, book ORDER BY owner, book\n",
        "GROUP BY owner, book\n",
        (LOCKS + "test_members_that_end_at_once_do_not_wait_for_each_other",),
    ),
    Bug(
        "a migration lets daemons of the version before go on",
        "poller/spools/postgres/migration.py",
        "    await sessions.end_all(link, name, lease)\n",
        "",
        (MIGRATION + "test_a_running_daemon_writes_nothing_into_tables_that_a_newer_one_has_migrated",),
    ),
    Bug(
        "a session begins for a program that does not know the tables",
        "poller/spools/postgres/sessions.py",
        "        await check_version(link)\n",
        "",
        (MIGRATION + "test_a_daemon_that_starts_while_the_tables_are_migrated_begins_no_session",),
    ),
    Bug(
        "a daemon that froze while it ended others is not found",
        MEMBERSHIP,
        "            await sessions.mark(link, self.session)\n            self._prove",
        "            self._prove",
        (
            "tests/servers/test_shared_spool.py::"
            "test_a_member_that_freezes_while_it_ends_other_sessions_holds_nobody_up_for_long",
        ),
    ),
)
