"""Deliberate bugs in replays: what is sent, what is kept for it, and how far it has come."""

from .bugs import CONTRACT, Bug

REPLAYS = (
    Bug(
        "a replay sends what the sink gets anyway",
        "poller/spools/replays.py",
        " and event.id not in left_out",
        "",
        (CONTRACT + "test_what_the_sink_gets_anyway_and_dead_letters_are_left_out",),
    ),
    Bug(
        "pruning takes what a replay has yet to queue",
        "poller/spools/replays.py",
        "return min([*needed, *self._kept],",
        "return min([*self._kept],",
        (CONTRACT + "test_pruning_keeps_what_a_replay_has_yet_to_queue_after_a_restart",),
    ),
    Bug(
        "a paused replay goes on",
        "poller/spools/replays.py",
        "queue.replayed.held = replay is not None and replay.state is ReplayState.PAUSED",
        "queue.replayed.held = False",
        (CONTRACT + "test_a_paused_replay_hands_nothing_out_and_goes_on",),
    ),
    Bug(
        "a batch in hand of a cancelled replay is retried",
        "poller/spools/replayed.py",
        "        self._last_try |= self._in_hand\n",
        "",
        (
            CONTRACT + "test_a_cancelled_replay_leaves_nothing_but_what_is_in_hand",
            CONTRACT + "test_halves_of_a_cancelled_batch_are_not_retried",
        ),
    ),
    Bug(
        "a replay that is cancelled while its sink is away counts what was dropped",
        "poller/spools/replays.py",
        "replay = unqueue(replay, await self._count_waiting(replay.sink))",
        "pass",
        (CONTRACT + "test_a_replay_that_is_cancelled_while_its_sink_is_away_counts_only_what_the_sink_got",),
    ),
    Bug(
        "a drain leaves replays undone",
        "poller/daemon/daemon.py",
        "if not replaying and not await self._has_pending()",
        "if not await self._has_pending()",
        ("tests/scenario/test_drain.py::test_drain_is_done_when_running_replays_are_done_too",),
    ),
)
