"""Options of the whole test run."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests import lives

TESTS = Path(__file__).parent
SLOW = ("scenario", "service", "power", "browser", "observability")
"""Folders of tests that start a daemon each."""

# How long an example takes says nothing on a machine that others use too.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", action="store_true", help="full counts: half an hour of kills, cuts and faults"
    )
    parser.addoption(
        "--soak-minutes", type=float, default=5.0, help="how long random faults go on with --soak"
    )
    parser.addoption(
        "--pictures", action="store_true", help="write the documents' pictures of the pages anew"
    )
    parser.addoption("--fault-seed", type=int, default=None, help="repeat a run of random faults by its seed")


def pytest_xdist_auto_num_workers() -> int:
    """Five workers for two cores: most of a scenario is waiting, for syncs, for retries and for other processes."""
    return max(2, 5 * len(os.sched_getaffinity(0)) // 2)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (worker := getattr(config, "workerinput", None)) is not None:
        items[:] = _dealt(items, worker["workercount"])
    if config.getoption("--soak"):
        return
    skip = pytest.mark.skip(reason="full counts only: --soak")
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(skip)


def _dealt(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """In equal parts, as workers get them at first, with what takes long at the head of each.

    Idle workers take what is left at the end of another's part, which is quick then.
    """
    slow = [item for item in items if item.path.relative_to(TESTS).parts[0] in SLOW]
    quick = [item for item in items if item.path.relative_to(TESTS).parts[0] not in SLOW]
    dealt: list[pytest.Item] = []
    for number in range(workers):
        size = (len(items) - len(dealt)) // (workers - number)
        own = slow[number::workers]
        rest = max(0, size - len(own))
        dealt += [*own, *quick[:rest]]
        del quick[:rest]
    return dealt + quick


def pytest_sessionfinish() -> None:
    lives.end()


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether the full counts are asked for."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture
def minutes(soak: bool) -> None:
    """For tests that install from scratch."""
    if not (soak or os.environ.get("CI") == "true"):
        pytest.skip("installs from scratch for minutes: with --soak, or where CI=true")


@pytest.fixture(autouse=True)
def _no_log_of_another_test() -> Iterator[None]:
    """A command that was run in this process has bound the log to a stream that is closed by now."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def fault_seconds(request: pytest.FixtureRequest, soak: bool) -> float:
    """How long random faults go on."""
    return float(request.config.getoption("--soak-minutes")) * 60 if soak else 6.0


@pytest.fixture(scope="session")
def fault_seed(request: pytest.FixtureRequest) -> int:
    """By what random faults are chosen."""
    given = request.config.getoption("--fault-seed")
    return random.randrange(10**6) if given is None else int(given)
