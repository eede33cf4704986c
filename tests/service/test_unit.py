"""The unit `systemd/poller.service`: understood by systemd, closed to the rest, in step with the code."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from poller.cli.common import Exit
from poller.daemon.components import GRACE
from poller.operations.health import SILENT_FOR
from poller.pipeline.intake import BEAT
from poller.pipeline.pace import LONGEST_FAILURE_DELAY
from poller.qcloud.wire.client import Deadlines

from ..integration.sinks.download.shots import jpeg
from .running import daemon, notifications, queue, tool, until, write_config
from .walls import MDWE, ROOT, SET, UNIT, allowed, analyze, calls

USERS: Final = ROOT / "systemd" / "poller.sysusers"
PROGRAM: Final = "/opt/poller/bin/poller"
EXPOSURE: Final = 15
"""In the tool's own units, tenths: 1.5."""


def seconds(name: str) -> float:
    (value,) = SET[name]
    assert re.fullmatch(r"[0-9]+s", value), f"{name}={value}: say it in seconds"
    return float(value[:-1])


def copied(tmp_path: Path, *more: str) -> str:
    """The unit with a program that is there, and more lines for its service."""
    file = tmp_path / UNIT.name
    text = UNIT.read_text().replace(f"={PROGRAM} ", f"={sys.executable} ")
    file.write_text(text.replace("[Install]", "\n".join([*more, "[Install]"])))
    return str(file)


# ---------------------------------------------------------------- what systemd thinks of it


def test_systemd_has_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    done = analyze("verify", "--man=no", copied(tmp_path))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize("line", ["Frobnicate=yes", "RestartSec=soon", "ProtectSystem=strikt"])
def test_the_check_of_the_unit_sees_mistakes(tmp_path: Path, line: str) -> None:
    done = analyze("verify", "--man=no", copied(tmp_path, line))
    assert UNIT.name in done.stdout + done.stderr


def exposure(file: str) -> tuple[int, str]:
    done = analyze("security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager", file)
    return done.returncode, done.stdout


def test_the_exposure_is_at_most_one_and_a_half(tmp_path: Path) -> None:
    code, text = exposure(copied(tmp_path))
    assert code == 0, text
    found = re.search(r"exposure level for poller\.service: ([0-9.]+)", text)
    assert found is not None
    assert 0 < float(found.group(1)) <= EXPOSURE / 10


def test_the_measure_of_exposure_sees_what_is_opened(tmp_path: Path) -> None:
    opened = ("CapabilityBoundingSet=CAP_SYS_ADMIN", "ProtectSystem=no", "User=root")
    code, text = exposure(copied(tmp_path, *opened))
    assert code != 0, text


