"""The fault matrix is whole: every test that it names is run, and every fault of the sandbox is in it."""

from collections import Counter
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from poller.sandbox import API_FAULTS, CALLBACK_FAULTS, COS_FAULTS, QUERY_FAULTS, UPLOAD_FAULTS
from tests.names import found_in

from .brokers import CELLS, FAULTS
from .matrix import MATRIX, NOT_APPLICABLE
from .row import Row

TESTS = Path(__file__).parents[1]
ROWS = [one for rows in MATRIX.values() for one in rows]
TABLES = {
    "api": API_FAULTS,
    "query": QUERY_FAULTS,
    "cos": COS_FAULTS,
    "upload": UPLOAD_FAULTS,
    "callback": CALLBACK_FAULTS,
}


def run_ordinarily(test: str) -> bool:
    """Whether there is this test, and a run without --soak has it."""
    file, _, name = test.partition("::")
    return found_in(f"{TESTS.name}/{file}").get(name, False)


@pytest.mark.parametrize("one", ROWS, ids=lambda one: one.fault)
def test_every_row_names_tests_that_are_run_and_says_by_what_it_is_known_that_the_fault_came(
    one: Row,
) -> None:
    assert one.tests, "no test"
    assert one.promise
    assert one.fired
    assert len(set(one.tests)) == len(one.tests)
    assert [test for test in one.tests if not run_ordinarily(test)] == []


def test_every_fault_of_the_sandbox_is_in_one_row_or_is_said_not_to_apply() -> None:
    known = {f"{table}:{name}" for table, faults in TABLES.items() for name in faults}
    named = Counter(fault for one in ROWS for fault in one.sandbox)
    assert set(named) | set(NOT_APPLICABLE) == known
    assert set(named.values()) == {1}
    assert not set(named) & set(NOT_APPLICABLE)
    assert all(NOT_APPLICABLE.values())


def test_a_test_of_one_of_the_sandboxes_faults_looks_at_whether_it_fired() -> None:
    """By the sandbox's own count."""
    for one in ROWS:
        if one.sandbox:
            files = {test.partition("::")[0] for test in one.tests}
            assert any("fired" in (TESTS / file).read_text() for file in files), one.fault


def test_every_sink_has_a_row_for_every_way_in_which_its_other_side_fails() -> None:
    sinks = {one.name for one in entry_points(group="poller.sinks") if one.value.startswith("poller.")}
    assert set(CELLS) == sinks - {"stdout", "webhook", "download"}, "those have tables of their own"
    assert {sink: tuple(cells) for sink, cells in CELLS.items()} == dict.fromkeys(CELLS, FAULTS)


def test_no_fault_has_two_rows() -> None:
    assert len({one.fault for one in ROWS}) == len(ROWS)
