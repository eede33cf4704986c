"""What a newcomer does: the README's first command in a fresh clone; and what the wheel holds."""

import os
import re
import shutil
import signal
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
WEB = ROOT / "poller" / "web"
COMMAND = re.compile(r"<!-- (first|second) command -->\n```sh\n(.+)\n```")


def commands() -> dict[str, str]:
    return dict(COMMAND.findall((ROOT / "README.md").read_text()))


def environment(folder: Path) -> dict[str, str]:
    """That of a machine without Python environments. Modules are compiled when they are imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTHON"))}
    return {**kept, "PIP_NO_COMPILE": "1", "TMPDIR": str(folder)}  # the demo leaves its folder to the user


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


class Shown:
    """A command that runs, and what it has printed until now."""

    def __init__(self, child: subprocess.Popen[bytes], file: Path) -> None:
        self.child = child
        self._file = file

    @property
    def text(self) -> str:
        return self._file.read_text()


@contextmanager
def running(command: str, folder: Path) -> Iterator[Shown]:
    """A shell's command with all that it starts, until left."""
    file = folder.with_suffix(".txt")
    with file.open("wb") as out:
        child = subprocess.Popen(
            ["bash", "-euc", command],
            cwd=folder,
            env=environment(folder),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield Shown(child, file)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        child.wait(60)


def address(shown: Shown) -> str:
    """The address of the pages, as soon as the demo has printed it; installing takes minutes."""
    printed = re.compile(r"Look at the streams: (http://\S+)\n")
    until(lambda: printed.search(shown.text) or shown.child.poll() is not None, 900.0)
    found: list[str] = printed.findall(shown.text)
    assert found, shown.text
    return found[0]


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
    with running(commands()["first"], clone) as shown:
        pages = Pages(address(shown))
        static = {f"/{file.relative_to(WEB)}" for file in (WEB / "static").rglob("*.*")}
        assert pages.files().keys() - {"/"} <= static
        assert "/static/app.js" in pages.files()
        assert len(pages.json("/api/status")["sources"]) == 4
        picture = until_picture(pages)
        assert picture[:2] == b"\xff\xd8"
        assert shown.child.wait(300) == 0, shown.text
    assert lost_nothing(shown.text)


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
    static = {str(file.relative_to(ROOT)) for file in (WEB / "static").rglob("*.*")}
    assert static <= names
