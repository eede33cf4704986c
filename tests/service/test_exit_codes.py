"""What the program exits with, and what it says and does before that."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import commands

from .running import Process, daemon, notifications, queue, until, write_config


def poller(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "poller", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", ["run", "drain", "check"])
def test_a_bad_configuration_exits_78_with_one_line_for_each_finding_and_polls_nothing(
    tmp_path: Path, command: str
) -> None:
    with queue() as platform, notifications() as service_manager:
        file = tmp_path / "poller.yaml"
        file.write_text(
            "accounts:\n"
            f"  main: {{endpoint: {platform.endpoint}, app_id: 1234, key: k}}\n"
            "sources:\n"
            "  screenshots: {type: screenshot_queue, account: mian, count: 101}\n"
            f"spool: {{type: sqlite, path: {tmp_path}/spool.db, retian: 1d}}\n"
            "sinks:\n"
            "  console: {type: stdout}\n"
        )
        process = Process(file, command=command, NOTIFY_SOCKET=service_manager.address)
        assert process.wait() == 78
        lines = process.stderr.splitlines()
        assert len(lines) == 3, lines
        for line, place in zip(lines, ("4:50", "4:63", "5:"), strict=True):
            assert re.match(re.escape(f"{file}:{place}") + r"[0-9:]*: \S+: .+", line), line
        assert platform.requests == []
        assert service_manager.during(0.05) == []
        assert list(tmp_path.glob("spool*")) == []


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("run",),
        ("fly",),
        ("run", "--nope"),
        ("run", "-c"),
        ("drain", "-c", "poller.yaml", "--timeout", "soon"),
    ],
    ids=" ".join,
)
def test_a_usage_error_exits_2(words: tuple[str, ...], tmp_path: Path) -> None:
    with queue() as platform:
        config = str(write_config(tmp_path, platform.endpoint))
        done = commands.poller(*(config if word == "poller.yaml" else word for word in words))
        assert done.returncode == 2, done
        assert "Traceback" not in done.stderr
        assert platform.requests == []


def test_a_configuration_that_is_not_there_is_a_bad_one(tmp_path: Path) -> None:
    done = poller("run", "-c", str(tmp_path / "nowhere.yaml"))
    assert (done.returncode, len(done.stderr.splitlines())) == (78, 1), done


def test_a_second_daemon_on_one_spool_exits_1_says_why_and_polls_nothing(tmp_path: Path) -> None:
    with queue() as platform, notifications() as service_manager:
        config = write_config(tmp_path, platform.endpoint)
        second = tmp_path / "second.yaml"
        second.write_text(config.read_text().replace("1234", "5678"))
        with daemon(config) as first:
            until(lambda: platform.answered)
            process = Process(second, NOTIFY_SOCKET=service_manager.address)
            assert process.wait() == 1
            (line,) = process.stderr.splitlines()
            said = json.loads(line)
            assert said["level"] == "error"
            assert str(tmp_path / "spool.db") in said["reason"]
            assert "another poller owns it" in said["reason"]
            assert "5678" not in platform.requests
            assert service_manager.during(0.05) == []
            assert first.stop() == 0, first.stderr


def test_a_spool_that_cannot_be_written_exits_1_and_polls_nothing(tmp_path: Path) -> None:
    with queue() as platform:
        config = write_config(tmp_path, platform.endpoint)
        (tmp_path / "spool.db").mkdir()
        process = Process(config)
        assert process.wait() == 1
        assert "Traceback" not in process.stderr
        assert "spool.db: Is a directory" in process.stderr
        assert platform.requests == []
