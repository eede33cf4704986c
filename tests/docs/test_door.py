"""What contributors and machines call exists: the workflows' commands, the hooks, the fragments' kinds."""

import os
import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
FORMS = [*sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.y*ml")), ROOT / ".pre-commit-config.yaml"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RECIPES = set(
    re.findall(r"^([a-z][a-z-]*)(?: [^:=\n]*)?:(?!=)", (ROOT / "justfile").read_text(), re.MULTILINE)
)
CALLS = re.compile(r"(?:\bjust|\"\$just\") ([a-z][a-z-]*)")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def commands(workflow: Path) -> list[str]:
    jobs = read(workflow)["jobs"].values()
    return [step["run"] for step in chain.from_iterable(job["steps"] for job in jobs) if "run" in step]


def test_the_five_commands_are_there() -> None:
    assert {"test", "test-all", "soak", "lint", "docs"} <= RECIPES


def test_there_is_a_workflow_for_every_push_the_whole_gate_the_night_and_the_documents() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "full", "push", "soak"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_only_what_people_run_too(workflow: Path) -> None:
    found = read(workflow)
    assert found["permissions"] == {"contents": "read"}
    assert True in found, "YAML reads the key `on` as true"
    assert all(job["timeout-minutes"] <= 360 for job in found["jobs"].values())
    for command in commands(workflow):
        called = CALLS.findall(command)
        scripts = re.findall(r"(?<!\S)\.ci/\S+", command)
        assert called or scripts, command
        assert set(called) <= RECIPES, command
        assert all(os.access(ROOT / script, os.X_OK) for script in scripts), command


def test_the_unit_tests_run_with_every_supported_python() -> None:
    matrix = read(ROOT / ".github" / "workflows" / "push.yaml")["jobs"]["unit"]["strategy"]["matrix"][
        "python"
    ]
    assert matrix[0] == PROJECT["project"]["requires-python"].removeprefix(">=")
    assert matrix == ["3.11", "3.12", "3.13", "3.14"]


@pytest.mark.parametrize("path", [".ci/run", "CONTRIBUTING.md", "changes/README.md"])
def test_the_commands_that_are_named_exist(path: str) -> None:
    called = CALLS.findall((ROOT / path).read_text())
    assert called
    assert set(called) <= RECIPES


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.name)
def test_forms_and_hooks_can_be_read(form: Path) -> None:
    assert read(form)


def test_the_hooks_need_nothing_from_outside() -> None:
    assert [repo["repo"] for repo in read(ROOT / ".pre-commit-config.yaml")["repos"]] == ["local"]


def test_every_fragment_of_the_changelog_is_of_a_kind_that_is_shown() -> None:
    kinds = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}
    names = {path.name for path in (ROOT / "changes").iterdir()} - set(PROJECT["tool"]["towncrier"]["ignore"])
    assert {
        name for name in names if name.split(".")[1:-1] == [] or name.split(".")[-2] not in kinds
    } == set()
    assert PROJECT["tool"]["towncrier"]["start_string"] in (ROOT / "CHANGELOG.md").read_text()
