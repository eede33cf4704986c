"""Retained events that a sink gets again: ordered, counted, killed at every step, and behind what is fresh."""

import json
import os
import pty
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from poller.runtime.failpoints import VARIABLE

from .environment import PATIENCE, Environment, environment, until
from .killed import died_at
from .rig import Process, Scenario, scenario, webhook
from .test_operate import poller, rows, sink

REPLAY: Final = ("replay.ordered", "replay.filled", "replay.queued", "replay.cancelled", "replay.done")
"""The fail points of a replay."""


def delivered(place: Environment, daemon: Scenario, process: Process, count: int) -> set[str]:
    """The pictures that come now, each delivered to the hook once."""
    before = set(place.hook.files)
    place.enqueue(count)
    until(lambda: len(place.hook.files) == len(before) + count)
    until(lambda: sink(daemon)["backlog"] == 0)
    return set(place.hook.files) - before


def moment() -> str:
    """A time between what came and what comes, as an option."""
    time.sleep(0.05)
    now = datetime.now(UTC).isoformat()
    time.sleep(0.05)
    return now


def again(place: Environment) -> Counter[str]:
    """How often each picture came again."""
    return Counter({name: times - 1 for name, times in place.hook.files.items() if times > 1})


def states(daemon: Scenario) -> list[str]:
    return [row["state"] for row in rows(daemon, "replays")]


