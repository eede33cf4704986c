"""Which tests a file holds, read from its text: nothing is collected for it, and no process started."""

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from poller import testing

ROOT = Path(__file__).parents[1]


@cache
def found_in(file: str) -> dict[str, bool]:
    """The tests in a file (by its path from the root) as pytest names them, each with whether it is run ordinarily."""
    body = ast.parse((ROOT / file).read_text()).body
    of_the_file = [
        node.value for node in body if isinstance(node, ast.Assign) and _target(node) == "pytestmark"
    ]
    soak = any(map(_is_soak, of_the_file))
    return {name: ordinary and not soak for name, ordinary in _tests(body)}


def is_there(test: str) -> bool:
    """Whether there is such a test, or file of tests; which cases it has only a run can tell."""
    file, _, name = test.partition("[")[0].partition("::")
    return name in found_in(file) if name else (ROOT / file).is_file()


def _tests(body: Sequence[ast.stmt]) -> Iterator[tuple[str, bool]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, not any(map(_is_soak, node.decorator_list))
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            ordinary = not any(map(_is_soak, node.decorator_list))
            yield from ((f"{node.name}::{name}", ordinary and also) for name, also in _tests(node.body))
            yield from ((f"{node.name}::{name}", ordinary) for name in _shipped(node))
        elif isinstance(node, ast.Assign) and _target(node).startswith("Test"):
            yield f"{_target(node)}::runTest", True  # a state machine


def _shipped(node: ast.ClassDef) -> list[str]:
    """What the class has of a contract that is shipped."""
    contracts = [getattr(testing, base.id, None) for base in node.bases if isinstance(base, ast.Name)]
    return [name for contract in contracts for name in dir(contract) if name.startswith("test_")]


def _target(node: ast.Assign) -> str:
    return ast.unparse(node.targets[0])


def _is_soak(mark: ast.expr) -> bool:
    return "pytest.mark.soak" in {ast.unparse(one) for one in getattr(mark, "elts", [mark])}
