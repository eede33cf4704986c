"""The process has no file descriptor left: it waits, says why, and goes on when there are some again."""

import json
import os
import re
import resource
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from poller.daemon.daemon import LOOK_EVERY
from poller.sandbox import Load

from .environment import PATIENCE, Environment, environment, until
from .rig import Process, Scenario, scenario, webhook

SOURCES = {
    "shots": {"type": "screenshot_queue", "account": "main", "min_delay": "10ms", "max_delay": "250ms"},
    "pushed": {
        "type": "callbacks",
        "account": "main",
        "listen": "127.0.0.1:0",
        "path": "/a-path-that-nobody-knows",
        "key": "a-key-that-nobody-knows",
    },
}


def sinks(place: Environment, folder: Path) -> dict[str, Any]:
    return {
        "console": {"type": "stdout"},
        "hook": webhook(place),
        "archive": {
            "type": "download",
            "directory": str(folder / "pictures"),
            "allow_cidr": ["127.0.0.0/8"],
            "concurrency": 4,
        },
    }


def limit(process: Process, soft: int) -> None:
    _, hard = resource.prlimit(process.child.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.child.pid, resource.RLIMIT_NOFILE, (soft, hard))


def open_files(process: Process) -> int:
    return len(os.listdir(f"/proc/{process.child.pid}/fd"))


def only_json(process: Process) -> list[str]:
    """The lines of the log that are none."""
    return [line for line in process.stderr.splitlines() if not line.startswith("{")]


def test_a_daemon_that_has_no_descriptors_for_longer_than_between_two_looks_at_its_health_lives_on(
    tmp_path: Path,
) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, sinks={"hook": webhook(place)}) as daemon:
        process = daemon.run()
        limit(process, 16)
        place.enqueue(2)
        time.sleep(2 * LOOK_EVERY + 1)
        assert process.alive, process.stderr
        limit(process, 1024)
        until(lambda: len(place.hook.files) == 2)
        assert process.stop() == 0
        assert only_json(process) == []


def test_a_daemon_that_runs_out_of_descriptors_waits_and_goes_on_and_prints_no_traceback(
    tmp_path: Path, soak: bool
) -> None:
    with (
        environment(tmp_path, streams=2, interval=1.0) as place,
        scenario(place, tmp_path, sources=SOURCES, sinks=sinks(place, tmp_path)) as daemon,
    ):
        process = daemon.run()
        process.get("/healthz")
        limit(process, 16)  # fewer than it has: nothing more can be opened
        place.ask(lambda: place.sandbox.enqueue(Load(count=300)))
        until(lambda: process.said("poll_failed") or process.said("delivery_failed"))
        for _ in range(20 if soak else 5):
            _knock(daemon)
        limit(process, resource.prlimit(process.child.pid, resource.RLIMIT_NOFILE)[1])
        until(lambda: place.hook.files.total() >= 300)
        assert process.get("/healthz")[0] == 200
        assert process.stop() == 0
        assert only_json(process) == []
        assert "Traceback" not in process.stderr
        assert daemon.books().lost() == []


def _knock(daemon: Scenario) -> None:
    for port in re.findall(r'"(?:port|at)": "?(?:127\.0\.0\.1:)?([0-9]+)', daemon.processes[-1].stderr):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=0.2).close()
        except (OSError, urllib.error.URLError):
            continue


@pytest.mark.parametrize("most", [64])
def test_a_daemon_with_64_descriptors_polls_delivers_and_stores(tmp_path: Path, most: int) -> None:
    with (
        environment(tmp_path) as place,
        scenario(place, tmp_path, sources=SOURCES, sinks=sinks(place, tmp_path)) as daemon,
    ):
        script = f"ulimit -n {most} && exec {sys.executable} -m poller run -c {daemon.config}"
        file = tmp_path / "stderr"
        with file.open("wb") as stderr:
            child = subprocess.Popen(["sh", "-c", script], stderr=stderr, stdout=subprocess.DEVNULL)
        try:
            place.enqueue(500)
            until(lambda: place.hook.files.total() >= 500 or child.poll() is not None)
            assert child.poll() is None, file.read_text()
            child.terminate()
            assert child.wait(PATIENCE) == 0
        finally:
            child.kill()
            child.wait(PATIENCE)
        assert [line for line in file.read_text().splitlines() if not line.startswith("{")] == []


def test_a_daemon_raises_its_soft_limit_to_the_hard_one(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        try:
            process = daemon.run()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        soft, hard = resource.prlimit(process.child.pid, resource.RLIMIT_NOFILE)
        assert soft == min(hard, 1 << 20)
        assert process.stop() == 0


def test_nothing_is_imported_once_the_daemon_runs(tmp_path: Path) -> None:
    """What is imported at the first answer or the first error cannot be imported without a descriptor."""
    unicode = {"type": "webhook", "url": "https://m\u00fcnchen.invalid/hook"}
    with (
        environment(tmp_path) as place,
        scenario(
            place, tmp_path, sources=SOURCES, sinks={**sinks(place, tmp_path), "unicode": unicode}
        ) as daemon,
    ):
        process = daemon.start(PYTHONPROFILEIMPORTTIME="1")
        process.until_running()
        for fault in ("cut", "html", "status", "reset_after", "bomb", "text", "poison"):
            place.order(fault)
            place.order("latency", seconds=0.0)  # a good answer between two bad ones keeps the pace
        place.enqueue(1500)
        for mode in (500, 503, 422, 200):
            place.turn(mode)
            place.enqueue(20)
            until(lambda: place.depth == 0)
        until(lambda: place.hook.files.total() > 200)
        process.get("/readyz")
        process.get("/metrics")
        assert process.stop() == 0
        running = process.stderr.partition('"event": "running"')[2]
        assert json.dumps([line for line in running.splitlines() if line.startswith("import time:")]) == "[]"
