"""Fail points: where the program can be made to die, and that nobody arms one by accident."""

import ast
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from poller.runtime import failpoints
from poller.runtime.failpoints import POINTS, arm, reached

ROOT = Path(__file__).parents[3]


def test_every_point_is_passed_at_one_place_in_the_program_and_no_other_is() -> None:
    """The spool `postgres` passes those of an engine a second time, each at one place."""
    found: Counter[str] = Counter()
    again: Counter[str] = Counter()
    for file in (ROOT / "poller").rglob("*.py"):
        passed = again if file.is_relative_to(ROOT / "poller/spools/postgres") else found
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="reached"), args=[ast.Constant(value=str(name))]):
                    passed[name] += 1
    assert found == Counter(POINTS)
    assert again == Counter(set(again) & set(POINTS))


def test_without_the_variable_a_point_is_a_call_that_does_nothing() -> None:
    assert failpoints.VARIABLE not in os.environ
    assert (failpoints.at, failpoints.refused) == ("", "")
    assert reached is failpoints._nothing
    for name in POINTS:
        reached(name)


@pytest.mark.parametrize(
    "wish", ["", "page", "page.kept ", "PAGE.KEPT", "page.kept:0", "page.kept:x", "page.kept:²"]
)
def test_a_word_that_is_no_point_is_refused(wish: str) -> None:
    with pytest.raises(ValueError, match=r"there is no point|is no number of times"):
        arm(wish)


def test_the_process_dies_at_the_nth_passing_of_its_own_point_alone() -> None:
    program = (
        "from poller.runtime.failpoints import reached\n"
        "for turn in range(1, 9):\n"
        "    reached('page.read'); print(turn, flush=True); reached('page.kept')\n"
    )
    environ = {**os.environ, failpoints.VARIABLE: "page.kept:3"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["1", "2", "3"]
    assert done.stderr == "poller: killed at the fail point page.kept\n"


@pytest.mark.parametrize("command", ["run", "drain", "check"])
def test_a_daemon_is_not_started_with_a_word_that_is_no_point(tmp_path: Path, command: str) -> None:
    config = tmp_path / "poller.yaml"
    config.write_text(
        "accounts: {main: {endpoint: 'http://127.0.0.1:9/', app_id: 1, key: k}}\n"
        "sources: {shots: {type: screenshot_queue, account: main}}\n"
        "spool: {type: sqlite, path: spool.db}\n"
        "sinks: {console: {type: stdout}}\n"
    )
    environ = {**os.environ, failpoints.VARIABLE: "page.kpet"}
    words = [sys.executable, "-m", "poller", command, "-c", str(config)]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 78
    assert re.match(r"POLLER_FAILPOINT: there is no point 'page.kpet'; there are: .*page\.kept", done.stderr)
    assert [file.name for file in tmp_path.iterdir()] == ["poller.yaml"]
