"""The table of failures of daemons that share a spool: each row names tests that there are."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.names import is_there

PAGE: Final = Path(__file__).parents[2] / "docs/operations/failures-shared.md"
HEAD: Final = ["failure", "what happens", "lost", "comes twice", "shown by"]


def tables() -> list[list[str]]:
    """The lines of all tables on the page, each with its cells."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


ROWS: Final = [row for row in tables() if row != HEAD and set(row) != {"---"}]


def test_every_table_has_the_same_columns() -> None:
    assert tables().count(HEAD) == len(re.findall(r"^\|---", PAGE.read_text(), re.MULTILINE)) >= 4
    assert len(ROWS) >= 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_a_failure_says_what_it_costs_and_names_tests_that_are_there(row: list[str]) -> None:
    assert len(row) == len(HEAD)
    assert all(row)
    named = re.findall(r"`([^`]+)`", row[-1])
    assert named, "no test"
    assert [test for test in named if "::" not in test or not is_there(test)] == []
