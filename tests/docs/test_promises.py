"""The registry of promises is whole: each has tests that are there, and each fault and each bug belongs to one."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from docs.generate.promises import registry
from tests.faults.matrix import MATRIX
from tests.mutation.bugs import BUGS
from tests.names import is_there

ROOT: Final = Path(__file__).parents[2]
PROMISES: Final = registry()


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: str(promise["id"]))
def test_a_promise_has_tests_that_are_there(promise: Mapping[str, Any]) -> None:
    assert promise["promise"]
    assert promise["tests"], "no test"
    assert [test for test in promise["tests"] if not _is_there(test)] == []
    assert set(promise) <= {"id", "promise", "tests", "note", "faults", "bugs"}


def _is_there(test: str) -> bool:
    if test.endswith("/"):
        return any((ROOT / test).rglob("test_*.py"))
    return is_there(test)


def test_the_promises_are_numbered() -> None:
    assert [promise["id"] for promise in PROMISES] == list(range(1, len(PROMISES) + 1))


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("faults", [one.fault for rows in MATRIX.values() for one in rows]),
        ("bugs", [bug.name for bug in BUGS]),
    ],
)
def test_each_fault_and_each_bug_belongs_to_one_promise(what: str, names: list[str]) -> None:
    told = Counter(name for promise in PROMISES for name in promise.get(what, ()))
    assert sorted(set(names) - set(told)) == [], "name it in tests/promises.yaml"
    assert sorted(set(told) - set(names)) == [], "tests/promises.yaml names what is not there"
    assert [name for name, count in told.items() if count > 1] == []
