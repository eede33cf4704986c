"""The command line, as an operator meets it."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from poller import __version__
from poller.spools.sqlite import SqliteSpool
from poller.testing.factories import some_reading
from tests.commands import poller

GOOD = """
accounts:
  main: {endpoint: "http://127.0.0.1:9/common_access", app_id: 1234, key: abc, cos: {bucket: shots, app_id: 1}}
sources: {shots: {type: screenshot_queue, account: main}}
spool: {type: sqlite, path: spool.db}
journal: {size: 16MiB}
sinks:
  console: {type: stdout}
"""

ARCHIVE = """
  archive: {type: download, directory: pictures/new}
  other: {type: download, directory: there}
"""


def written(folder: Path, text: str = GOOD) -> str:
    (folder / "poller.yaml").write_text(text)
    return str(folder / "poller.yaml")


@pytest.mark.parametrize("words", [["check"], ["streams"], ["status", "--json"]])
def test_output_that_a_full_disk_does_not_take_is_one_line_and_an_exit_code(
    tmp_path: Path, words: list[str]
) -> None:
    file = written(tmp_path)
    asyncio.run(fill(tmp_path / "spool.db"))
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "poller", *words, "-c", file],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "poller: [Errno 28] No space left on device\n")


async def fill(file: Path) -> None:
    async with SqliteSpool("spool", SqliteSpool.Settings(type="sqlite", path=file), {}) as spool:
        await spool.append("shots", [some_reading(1)])


def test_help_names_every_command() -> None:
    shown = poller("--help")
    assert shown.returncode == 0
    for word in (
        "run",
        "drain",
        "check",
        "schema",
        "demo",
        "sandbox",
        "spool",
        "status",
        "pause",
        "resume",
        "dead",
        "quarantine",
        "--version",
        "--install-completion",
        "78",
    ):
        assert word in shown.stdout


def test_the_version_is_printed() -> None:
    """By the program as it is started."""
    command = [sys.executable, "-m", "poller", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout == poller("--version").stdout == f"poller {__version__}\n"


def test_a_wrong_word_is_a_usage_error() -> None:
    assert poller("fly").returncode == 2
    assert poller("run").returncode == 2
    assert poller("drain", "-c", "x.yaml", "--timeout", "soon").returncode in (2, 78)


def test_completion_is_offered_for_the_shell() -> None:
    environment = os.environ | {
        "_POLLER_COMPLETE": "complete_bash",
        "COMP_WORDS": "poller d",
        "COMP_CWORD": "1",
    }
    command = [str(Path(sys.executable).with_name("poller"))]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert shown.stdout.split() == ["drain", "demo", "dead"]


def test_check_says_that_a_file_is_good_and_opens_nothing(tmp_path: Path) -> None:
    config = written(tmp_path)
    shown = poller("check", "-c", config)
    assert (shown.returncode, shown.stdout) == (0, f"{config}: good\n")
    assert [path.name for path in tmp_path.iterdir()] == ["poller.yaml"]


def test_check_connect_opens_every_part_and_leaves_nothing_behind(tmp_path: Path) -> None:
    config = written(tmp_path, GOOD.replace("path: spool.db", "path: state/here/spool.db") + ARCHIVE)
    (tmp_path / "there").mkdir()
    shown = poller("check", "-c", config, "--connect")
    assert (shown.returncode, shown.stdout) == (1, ""), "the platform cannot be reached from here"
    assert "account main: not reachable" in shown.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["poller.yaml", "there"]


def test_check_connect_refuses_a_spool_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "spool.db").mkdir()
    shown = poller("check", "-c", written(tmp_path), "--connect")
    assert shown.returncode == 78
    assert "folder" in shown.stderr


def test_check_connect_says_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_text("")
    (tmp_path / "spool.db.lock").mkdir()
    shown = poller("check", "-c", written(tmp_path, GOOD), "--connect")
    assert shown.returncode == 1
    assert re.fullmatch("poller: .*spool.*\n", shown.stderr)


def test_check_connect_says_nothing_of_ports_that_it_opens(tmp_path: Path) -> None:
    pages = 'admin: {listen: "127.0.0.1:0"}\nweb: {listen: "127.0.0.1:0"}\n'
    shown = poller("check", "-c", written(tmp_path, GOOD + pages), "--connect")
    assert "account main: not reachable" in shown.stderr, "the parts were opened"
    assert "listens" not in shown.stderr


@pytest.mark.parametrize("more", [(), ("--to", "events")])
def test_a_spool_without_a_file_cannot_be_salvaged_into(more: tuple[str, ...], tmp_path: Path) -> None:
    config = written(tmp_path, GOOD.replace("{type: sqlite, path: spool.db}", "{type: memory}"))
    shown = poller("spool", "salvage", "old.db", "-c", config, *more, folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (
        1,
        "poller: a spool of type memory has no file to look after\n",
    )
    assert not (tmp_path / "events").exists()


def test_a_bad_configuration_is_reported_line_by_line(tmp_path: Path) -> None:
    config = written(tmp_path, GOOD.replace("stdout", "sdtout").replace("key: abc", "kee: abc"))
    shown = poller("run", "-c", config)
    assert shown.returncode == 78
    lines = shown.stderr.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith(config + ":") for line in lines)
    assert any("did you mean stdout" in line for line in lines)
    assert not (tmp_path / "spool.db").exists()


def test_the_schema_is_json_that_knows_every_adapter() -> None:
    shown = poller("schema")
    schema = json.loads(shown.stdout)
    text = json.dumps(schema)
    for word in ("screenshot_queue", "sqlite", "memory", "stdout", "webhook", "download", "allow_cidr"):
        assert word in text


def test_the_demo_ends_by_ctrl_c_with_its_summary(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "poller", "demo", "--interval", "1", "--streams", "2"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stderr is not None
    shots = 0
    shown = ""
    for line in demo.stderr:
        shown += line
        shots += "/pictures/live_" in line
        if shots == 4:
            demo.send_signal(signal.SIGINT)
            shots += 1
    assert demo.wait(60) == 0, shown
    assert "lost" in shown


def test_a_demo_whose_daemon_is_killed_says_so_and_fails(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "poller", "demo", "--interval", "1", "--streams", "1"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stderr is not None
    shown = ""
    for line in demo.stderr:
        if "/pictures/live_" in line and "/pictures/live_" not in shown:
            os.kill(daemon_of(demo.pid), signal.SIGKILL)
        shown += line
    assert demo.wait(60) == 1, shown
    assert "The daemon has ended by itself: see /" in shown
    assert "Not everything arrived" in shown


def daemon_of(demo: int) -> int:
    children = Path(f"/proc/{demo}/task/{demo}/children").read_text().split()
    lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in children}
    (found,) = (pid for pid, words in lines.items() if b"run" in words)
    return found
