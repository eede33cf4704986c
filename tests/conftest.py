"""Options of the whole test run."""

import gc
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests import lives
from tests.servers import guard, used
from tests.shared import shared_folder

TESTS = Path(__file__).parent
SLOW = ("scenario", "service", "power", "browser", "observability")
"""Folders of tests that start a daemon each."""
SERVERS = TESTS / "servers"
BROWSER = TESTS / "browser"

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
    """Seven workers for two cores: most of a scenario is waiting, for syncs, for retries and for other processes.

    With six the cores rest for some minutes, with eight daemons wait for them.
    """
    return max(2, 7 * len(os.sched_getaffinity(0)) // 2)


# To collect makes a million objects that all stay: nothing is found among them, however often it is looked for.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    # Whatever the environment says: each of hundreds of processes would compile the program by itself.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if whole and config.getoption("numprocesses") and not hasattr(config, "workerinput"):
        _compile_tests()


def _compile_tests() -> None:
    """Compile the tests before the workers start, which would all do it at the same time.

    To collect tests is to compile them, with what pytest puts into their assertions. One process for each core.
    """
    files = [str(file) for file in sorted(TESTS.rglob("test_*.py")) if not _is_compiled(file)]
    cores = len(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-n", "0"]
    shares = [share for core in range(cores) if (share := files[core::cores])]
    running = [
        subprocess.Popen([*command, *share], cwd=TESTS.parent, stdout=subprocess.DEVNULL) for share in shares
    ]
    for one in running:
        one.wait()  # a test that cannot be collected is reported by the workers


def _is_compiled(file: Path) -> bool:
    changed = file.stat().st_mtime
    kept = file.parent.glob(f"__pycache__/{file.stem}.*-pytest-*.pyc")
    return any(one.stat().st_mtime >= changed for one in kept)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (worker := getattr(config, "workerinput", None)) is not None:
        items[:] = _dealt(items, worker["workercount"])
    if config.getoption("--soak") or config.getoption("--pictures"):
        return
    skip = pytest.mark.skip(reason="full counts only: --soak")
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(skip)


def _dealt(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """In equal parts, as workers get them at first, with what takes long at the head of each.

    Idle workers take what is left at the end of another's part, which is quick then. The tests of one server begin a
    part together, so that the server starts once; so do those of one file of `browser`, with their daemons.
    """
    together: dict[object, list[pytest.Item]] = {}
    slow, quick = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        if (common := _common(item)) is not None:
            together.setdefault(common, []).append(item)
        else:
            (slow if item.path.relative_to(TESTS).parts[0] in SLOW else quick).append(item)
    groups = list(together.values())
    dealt: list[pytest.Item] = []
    for number in range(workers):
        size = (len(items) - len(dealt)) // (workers - number)
        own = [*chain.from_iterable(groups[number::workers]), *slow[number::workers]]
        rest = max(0, size - len(own))
        dealt += [*own, *quick[:rest]]
        del quick[:rest]
    return dealt + quick


def _common(item: pytest.Item) -> object:
    """What tests share that have a server in common, which the fixture `started` starts, or daemons with pages.

    None for the others.
    """
    if item.path.parent == BROWSER:
        return item.path
    if item.path.parent != SERVERS or "started" not in getattr(item, "fixturenames", ()):
        return None
    given = getattr(item, "callspec", None)
    return item.path, given and given.params.get("started")


def pytest_testnodedown(node: Any) -> None:
    used.hear(node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if line := used.summary():
        terminalreporter.write_line(line)


@pytest.hookimpl(trylast=True)  # the last servers have stopped by now
def pytest_sessionfinish(session: pytest.Session) -> None:
    lives.end()
    guard.end()
    used.tell(session.config)


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether the full counts are asked for."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Path]:
    """A folder that this run's workers share."""
    own = tmp_path_factory.getbasetemp()
    with shared_folder(own if worker_id == "master" else own.parent) as folder:
        yield folder


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
