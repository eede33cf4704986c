"""Deliberate bugs in what daemons share: the spool in PostgreSQL."""

from .bugs import Bug

LINKS, TRANSACTIONS, MEMBERSHIP, SINKS = (
    f"poller/spools/postgres/{name}.py" for name in ("links", "transactions", "membership", "served_sinks")
)
COMMITS, REPLICAS = (f"tests/servers/test_postgres_{name}.py::" for name in ("commits", "replicas"))
LANES = "tests/servers/test_lanes.py::"

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
)
