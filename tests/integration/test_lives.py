"""A life that is forked from a warm process cannot be told from `python -m poller`."""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from poller.runtime.failpoints import VARIABLE
from tests import lives
from tests.patience import PATIENCE

BOTH = pytest.mark.parametrize("forked", [True, False], ids=["forked", "true"])
CONFIGURATION = {
    "accounts": {"main": {"endpoint": "http://127.0.0.1:9", "app_id": 1234, "key": "${POLLER_KEY}"}},
    "sources": {"shots": {"type": "screenshot_queue", "account": "main"}},
    "spool": {"type": "sqlite", "path": "spool.db"},
    "journal": {"size": "16MiB"},
    "sinks": {"console": {"type": "stdout"}},
    "log": {"format": "json"},
}


@dataclass
class Started:
    """A daemon in a folder, and what it writes."""

    child: Any
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "stderr").read_text()

    def until(self, what: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < end, self.log
            time.sleep(0.005)


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Starts a daemon; killed at the end."""
    (tmp_path / "poller.yaml").write_text(json.dumps(CONFIGURATION))
    begun: list[Started] = []

    def started(forked: bool, ask: bool | None = None, **environ: str) -> Started:
        with (tmp_path / "stderr").open("ab") as stderr, (tmp_path / "stdout").open("ab") as stdout:
            child = lives.start(
                ("run",),
                cwd=tmp_path,
                environ={**os.environ, "POLLER_KEY": "k" * 32, **environ},
                stdout=stdout,
                stderr=stderr,
                forked=forked if ask is None else ask,
            )
        begun.append(Started(child, tmp_path))
        assert isinstance(child, lives.Life) == forked
        return begun[-1]

    yield started
    for one in begun:
        one.child.kill()
        one.child.wait(PATIENCE)


@pytest.mark.parametrize(
    "words",
    [
        ("--version",),
        ("--help",),
        ("drain", "--help"),
        ("drain", "--timeout", "soon"),
        ("nonsense",),
        ("check",),
        ("check", "-c", "nowhere.yaml"),
        ("run", "-c", "wrong.yaml"),
        ("status",),
    ],
    ids=" ".join,
)
def test_a_command_says_the_same_and_ends_the_same(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "poller.yaml").write_text(json.dumps(CONFIGURATION))
    (tmp_path / "wrong.yaml").write_text(json.dumps({**CONFIGURATION, "nonsense": 1}))
    environ = {"POLLER_KEY": "k" * 32, "COLUMNS": "100"}
    forked, true = (lives.run(*words, folder=tmp_path, forked=one, **environ) for one in (True, False))
    assert forked == true
    assert forked.stdout + forked.stderr


@BOTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(start: Any, forked: bool, number: int) -> None:
    process = start(forked)
    process.until(lambda: '"running"' in process.log)
    process.child.send_signal(number)
    assert process.child.wait(PATIENCE) == 0
    assert process.child.poll() == 0
    process.child.kill()  # nothing happens


@BOTH
def test_kill_9_hits_the_daemon_itself(start: Any, forked: bool) -> None:
    process = start(forked)
    process.until(lambda: '"running"' in process.log)
    owner = Path(f"/proc/{process.child.pid}")
    assert process.folder == Path(os.readlink(owner / "cwd"))
    assert any(os.readlink(file).endswith("spool.db") for file in (owner / "fd").iterdir())
    assert process.child.poll() is None
    process.child.kill()
    assert process.child.wait(PATIENCE) == -signal.SIGKILL
    assert not owner.exists()


def _observe(process: Any) -> tuple[str, ...]:
    """The open files of a process by name, and its signals and umask.

    Left out are the spool's files and folder: threads of the daemon open them when they need them.
    """
    owner = Path(f"/proc/{process.child.pid}")
    names = []
    for file in (owner / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            names.append(os.readlink(file).rpartition("/")[2].partition(":")[0])
    names = [name for name in names if not name.startswith(("spool.db", "test_"))]
    kept = ("SigBlk", "SigIgn", "SigCgt", "Umask")
    status = [line for line in (owner / "status").read_text().splitlines() if line.startswith(kept)]
    return (*sorted(names), *status)


def test_it_has_the_same_files_and_signals(start: Any) -> None:
    seen: list[set[tuple[str, ...]]] = []
    for forked in (True, False):
        process = start(forked)
        process.until(lambda one=process: one.log.count('"running"') == len(seen) + 1)
        seen.append(set())
        for _ in range(20):
            seen[-1].add(_observe(process))
            time.sleep(0.025)
        process.child.kill()
        process.child.wait(PATIENCE)
    assert seen[0] & seen[1], seen


@BOTH
def test_a_fail_point_kills_it(start: Any, forked: bool) -> None:
    process = start(forked, **{VARIABLE: "stop.begun"})
    process.until(lambda: '"running"' in process.log)
    process.child.terminate()
    assert process.child.wait(PATIENCE) == -signal.SIGKILL
    assert "killed at the fail point stop.begun\n" in process.log


@BOTH
def test_a_wrong_fail_point_is_refused(start: Any, forked: bool) -> None:
    process = start(forked, **{VARIABLE: "nowhere"})
    assert process.child.wait(PATIENCE) == 78
    assert "there is no point 'nowhere'" in process.log


def test_what_the_interpreter_reads_at_its_start_takes_the_true_command(start: Any) -> None:
    start(True, NOTIFY_SOCKET="@there")  # the program reads this one, when it runs
    process = start(False, ask=True, PYTHONPROFILEIMPORTTIME="1")
    process.until(lambda: "import time:" in process.log)
