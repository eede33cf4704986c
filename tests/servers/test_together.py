"""The tests of one server are dealt to one worker, and the summary of a run names the servers."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest

from .guard import ROOT


def an_item(folder: str, file: str, *fixtures: str, **params: str) -> Any:
    """What the dealing looks at in a test."""
    given = SimpleNamespace(params=params) if params else None
    return SimpleNamespace(path=conftest.TESTS / folder / file, fixturenames=fixtures, callspec=given)


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])
def test_the_tests_of_a_server_begin_one_workers_part(workers: int) -> None:
    engines = [an_item("servers", "test_sql.py", "started", started=name) for _ in range(20) for name in "ab"]
    brokers = [
        an_item("servers", f"test_{name}.py", "started") for name in ("kafka", "amqp") for _ in range(25)
    ]
    pages = [an_item("browser", f"test_{name}.py") for name in ("wall", "dead") for _ in range(25)]
    others = [an_item("servers", "test_nats.py", "server") for _ in range(30)]
    slow = [an_item("scenario", "test_it.py") for _ in range(103)]
    quick = [an_item("unit", "test_it.py") for _ in range(1000)]
    items = [*others, *slow, *engines, *quick, *pages, *brokers]
    dealt = conftest._dealt(items, workers)
    assert sorted(map(id, dealt)) == sorted(map(id, items))
    where: defaultdict[object, set[int]] = defaultdict(set)
    for number in range(workers):  # as the workers get them at first
        size = len(dealt) // (workers - number)
        part, dealt = dealt[:size], dealt[size:]
        common = [conftest._common(item) for item in part]
        count = len([one for one in common if one is not None])
        assert None not in common[:count], "what an idle worker takes is at the end"
        for one in common[:count]:
            where[one].add(number)
    assert len(where) == 6
    assert all(len(numbers) == 1 for numbers in where.values()), where


@pytest.mark.parametrize("workers", [0, 1])
def test_the_summary_names_the_servers_of_the_run(tmp_path: Path, workers: int) -> None:
    test = "tests/servers/test_nats.py::test_a_repeated_batch_is_dropped_by_the_server"
    options = ["-n", str(workers), "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "base")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, test],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "servers of this run: nats-server\n" in done.stdout


def test_the_summary_tells_of_a_kafka_that_is_not_the_real_one(tmp_path: Path) -> None:
    """Without Java on its path, and not in CI."""
    test = "tests/servers/test_kafka.py::test_an_event_without_a_stream_has_no_key"
    options = ["-n", "1", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "base")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, test],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "librdkafka's mock cluster instead of Apache Kafka (there is no java: .ci/packages)" in done.stdout
