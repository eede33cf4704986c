"""`poller trace` beside what the platform gave away and what the receiver got, over kills at random moments."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from poller.sandbox import Removed
from tests.commands import poller

from .environment import Environment, environment, until
from .recorded import check_recorded
from .rig import Scenario, scenario, webhook

KILLS = 6


def traced(daemon: Scenario, of: str) -> dict[str, Any]:
    """The answer of `trace`, of the running daemon or of its file."""
    said = poller("trace", of, "--json", "-c", str(daemon.config), folder=daemon.folder)
    (line,) = said.stdout.splitlines()
    row: dict[str, Any] = json.loads(line)
    assert said.returncode == (row["state"] != "stored"), said.stderr
    return {**row, "hook": {sink["sink"]: sink for sink in row["sinks"]}.get("hook")}


def _kill(daemon: Scenario, place: Environment, rng: random.Random) -> None:
    """One life that ends at a random moment; the webhook is down for a part of it."""
    place.turn(200)
    process, before = daemon.run(), place.counts.removed
    until(lambda: place.counts.removed >= before + rng.randrange(1, 2000) or not process.alive)
    place.turn(rng.choice((200, 500)))
    time.sleep(rng.uniform(0.0, 0.3))
    assert process.kill() == -signal.SIGKILL
    place.settled()


def _check_after_a_kill(daemon: Scenario, place: Environment, one: Removed) -> str:
    """What the trace may say right after a kill: nothing that was not so, and all that is in the file."""
    assert one.path is not None
    row, got = traced(daemon, one.path), place.hook.files[one.path]
    if row["state"] == "unknown":
        assert got == 0, "it was delivered, so it was stored before"
        return "unknown"
    assert (row["state"], row["file_name"]) == ("stored", one.path)
    deliveries = row["hook"]["deliveries"]
    assert deliveries <= got, "more deliveries than the receiver got"
    if row["hook"]["state"] == "delivered":
        assert got
    else:
        assert row["hook"]["state"] == "waiting"
    return str(row["hook"]["state"])


@pytest.mark.timeout(7200)
def test_the_trace_of_any_event_is_true_after_kills_at_random_moments(tmp_path: Path, soak: bool) -> None:
    count, rng, said = 1_000 if soak else 60, random.Random("trace"), list[str]()
    with environment(tmp_path) as place, scenario(place, tmp_path, endpoint=place.wire.endpoint) as daemon:
        place.wire.delay = 0.02
        with place.feeding(500):
            for _ in range(KILLS):
                _kill(daemon, place, rng)
                check_recorded(daemon.spool_file)
                some = [one for one in place.oracle.removed() if one.path is not None]
                said += [
                    _check_after_a_kill(daemon, place, one)
                    for one in rng.sample(some, min(len(some), count // 2 // KILLS))
                ]
        place.turn(200)
        assert daemon.drain() == 0, daemon.processes[-1].stderr[-3000:]
        check_recorded(daemon.spool_file)
        books = daemon.books()
        spooled = set(books.spooled)
        for one in rng.sample(books.removed, count // 2):
            assert one.path is not None
            row = traced(daemon, one.path)
            if one.path not in spooled:
                assert row["state"] == "unknown"
                continue
            assert (row["state"], row["file_name"]) == ("stored", one.path)
            assert row["hook"]["state"] == "delivered"
            assert 1 <= row["hook"]["deliveries"] <= place.hook.files[one.path]
    print(f"\ntraces after kills: { ({word: said.count(word) for word in set(said)}) }")
    assert {"delivered", "waiting"} <= set(said)


def test_a_running_daemon_says_what_its_sinks_do_with_an_event(tmp_path: Path) -> None:
    with environment(tmp_path) as place:
        sinks = {"console": {"type": "stdout"}, "hook": webhook(place, timeout="5s")}
        with scenario(place, tmp_path, sinks=sinks) as daemon:
            _check_running(daemon, place)


def _check_running(daemon: Scenario, place: Environment) -> None:
    place.turn("hang")
    daemon.run()
    place.enqueue(3)
    until(lambda: place.hook.attempts)
    name = place.oracle.paths()[0]
    row = traced(daemon, name)
    assert (row["hook"]["state"], row["hook"]["deliveries"]) == ("in hand", 0)
    assert {sink["sink"]: sink["state"] for sink in row["sinks"]}["console"] == "delivered"
    place.turn(200)
    until(lambda: place.hook.files[name])
    until(lambda: traced(daemon, name)["hook"]["state"] == "delivered")
    assert traced(daemon, str(row["id"]))["number"] == row["number"]
    assert traced(daemon, "0" * 32)["state"] == "unknown"
