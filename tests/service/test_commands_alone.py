"""Commands need the spool's place and the sinks' names: no secret, and no section that is not theirs."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import poller

COMMANDS = (
    ("status",),
    ("pause", "hook"),
    ("dead", "retry", "--all"),
    ("spool", "check"),
    ("spool", "export"),
)


def settings(folder: Path) -> dict[str, Any]:
    return {
        "accounts": {"main": {"app_id": 1234, "key": "k" * 32}},
        "sources": {"shots": {"type": "screenshot_queue", "account": "main"}},
        "spool": {"type": "sqlite", "path": str(folder / "spool.db")},
        "journal": {"size": "16MiB"},
        "sinks": {"hook": {"type": "webhook", "url": "https://example.com/"}},
    }


def written(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "poller.yaml").write_text(json.dumps(content))
    return folder / "poller.yaml"


def with_a_spool(folder: Path) -> None:
    poller("drain", "--timeout", "1ms", "-c", str(written(folder, settings(folder))), folder=folder)
    assert (folder / "spool.db").exists()


BROKEN: dict[str, dict[str, Any]] = {
    "a key's file is missing": {"accounts": {"main": {"app_id": 1, "key_file": "/run/credentials/x/key"}}},
    "a key's variable is not set": {"accounts": {"main": {"app_id": 1, "key": "${NOT_SET_ANYWHERE}"}}},
    "an account is nonsense": {"accounts": {"main": {"nonsense": 1}}},
    "there are no accounts": {"accounts": None},
    "a sink's secret is missing": {
        "sinks": {
            "hook": {"type": "webhook", "url": "https://example.com/", "secret_file": "/run/credentials/x"}
        }
    },
    "a sink's address is bad": {"sinks": {"hook": {"type": "webhook", "url": "nowhere"}}},
    "a sink's plug-in is missing": {"sinks": {"hook": {"type": "unheard-of"}}},
    "a source is bad": {"sources": {"shots": {"type": "screenshot_queue", "account": "other", "count": -1}}},
    "the admin port is bad": {"admin": {"listen": "0.0.0.0:1", "token_file": "/run/credentials/x/token"}},
    "the log's level is bad": {"log": {"level": "loud"}},
    "an unknown section": {"surprise": {"a": 1}},
}


@pytest.mark.parametrize("what", BROKEN)
def test_commands_run_on_a_stopped_daemons_spool_although_something_else_is_wrong(
    tmp_path: Path, what: str
) -> None:
    with_a_spool(tmp_path)
    config = written(tmp_path, {**settings(tmp_path), **BROKEN[what]})
    assert poller("check", "-c", str(config), folder=tmp_path).returncode == 78
    some = COMMANDS if what == "a key's file is missing" else ()
    for words in some:
        shown = poller(*words, "-c", str(config), folder=tmp_path)
        assert "poller.yaml:" not in shown.stderr, (words, shown.stderr)
        assert "Traceback" not in shown.stderr
        assert shown.returncode in (0, 1), (words, shown.stderr)
    status = json.loads(poller("status", "--json", "-c", str(config), folder=tmp_path).stdout)
    assert [sink["name"] for sink in status["sinks"]] == ["hook"]


def test_the_documented_salvage_runs_without_the_services_credentials(tmp_path: Path) -> None:
    with_a_spool(tmp_path)
    (tmp_path / "spool.db").rename(tmp_path / "spool.db.corrupt-1")
    config = written(tmp_path, {**settings(tmp_path), **BROKEN["a key's file is missing"]})
    shown = poller("spool", "salvage", "spool.db.corrupt-1", "-c", str(config), folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "will be delivered" in shown.stdout


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("spool", {"type": "sqlite"}),
        ("spool", None),
        ("sinks", {"hook": {"type": "webhook", "order": "any"}}),
    ],
)
def test_what_a_command_needs_must_be_right(tmp_path: Path, section: str, value: Any) -> None:
    config = written(tmp_path, {**settings(tmp_path), section: value})
    shown = poller("status", "-c", str(config), folder=tmp_path)
    assert (shown.returncode, section in shown.stderr) == (78, True)


# ---------------------------------------------------------------- which file


def test_without_an_option_the_variables_file_or_the_folders_is_read_and_named(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    written(tmp_path / "here", settings(tmp_path))
    other = written(tmp_path, settings(tmp_path))
    here = poller("check", folder=tmp_path / "here")
    assert (here.returncode, here.stdout) == (0, "poller.yaml: good\n")
    assert here.stderr == "configuration: poller.yaml (from the current folder)\n"
    named = poller("check", folder=tmp_path / "here", POLLER_CONFIG=str(other))
    assert named.stdout == f"{other}: good\n"
    assert named.stderr == f"configuration: {other} (from POLLER_CONFIG)\n"
    given = poller("check", "-c", str(other), folder=tmp_path / "here", POLLER_CONFIG="elsewhere.yaml")
    assert (given.stdout, given.stderr) == (f"{other}: good\n", "")


def test_without_any_configuration_it_is_a_usage_error_that_says_what_to_do(tmp_path: Path) -> None:
    for words in (("run",), ("status",), ("spool", "check")):
        shown = poller(*words, folder=tmp_path)
        assert shown.returncode == 2
        assert "POLLER_CONFIG" in shown.stderr
