"""Pages that wait in the journal because the spool is full belong to somebody, whatever a reload does meanwhile."""

import json
from pathlib import Path
from typing import Any

import pytest

from .environment import Environment, environment, needs_root, until
from .rig import Process, Scenario, scenario
from .test_operation import _fill_once_polled, small_disk
from .test_reload import changed, hang_up

pytestmark = pytest.mark.root


def removed(new: dict[str, Any]) -> None:
    del new["sources"]["shots"]
    new["sources"]["other"] = {
        "type": "screenshot_queue",
        "account": "main",
        "max_delay": "60s",
        "min_delay": "60s",
    }


def renamed(new: dict[str, Any]) -> None:
    new["sources"]["again"] = new["sources"].pop("shots")


def alternating(turn: int) -> Any:
    return lambda new: new["sources"]["shots"].update(min_delay=f"{20 + turn}ms")


CHANGES: dict[str, list[Any]] = {
    "changed again and again": [alternating(turn) for turn in range(3)],
    "renamed": [renamed],
    "removed": [removed],
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_reload_while_the_spool_is_full_loses_no_page_until_a_restart(tmp_path: Path, how: str) -> None:
    needs_root("mounts a small disk")
    with environment(tmp_path) as place, small_disk(tmp_path) as disk:
        spool = {"type": "sqlite", "path": str(disk / "spool.db"), "min_free": "0B"}
        with scenario(
            place, tmp_path, endpoint=place.wire.endpoint, spool=spool, journal={"size": "16MiB"}
        ) as daemon:
            process = filled(place, daemon, disk)
            for turn, change in enumerate(CHANGES[how], 1):
                changed(daemon, change)
                hang_up(process, turn)
            place.wire.delay = 0.0
            (disk / "ballast").unlink()
            until(lambda: process.metric("journal_bytes") == 0, what="for the journal to be empty")
            if "removed" not in how:
                until(lambda: place.depth == 0, what="for polling to go on")
            until(lambda: process.metric("journal_bytes") == 0)
            assert process.stop() == 0
            assert daemon.books().lost() == []


def filled(place: Environment, daemon: Scenario, disk: Path) -> Process:
    """A daemon whose spool takes nothing, with pages in its journal."""
    process = daemon.run()
    _fill_once_polled(place, disk, leave=0)
    place.wire.delay = 0.1
    place.enqueue(10_000)
    until(lambda: process.said("polling_paused"), what="for the disk to be full")
    until(lambda: place.wire.in_flight == 0)
    assert process.metric("journal_bytes") > 0, "nothing was in flight"
    return process


def test_pages_of_an_unknown_source_leave_the_journal_once_a_full_spool_has_room(tmp_path: Path) -> None:
    needs_root("mounts a small disk")
    with environment(tmp_path) as place, small_disk(tmp_path) as disk:
        spool = {"type": "sqlite", "path": str(disk / "spool.db"), "min_free": "0B"}
        with scenario(
            place, tmp_path, endpoint=place.wire.endpoint, spool=spool, journal={"size": "16MiB"}
        ) as daemon:
            process = filled(place, daemon, disk)
            until(lambda: process.metric("polls_total") == place.counts.polls, what="for polls in flight")
            process.kill()
            settings = json.loads(daemon.config.read_text())
            renamed(settings)
            daemon.config.write_text(json.dumps(settings))
            again = daemon.run()
            until(lambda: again.said("page_stays_in_journal"))
            assert again.metric("journal_bytes") > 0
            (disk / "ballast").unlink()
            until(
                lambda: place.depth == 0 and again.metric("journal_bytes") == 0,
                what="for the pages to be taken",
            )
            assert again.stop() == 0
            assert daemon.books().lost() == []
