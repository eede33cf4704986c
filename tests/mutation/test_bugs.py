"""The tests tested: each deliberate bug of `bugs.py`, put into a copy of the tree, turns its tests red.

Ordinarily only the list is checked; with `--soak` every bug is tried.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.names import is_there

from .bugs import BUGS, Bug

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = (".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "mutants")
WITHIN = 240.0

PROBE = """
import subprocess, sys
from pathlib import Path

import poller

HERE = str(Path(__file__).parents[1])


def test_the_copy_is_what_is_imported_here_and_in_children(tmp_path):
    assert poller.__file__.startswith(HERE), poller.__file__
    for words in (["-c", "import poller; print(poller.__version__)"], ["-m", "poller", "--version"]):
        told = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "0.0.0+copy" in told.stdout, told
"""


def all_tests() -> list[str]:
    return sorted({test for bug in BUGS for test in bug.tests})


def run_pytest(tree: Path, tests: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run tests in a tree of their own; what this run tells its own children stays here."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *options, *tests]
    return subprocess.run(
        command, cwd=tree, env=environ, capture_output=True, text=True, timeout=WITHIN, check=False
    )


def copy_of_the_tree(folder: Path) -> Path:
    tree = folder / "copy"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
    return tree


# ---------------------------------------------------------------- the list


def test_the_bugs_have_names_of_their_own() -> None:
    assert len(BUGS) >= 60
    assert [name for name, count in Counter(bug.name for bug in BUGS).items() if count > 1] == []


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_can_still_be_put_in(bug: Bug) -> None:
    code = (ROOT / bug.file).read_text()
    assert code.count(bug.text) == 1, (
        f"{bug.file}: what the bug replaces stands there {code.count(bug.text)} times"
    )
    assert bug.text != bug.becomes
    if bug.file.endswith(".py"):
        compile(code.replace(bug.text, bug.becomes), bug.file, "exec")
    assert bug.tests


def test_the_tests_that_must_turn_red_are_there() -> None:
    """By their names; which cases they have is seen when the bugs are tried."""
    assert [test for test in all_tests() if not is_there(test)] == []


# ---------------------------------------------------------------- every bug


@pytest.mark.soak
def test_a_copy_without_a_bug_is_green_and_its_children_import_it(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    version = tree / "poller" / "__init__.py"
    text, count = re.subn(r'__version__ = ".*"', '__version__ = "0.0.0+copy"', version.read_text())
    assert count == 1
    version.write_text(text)
    (tree / "tests" / "test_probe.py").write_text(PROBE)
    probed = run_pytest(tree, ["tests/test_probe.py"])
    assert probed.returncode == 0, probed.stdout[-3000:]
    assert "1 passed" in probed.stdout
    green = run_pytest(tree, all_tests())
    assert green.returncode == 0, green.stdout[-3000:]
    assert "skipped" not in green.stdout.splitlines()[-1], "a test that is skipped shows nothing"


@pytest.mark.soak
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_turns_its_tests_red(tmp_path: Path, bug: Bug) -> None:
    tree = copy_of_the_tree(tmp_path)
    file = tree / bug.file
    code = file.read_text()
    assert code.count(bug.text) == 1
    file.write_text(code.replace(bug.text, bug.becomes))
    ran = run_pytest(tree, list(bug.tests), "-rfE", "--color=no", "--timeout=60")
    # 1 is "tests failed"; a file that cannot be collected or imported ends otherwise, and shows nothing
    assert ran.returncode == 1, ran.stdout[-3000:] + ran.stderr[-1000:]
    red = re.findall(r"^(?:FAILED|ERROR) (\S+)", ran.stdout, re.MULTILINE)
    green = [test for test in bug.tests if not any(one.startswith(test) for one in red)]
    assert not green, f"green in spite of the bug: {green}\n{ran.stdout[-3000:]}"
