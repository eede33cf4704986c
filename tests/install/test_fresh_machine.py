"""What a newcomer does: the README's first command in a fresh clone, and the wheel in a fresh environment."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"<!-- (first|second) command -->\n```sh\n(.+)\n```")
FULL = os.environ.get("CI") == "true"


@pytest.fixture
def minutes(soak: bool) -> None:
    """For tests that install from scratch."""
    if not (soak or FULL):
        pytest.skip("installs from scratch for minutes: with --soak, or where CI=true")


def commands() -> dict[str, str]:
    return dict(COMMAND.findall((ROOT / "README.md").read_text()))


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTHON"))}
    return subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def lost_nothing(shown: str) -> bool:
    """Whether the demo's verdict is good, and each kind of event came and was printed."""
    rows = re.findall(r"│ ([a-z ]+?) +│ +(\d+|-) │ +(\d+) │ +(\d+) │ +(\d+) │ +(\d+|-) │", shown)
    counts = {kind: (queue, events, printed, stored) for kind, queue, _, events, printed, stored in rows}
    queue, shots, _, stored = counts["screenshots"]
    return (
        len(counts) == 4
        and int(queue) == int(shots) == int(stored) >= 4
        and all(int(events) == int(printed) > 0 for _, events, printed, _ in counts.values())
        and "Nothing was lost" in shown
    )


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("minutes")
def test_the_readmes_first_command_runs_the_demo_in_a_fresh_clone(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    shown = shell(commands()["first"], clone)
    assert shown.returncode == 0, shown.stderr
    assert lost_nothing(shown.stdout + shown.stderr)


def test_the_gate_runs_the_readmes_second_command() -> None:
    gate = (ROOT / ".ci" / "run").read_text()
    extract = [line for line in gate.splitlines() if line.startswith(("line=", "tests="))]
    got = shell("; ".join([*extract, 'printf "%s\\n%s" "$line" "$tests"']), ROOT).stdout
    assert got.splitlines() == [commands()["second"], commands()["second"].split(" && ")[-1]]
    assert gate.rstrip().endswith('exec bash -euc "$tests"')


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("minutes")
def test_the_wheel_installed_in_a_fresh_environment_runs_the_demo(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    built = shell(f"{sys.executable} -m build --wheel -o {tmp_path} .", clone)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    installed = shell(f"python3 -m venv v && v/bin/pip install -q '{wheel}[sandbox]'", tmp_path)
    assert installed.returncode == 0, installed.stderr
    shown = shell("v/bin/poller demo --for 12s", tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert lost_nothing(shown.stdout + shown.stderr)
