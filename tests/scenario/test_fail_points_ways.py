"""Killed at every step of a picture, a push and an operator's order, and started again: nothing is lost or cut."""

import json
import random
import signal
import urllib.request
from collections import Counter
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Final

from tests.commands import poller
from tests.integration.sources.pushes import KEY, PATH, post, shot, signed

from .environment import Environment, environment, until
from .killed import Ledger, died_at, life
from .recorded import check_recorded
from .rig import Scenario, scenario
from .test_operate import _as_an_older_version_left_it, rows

PICTURE: Final = ("picture.written", "picture.synced", "picture.renamed", "folders.synced")
PUSH: Final = ("push.taken", "push.committed")
RELOAD: Final = ("reload.sources_ended", "reload.ended", "reload.begun")
OPERATOR: Final = ("batch.split", "dead.moved", "dead.owed", "quarantine.taken")


# ---------------------------------------------------------------- pictures


def test_killed_at_every_step_of_a_picture_it_leaves_none_that_is_cut(tmp_path: Path, soak: bool) -> None:
    rng, folder = random.Random("picture"), tmp_path / "pictures"
    archive = {
        "type": "download",
        "directory": str(folder),
        "allow_cidr": ["127.0.0.0/8"],
        "template": "{name}",
    }
    sinks = {"archive": {**archive, "batch": {"max_events": 20}}}
    with environment(tmp_path) as place, scenario(place, tmp_path / "daemon", sinks=sinks) as daemon:
        for point in PICTURE * (10 if soak else 1):
            place.enqueue(200, pictures=True)
            died_at(life(daemon, point, rng.randrange(1, 5)), point)
            check_recorded(daemon.spool_file)
            _all_whole(folder)
        assert daemon.drain() == 0
        books = daemon.books()
        for name in books.spooled:
            with urllib.request.urlopen(f"{place.pictures}/{name}") as answer:
                assert (folder / name).read_bytes() == answer.read()
        assert list((folder / ".incoming").iterdir()) == [], "what the kills left is gone"
        assert len(books.spooled) >= 200


def _all_whole(folder: Path) -> None:
    for file in folder.glob("*.jpg"):
        picture = file.read_bytes()
        assert picture[:2] == b"\xff\xd8"
        assert picture[-2:] == b"\xff\xd9"


# ---------------------------------------------------------------- what is pushed


def test_killed_before_and_after_a_pushs_commit_what_was_answered_is_there_once(
    tmp_path: Path, soak: bool
) -> None:
    rng, numbers = random.Random("push"), iter(range(10**9))
    pushed = {"type": "callbacks", "account": "main", "listen": "127.0.0.1:0", "path": PATH, "key": KEY}
    taken: list[str] = []
    with environment(tmp_path) as place, scenario(place, tmp_path, sources={"pushed": pushed}) as daemon:
        ledger = Ledger(daemon, place)
        for point in PUSH * (50 if soak else 1):
            process = life(daemon, point, rng.randrange(1, 40))
            until(lambda p=process: p.said("receiving"))  # type: ignore[misc]
            address = process.said("receiving")[0]["at"]
            picture = shot(next(numbers))
            with suppress(OSError, HTTPException):
                while post(address, signed(picture))[0] == 200:
                    taken.append(picture["pic_url"])
                    picture = shot(next(numbers))
            died_at(process, point)
            ledger.ended(point)
            again = daemon.run()  # the platform repeats what was not answered
            until(lambda p=again: p.said("receiving"))  # type: ignore[misc]
            assert post(again.said("receiving")[0]["at"], signed(picture))[0] == 200
            taken.append(picture["pic_url"])
            assert again.stop() == 0
            ledger.ended("SIGTERM")
        assert daemon.drain() == 0
        spooled = daemon.books().spooled
        assert Counter(spooled) == Counter(taken)
        assert set(place.hook.files) == set(taken)
        ledger.explain_repeats()


# ---------------------------------------------------------------- a reload


def test_killed_in_the_midst_of_a_reload_it_loses_nothing_and_applies_the_new_file(
    tmp_path: Path, soak: bool
) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, source={"max_in_flight": 1}) as daemon:
        for turn, point in enumerate(RELOAD * (10 if soak else 1), start=1):
            process = life(daemon, point)
            until(lambda process=process: process.said("running"))  # type: ignore[misc]
            place.enqueue(300)
            settings = json.loads(daemon.config.read_text())
            settings["sources"]["shots"]["count"] = 10 + turn
            settings["sinks"]["hook"]["concurrency"] = 1 + turn % 4
            daemon.config.write_text(json.dumps(settings))
            process.signal(signal.SIGHUP)
            died_at(process, point)
            check_recorded(daemon.spool_file)
        assert daemon.drain() == 0
        books = daemon.books()
        books.check_once()
        assert len(books.lost_polls()) <= turn // len(RELOAD), (
            "a poll is in flight only once all has begun again"
        )
        assert len(books.removed) == 300 * turn
        assert set(place.hook.files) == set(books.spooled)


# ---------------------------------------------------------------- what an operator asks


def test_killed_in_a_split_or_an_operators_order_it_has_everything_still(tmp_path: Path, soak: bool) -> None:
    for turn in range(5 if soak else 1):
        folder = tmp_path / str(turn)
        with environment(folder) as place, scenario(place, folder, source={"max_in_flight": 1}) as daemon:
            place.enqueue(300)
            died_at(life(daemon, "page.kept", 3), "page.kept")
            guilty = {one.path for one in place.oracle.removed() if one.path not in place.hook.files}
            place.hook.refused_files = set(sorted(filter(None, guilty))[:2])
            for times in (1, 2, 5):
                died_at(life(daemon, "batch.split", times), "batch.split")
                check_recorded(daemon.spool_file)
            assert daemon.drain() == 1, "dead letters are left"
            assert daemon.books().dead == {"hook": place.hook.refused_files}
            for point in ("dead.moved", "dead.owed"):
                _ordered(daemon, point, "dead", "retry", "--all")
                books = daemon.books()
                assert books.dead.get("hook", set()) | books.waiting == place.hook.refused_files
                assert daemon.drain() in (0, 1)
            _as_an_older_version_left_it(daemon.spool_file)
            _ordered(daemon, "quarantine.taken", "quarantine", "retry", "--all")
            assert len(daemon.books().quarantine) == 3
            place.hook.refused_files = set()
            _retry_all(daemon, place)
            books = daemon.books()
            assert len(books.spooled) == 302
            assert len(books.removed) == 300
            assert books.lost() == []
            assert set(place.hook.files) == set(books.spooled)


def _ordered(daemon: Scenario, point: str, *words: str) -> None:
    """A daemon that dies while it does what it is told."""
    process = life(daemon, point)
    until(lambda: process.said("running"))
    done = poller(*words, "-c", str(daemon.config))
    assert done.returncode == 1, done.stdout
    died_at(process, point)
    check_recorded(daemon.spool_file)


def _retry_all(daemon: Scenario, place: Environment) -> None:
    process = daemon.run()
    rows(daemon, "quarantine", "retry", "--all")
    rows(daemon, "dead", "retry", "--all", code=None)
    until(lambda: process.metric("backlog_events") == 0)
    assert len(place.hook.files) == 302
    assert process.stop() == 0
