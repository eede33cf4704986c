"""The help of every command, as a stranger reads it on a terminal of 80 columns."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from poller.cli.app import command_line
from tests import commands
from tests.commands import Ended


def every(command: Any, *words: str) -> Iterator[tuple[str, ...]]:
    yield words
    for name, one in getattr(command, "commands", {}).items():
        yield from every(one, *words, name)


EVERY = sorted(every(command_line()))


def poller(*words: str) -> Ended:
    return commands.poller(*words, COLUMNS="80")


def help_of(*words: str) -> str:
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", poller(*words, "--help").stdout).split())


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help_is_plain_and_fits_80_columns(words: tuple[str, ...]) -> None:
    shown = poller(*words, "--help")
    assert shown.returncode == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert not re.findall(r"<[a-z]|[{}]|SECONDS|AGE", shown.stdout)
    assert not re.findall(r"\b(owed|told|mend|heed)\b", shown.stdout)


def test_the_argument_is_named_in_usage() -> None:
    assert "poller pause [OPTIONS] SINK Stop" in help_of("pause")


def test_the_help_of_check_states_its_exit_codes_and_the_form_of_a_finding() -> None:
    shown = help_of("check")
    assert "FILE:LINE:COLUMN: SETTING: REASON" in shown
    for code in ("0 the file is good", "2 wrong usage", "78 the file has mistakes"):
        assert code in shown


@pytest.mark.parametrize(
    ("words", "default"),
    [
        (("sandbox",), "no limit"),
        (("sandbox",), "as in --era"),
        (("sandbox",), "0s"),
        (("drain",), "5m"),
        (("demo",), "run until Ctrl-C"),
        (("demo",), "5s"),
        (("dead", "list"), "100"),
        (("run",), "$POLLER_CONFIG, else ./poller.yaml"),
    ],
)
def test_an_option_says_its_default(words: tuple[str, ...], default: str) -> None:
    assert default in re.findall(r"\[default: \(?(.*?)\)?\]", help_of(*words))


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("drain", "--timeout", "soon"), "--timeout"),
        (("dead", "list", "--older-than", "soon"), "--older-than"),
        (("dead", "list", "--newer-than", "soon"), "--newer-than"),
        (("dead", "list", "--older-than", "9999999d"), "--older-than"),
        (("quarantine", "purge", "--newer-than", "9999999d"), "--newer-than"),
        (("spool", "export", "--since", "soon"), "--since"),
        (("spool", "export", "--since", "9999999d"), "--since"),
        (("demo", "--for", "soon"), "--for"),
        (("demo", "--interval", "soon"), "--interval"),
        (("demo", "--interval", "0"), "--interval"),
        (("demo", "--video", "not-there.mp4"), "--video"),
        (("sandbox", "--directory", "poller.yaml"), "--directory"),
        (("sandbox", "--directory", "box", "--video", "not-there.mp4"), "--video"),
        (("sandbox", "--directory", "box", "--retain", "soon"), "--retain"),
        (("sandbox", "--directory", "box", "--clock-offset", "soon"), "--clock-offset"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_value_is_a_usage_error_that_names_its_option(
    words: tuple[str, ...], option: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "poller.yaml").write_text(
        "spool: {type: sqlite, path: spool.db}\nsinks: {console: {type: stdout}}\n"
    )
    monkeypatch.setenv("POLLER_CONFIG", str(tmp_path / "poller.yaml"))
    monkeypatch.chdir(tmp_path)
    shown = poller(*words)
    assert shown.returncode == 2, shown.stderr
    assert option in shown.stderr.partition("Error")[2]
