"""`check --connect` asks the platform whether each key is right, and takes nothing away."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from poller.qcloud.key_check import Standing, asked
from poller.qcloud.wire.account import Account
from poller.sandbox import Answers, Customer, Load, Options, Sandbox
from poller.settings import AccountSettings
from tests.commands import poller
from tests.patience import patiently
from tests.scenario.environment import town

WRONG = "0" * 32


def found(folder: Path, *, options: dict[str, Any] | None = None, **settings: Any) -> Any:
    async def story() -> Any:
        async with Sandbox(Options(directory=folder, **(options or {}))) as box:
            account = {
                "endpoint": box.endpoints["api"],
                "app_id": Customer().app_id,
                "key": Customer().key,
                **settings,
            }
            async with Account("main", AccountSettings.model_validate(account)) as entered:
                return await asked(entered)

    return asyncio.run(patiently(story()))


@pytest.mark.parametrize(
    ("settings", "standing"),
    [
        ({}, Standing.RIGHT),
        ({"key": WRONG}, Standing.REFUSED),
        ({"app_id": 999}, Standing.REFUSED),
        ({"endpoint": "http://127.0.0.1:9/common_access"}, Standing.UNREACHABLE),
    ],
)
def test_a_key_is_right_or_refused_or_nobody_answers(
    tmp_path: Path, settings: dict[str, Any], standing: Standing
) -> None:
    assert found(tmp_path, **settings).standing is standing


def test_a_wrong_clock_is_no_wrong_key(tmp_path: Path) -> None:
    assert found(tmp_path, options={"clock_offset": 1200.0}).standing is Standing.RIGHT


def test_every_form_of_answer_will_do(tmp_path: Path) -> None:
    for number, form in enumerate(
        ({"ret": "string", "extra": True, "gzip": True}, {"encoding": "utf-16", "pretty": True})
    ):
        options = {"answers": Answers(**form)}  # type: ignore[arg-type]
        assert found(tmp_path / f"right{number}", options=options).standing is Standing.RIGHT
        assert found(tmp_path / f"wrong{number}", options=options, key=WRONG).standing is Standing.REFUSED


def test_the_command_says_it_for_each_account_and_shows_no_key(tmp_path: Path) -> None:
    with town(tmp_path) as place:
        place.ask(lambda: place.sandbox.enqueue(Load(count=50)))
        good = {"endpoint": place.endpoint, "app_id": Customer().app_id, "key": Customer().key}
        config = {
            "accounts": {
                "good": good,
                "wrong": {**good, "key": WRONG},
                "gone": {**good, "endpoint": "http://127.0.0.1:9/x"},
            },
            "sources": {"shots": {"type": "screenshot_queue", "account": "good"}},
            "spool": {"type": "memory"},
            "journal": {"size": "16MiB", "path": str(tmp_path / "journal")},
            "sinks": {"console": {"type": "stdout"}},
        }
        file = tmp_path / "poller.yaml"
        file.write_text(json.dumps(config))
        shown = poller("check", "-c", str(file), "--connect")
        said = shown.stdout + shown.stderr
        assert shown.returncode == 1, said
        assert "account good: the key is right\n" in said
        assert "account wrong: refused: ret 1, sign invalid\n" in said
        assert "account gone: not reachable: cannot connect" in said
        assert WRONG not in said
        assert Customer().key not in said
        assert (place.counts.polls, place.depth) == (0, 50), "nothing was drained"
        del config["accounts"]["wrong"]  # type: ignore[attr-defined]
        file.write_text(json.dumps(config))
        shown = poller("check", "-c", str(file), "--connect")
        assert (shown.returncode, "good\n" in shown.stdout) == (1, False), "nobody was there to ask"
        del config["accounts"]["gone"]  # type: ignore[attr-defined]
        file.write_text(json.dumps(config))
        assert poller("check", "-c", str(file), "--connect").returncode == 0
