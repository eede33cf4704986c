"""A copy of a spool that is in use, and the copy that a migration leaves."""

import asyncio
import os
import resource
import signal
from pathlib import Path

import pytest

from poller.core.errors import StorageError
from poller.core.model import Done
from poller.spools.sqlite import SqliteSpool
from poller.spools.sqlite.backup import back_up
from poller.spools.sqlite.examine import examine, export
from poller.spools.sqlite.schema import VERSION
from poller.testing import ManualClock, anything, some_event, some_reading
from tests.integration.spools.test_migrations import FIXTURES, laid, version
from tests.integration.spools.test_salvage import overwrite, poller
from tests.patience import patiently


def quiet(done: int, total: int) -> None:
    """Progress that nobody watches."""


def opened(file: Path) -> SqliteSpool:
    return SqliteSpool("spool", SqliteSpool.Settings(type="sqlite", path=file, min_free=0), {}, ManualClock())


def test_a_backup_is_complete_and_opens_as_a_spool(tmp_path: Path) -> None:
    file = laid(tmp_path, FIXTURES[-1])
    shown = poller(tmp_path, "backup", str(tmp_path / "copy.db"))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"{tmp_path / 'copy.db'}: good: ")
    assert list(export(tmp_path / "copy.db", frozenset(), None)) == list(export(file, frozenset(), None))
    assert (tmp_path / "copy.db").stat().st_mode & 0o077 == 0

    async def scenario() -> None:
        async with opened(tmp_path / "copy.db") as spool:
            await spool.attach("hook", anything)
            assert (await spool.backlog("hook")).events == 300

    asyncio.run(patiently(scenario()))


def test_the_new_file_may_be_named_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid(tmp_path, FIXTURES[-1])
    monkeypatch.chdir(tmp_path)
    assert poller(tmp_path, "backup", "copy.db").returncode == 0
    assert examine(tmp_path / "copy.db").findings == ()


def test_a_backup_under_load_is_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy takes steps, and commits go on between them."""
    monkeypatch.setattr("poller.spools.sqlite.backup.PAGES", 4)
    file, copy = tmp_path / "spool.db", tmp_path / "copy.db"

    async def scenario() -> None:
        async with opened(file) as spool:
            await spool.attach("hook", anything)
            for n in range(0, 4_000, 100):
                await spool.append("shots", [some_reading(*range(n, n + 100))])
            steps: list[int] = []
            copying = asyncio.ensure_future(
                asyncio.to_thread(back_up, file, copy, lambda done, total: steps.append(done))
            )
            appended = 4_000
            while not copying.done():
                await spool.append("shots", [some_reading(appended)])
                await spool.settle(await spool.claim("hook", 1), [Done()])
                appended += 1
            assert (await copying).findings == ()
            assert len(steps) > 1
            assert len(set(steps)) == len(steps), "a copy that starts over counts the same pages again"

    asyncio.run(patiently(scenario()))
    lines = list(export(copy, frozenset(), None))
    assert len(lines) >= 4_000
    assert lines == [some_event(n).encoded for n in range(len(lines))]
    assert examine(copy).findings == ()


def test_a_backup_replaces_no_file(tmp_path: Path) -> None:
    laid(tmp_path, FIXTURES[-1])
    (tmp_path / "copy.db").write_text("mine")
    shown = poller(tmp_path, "backup", str(tmp_path / "copy.db"))
    assert (shown.returncode, shown.stderr) == (1, f"poller: {tmp_path / 'copy.db'} exists already\n")
    assert (tmp_path / "copy.db").read_text() == "mine"
    shown = poller(tmp_path, "backup", str(tmp_path / "spool.db"))
    assert shown.returncode == 1


def test_a_damaged_spool_gives_no_backup(tmp_path: Path) -> None:
    overwrite(laid(tmp_path, FIXTURES[-1]), 3)
    shown = poller(tmp_path, "backup", str(tmp_path / "copy.db"))
    assert shown.returncode == 1
    assert "poller: the spool is damaged: no copy is kept" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("copy.db")]


@pytest.mark.parametrize("target", ["missing/copy.db", "poller.yaml/copy.db"])
def test_a_backup_that_cannot_be_written_says_why_in_one_line(tmp_path: Path, target: str) -> None:
    laid(tmp_path, FIXTURES[-1])
    shown = poller(tmp_path, "backup", str(tmp_path / target))
    assert (shown.returncode, shown.stderr.count("\n")) == (1, 1)
    assert target in shown.stderr


def test_a_spool_in_memory_has_no_backup(tmp_path: Path) -> None:
    shown = poller(tmp_path, "backup", "copy.db")
    assert (shown.returncode, "no such file" in shown.stderr) == (1, True)


def test_a_copy_that_cannot_grow_leaves_nothing(tmp_path: Path) -> None:
    file = laid(tmp_path, FIXTURES[-1])
    pid = os.fork()
    if pid == 0:  # a limit of its own: files of this process may not grow beyond 100 kB
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            back_up(file, tmp_path / "copy.db", quiet)
        except StorageError:
            os._exit(0)
        except BaseException:
            os._exit(2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("copy.db")]


def migrate(file: Path) -> None:
    async def scenario() -> None:
        async with opened(file):
            pass

    asyncio.run(patiently(scenario()))


def test_a_migration_keeps_the_old_file_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = laid(tmp_path, FIXTURES[0])
    before = list(export(file, frozenset(), None))
    migrate(file)
    old = tmp_path / "spool.db.schema-1"
    assert (version(old), version(file)) == (1, VERSION)
    assert list(export(old, frozenset(), None)) == before
    said = capsys.readouterr().out
    assert "spool_migrated" in said
    assert str(old) in said
    migrate(file)
    assert "spool_migrated" not in capsys.readouterr().out


def test_a_migration_without_room_for_a_copy_goes_on_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = laid(tmp_path, FIXTURES[0])
    (tmp_path / "spool.db.schema-1.partial").mkdir()  # nothing can be written there
    migrate(file)
    assert version(file) == VERSION
    assert "backup=None" in capsys.readouterr().out
