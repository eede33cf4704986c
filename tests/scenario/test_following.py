"""The program with all its sources: what it saw in the queue it follows, across a `kill -9`."""

import json
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from poller.sandbox import Customer, Sandbox
from tests.sandbox.api_client import record

from .environment import environment, until
from .rig import Scenario, scenario

SOURCES = {
    "shots": {"type": "screenshot_queue", "account": "main", "min_delay": "10ms", "max_delay": "50ms"},
    "states": {"type": "channel_status", "account": "main", "follow": "seen", "interval": "200ms"},
    "tapes": {
        "type": "recordings",
        "account": "main",
        "follow": "seen",
        "after_end": ["100ms", "200ms", "400ms", "1s", "2s"],
        "rate": "100/s",
    },
}


def spooled(daemon: Scenario) -> list[dict[str, Any]]:
    """The events in the spool's file, oldest first."""
    with closing(sqlite3.connect(f"{daemon.spool_file.as_uri()}?mode=ro", uri=True)) as file:
        pages = file.execute("SELECT events FROM page ORDER BY first").fetchall()
    return [json.loads(line) for (events,) in pages for line in events.split(b"\n")]


def kinds(daemon: Scenario) -> Counter[str]:
    return Counter(event["type"].rpartition(".")[2] for event in spooled(daemon))


def test_streams_seen_are_followed_and_nothing_is_reported_twice_across_a_kill(tmp_path: Path) -> None:
    app_id = Customer().app_id
    sinks = {"console": {"type": "stdout"}}
    with environment(tmp_path) as place, scenario(place, tmp_path, sinks=sinks, sources=SOURCES) as daemon:
        box: Sandbox = place.sandbox
        place.enqueue(40)
        first = daemon.run()
        until(lambda: kinds(daemon)["screenshot"] == 40)
        names = sorted({event["subject"] for event in spooled(daemon)})
        for name in names:
            place.ask(lambda name=name: box.channels.begin(app_id, name))  # type: ignore[misc]
        until(lambda: kinds(daemon)["channel"] == len(names))
        first.kill()
        place.ask(lambda: box.channels.end(app_id, names[0]))
        second = daemon.run()
        until(lambda: kinds(daemon)["channel"] == len(names) + 1)
        vids = place.ask(
            lambda: record(box, Customer(), 3, stream_id=names[0], start=time.time() - 100, step=31)
        )
        until(lambda: kinds(daemon)["recording"] == 3)
        assert second.stop() == 0
        events = spooled(daemon)
        assert len({event["id"] for event in events}) == len(events) == 40 + len(names) + 1 + 3
        assert {e["data"]["vid"] for e in events if e["type"].endswith("recording")} == set(vids)
        last = next(e for e in reversed(events) if e["type"].endswith("channel"))
        assert (last["subject"], last["data"]["state"]) == (names[0], "interrupted")
        printed = {
            json.loads(line)["id"]
            for one in daemon.processes
            for line in one.stdout_file.read_bytes().splitlines()
        }
        assert printed == {event["id"] for event in events}


def test_drain_does_not_wait_for_what_is_never_empty(tmp_path: Path) -> None:
    sinks = {"console": {"type": "stdout"}}
    with environment(tmp_path) as place, scenario(place, tmp_path, sinks=sinks, sources=SOURCES) as daemon:
        place.enqueue(40)
        assert daemon.drain("60s") == 0
        assert kinds(daemon)["screenshot"] == 40
