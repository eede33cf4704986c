"""Deliberate bugs in the move of a spool that several daemons share."""

from .bugs import Bug

MOVE = "tests/servers/test_spool_move.py::"
SEVERAL = MOVE + "test_a_sink_that_several_served_goes_on_in_a_file_and_back_again"

MOVES = (
    Bug(
        "a move leaves the shares and the lanes of a sink behind",
        "poller/operations/moving.py",
        "        await old.begin_reading()\n",
        "",
        (f"{SEVERAL}[shares-postgresql]", f"{SEVERAL}[lanes-postgresql]"),
    ),
    Bug(
        "what waits for a retry comes twice after a move",
        "poller/spools/postgres/moving.py",
        "            await modes.mark_what_waits(link)\n",
        "",
        (MOVE + "test_what_waits_for_a_retry_behind_a_batch_in_hand_comes_once_after_a_move",),
    ),
    Bug(
        "a daemon enters a spool while it is moved",
        "poller/spools/postgres/sessions.py",
        "FROM session WHERE alone OR $1 ORDER BY id",
        "FROM session WHERE $1 ORDER BY id",
        (
            MOVE
            + "test_no_daemon_enters_a_spool_that_is_moved_and_a_move_that_froze_is_in_nobodys_way[postgresql]",
        ),
    ),
    Bug(
        "a move goes on beside a daemon",
        "poller/spools/postgres/moving.py",
        "holder, self._seconds, visits=True, alone=True",
        "holder, self._seconds, visits=True",
        (MOVE + "test_a_spool_that_a_daemon_has_is_not_moved_and_nothing_is_moved_there",),
    ),
    Bug(
        "a daemon enters a shared spool that was moved away",
        "poller/spools/postgres/__init__.py",
        "        await self._refuse_moved()\n",
        "",
        (MOVE + "test_a_moved_spool_is_refused_by_daemons_and_commands_and_by_another_move",),
    ),
)
