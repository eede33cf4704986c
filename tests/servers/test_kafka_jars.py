"""The cache of Kafka's jars is whole or not there, whatever becomes of a fetch."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.scenario.environment import until

from .guard import ROOT
from .kafka_jars import NoJarsError, find_jars

FETCHES = """#!/bin/sh
for word; do case "$word" in -DoutputDirectory=*) jars="${word#*=}";; esac; done
echo one more >> "$COUNT"
mkdir "$jars"; touch "$jars/a.jar"; %s; touch "$jars/b.jar"
"""


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the programs, in which are a Java and a Maven."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    monkeypatch.delenv("CI", raising=False)
    (folder / "java").symlink_to("/bin/true")
    maven(folder, "true")
    return folder


def maven(folder: Path, between: str) -> None:
    """A Maven that does something between the first jar and the second."""
    (folder / "mvn").write_text(FETCHES % between)
    (folder / "mvn").chmod(0o755)


def whole(cache: Path) -> bool:
    """Both jars, and beside them nothing but the lock."""
    jars = {file.name for file in cache.iterdir()}
    return jars == {"a.jar", "b.jar"} and {file.name for file in cache.parent.iterdir()} == {
        "lock",
        cache.name,
    }


def test_the_jars_are_fetched_once(tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "kafka"
    assert [find_jars(cache) for _ in range(3)] == [cache] * 3
    assert whole(cache)
    assert (tmp_path / "count").read_text() == "one more\n"


@pytest.mark.parametrize(
    ("between", "text"), [("echo no network; exit 1", "no network"), ("sleep 600", "more than")]
)
def test_a_fetch_that_fails_or_hangs_tells_why_and_the_next_one_succeeds(
    tmp_path: Path, programs: Path, between: str, text: str
) -> None:
    cache = tmp_path / "cache" / "kafka"
    maven(programs, between)
    with pytest.raises(NoJarsError, match=text):
        find_jars(cache, within=0.5)
    assert {file.name for file in cache.parent.iterdir()} == {"lock"}
    maven(programs, "true")
    assert whole(find_jars(cache))


def test_a_run_that_is_killed_in_the_midst_of_a_fetch_does_not_spoil_the_next_one(
    tmp_path: Path, programs: Path
) -> None:
    cache, half = tmp_path / "cache" / "kafka", tmp_path / "half"
    maven(programs, f'touch "{half}"; sleep 600')
    text = f"from pathlib import Path; from tests.servers.kafka_jars import find_jars; find_jars(Path({str(cache)!r}))"
    with subprocess.Popen([sys.executable, "-c", text], cwd=ROOT) as child:
        until(half.exists)
        os.kill(child.pid, signal.SIGKILL)
    maven(programs, "true")
    assert whole(find_jars(cache))


def test_a_leftover_of_a_fetch_is_removed(tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "kafka"
    (cache.parent / "fetch-old" / "jars").mkdir(parents=True)
    assert whole(find_jars(cache))


def test_runs_at_once_wait_for_one_fetch(tmp_path: Path, programs: Path) -> None:
    cache = tmp_path / "cache" / "kafka"
    maven(programs, "sleep 0.5")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: find_jars(cache), range(4))) == [cache] * 4
    assert whole(cache)
    assert (tmp_path / "count").read_text() == "one more\n"


@pytest.mark.parametrize("missing", ["java", "mvn"])
def test_a_missing_program_is_named_and_is_a_failure_in_ci_alone(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv("PATH", str(programs))
    (programs / missing).unlink()
    with pytest.raises(NoJarsError, match=f"there is no {missing}"):
        find_jars(tmp_path / "kafka")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=f"there is no {missing}"):
        find_jars(tmp_path / "kafka")
