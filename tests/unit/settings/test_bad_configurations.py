"""Every bad configuration is refused, at the right place, for the right reason, with no secret in it."""

import re
from pathlib import Path

import pytest

from poller.core.errors import BadConfiguration
from poller.settings import load_with_doubts

from .bad_configurations import CANARY, CASES, DOUBTFUL, ENVIRON, Case, lay


def findings(case: Case, folder: Path) -> list[str]:
    try:
        return load_with_doubts(lay(case, folder), ENVIRON)[1]
    except BadConfiguration as error:
        return list(error.findings)


@pytest.mark.parametrize("case", [*CASES, *DOUBTFUL], ids=lambda case: case.name)
def test_a_bad_configuration_is_refused_where_it_is_wrong(case: Case, tmp_path: Path) -> None:
    found = findings(case, tmp_path)
    places = [
        tuple(int(n) for n in line.removeprefix(f"{tmp_path}/poller.yaml:").split(":")[:2]) for line in found
    ]
    assert sorted(places) == sorted((line, column) for line, column, _ in case.expected), found
    for line, column, fragment in case.expected:
        assert any(f":{line}:{column}: " in text and fragment in text for text in found), (fragment, found)


@pytest.mark.parametrize("case", [*CASES, *DOUBTFUL], ids=lambda case: case.name)
def test_a_finding_is_one_line_and_holds_no_secret(case: Case, tmp_path: Path) -> None:
    found = findings(case, tmp_path)
    assert found
    for line in found:
        assert re.fullmatch(rf"{re.escape(str(tmp_path))}/poller\.yaml:\d+:\d+: [^:]+: \S.*", line)
        assert line.isprintable()
        assert CANARY not in line
        assert "hunter2" not in line


def test_there_are_enough_of_them_and_each_has_a_name_of_its_own() -> None:
    assert len({case.name for case in [*CASES, *DOUBTFUL]}) == len(CASES) + len(DOUBTFUL)
    assert len(CASES) >= 110