def test_a_replay_is_counted_and_sent_again_with_the_old_ids(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        delivered(place, daemon, process, 200)
        since = moment()
        chosen = delivered(place, daemon, process, 600)
        until_ = moment()
        delivered(place, daemon, process, 100)
        ids = {id for receipt in place.hook.receipts for id in receipt.event_ids}
        span = ("--since", since, "--until", until_)
        assert poller(daemon, "replay", "hook", *span, code=2).stdout == ""
        assert "--yes" in poller(daemon, "replay", "hook", *span, code=2).stderr
        assert "no sink nowhere" in poller(daemon, "replay", "nowhere", "--yes", code=1).stderr
        assert rows(daemon, "replays") == []
        (row,) = rows(daemon, "replay", "hook", *span, "--yes")
        assert (row["events"], row["replay"]) == (600, 1)
        until(lambda: states(daemon) == ["done"])
        assert again(place) == dict.fromkeys(chosen, 1)
        assert {id for receipt in place.hook.receipts for id in receipt.event_ids} == ids
        (listed,) = rows(daemon, "replays")
        assert (listed["done"], listed["total"], listed["sink"]) == (600, 600, "hook")
        assert [line["events"] for line in process.heard("replay_ordered")] == [600]
        assert [(line["events"], line["expected"]) for line in process.heard("replay_done")] == [(600, 600)]
        assert process.metric("replay_events", sink="hook") == 0
        assert "no events match" in poller(daemon, "replay", "hook", "--stream", "no", "--yes", code=1).stderr
        assert process.stop() == 0
        assert len([name for life in daemon.printed() for name in life]) == 900, "another sink gets nothing"


def test_a_replay_is_ordered_listed_and_paused_on_the_file(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        delivered(place, daemon, process, 300)
        assert process.stop() == 0
        for number in (1, 2):
            assert rows(daemon, "replay", "hook", "--yes")[0]["replay"] == number
        assert states(daemon) == ["running", "waits"]
        assert rows(daemon, "replays", "pause", "1")[0]["state"] == "paused"
        assert rows(daemon, "replays", "cancel", "2")[0]["state"] == "cancelled"
        assert "no open replay 2" in poller(daemon, "replays", "resume", "2", code=1).stderr
        assert poller(daemon, "replays", "resume", code=2).stdout == ""
        (status,) = rows(daemon, "status")
        assert [(one["replay"], one["done"], one["total"]) for one in status["replays"]] == [(1, 0, 300)]
        assert "paused" in poller(daemon, "status").stdout
        process = daemon.run()
        until(lambda: process.metric("replay_events", sink="hook") == 300)
        assert not again(place)
        assert rows(daemon, "replays", "resume", "1")[0]["state"] == "running"
        until(lambda: states(daemon) == ["done", "cancelled"])
        assert set(again(place).values()) == {1}
        assert again(place).total() == 300
        assert process.stop() == 0


# ---------------------------------------------------------------- asked on a terminal


@contextmanager
def on_a_terminal(daemon: Scenario, *words: str) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """A command whose input and error output are a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "poller", *words, "-c", str(daemon.config), "--json"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=daemon.folder,
    ) as child:
        os.close(theirs)
        try:
            yield ours, child
        finally:
            child.kill()
            os.close(ours)


def until_asked(terminal: int) -> str:
    """What the terminal shows up to the next question."""
    shown = b""
    end = time.monotonic() + PATIENCE
    while not shown.rstrip().endswith(b"[y/N]:"):
        assert time.monotonic() < end, shown
        shown += os.read(terminal, 4096)
    return shown.decode()


def test_a_replay_asks_and_asks_again_when_the_count_has_changed(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        delivered(place, daemon, process, 100)
        with on_a_terminal(daemon, "replay", "hook") as (terminal, child):
            assert "Give 100 events to hook again?" in until_asked(terminal)
            os.write(terminal, b"n\n")
            assert child.wait(PATIENCE) == 1
        assert rows(daemon, "replays") == []
        place.turn(503)
        place.enqueue(50)
        until(lambda: sink(daemon)["retrying"] == 50)
        with on_a_terminal(daemon, "replay", "hook") as (terminal, child):
            asked = until_asked(terminal)
            assert "50 are pending anyway" in asked
            assert "Give 100 events" in asked
            place.turn(200)
            until(lambda: len(place.hook.files) == 150)
            os.write(terminal, b"y\n")
            asked = until_asked(terminal)
            assert "150 events are selected now, and not 100 as before" in asked
            assert "Give 150 events" in asked
            os.write(terminal, b"y\n")
            assert child.stdout is not None
            assert json.loads(child.stdout.read())["events"] == 150
            assert child.wait(PATIENCE) == 0
        until(lambda: states(daemon) == ["done"])
        assert again(place).total() == 150
        assert process.stop() == 0


# ---------------------------------------------------------------- killed


@pytest.mark.timeout(900)
def test_killed_at_every_step_of_a_replay_it_sends_all_that_was_chosen_and_nothing_else(
    tmp_path: Path, soak: bool
) -> None:
    points = (
        ("replay.filled", 1),
        ("replay.filled", 2),
        ("replay.queued", 1),
        ("transaction.committed", 4),
        ("batch.carrying", 3),
        ("batch.delivered", 2),
        ("settlements.written", 2),
        ("batch.settled", 3),
        ("replay.done", 1),
    )
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        for _ in range(5 if soak else 1):
            process = daemon.run()
            delivered(place, daemon, process, 150)
            since = moment()
            chosen = delivered(place, daemon, process, 600)
            until_ = moment()
            delivered(place, daemon, process, 50)
            assert process.stop() == 0
            before = place.hook.files
            words = ("replay", "hook", "--since", since, "--until", until_, "--yes")
            ordered_before = len(states(daemon))
            _killed_command(daemon, "replay.ordered", *words)
            assert len(states(daemon)) == ordered_before, "not ordered, and nothing is sent"
            assert rows(daemon, *words)[0]["events"] == 600
            for point, times in points:
                place.enqueue(5)
                died_at(daemon.start("run", **{VARIABLE: f"{point}:{times}"}), point)
            process = daemon.run()
            until(lambda: states(daemon)[-1] == "done")
            assert rows(daemon, "replays")[-1]["done"] == 600
            until(lambda: place.depth == 0)
            until(lambda: sink(daemon)["backlog"] == 0)
            assert process.stop() == 0
            came = place.hook.files - before
            assert chosen <= set(came)
            assert not (set(before) - chosen) & set(came), "not selected, and sent again"
            assert not daemon.books().waiting


def _killed_command(daemon: Scenario, point: str, *words: str) -> None:
    process = daemon.start(*words, **{VARIABLE: point})
    died_at(process, point)


def test_killed_in_a_cancellation_a_replay_is_cancelled_or_not(tmp_path: Path) -> None:
    with (
        environment(tmp_path) as place,
        scenario(place, tmp_path, sinks={"hook": webhook(place, concurrency=2)}) as daemon,
    ):
        process = daemon.run()
        delivered(place, daemon, process, 600)
        place.turn(503)
        rows(daemon, "replay", "hook", "--yes")
        until(lambda: place.hook.attempts and rows(daemon, "replays")[0]["state"] == "running")
        assert process.stop() == 0
        _killed_command(daemon, "replay.cancelled", "replays", "cancel", "1")
        assert states(daemon) == ["running"], "the transaction did not come to its end"
        assert rows(daemon, "replays", "cancel", "1")[0]["state"] == "cancelled"
        assert not daemon.books().waiting
        place.turn(200)
        process = daemon.run()
        delivered(place, daemon, process, 20)
        assert not again(place)
        assert process.stop() == 0


# ---------------------------------------------------------------- beside what is fresh


@pytest.mark.parametrize("order", ["none", "stream"])
def test_fresh_events_overtake_a_running_replay(tmp_path: Path, order: str) -> None:
    with environment(tmp_path) as place:
        hook = webhook(place, batch={"max_events": 10}, order=order)
        with scenario(place, tmp_path, sinks={"hook": hook}) as daemon:
            process = daemon.run()
            old = delivered(place, daemon, process, 600)
            assert process.stop() == 0
            settings = json.loads(daemon.config.read_text())
            settings["sinks"]["hook"]["rate"] = "10/s"
            daemon.config.write_text(json.dumps(settings))
            process = daemon.run()
            begun = len(place.hook.receipts)
            rows(daemon, "replay", "hook", "--yes")
            until(lambda: len(place.hook.receipts) >= begun + 3)
            sent = len(place.hook.receipts)
            place.enqueue(30)
            until(lambda: len(place.hook.files) == 630)
            came = place.hook.receipts[sent:]
            fresh = [place for place, receipt in enumerate(came) if not old.issuperset(receipt.files)]
            print(f"\nfresh events came as receipts {fresh} of those that followed")
            assert fresh[-1] < 20, "of 60 batches of the replay, few came before"
            assert not old.intersection(came[fresh[0]].files), "no batch has both"
            assert states(daemon) == ["running"]
            assert process.stop() == 0


def test_a_sink_starts_exactly_at_its_time_and_goes_on_from_there(tmp_path: Path) -> None:
    with (
        environment(tmp_path, receivers=("hook", "late")) as place,
        scenario(place, tmp_path, sinks={"hook": webhook(place)}) as daemon,
    ):
        process = daemon.run()
        delivered(place, daemon, process, 100)
        start = moment()
        chosen = delivered(place, daemon, process, 200)
        assert process.stop() == 0
        settings = json.loads(daemon.config.read_text())
        settings["sinks"]["late"] = webhook(place, "late", start=start)
        daemon.config.write_text(json.dumps(settings))
        assert rows(daemon, "status"), "the first to attach it is a command"
        process = daemon.run()
        until(lambda: place.receivers["late"].files.total() == 200)
        fresh = delivered(place, daemon, process, 20)
        until(lambda: place.receivers["late"].files.total() == 220)
        assert set(place.receivers["late"].files) == chosen | fresh
        assert process.stop() == 0
        settings["sinks"]["late"]["start"] = "earliest"
        daemon.config.write_text(json.dumps(settings))
        beside = sorted(tmp_path.iterdir())
        hints = poller(daemon, "check").stderr.splitlines()
        assert sorted(tmp_path.iterdir()) == beside, "a check leaves no files beside the spool"
        assert [hint for hint in hints if hint.startswith("hint: sinks.late.start has no effect")]
        assert len([hint for hint in hints if "start" in hint]) == 1, "only where a start is written"
        process = daemon.run()
        fresh |= delivered(place, daemon, process, 10)
        until(lambda: place.receivers["late"].files.total() == 230)
        assert set(place.receivers["late"].files) == chosen | fresh
        assert process.stop() == 0
