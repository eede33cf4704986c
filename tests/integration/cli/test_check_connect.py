"""`check --connect` asks the platform whether each key is right, and takes nothing away."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from poller.qcloud.key_check import KeyState, check_key
from poller.qcloud.wire.account import Account
from poller.sandbox import Answers, Customer, Load, Options, Sandbox
from poller.settings import AccountSettings
from tests.commands import poller
from tests.patience import patiently
from tests.scenario.environment import environment

WRONG = "0" * 32


def found(folder: Path, *, options: dict[str, Any] | None = None, **settings: Any) -> Any:
    async def scenario() -> Any:
        async with Sandbox(Options(directory=folder, **(options or {}))) as box:
            account = {
                "endpoint": box.endpoints["api"],
                "app_id": Customer().app_id,
                "key": Customer().key,
                **settings,
            }
            async with Account("main", AccountSettings.model_validate(account)) as entered:
                return await check_key(entered)

    return asyncio.run(patiently(scenario()))


@pytest.mark.parametrize(
    ("settings", "state"),
    [
        ({}, KeyState.RIGHT),
        ({"key": WRONG}, KeyState.REFUSED),
        ({"app_id": 999}, KeyState.REFUSED),
        ({"endpoint": "http://127.0.0.1:9/common_access"}, KeyState.UNREACHABLE),
    ],
)
def test_a_key_is_right_or_refused_or_nobody_answers(
    tmp_path: Path, settings: dict[str, Any], state: KeyState
) -> None:
    assert found(tmp_path, **settings).state is state


def test_a_wrong_clock_is_no_wrong_key(tmp_path: Path) -> None:
    assert found(tmp_path, options={"clock_offset": 1200.0}).state is KeyState.RIGHT


def test_every_form_of_answer_will_do(tmp_path: Path) -> None:
    for number, form in enumerate(
        ({"ret": "string", "extra": True, "gzip": True}, {"encoding": "utf-16", "pretty": True})
    ):
        options = {"answers": Answers(**form)}  # type: ignore[arg-type]
        assert found(tmp_path / f"right{number}", options=options).state is KeyState.RIGHT
        assert found(tmp_path / f"wrong{number}", options=options, key=WRONG).state is KeyState.REFUSED


def test_the_command_says_it_for_each_account_and_shows_no_key(tmp_path: Path) -> None:
    with environment(tmp_path) as place:
        place.ask(lambda: place.sandbox.enqueue(Load(count=50)))
        good = {"endpoint": place.endpoint, "app_id": Customer().app_id, "key": Customer().key}
        config = {
            "accounts": {
                "good": good,
                "wrong": {**good, "key": WRONG},
                "gone": {**good, "endpoint": "http://127.0.0.1:9/x"},
            },
            **_parts(tmp_path),
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
        del config["accounts"]["wrong"]
        file.write_text(json.dumps(config))
        shown = poller("check", "-c", str(file), "--connect")
        assert (shown.returncode, "good\n" in shown.stdout) == (1, False), "nobody was there to ask"
        del config["accounts"]["gone"]
        file.write_text(json.dumps(config))
        assert poller("check", "-c", str(file), "--connect").returncode == 0


def _parts(folder: Path) -> dict[str, Any]:
    """A configuration without its accounts; the source belongs to the account `good`."""
    return {
        "sources": {"shots": {"type": "screenshot_queue", "account": "good"}},
        "spool": {"type": "memory"},
        "journal": {"size": "16MiB", "path": str(folder / "journal")},
        "sinks": {"console": {"type": "stdout"}},
    }


def test_the_command_says_whether_a_bucket_can_be_listed_and_shows_no_key(tmp_path: Path) -> None:
    with environment(tmp_path) as place:
        cos = {
            "base_url": place.pictures,
            "endpoint": place.pictures,
            "secret_id": Customer().secret_id,
            "secret_key": Customer().secret_key,
        }
        good = {"endpoint": place.endpoint, "app_id": Customer().app_id, "key": Customer().key, "cos": cos}
        config: dict[str, Any] = {
            "accounts": {"good": good, "wrong": {**good, "cos": {**cos, "secret_key": WRONG}}},
            **_parts(tmp_path),
        }
        file = tmp_path / "poller.yaml"
        file.write_text(json.dumps(config))
        shown = poller("check", "-c", str(file), "--connect")
        said = shown.stdout + shown.stderr
        assert shown.returncode == 1, said
        assert "account good: the bucket can be listed\n" in said
        assert "account wrong: the bucket cannot be listed: 127.0.0.1: HTTP 403 SignatureDoesNotMatch" in said
        assert WRONG not in said
        del config["accounts"]["wrong"]
        file.write_text(json.dumps(config))
        assert poller("check", "-c", str(file), "--connect").returncode == 0
