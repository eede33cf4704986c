"""The example packages do what their READMEs say: installed, under their own tests, with real processes."""

import base64
import csv
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from poller.api import SinkContract

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
PATIENCE = 60
CONFIGURATION = """
accounts:
  main:
    endpoint: {endpoint}
    app_id: 1234
    key: 5d41402abc4b2a76b9719d911017c592
    cos: {{bucket: shots, app_id: 1250000000}}
sources:
  screenshots: {{type: screenshot_queue, account: main}}
spool: {{type: memory}}
sinks:
"""


@contextmanager
def process(*command: str | Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is stopped by its pid, whatever happens."""
    started = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            started.kill()
            started.communicate()


@contextmanager
def platform(folder: Path, messages: int) -> Iterator[str]:
    """The sandbox with so many messages in its queue; gives the configuration of an account and the queue's source."""
    box: list[str | Path] = ["-m", "poller", "sandbox", "--directory", folder / "box", "--streams", "0"]
    with process(*box) as sandbox:
        assert sandbox.stdout is not None
        said = json.loads(sandbox.stdout.readline())
        post(f"{said['control']}/enqueue", json.dumps({"count": messages}).encode())
        yield CONFIGURATION.format(endpoint=said["api"])


def post(url: str, body: bytes, headers: Mapping[str, str] | None = None) -> int:
    request = urllib.request.Request(url, body, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---------------------------------------------------------------- the sink


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the example sink's wheel is installed."""
    folder = tmp_path_factory.mktemp("sink")
    copy = shutil.copytree(EXAMPLES / "sink", folder / "source")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    run("-m", "pip", "install", "-q", *options, "--target", folder / "site", copy, cwd=folder)
    return folder / "site"


def test_the_example_sink_keeps_the_contract(installed: Path, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "sink" / "test_spreadsheet.py", tmp_path)
    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path, PYTHONPATH=str(installed))
    cases = sum(name.startswith("test_") for name in dir(SinkContract))
    assert re.search(rf"\b{cases} passed in", said), said


def test_the_daemon_finds_the_example_sink_and_fills_its_file(installed: Path, tmp_path: Path) -> None:
    file = tmp_path / "poller.yaml"
    with platform(tmp_path, 250) as account:
        file.write_text(account + "  table: {type: spreadsheet, path: events.csv}\n")
        run("-m", "poller", "check", "-c", file, cwd=tmp_path, PYTHONPATH=str(installed))
        run("-m", "poller", "drain", "-c", file, cwd=tmp_path, PYTHONPATH=str(installed))
    with (tmp_path / "events.csv").open(newline="") as lines:
        rows = list(csv.reader(lines))
    assert len({row[3] for row in rows}) == len(rows) == 250
    assert {row[1] for row in rows} == {"screenshot"}


# ---------------------------------------------------------------- the receiver


@contextmanager
def receiver() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with process(EXAMPLES / "receiver" / "receiver.py", "0", WEBHOOK_SECRET=SECRET) as started:
        assert started.stderr is not None
        yield started.stderr.readline().split()[-1], started


def signed(body: bytes, id: str = "one") -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(id, now, body.decode()),
    }


def event(id: str) -> dict[str, object]:
    return {"id": id, "time": "2026-11-22T09:04:55Z", "type": "t", "subject": "room", "data": {"url": None}}


@pytest.mark.parametrize("batch", [1, 100], ids=["one by one", "in batches"])
def test_the_example_receiver_takes_what_the_daemon_posts(batch: int, tmp_path: Path) -> None:
    sink = f"type: webhook, secret: {SECRET}, allow_cidr: [127.0.0.0/8], batch: {{max_events: {batch}}}"
    file = tmp_path / "poller.yaml"
    with platform(tmp_path, 150) as account, receiver() as (url, started):
        file.write_text(f"{account}  hook: {{url: {url}, {sink}}}\n")
        run("-m", "poller", "drain", "-c", file, cwd=tmp_path)
        assert started.stdout is not None
        lines = [started.stdout.readline().split() for _ in range(150)]
    assert {line[1] for line in lines} == {"com.qcloud.live.screenshot"}
    assert len({line[-1] for line in lines}) == 150


def test_the_example_receiver_refuses_a_wrong_signature_and_prints_no_event_twice() -> None:
    both = json.dumps([event("a"), event("b")]).encode()
    one = json.dumps(event("b")).encode()
    with receiver() as (url, started):
        assert post(url, both) == 401
        assert post(url, both, {**signed(both), "webhook-signature": "v1,AAAA"}) == 401
        assert post(url, both, signed(one)) == 401
        assert [post(url, body, signed(body)) for body in (both, one, both)] == [204, 204, 204]
        started.terminate()
        printed, _ = started.communicate(timeout=PATIENCE)
    assert len(printed.splitlines()) == 2
