"""What a changed configuration file changes in a running daemon: only that."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from poller.daemon.reload import AdapterChanges, ReloadPlan, plan
from poller.settings import load

KEY = "5d41402abc4b2a76b9719d911017c592"
NOTHING = AdapterChanges()
Change = Callable[[dict[str, Any], Path], object]


def configuration(folder: Path) -> dict[str, Any]:
    (folder / "hook_secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    (folder / "ca.pem").write_text("one authority")
    (folder / "cos_key").write_text("zQ7mWn4vXkE2cLsB9dYr")
    listed = {"region": "ap-shanghai", "secret_id": "AKID1", "secret_key_file": str(folder / "cos_key")}
    return {
        "accounts": {
            "main": {"app_id": 1, "key": KEY, "cos": {"bucket": "shots", "app_id": 1, **listed}},
            "other": {"app_id": 2, "key": KEY, "cos": {"bucket": "shots", "app_id": 2}},
        },
        "sources": {
            "shots": {"type": "screenshot_queue", "account": "main"},
            "more": {"type": "screenshot_queue", "account": "other"},
        },
        "spool": {"type": "sqlite", "path": "spool.db"},
        "sinks": {
            "console": {"type": "stdout"},
            "hook": {
                "type": "webhook",
                "url": "https://hooks.example.com/",
                "secret_file": str(folder / "hook_secret"),
                "tls": {"ca_file": str(folder / "ca.pem")},
            },
        },
    }


def planned(folder: Path, change: Change) -> ReloadPlan:
    file, before = folder / "poller.yaml", configuration(folder)
    file.write_text(json.dumps(before))
    old = load(file)
    after = deepcopy(before)
    change(after, folder)
    file.write_text(json.dumps(after))
    return plan(old, load(file))


CHANGES: dict[str, tuple[Change, ReloadPlan]] = {
    "nothing": (lambda new, folder: None, ReloadPlan(sources=NOTHING, sinks=NOTHING)),
    "a default that is written out": (
        lambda new, folder: new["sources"]["shots"].update(max_delay="5s"),
        ReloadPlan(sources=NOTHING, sinks=NOTHING),
    ),
    "a source's pace": (
        lambda new, folder: new["sources"]["shots"].update(max_delay="7s"),
        ReloadPlan(sources=AdapterChanges(restart=("shots",)), sinks=NOTHING),
    ),
    "a new sink": (
        lambda new, folder: new["sinks"].update(archive={"type": "download", "directory": "pictures"}),
        ReloadPlan(sources=NOTHING, sinks=AdapterChanges(start=("archive",))),
    ),
    "a sink that left": (
        lambda new, folder: new["sinks"].pop("console"),
        ReloadPlan(sources=NOTHING, sinks=AdapterChanges(stop=("console",))),
    ),
    "a secret behind the same path": (
        lambda new, folder: (folder / "hook_secret").write_text("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
        ReloadPlan(sources=NOTHING, sinks=AdapterChanges(restart=("hook",))),
    ),
    "a renewed certificate behind the same path": (
        lambda new, folder: (folder / "ca.pem").write_text("its successor"),
        ReloadPlan(sources=NOTHING, sinks=AdapterChanges(restart=("hook",))),
    ),
    "an account's key": (
        lambda new, folder: new["accounts"]["other"].update(key=KEY[::-1]),
        ReloadPlan(
            sources=AdapterChanges(restart=("more",)),
            sinks=AdapterChanges(restart=("console", "hook")),
            accounts=("other",),
        ),
    ),
    "the key of a bucket behind the same path": (
        lambda new, folder: (folder / "cos_key").write_text("its successor"),
        ReloadPlan(
            sources=AdapterChanges(restart=("shots",)),
            sinks=AdapterChanges(restart=("console", "hook")),
            accounts=("main",),
        ),
    ),
    "another kind of sink under the same name": (
        lambda new, folder: new["sinks"].update(hook={"type": "stdout"}),
        ReloadPlan(sources=NOTHING, sinks=AdapterChanges(restart=("hook",))),
    ),
    "what only a restart heeds": (
        lambda new, folder: new.update(
            spool={"type": "sqlite", "path": "other.db"},
            journal={"size": "32MiB"},
            admin={"listen": "127.0.0.1:9464"},
            log={"level": "debug"},
            tracing={"otlp": "http://127.0.0.1:4318"},
        ),
        ReloadPlan(
            sources=NOTHING, sinks=NOTHING, needs_restart=("spool", "journal", "admin", "log", "tracing")
        ),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_only_what_changed_is_touched(tmp_path: Path, name: str) -> None:
    change, expected = CHANGES[name]
    found = planned(tmp_path, change)
    assert found == expected
    assert found.empty == (expected == ReloadPlan(sources=NOTHING, sinks=NOTHING))


def test_the_plan_is_reported_in_a_line_for_each_change_without_a_value(tmp_path: Path) -> None:
    def change(new: dict[str, Any], folder: Path) -> None:
        new["accounts"]["other"]["key"] = "9f86d081884c7d659a2feaa0c55ad015"
        del new["sinks"]["console"]
        new["sinks"]["second"] = {"type": "stdout"}
        new["journal"] = {"size": "32MiB"}

    lines = planned(tmp_path, change).lines()
    assert lines == [
        "account other: changed",
        "source more: restart",
        "sink second: start",
        "sink hook: restart",
        "sink console: stop",
        "journal: changed, needs a restart of the daemon",
    ]
