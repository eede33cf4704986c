"""The tests of one server are dealt to one worker, and the summary of a run names the servers."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests import conftest

from .guard import ROOT


def test_a_server_starts_once_for_a_run(request: pytest.FixtureRequest) -> None:
    """With what this run has collected, if it is more than these tests, and any number of workers."""
    items = list(request.session.items)
    for workers in (1, 2, 5, 8):
        dealt = conftest._dealt(items, workers)
        assert sorted(map(id, dealt)) == sorted(map(id, items))
        places: defaultdict[object, list[int]] = defaultdict(list)
        for place, item in enumerate(dealt):
            if (server := conftest._server(item)) is not None:
                places[server].append(place)
        for server, own in places.items():
            assert own == list(range(own[0], own[0] + len(own))), f"{server} is dealt in pieces"


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
