"""What commands say where there is nothing, where a name is unknown, and where something is left to do."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from poller.cli.tables import safe
from tests.commands import poller

from .running import queue, write_config
from .test_commands_alone import settings, with_a_spool, written


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("dead", "list"), 0, "no dead letters\n"),
        (("dead", "list", "--stream", "x"), 0, "no dead letters that match\n"),
        (("dead", "show", "abc"), 1, "no dead letters that match\n"),
        (("dead", "retry", "--all"), 1, "no dead letters\n"),
        (("quarantine", "list"), 0, "no rejects in quarantine\n"),
        (("quarantine", "purge", "--all"), 1, "no rejects in quarantine\n"),
        (("dead", "list", "--sink", "hok"), 1, "poller: no sink hok is configured; there are: hook\n"),
        (("dead", "purge", "--sink", "hok"), 1, "poller: no sink hok is configured; there are: hook\n"),
        (("pause", "hok"), 1, "poller: no sink hok is configured; there are: hook\n"),
        (("quarantine", "list", "--source", "x"), 1, "poller: no source x is configured; there are: shots\n"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else "",
)
def test_nothing_there_and_an_unknown_name_are_different_answers(
    tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    with_a_spool(tmp_path)
    shown = poller(*words, "-c", str(written(tmp_path, settings(tmp_path))), folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (code, said)


def test_a_drain_that_fails_says_what_is_left_and_why(tmp_path: Path) -> None:
    with queue() as platform:
        platform.give = 1  # it never ends
        config = write_config(tmp_path, platform.endpoint)
        endless = poller("drain", "--timeout", "2s", "-c", str(config), folder=tmp_path)
        assert endless.returncode == 1
        (line,) = [line for line in endless.stderr.splitlines() if "drain_failed" in line]
        reason = json.loads(line)["reason"]
        assert reason.startswith("not done within 2 s; source screenshots: its queue was not seen empty")


# ---------------------------------------------------------------- a terminal


def test_what_could_steer_a_terminal_is_escaped_in_json_and_stays_the_same_json() -> None:
    hostile = "a\x9bb\u202ec\u200bd\x7fe\U000e0001f\u2066"
    shown = safe(json.dumps({"x": hostile}, ensure_ascii=False))
    assert json.loads(shown) == {"x": hostile}
    assert shown.isascii()
    assert safe("中文 é") == "中文 é"


def test_json_on_a_terminal_holds_no_control_characters_and_a_pipe_gets_it_as_it_is(tmp_path: Path) -> None:
    with_a_spool(tmp_path)
    folder = tmp_path / "a\x9b\u202eb"
    folder.mkdir()
    (tmp_path / "spool.db").rename(folder / "spool.db")
    config = written(tmp_path, settings(folder))
    command = [sys.executable, "-m", "poller", "status", "--json", "-c", str(config)]
    piped = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "\u202e" in piped
    main, side = pty.openpty()
    subprocess.run(command, stdout=side, timeout=60, check=True)
    os.close(side)
    text = b""
    while b"\n" not in text:
        text += os.read(main, 65536)
    os.close(main)
    assert json.loads(text)["spool"]["path"] == json.loads(piped)["spool"]["path"]
    assert "\u202e" not in text.decode()
    assert "\x9b" not in text.decode()
