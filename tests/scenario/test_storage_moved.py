"""The spool's files are moved, deleted or replaced under a running daemon."""

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.pipeline.storage_watch import StorageWatch
from poller.runtime.clock import Clock
from tests.patience import PATIENCE, patiently

from .environment import Environment, environment, until
from .rig import Process, scenario


def folder_deleted(data: Path) -> None:
    shutil.rmtree(data)


def folder_deleted_and_made_again(data: Path) -> None:
    shutil.rmtree(data)
    data.mkdir()


def folder_renamed(data: Path) -> None:
    data.rename(data.with_name("elsewhere"))


def folder_replaced_by_its_copy(data: Path) -> None:
    data.rename(data.with_name("elsewhere"))
    shutil.copytree(data.with_name("elsewhere"), data, ignore=shutil.ignore_patterns("*.sock"))


def folder_replaced_by_a_link_to_itself(data: Path) -> None:
    data.rename(data.with_name("elsewhere"))
    data.symlink_to(data.name)


def folder_replaced_by_a_file(data: Path) -> None:
    data.rename(data.with_name("elsewhere"))
    data.write_bytes(b"")


def file_deleted(data: Path) -> None:
    (data / "spool.db").unlink()


def file_renamed(data: Path) -> None:
    (data / "spool.db").rename(data / "old.db")


def file_replaced(data: Path) -> None:
    shutil.copyfile(data / "spool.db", data / "copy.db")
    (data / "copy.db").rename(data / "spool.db")


def log_deleted(data: Path) -> None:
    (data / "spool.db-wal").unlink()


def journal_deleted(data: Path) -> None:
    (data / "spool.db.journal").unlink()


def journal_replaced(data: Path) -> None:
    shutil.copyfile(data / "spool.db.journal", data / "copy")
    (data / "copy").rename(data / "spool.db.journal")


WAYS: tuple[Callable[[Path], None], ...] = (
    folder_deleted,
    folder_deleted_and_made_again,
    folder_renamed,
    folder_replaced_by_its_copy,
    folder_replaced_by_a_link_to_itself,
    folder_replaced_by_a_file,
    file_deleted,
    file_renamed,
    file_replaced,
    log_deleted,
    journal_deleted,
    journal_replaced,
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_when_the_spools_files_are_no_longer_at_their_paths_nothing_more_is_polled_and_the_reason_is_said(
    tmp_path: Path, way: Callable[[Path], None]
) -> None:
    data = tmp_path / "data"
    spool = {"type": "sqlite", "path": str(data / "spool.db")}
    with (
        environment(tmp_path) as place,
        scenario(place, tmp_path, spool=spool, journal={"size": "16MiB"}) as daemon,
    ):
        process = daemon.run()
        place.enqueue(200)
        until(lambda: place.hook.files.total() == 200)
        way(data)
        until(lambda: process.said("storage_moved"))
        (line,) = process.said("storage_moved")
        assert line["level"] == "error"
        assert "the file was moved or deleted" in line["reason"]
        status, why = process.get("/readyz")
        assert status == 503
        assert "polling is paused: " in why
        assert str(data) in why
        _polls_no_more(place)


def _polls_no_more(place: Environment) -> None:
    """A poll that was in flight at that moment is read to its end; what is put in later stays in the queue."""
    place.enqueue(300)
    seen = place.counts.polls
    asked = place.ask(lambda: place.depth)
    until_still(lambda: place.counts.polls)
    assert place.counts.polls <= seen + 1
    assert place.depth >= asked - 100


def until_still(count: Callable[[], int]) -> None:
    """Return when a count has stood still for a second: a hundred turns of the poll loop."""
    end, last, since = time.monotonic() + 30, count(), time.monotonic()
    while time.monotonic() - since < 1.0:
        assert time.monotonic() < end, "it goes on"
        if count() != last:
            last, since = count(), time.monotonic()
        time.sleep(0.01)


def test_a_folder_that_comes_back_heals_the_daemon_and_nothing_is_lost(tmp_path: Path) -> None:
    data = tmp_path / "data"
    spool = {"type": "sqlite", "path": str(data / "spool.db")}
    with (
        environment(tmp_path) as place,
        scenario(place, tmp_path, spool=spool, journal={"size": "16MiB"}) as daemon,
    ):
        process = daemon.run()
        with place.feeding():
            until(lambda: place.hook.files.total() > 500)
            data.rename(tmp_path / "away")
            until(lambda: process.said("storage_moved"))
            (tmp_path / "away").rename(data)
            until(lambda: process.said("storage_back"))
            before = place.counts.removed
            until(lambda: place.counts.removed > before + 500)
        until(lambda: place.depth == 0)
        assert process.stop() == 0
        books = daemon.books()
        assert books.lost() == []
        assert len(books.removed) > 1000


def test_what_was_taken_before_the_folder_was_deleted_still_reaches_the_sinks(tmp_path: Path) -> None:
    data = tmp_path / "data"
    spool = {"type": "sqlite", "path": str(data / "spool.db")}
    with (
        environment(tmp_path) as place,
        scenario(place, tmp_path, spool=spool, journal={"size": "16MiB"}) as daemon,
    ):
        place.turn(500)
        process = daemon.run()
        place.enqueue(500)
        until(lambda: place.depth == 0)
        shutil.rmtree(data)
        until(lambda: process.said("storage_moved"))
        place.turn(200)
        until(lambda: place.hook.files.total() == 500)
        assert _stops(process)


def _stops(process: Process) -> bool:
    return process.stop() in (0, 1)


# ---------------------------------------------------------------- when the daemon ends


class Files:
    """Files that are away."""

    def __init__(self, *, gone: bool) -> None:
        self.gone = gone

    def why_displaced(self) -> str | None:
        return "moved"

    def is_deleted(self) -> bool:
        return self.gone


def ends(*, gone: bool, owed: bool, within: float) -> bool:
    """Whether the watch lets the daemon end within this time (seconds) after it has seen it. It looks once a second."""

    async def is_owed() -> bool:
        return owed

    async def scenario() -> bool:
        watch = StorageWatch(Clock(), end_after=0.0)
        watching = asyncio.ensure_future(watch.run([Files(gone=gone)], is_owed))
        while watch.reason is None and not watching.done():
            await asyncio.sleep(0.01)
        await asyncio.wait({watching}, timeout=within)
        if watching.done():
            return watching.result() == "moved"
        assert watch.reason == "moved"
        watching.cancel()
        await asyncio.wait({watching})
        return False

    return asyncio.run(patiently(scenario()))


@pytest.mark.parametrize(
    ("gone", "owed", "ending"),
    [(False, False, True), (False, True, True), (True, False, True), (True, True, False)],
)
def test_a_daemon_whose_files_stay_away_ends_unless_that_would_lose_what_sinks_lack(
    gone: bool, owed: bool, ending: bool
) -> None:
    assert ends(gone=gone, owed=owed, within=PATIENCE if ending else 2.5) is ending
