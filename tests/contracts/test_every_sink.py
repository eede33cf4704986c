"""Every sink that the package brings is held to the shipped contract, by a class that is named after it."""

import ast
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SINKS = [one for one in entry_points(group="poller.sinks") if one.value.startswith("poller.")]


def contracts() -> Iterator[tuple[str, set[str]]]:
    """The classes that hold something to the contract, and what the file of each imports, as `MODULE:NAME`."""
    for file in TESTS.rglob("test_*.py"):
        if "SinkContract" not in (text := file.read_text()):
            continue
        tree = ast.parse(text)
        imported = {
            f"{node.module}:{name.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for name in node.names
        }
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and "SinkContract" in map(ast.unparse, node.bases):
                yield node.name, imported


@pytest.mark.parametrize("sink", SINKS, ids=lambda sink: sink.name)
def test_a_sink_is_held_to_the_contract(sink: EntryPoint) -> None:
    name = f"Test{sink.value.partition(':')[2]}"
    found = [imported for other, imported in contracts() if other == name]
    assert found, f"no test has a class {name}(SinkContract)"
    assert sink.value in set().union(*found), f"the file of {name} does not import {sink.value}"


def test_the_sinks_that_are_installed_are_those_of_the_documents() -> None:
    """Entry points are read from what is installed: an old installation would hide a new sink."""
    table = (TESTS.parent / "docs" / "guide" / "sinks.md").read_text().partition("## Settings")[0]
    listed = {
        line.split("`")[1] for line in table.splitlines() if line.startswith("| `") and "type" not in line
    }
    assert {sink.name for sink in SINKS} == listed
