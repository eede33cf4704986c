"""One spool has one daemon, by whatever name it is reached."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import poller
from tests.scenario.environment import needs_root
from tests.service.running import Process, Queue, daemon, queue, until, write_config

COMMANDS = (
    ("status",),
    ("pause", "console"),
    ("spool", "export"),
)


def config_for(folder: Path, endpoint: str, spool: Path | str) -> Path:
    """A configuration in a folder of its own, with the spool at this path."""
    folder.mkdir()
    file = write_config(folder, endpoint)
    content = json.loads(file.read_text())
    content["spool"]["path"] = str(spool)
    file.write_text(json.dumps(content))
    return file


def running(process: Process) -> bool:
    return '"running"' in process.stderr or process.child.poll() is not None


def linked_file(real: Path, other: Path) -> Path:
    (other / "link.db").symlink_to(real / "spool.db")
    return other / "link.db"


def linked_folder(real: Path, other: Path) -> Path:
    (other / "folder").symlink_to(real)
    return other / "folder" / "spool.db"


def linked_twice(real: Path, other: Path) -> Path:
    (other / "first").symlink_to(real / "spool.db")
    (other / "second").symlink_to("first")
    return other / "second"


def dots(real: Path, other: Path) -> Path:
    return other / ".." / real.name / "spool.db"


def dots_behind_a_link(real: Path, other: Path) -> Path:
    (real / "below").mkdir()
    (other / "below").symlink_to(real / "below")
    return other / "below" / ".." / "spool.db"


def relative(real: Path, other: Path) -> Path:
    return Path("..") / real.name / "spool.db"


NAMES: tuple[Callable[[Path, Path], Path], ...] = (
    linked_file,
    linked_folder,
    linked_twice,
    dots,
    dots_behind_a_link,
    relative,
)


def test_a_daemon_on_another_name_of_a_spool_is_refused_and_commands_reach_the_one_that_runs(
    tmp_path: Path,
) -> None:
    (real := tmp_path / "real").mkdir()
    with queue() as platform:
        first = config_for(tmp_path / "one", platform.endpoint, real / "spool.db")
        with daemon(first) as process:
            until(lambda: running(process) and platform.requests)
            for name in NAMES:
                (other := tmp_path / name.__name__).mkdir()
                second = config_for(
                    tmp_path / f"{name.__name__}.config", platform.endpoint, name(real, other)
                )
                refused = Process(second)
                assert refused.wait() == 1, name
                assert "another poller owns it" in refused.stderr, name
                shown = poller("status", "--json", "-c", str(second))
                assert json.loads(shown.stdout)["pid"] == process.child.pid, name
                assert poller("spool", "check", "-c", str(second)).returncode == 0, name
                assert [path for path in other.iterdir() if not path.is_symlink()] == [], name
            assert process.stop() == 0


def test_a_link_that_leads_nowhere_yet_makes_the_spool_where_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "spool.db")
    with queue() as platform:
        config = config_for(tmp_path / "one", platform.endpoint, tmp_path / "link.db")
        with daemon(config) as process:
            until(lambda: running(process) and platform.requests)
            assert process.stop() == 0
    made = {path.name for path in (tmp_path / "real").iterdir()}
    assert made - {"spool.db.head"} == {f"spool.db{end}" for end in ("", ".lock", ".journal", ".clock")}
    assert {path.name for path in tmp_path.iterdir()} == {"link.db", "real", "one"}


def test_a_link_that_leads_to_itself_is_an_error_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "link.db")
    config = config_for(tmp_path / "one", "http://127.0.0.1:9/", tmp_path / "link.db")
    process = Process(config)
    assert process.wait() == 1
    assert "symbolic links" in process.stderr
    assert "Traceback" not in process.stderr


# ---------------------------------------------------------------- hard links


@pytest.mark.parametrize("beside_a_running_daemon", [True, False])
def test_a_spool_with_a_second_hard_link_is_refused_with_the_remedy(
    tmp_path: Path, beside_a_running_daemon: bool
) -> None:
    (tmp_path / "real").mkdir()
    with queue() as platform:
        first = config_for(tmp_path / "one", platform.endpoint, tmp_path / "real" / "spool.db")
        second = config_for(tmp_path / "two", platform.endpoint, tmp_path / "second.db")
        with daemon(first) as process:
            until(lambda: running(process) and platform.requests)
            if not beside_a_running_daemon:
                assert process.stop() == 0
            polls = len(platform.requests)
            os.link(tmp_path / "real" / "spool.db", tmp_path / "second.db")
            for config in (second,) if beside_a_running_daemon else (first, second):
                _is_refused(config, "hard links")
            if beside_a_running_daemon:
                until(lambda: len(platform.requests) > polls)
                assert process.stop() == 0
            else:
                assert len(platform.requests) == polls, "nothing is polled by who is refused"
        (tmp_path / "second.db").unlink()
        assert poller("spool", "check", "-c", str(first)).returncode == 0


def _is_refused(config: Path, why: str) -> None:
    process = Process(config)
    assert process.wait() == 78
    assert why in process.stderr
    for command in COMMANDS:
        shown = poller(*command, "-c", str(config))
        assert (shown.returncode, shown.stdout) == (78, ""), command
        assert why in shown.stderr


def test_a_journal_with_a_second_hard_link_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    with queue() as platform:
        config = config_for(tmp_path / "one", platform.endpoint, tmp_path / "real" / "spool.db")
        with daemon(config) as process:
            until(lambda: running(process) and platform.requests)
            assert process.stop() == 0
        os.link(tmp_path / "real" / "spool.db.journal", tmp_path / "journal")
        polls = len(platform.requests)
        again = Process(config)
        assert again.wait() == 78
        assert "journal" in again.stderr
        assert "hard links" in again.stderr
        assert len(platform.requests) == polls


# ---------------------------------------------------------------- mounts


def mounted(folder: Path, what: Path, where: Path, config: Path) -> Process:
    """A daemon in a mount namespace of its own, in which the one lies at the other."""
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    return Process(
        config,
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
        str(what),
        str(where),
    )


def _both(tmp_path: Path, platform: Queue) -> tuple[Path, Path]:
    (tmp_path / "real").mkdir()
    (tmp_path / "other").mkdir()
    first = config_for(tmp_path / "one", platform.endpoint, tmp_path / "real" / "spool.db")
    return first, config_for(tmp_path / "two", platform.endpoint, tmp_path / "other" / "spool.db")


@pytest.mark.root
def test_a_daemon_that_reaches_the_folder_by_a_mount_in_another_namespace_is_refused(tmp_path: Path) -> None:
    needs_root("mounts a folder a second time")
    with queue() as platform:
        first, second = _both(tmp_path, platform)
        with daemon(first) as process:
            until(lambda: running(process) and platform.requests)
            refused = mounted(tmp_path, tmp_path / "real", tmp_path / "other", second)
            assert refused.wait() == 1
            assert "another poller owns it" in refused.stderr
            assert process.stop() == 0


@pytest.mark.root
def test_a_daemon_whose_spool_file_alone_is_mounted_is_refused_with_the_remedy(tmp_path: Path) -> None:
    needs_root("mounts a file a second time")
    with queue() as platform:
        first, second = _both(tmp_path, platform)
        with daemon(first) as process:
            until(lambda: running(process) and platform.requests)
            (tmp_path / "other" / "spool.db").touch()
            refused = mounted(
                tmp_path, tmp_path / "real" / "spool.db", tmp_path / "other" / "spool.db", second
            )
            assert refused.wait() == 78
            assert "mount its folder" in refused.stderr
            assert process.stop() == 0


def test_the_database_itself_is_locked_and_not_only_a_name_beside_it(tmp_path: Path) -> None:
    """Whoever finds another way to the file meets the lock on it."""
    (tmp_path / "real").mkdir()
    with queue() as platform:
        config = config_for(tmp_path / "one", platform.endpoint, tmp_path / "real" / "spool.db")
        with daemon(config) as process:
            until(lambda: running(process) and platform.requests)
            (tmp_path / "real" / "spool.db.lock").unlink()
            refused = Process(config)
            assert refused.wait() == 1
            assert "spool.db: another poller owns it" in refused.stderr, "its journal is locked too"
            assert process.child.poll() is None
