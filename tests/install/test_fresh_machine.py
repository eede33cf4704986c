"""What a newcomer does: the README's first command in a fresh clone, and the wheel in a fresh environment."""

import os
import re
import shutil
import subprocess
import sys
import urllib.error
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.scenario.environment import until

from .pages import Pages

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"<!-- (first|second) command -->\n```sh\n(.+)\n```")


def commands() -> dict[str, str]:
    return dict(COMMAND.findall((ROOT / "README.md").read_text()))


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTHON"))}
    environment["TMPDIR"] = str(folder)  # the demo leaves its folder to the user
    return subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


class Shown:
    """A program that runs, and what it has printed until now."""

    def __init__(self, child: subprocess.Popen[bytes], file: Path) -> None:
        self.child = child
        self._file = file

    @property
    def text(self) -> str:
        return self._file.read_text()


@contextmanager
def demo(folder: Path, *words: str) -> Iterator[Shown]:
    """The installed program's demo, while it runs."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTHON"))}
    file = folder / "demo.txt"
    with file.open("wb") as out:
        child = subprocess.Popen(
            [folder / "v/bin/poller", "demo", *words],
            cwd=folder,
            env={**environment, "TMPDIR": str(folder)},
            stdout=out,
            stderr=out,
        )
    try:
        yield Shown(child, file)
    finally:
        child.terminate()
        child.wait(60)


def address(shown: Shown) -> str:
    """The address of the pages, as soon as the demo has printed it."""
    printed = re.compile(r"Look at the streams: (http://\S+)\n")
    until(lambda: printed.search(shown.text))
    return str(printed.findall(shown.text)[0])


def until_picture(pages: Pages) -> bytes:
    """A picture of the demo, once there is one."""
    found: list[bytes] = []

    def ask() -> bool:
        for number in range(1, 9):
            with suppress(urllib.error.HTTPError):
                kind, body = pages.get(f"/picture/{number}")
                assert kind == "image/jpeg"
                found.append(body)
        return bool(found)

    until(ask)
    return found[0]


def packed(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


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
    shown = shell(f"'{Path(sys.executable).with_name('just')}' --dry-run test-all", ROOT)
    assert shown.stderr.replace('"$@"', "").split() == commands()["second"].split(" && ")[-1].split()
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith('exec "$just" test-all')


def test_the_wheel_holds_what_a_plug_in_author_and_a_type_checker_need(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "poller", copy / "poller", ignore=shutil.ignore_patterns("__pycache__"))
    built = shell(f"{sys.executable} -m build --wheel --no-isolation -o {tmp_path} .", copy)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = packed(wheel)
    assert {"poller/py.typed", "poller/api.py", "poller/testing/__init__.py"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"poller"}
    static = {str(file.relative_to(ROOT)) for file in (ROOT / "poller/web/static").rglob("*.*")}
    assert static <= names


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
    with demo(tmp_path, "--for", "20s") as shown:
        pages = Pages(address(shown))
        static = {name.removeprefix("poller/web") for name in packed(wheel) if "/web/static/" in name}
        assert pages.files().keys() - {"/"} <= static
        assert "/static/app.js" in pages.files()
        assert len(pages.json("/api/status")["sources"]) == 4
        picture = until_picture(pages)
        assert picture[:2] == b"\xff\xd8"
        assert shown.child.wait(120) == 0, shown.text
    assert lost_nothing(shown.text)
