"""The options of `poller sandbox` are the settings of the sandbox, by name and by default.

They are written down twice, because the help must work without PyAV.
"""

import dataclasses
from pathlib import Path

from poller.cli.app import command_line
from poller.cli.sandbox import OPTIONS, _settings, import_sandbox
from poller.sandbox import Answers, Options


def settings_of(*words: str) -> Options:
    command = command_line().commands["sandbox"]
    options: Options = _settings(import_sandbox(), **command.make_context("sandbox", list(words)).params)
    return options


def test_without_options_the_sandbox_has_its_own_defaults(tmp_path: Path) -> None:
    """People get a few streams and the answers of their era; tests start with none, and with the first document's."""
    found = settings_of("--directory", str(tmp_path))
    assert found.streams > 0
    assert dataclasses.replace(found, streams=0, answers=Answers()) == Options(directory=tmp_path)


def test_each_option_is_a_setting_of_the_sandbox() -> None:
    combined = {"era", "empty", "answer"}  # these make `answers` and `naming`
    named = {one.name for one in OPTIONS} - combined
    assert named <= {one.name for one in dataclasses.fields(Options)}
