"""The machine's clock is set while the daemon runs, or is wrong at a start: nothing ends before its time."""

import glob
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .environment import Environment, environment, until
from .rig import Process, Scenario, scenario, webhook

DAY = 86400


class Machine:
    """A clock that is set by a file, also while the daemon runs; its monotonic clock is the true one."""

    def __init__(self, folder: Path) -> None:
        found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        if not found and os.environ.get("CI") == "true":
            pytest.fail("libfaketime is not installed")
        if not found:
            pytest.skip("libfaketime is not installed")
        self._file = folder / "clock"
        self.set_to(0)
        self._environ = {
            "LD_PRELOAD": found[0],
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set_to(self, seconds: int) -> None:
        """So many seconds ahead of the true time."""
        new = self._file.with_name("clock.new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)

    def run(self, daemon: Scenario) -> Process:
        process = daemon.start("run", **self._environ)
        process.until_running()
        return process


def sinks(place: Environment, **more: Any) -> dict[str, Any]:
    return {"hook": webhook(place, **more)}


@pytest.mark.parametrize("by", [4 * DAY, pytest.param(-10 * 365 * DAY, marks=pytest.mark.soak)])
def test_deliveries_that_wait_are_not_given_up_when_the_clock_is_set(tmp_path: Path, by: int) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, sinks=sinks(place)) as daemon:
        machine = Machine(tmp_path)
        place.turn(500)
        process = machine.run(daemon)
        place.enqueue(2)
        until(lambda: place.hook.attempts >= 1)
        machine.set_to(by)
        until(lambda: process.said("clock_jumped"))
        seen = place.hook.attempts
        until(lambda: place.hook.attempts >= seen + 2)
        assert process.metric("dead_letters", sink="hook") == 0
        assert process.metric("oldest_undelivered_seconds", sink="hook") < 3600
        place.turn(200)
        until(lambda: len(place.hook.files) == 2)
        assert process.stop() == 0
        (jump,) = process.said("clock_jumped")
        assert jump["seconds"] == pytest.approx(by, abs=60)
        assert jump["level"] == "warning"


def test_no_dead_letter_expires_at_a_start_with_a_wrong_clock_that_is_set_right(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, sinks=sinks(place)) as daemon:
        machine = Machine(tmp_path)
        place.turn(422)
        process = machine.run(daemon)
        place.enqueue(3)
        until(lambda: process.metric("dead_letters", sink="hook") == 3)
        assert process.stop() == 0
        machine.set_to(40 * DAY)
        process = machine.run(daemon)
        machine.set_to(0)
        until(lambda: process.said("clock_jumped"))
        assert process.stop() == 0
        assert process.said("dead_letters_expired") == []
        with closing(sqlite3.connect(f"{daemon.spool_file.as_uri()}?mode=ro", uri=True)) as file:
            assert file.execute("SELECT count(*) FROM dead").fetchone() == (3,)


def test_what_waited_with_the_clock_a_day_ahead_goes_soon_after_a_start_with_it_right(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, sinks=sinks(place)) as daemon:
        machine = Machine(tmp_path)
        machine.set_to(DAY)
        place.turn(500)
        process = machine.run(daemon)
        place.enqueue(2)
        until(lambda: place.hook.attempts >= 2)
        assert process.stop() == 0
        machine.set_to(0)
        place.turn(200)
        process = machine.run(daemon)
        until(lambda: len(place.hook.files) == 2)
        assert process.heard("clock_jumped")[0]["when"] == "before the start"
