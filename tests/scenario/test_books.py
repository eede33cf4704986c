"""The counts and rates of `poller status`, of a real daemon and over its end."""

import json
from pathlib import Path
from typing import Any

from tests.commands import poller

from .environment import environment, until
from .recorded import check_recorded
from .rig import Scenario, scenario


def status(daemon: Scenario) -> dict[str, Any]:
    said = poller("status", "--json", "-c", str(daemon.config), folder=daemon.folder)
    assert said.returncode == 0, said.stderr
    row: dict[str, Any] = json.loads(said.stdout)
    return {**row, "hook": {sink["name"]: sink for sink in row["sinks"]}["hook"]}


def books(row: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(book["owner"], book["book"]): book["count"] for book in row["books"]}


def test_counts_of_all_kinds_are_exact_and_survive_a_kill(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        first = daemon.run()
        place.enqueue(300)
        until(lambda: place.hook.files.total() == 300)
        place.order("cut")
        place.enqueue(50)
        until(lambda: ("source shots", "possibly_lost") in books(status(daemon)))
        place.turn(400)
        place.enqueue(3)
        until(lambda: books(status(daemon)).get(("hook", "dead"), 0) >= 3)
        place.turn(200)
        before = status(daemon)
        assert before["sources"][0]["taken"] == before["hook"]["delivered"] + before["hook"]["died"]
        first.kill()
        check_recorded(daemon.spool_file)
        after = status(daemon)
        assert books(after) == books(before)
        assert books(after)["source shots", "possibly_lost"] == 1
        assert (after["possibly_lost"], after["running"]) == ([], False)
        assert after["hook"]["per_second"] is None
        daemon.run()
        place.enqueue(10)
        until(lambda: status(daemon)["hook"]["delivered"] == before["hook"]["delivered"] + 10)
        assert status(daemon)["sources"][0]["taken"] == before["sources"][0]["taken"] + 10


def test_rates_and_the_time_to_catch_up_are_those_of_the_last_minute(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        daemon.run()
        place.turn("refuse")
        place.enqueue(400)
        until(lambda: status(daemon)["hook"]["backlog"] == 400)
        until(lambda: (status(daemon)["sources"][0]["per_second"] or 0) > 0)
        assert status(daemon)["hook"]["per_second"] == 0
        assert status(daemon)["hook"]["catch_up"] is None
        place.turn(200)
        until(lambda: status(daemon)["hook"]["backlog"] == 0)
        until(lambda: status(daemon)["hook"]["per_second"] > 0)
        assert status(daemon)["hook"]["catch_up"] == 0
