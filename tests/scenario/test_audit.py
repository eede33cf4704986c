"""The audit of a running daemon: what the platform gave away and nobody got is a gap, and nothing else is."""

import json
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from poller.qcloud.events.names import parse_name
from poller.sandbox import Customer

from .environment import Environment, environment, until
from .rig import Scenario, scenario
from .test_operate import rows

STREAMS = ("live_1", "live_2")
AUDITED = {"audit": {"enabled": True, "settle": "3s"}}


def spooled(daemon: Scenario) -> list[dict[str, Any]]:
    """The events in the spool's file, oldest first."""
    with closing(sqlite3.connect(f"{daemon.spool_file.as_uri()}?mode=ro", uri=True)) as file:
        pages = file.execute("SELECT events FROM page ORDER BY first").fetchall()
    return [json.loads(line) for (events,) in pages for line in events.split(b"\n")]


def names(daemon: Scenario) -> set[str]:
    return {event["data"]["file_name"] for event in spooled(daemon) if event["type"].endswith("screenshot")}


def counts(paths: Iterable[str]) -> Counter[str]:
    """How many pictures each stream has among these."""
    return Counter(str(parse_name(path).stream) for path in paths)


def wait_for_pictures(
    place: Environment, daemon: Scenario, count: int, streams: Iterable[str] = STREAMS
) -> None:
    """Until each of these streams has `count` more pictures in the spool."""
    before = counts(names(daemon))

    def have_come() -> bool:
        new = counts(names(daemon)) - before
        return all(new[stream] >= count for stream in streams)

    until(have_come, what=f"for {count} pictures")


def lost(place: Environment, daemon: Scenario) -> dict[str, list[float]]:
    """When the pictures that were given away and did not arrive were taken, by stream."""
    found: dict[str, list[float]] = defaultdict(list)
    for path in set(place.oracle.paths()) - names(daemon):
        shot = parse_name(path)
        assert shot.taken_at is not None
        found[str(shot.stream)].append(shot.taken_at.timestamp())
    return found


def lose_some(place: Environment, daemon: Scenario) -> None:
    """Answers break after their messages were taken, until each stream has lost a picture."""
    faults = place.sandbox.faults["api"]

    def lost_enough() -> object:
        if place.depth and not place.ask(lambda: faults.ordered):
            place.order("close")
        if lost(place, daemon).keys() != set(STREAMS):
            return False
        time.sleep(1.0)  # what was on its way has arrived
        return lost(place, daemon).keys() == set(STREAMS)

    until(lost_enough, what="for pictures to be lost")
    place.ask(faults.clear)


def set_interval(place: Environment, seconds: int) -> None:
    place.ask(lambda: setattr(place.sandbox.screenshots, "interval", float(seconds)))


def push_again(place: Environment, stream: str) -> None:
    """The pusher dies and comes back, which is a new push."""
    pushers = place.sandbox.pushers
    place.ask(lambda: pushers.unplug(stream, Customer()))
    until(lambda: place.ask(lambda: place.sandbox.live.find(Customer().app_id, stream)) is None)
    place.do(pushers.start(stream, Customer()))


def until_reported(daemon: Scenario, missing: int) -> list[dict[str, Any]]:
    """What `audit` says, once the running audit has reported all that is missing."""
    found: list[dict[str, Any]] = []

    def reported() -> object:
        found[:] = rows(daemon, "audit")
        return sum(gap["missing"] for gap in found[:-1] if gap["reported"]) >= missing

    until(reported, what="for gaps")
    return found


def test_what_was_lost_is_a_gap_and_a_new_push_an_interval_and_an_end_are_none(tmp_path: Path) -> None:
    sinks = {"console": {"type": "stdout"}}
    with (
        environment(tmp_path, streams=2, interval=1.0, silence=1.0) as place,
        scenario(place, tmp_path, sinks=sinks, account=AUDITED) as daemon,
    ):
        process = daemon.run()
        wait_for_pictures(place, daemon, 6)
        lose_some(place, daemon)
        wait_for_pictures(place, daemon, 7)
        process.kill()
        process = daemon.run()
        wait_for_pictures(place, daemon, 7)
        set_interval(place, 3)
        wait_for_pictures(place, daemon, 6)
        set_interval(place, 1)
        wait_for_pictures(place, daemon, 6)
        push_again(place, "live_1")
        place.do(place.sandbox.pushers.stop("live_2", Customer()))
        wait_for_pictures(place, daemon, 10, ["live_1"])
        missing = lost(place, daemon)
        skipped = place.ask(lambda: place.sandbox.screenshots.skipped)
        *gaps, summary = until_reported(daemon, sum(map(len, missing.values())))
        assert {gap["stream"] for gap in gaps} == set(STREAMS)
        assert all(gap["reported"] for gap in gaps)
        assert skipped or summary["missing"] == sum(map(len, missing.values()))
        reported = [event for event in spooled(daemon) if event["type"] == "com.qcloud.live.gap"]
        assert {event["id"] for event in reported} == {gap["id"] for gap in gaps}
        until(
            lambda: [line for one in daemon.processes for line in one.said("gap_found")],
            what="for the log's own thread",
        )
        assert process.stop() == 0
        printed = Counter(
            json.loads(line)["id"]
            for one in daemon.processes
            for line in one.stdout_file.read_bytes().splitlines()
        )
        assert all(printed[gap["id"]] >= 1 for gap in gaps)
        *again, total = rows(daemon, "audit")
        assert ([gap["id"] for gap in again], total["missing"]) == (
            [gap["id"] for gap in gaps],
            summary["missing"],
        )
