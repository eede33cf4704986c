"""`kill -9` at random moments under load: at most the polls in flight are lost, all else is delivered."""

import random
import signal
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import pytest

from .environment import Environment, environment, until
from .rig import Scenario, by_poll, scenario

LANES = 4
PER_ROUND = {"up": 20, "down": 6}
"""Kills on one spool; with the webhook down few, because waits for a retry grow and the end waits for them."""


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("hook", "ordinary", "full"), [("up", 5, 850), ("down", 3, 150)])
def test_a_killed_daemon_loses_at_most_the_polls_in_flight(
    tmp_path: Path, soak: bool, hook: str, ordinary: int, full: int
) -> None:
    kills, removed, lost, caught, again = full if soak else ordinary, 0, 0, 0, 0
    rng = random.Random(f"kill {hook}")
    while kills:
        some = min(kills, PER_ROUND[hook])
        kills -= some
        folder = tmp_path / str(kills)
        with environment(folder) as place, scenario(place, folder, endpoint=place.wire.endpoint) as daemon:
            place.wire.delay = 0.03
            if hook == "down":
                place.turn(rng.choice(("refuse", 500)))
            polls = [0]
            with place.feeding():
                for number in range(some):
                    caught += _kill(daemon, place, rng, holds=number % 3 == 0)
                    polls.append(place.counts.polls)
            if hook == "down":
                assert place.hook.receipts == []
                place.turn(200)
            assert daemon.drain() == 0, daemon.processes[-1].stderr[-3000:]
            found = _balanced(daemon, place, polls)
            removed, lost, again = removed + found[0], lost + found[1], again + found[2]
    print(f"\nkill -9, webhook {hook}: {removed=} {lost=} caught polls in flight={caught} {again=}")
    assert removed >= 1000
    assert caught >= (full if soak else ordinary) / 3, "too few kills met a poll in flight"


def _kill(daemon: Scenario, place: Environment, rng: random.Random, *, holds: bool) -> bool:
    """One life, ended at a random moment; true if polls were in flight. With `holds` they are."""
    process, before = daemon.start(), place.counts.removed
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0.0, 1.5))  # a moment of start-up and recovery
    else:
        target = before + rng.randrange(1, 6000)
        until(lambda: place.counts.removed >= target or not process.alive)
        time.sleep(rng.uniform(0.0, 0.03))
    assert process.alive, process.stderr
    with place.holding() if holds else nullcontext():
        caught = place.wire.in_flight > 0
        assert process.kill() == -signal.SIGKILL
    place.settled()
    return caught


def _balanced(daemon: Scenario, place: Environment, polls: list[int]) -> tuple[int, int, int]:
    """Check the books; returns how many were removed, lost, and delivered again."""
    books = daemon.books()
    books.check_once()
    taken, lost = by_poll(books.removed), books.lost_polls()
    for poll, messages in lost.items():
        assert len(messages) == len(taken[poll]), "a poll is lost whole or not at all"
        assert messages[0].fault is None
    for before, after in pairwise(polls):
        gone = [poll for poll in lost if before < poll <= after]
        assert len(gone) <= LANES, f"one kill lost {len(gone)} polls"
    assert all(poll <= polls[-1] for poll in lost), "lost without a kill"
    _delivered(daemon, place, books.spooled)
    gone_messages = sum(len(messages) for messages in lost.values())
    files = place.hook.files
    return len(books.removed), gone_messages, files.total() - len(files)


def _delivered(daemon: Scenario, place: Environment, spooled: list[str]) -> None:
    books = daemon.books()
    assert not books.waiting
    assert not books.dead
    assert set(place.hook.files) == set(spooled)
    assert place.hook.twice_in_a_life() == []
    members: dict[str, tuple[str, ...]] = {}
    for receipt in place.hook.receipts:
        assert members.setdefault(receipt.id, receipt.event_ids) == receipt.event_ids
    printed = daemon.printed(torn=True)
    assert {name for life in printed for name in life} == set(spooled)
    assert all(len(set(life)) == len(life) for life in printed)
