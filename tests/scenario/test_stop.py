"""SIGTERM at random moments under load: nothing is lost, nothing comes twice, exit code 0."""

import random
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from .environment import Environment, environment, until
from .rig import Books, Process, Scenario, scenario

PER_ROUND = 20
IN_HAND = 4 * 100 + 100
"""Events that the webhook's and stdout's carriers may hold when a second signal ends their grace."""


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("manner", "ordinary", "full"), [("once", 3, 200), ("twice", 2, 150), ("slow", 3, 150)]
)
def test_a_stopped_daemon_loses_nothing(
    tmp_path: Path, soak: bool, manner: str, ordinary: int, full: int
) -> None:
    stops, removed, caught, again = full if soak else ordinary, 0, 0, 0
    rng = random.Random(f"stop {manner}")
    while stops:
        some = min(stops, PER_ROUND)
        stops -= some
        folder = tmp_path / str(stops)
        with environment(folder) as place, scenario(place, folder, endpoint=place.wire.endpoint) as daemon:
            place.wire.delay = 0.03
            with place.feeding():
                for number in range(some):
                    caught += _stop(daemon, place, rng, manner, holds=number % 2 == 0)
            assert daemon.drain() == 0, daemon.processes[-1].stderr[-3000:]
            books, twice = daemon.books(), _delivered_again(daemon, place)
            assert books.lost() == []
            books.check_once()
            assert set(place.hook.files) == set(books.spooled)
            assert twice <= (IN_HAND * some if manner == "twice" else 0), f"{twice} events came twice"
            removed, again = removed + len(books.removed), again + twice
    print(f"\nSIGTERM, {manner}: {removed=} lost=0 caught polls in flight={caught} {again=}")
    assert removed >= 1000
    assert caught >= (full if soak else ordinary) / 2, "too few signals met a poll in flight"


def _stop(daemon: Scenario, place: Environment, rng: random.Random, manner: str, *, holds: bool) -> bool:
    """One life, stopped at a random moment; true if polls were in flight. With `holds` they are."""
    process, before = daemon.start(), place.counts.removed
    target = before + rng.randrange(1, 5000)
    until(lambda: place.counts.removed >= target or not process.alive)
    if manner == "slow":
        place.order("latency", rng.randrange(4, 8), seconds=rng.uniform(0.1, 0.5))
        until(lambda: place.wire.in_flight > 0 or not process.alive)
    else:
        time.sleep(rng.uniform(0.0, 0.03))
    with place.holding() if holds else nullcontext():
        caught, requests = place.wire.in_flight > 0, place.wire.requests
        process.signal(signal.SIGTERM)
    if manner == "twice":
        time.sleep(rng.uniform(0.0, 0.05))
        process.signal(signal.SIGTERM)
    assert process.wait() == 0, process.stderr[-3000:]
    assert process.said("stopped")
    assert place.wire.in_flight == 0
    assert place.wire.requests - requests <= 4, "polls were begun after the signal"
    _everything_kept(daemon, place, process)
    return caught


def _everything_kept(daemon: Scenario, place: Environment, process: Process) -> None:
    """Already now, without another start, the spool has all that was removed."""
    books: Books = daemon.books()
    assert books.lost() == [], process.stderr[-3000:]


def _delivered_again(daemon: Scenario, place: Environment) -> int:
    """How many deliveries were made more than once, at both sinks."""
    printed = [name for life in daemon.printed() for name in life]
    assert set(printed) == set(place.hook.files)
    files = place.hook.files
    return len(printed) - len(set(printed)) + files.total() - len(files)
