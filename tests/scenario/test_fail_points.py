"""Killed at every step of a message's life, and started again: the books balance."""

import random
import signal
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from poller.runtime.failpoints import POINTS
from tests.servers.moved_spools import MOVE

from .environment import Environment, environment, until
from .killed import Ledger, died_at, life
from .rig import Scenario, scenario, spool_with
from .test_fail_points_ways import OPERATOR, PICTURE, PUSH, RELOAD
from .test_replay import REPLAY

PAGE: Final = (  # in this order: what one kill leaves in the journal, the next life meets
    "journal.created",
    "journal.scanned",
    "poll.answered",
    "journal.written",
    "journal.synced",
    "page.kept",
    "recovery.proved",
    "recovery.read",
    "recovery.committed",
    "recovery.released",
    "page.read",
    "page.committed",
    "page.released",
    "append.written",
    "transaction.written",
    "transaction.committed",
    "settlements.written",
    "catalogue.written",
    "batch.claimed",
    "batch.carrying",
    "batch.delivered",
    "batch.settled",
    "prune.written",
    "wal.emptied",
    "stop.begun",
    "spool.closing",
)
ONCE: Final = frozenset(
    {"journal.created", "journal.scanned", "catalogue.written", "prune.written", "wal.emptied"}
    | {"stop.begun", "spool.closing"}
    | {point for point in PAGE if point.startswith("recovery.")}
)
"""Passed once in a life, or seldom."""
SAFE: Final = frozenset(
    {"journal.created", "journal.scanned", "journal.written", "journal.synced", "page.kept", "page.read"}
    | {point for point in PAGE if point.startswith("recovery.")}
)
"""With one lane no poll is in flight there; a page that is written survives the process's own death unsynced."""


def test_every_point_is_in_one_of_the_stories() -> None:
    # tests/scenario/test_announced.py, test_replay.py, tests/servers/test_spool_move.py
    elsewhere = ["correction.written", *REPLAY, *MOVE]
    assert Counter([*PAGE, *PICTURE, *PUSH, *OPERATOR, *RELOAD, *elsewhere]) == Counter(POINTS)


# ---------------------------------------------------------------- pages


@pytest.mark.timeout(3600)
def test_killed_at_every_step_of_a_page_it_loses_the_poll_in_flight_at_most(
    tmp_path: Path, soak: bool
) -> None:
    rng, removed, lost, again, kills = random.Random("page"), 0, 0, 0, 0
    for turn in range(20 if soak else 1):
        folder = tmp_path / str(turn)
        with environment(folder) as place, scenario(place, folder, source={"max_in_flight": 1}) as daemon:
            ledger = Ledger(daemon, place)
            with place.feeding():
                for point in PAGE:
                    _page_life(
                        daemon, place, point, 1 if point in ONCE else rng.randrange(1, 30 if soak else 5)
                    )
                    kills += 1
                    ledger.ended(point, least=point == "poll.answered", most=point not in SAFE)
            spool_with(daemon)
            assert daemon.drain() == 0, daemon.processes[-1].stderr[-3000:]
            lost += ledger.balance()
            again += ledger.explain_repeats()
            books = daemon.books()
            assert set(place.hook.files) >= set(books.spooled)
            assert {name for printed in daemon.printed(torn=True) for name in printed} >= set(books.spooled)
            removed += len(books.removed)
    print(f"\nfail points of a page: {kills=} {removed=} {lost=} {again=}")
    assert removed >= 1000
    assert lost >= 100, "poll.answered lost a full poll"


def _page_life(daemon: Scenario, place: Environment, point: str, times: int) -> None:
    spool_with(
        daemon, **{"prune.written": {"retain": "0s"}, "wal.emptied": {"min_free": "16TiB"}}.get(point, {})
    )
    process = life(daemon, point, times)
    if point in ("stop.begun", "spool.closing"):
        before = place.hook.files.total()
        until(lambda: place.hook.files.total() > before or not process.alive)
        process.signal(signal.SIGTERM)
    died_at(process, point)
    (armed,) = process.said("fail_point_armed")
    assert armed["at"] == f"{point}:{times}"