def test_systemd_understands_the_user_that_the_unit_runs_as() -> None:
    command = [tool("systemd-sysusers"), "--dry-run", str(USERS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    if "already exists" not in done.stderr:
        assert f"Creating user '{SET['User'][0]}'" in done.stderr, done.stderr


# ---------------------------------------------------------------- in step with the code


def test_the_clocks_are_in_order() -> None:
    limits = Deadlines()
    order = [
        limits.connect,
        limits.progress,
        limits.whole,
        seconds("TimeoutStopSec"),
        seconds("WatchdogSec"),
    ]
    assert order == [5.0, 30.0, 60.0, 90.0, 180.0]


def test_the_sinks_grace_and_a_poll_both_end_well_before_the_service_manager_kills() -> None:
    assert max(GRACE, Deadlines().whole) + 20 <= seconds("TimeoutStopSec")


def test_a_source_that_fails_as_slowly_as_can_be_is_not_taken_for_a_hang() -> None:
    assert Deadlines().whole + LONGEST_FAILURE_DELAY + BEAT < seconds("WatchdogSec")
    assert seconds("WatchdogSec") >= SILENT_FOR


def test_what_does_not_get_better_by_itself_is_not_tried_again() -> None:
    assert SET["Restart"] == ["on-failure"]
    assert set(SET["RestartPreventExitStatus"][0].split()) == {
        str(int(Exit.BAD_CONFIGURATION)),
        str(int(Exit.USAGE)),
    }
    # RestartPreventExitStatus= looks at the main process alone: a check before it would loop.
    assert "ExecStartPre" not in SET


def test_the_command_of_the_unit_is_one_that_the_program_knows(tmp_path: Path) -> None:
    (command,) = SET["ExecStart"]
    program, *words = command.split()
    assert program == PROGRAM
    config = words.pop()
    assert config == "/etc/poller/poller.yaml"
    call = [sys.executable, "-m", "poller", *words, str(tmp_path / "nowhere.yaml")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == Exit.BAD_CONFIGURATION, done.stderr


def test_the_example_reads_its_secrets_where_the_unit_puts_them() -> None:
    credentials = re.findall(r"^#?LoadCredential=([a-z_]+):", UNIT.read_text(), re.MULTILINE)
    example = (ROOT / "config.example.yaml").read_text()
    read = set(re.findall(r"/run/credentials/poller\.service/([a-z_]+)", example))
    assert read == set(credentials)
    assert "live_key" in SET["LoadCredential"][0]


def test_the_example_writes_only_where_the_unit_lets_it() -> None:
    example = (ROOT / "config.example.yaml").read_text()
    named = re.findall(r"^\s*#?(?:path|directory): (\S+)", example, re.MULTILINE)
    written = [path for path in named if path != "/${CALLBACKS_PATH}"]
    assert len(written) == 3
    assert SET["StateDirectory"] == ["poller"]
    assert all(path.startswith("/var/lib/poller/") for path in written)


def openings() -> list[str]:
    """The lines that the guide offers to commands of a sink `exec`."""
    _, _, text = (ROOT / "docs/guide/service.md").read_text().partition("\n| a command that | needs |\n")
    rows = text.partition("\n\n")[0].splitlines()[1:]
    return [line for row in rows for line in re.findall(r"`([A-Za-z]+=[^`]+)`", row.split(" | ")[-1])]


@pytest.mark.parametrize("line", openings())
def test_systemd_understands_each_line_that_the_guide_offers_and_the_unit_lacks_it(
    tmp_path: Path, line: str
) -> None:
    done = analyze("verify", "--man=no", copied(tmp_path, line))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    name, _, value = line.partition("=")
    if name == "SystemCallFilter":
        assert calls(value) - allowed()
        assert not calls(value) - allowed(line.removeprefix("SystemCallFilter="))
    else:
        assert value not in " ".join(SET[name]).split()


# ---------------------------------------------------------------- the daemon inside such walls


def test_the_daemon_needs_no_memory_that_is_both_written_and_executed(tmp_path: Path) -> None:
    assert SET["MemoryDenyWriteExecute"] == ["yes"]
    known = subprocess.run([sys.executable, "-c", MDWE, sys.executable, "-c", ""], timeout=60, check=False)
    if known.returncode == 77:
        pytest.skip("this kernel is older than PR_SET_MDWE (6.3)")
    with queue() as platform:
        platform.give = 3
        config = write_config(tmp_path, platform.endpoint)
        with daemon(config, sys.executable, "-c", MDWE) as process:
            until(lambda: process.stdout.count("\n") >= 6)
            assert process.stop() == 0, process.stderr


def test_every_system_call_of_the_daemon_is_one_that_the_unit_allows(tmp_path: Path) -> None:
    trace, pictures = tmp_path / "trace", tmp_path / "pictures"
    with queue() as platform, notifications() as service_manager:
        platform.give, platform.picture = 3, jpeg()
        config = write_config(tmp_path, platform.endpoint)
        base = platform.endpoint.removesuffix("common_access")
        content = json.loads(config.read_text())
        content["accounts"]["main"]["cos"] = {"base_url": base}
        content["admin"] = {"listen": "127.0.0.1:0"}
        content["sinks"] |= {
            "archive": {"type": "download", "directory": str(pictures), "allow_cidr": ["127.0.0.1"]},
            "hook": {"type": "webhook", "url": f"{base}hook", "allow_cidr": ["127.0.0.1"]},
        }
        config.write_text(json.dumps(content))
        environ = {"NOTIFY_SOCKET": service_manager.address, "WATCHDOG_USEC": "1000000"}
        with daemon(
            config, tool("strace"), "-f", "-qq", "-o", str(trace), forked=False, **environ
        ) as process:
            until(lambda: process.stdout.count("\n") >= 6 and platform.posts >= 6)
            until(lambda: any(pictures.rglob("s*.jpg")))
            tracer = process.child.pid
            (child,) = Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split()
            os.kill(int(child), signal.SIGTERM)
            assert process.wait() == 0, process.stderr
    used = set(re.findall(r"^[0-9]+ +([a-z_0-9]+)\(", trace.read_text(), re.MULTILINE))
    assert {"fdatasync", "connect"} <= used, "nothing was traced"
    if os.geteuid() == 0:
        used.discard("fchown")  # SQLite hands its files to the database's owner, as root only
    assert sorted(used - allowed()) == []


def test_a_reload_checks_the_file_before_it_signals() -> None:
    check, signal_it = SET["ExecReload"]
    start = SET["ExecStart"][0]
    assert check == start.replace(" run ", " check ")
    assert signal_it == "/bin/kill -HUP $MAINPID"
