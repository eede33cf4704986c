"""What an operator meets: a wrong clock, a second daemon, a full disk, a bad configuration."""

import hashlib
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.settings.bad_configurations import CANARY, CASES, ENVIRON, Case, lay

from .environment import PATIENCE, Environment, counting_port, environment, needs_root, until
from .rig import Process, scenario

# ---------------------------------------------------------------- the clock


def test_a_clock_wrong_by_ten_minutes_is_corrected_and_said_once(tmp_path: Path) -> None:
    with environment(tmp_path, clock_offset=600.0) as place, scenario(place, tmp_path) as daemon:
        place.enqueue(500)
        process = daemon.run()
        until(lambda: place.hook.files.total() == 500)
        _ten_polls(place)
        assert [line["state"] for line in process.heard("clock_skew")] == ["corrected"]
        assert 595 < process.metric("clock_skew_seconds") < 605
        assert place.counts.refused == 1, "only the first poll, before anything was measured"
        _set(place, -600.0)
        place.enqueue(500)
        until(lambda: place.hook.files.total() == 1000)
        until(lambda: -605 < process.metric("clock_skew_seconds") < -595)
        _ten_polls(place)
        assert [line["state"] for line in process.heard("clock_skew", 2)] == ["corrected", "off"]
        assert place.counts.refused == 1
        assert process.get("/readyz")[0] == 200
        assert process.stop() == 0
        assert daemon.books().lost() == []


def test_a_clock_wrong_by_two_hours_is_an_alarm_and_not_followed(tmp_path: Path) -> None:
    with environment(tmp_path, clock_offset=7200.0) as place, scenario(place, tmp_path) as daemon:
        place.enqueue(1000)
        process = daemon.run()
        until(lambda: place.counts.polls >= 2)
        until(lambda: process.said("clock_skew"), what="for three answers that agree")
        assert [line["state"] for line in process.heard("clock_skew")] == ["beyond"]
        assert process.said("clock_skew")[0]["level"] == "warning"
        assert 7190 < process.metric("clock_skew_seconds") < 7210
        assert process.metric("polls_total", outcome="refused") >= 1
        assert process.get("/readyz")[0] == 503
        assert place.counts.removed == 0
        _set(place, 0.0)
        until(lambda: place.hook.files.total() == 1000)
        assert process.heard("clock_skew", 2)[-1]["state"] == "right"
        assert process.stop() == 0


@pytest.mark.parametrize("ahead", [-3000.0, 3000.0])
def test_a_proxy_that_writes_a_wrong_date_stops_neither_polls_nor_pushes(
    tmp_path: Path, ahead: float
) -> None:
    with environment(tmp_path) as place, dating_proxy(place.endpoint, ahead) as endpoint:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        pushed = {
            "type": "callbacks",
            "account": "main",
            "listen": f"127.0.0.1:{port}",
            "path": PUSH_PATH,
            "key": PUSH_KEY,
        }
        with scenario(place, tmp_path, endpoint=endpoint) as daemon:
            settings = json.loads(daemon.config.read_text())
            settings["sources"]["pushed"] = pushed
            daemon.config.write_text(json.dumps(settings))
            process = daemon.run()
            for turn in range(1, 4):
                place.enqueue(500)
                until(lambda turn=turn: place.hook.files.total() == 500 * turn)  # type: ignore[misc]
            until(lambda: abs(process.metric("clock_skew_seconds") - ahead) < 5)
            _ten_polls(place)
            assert place.counts.refused == 0
            assert [line["state"] for line in process.heard("clock_skew")] == ["off"]
            assert _push(port, int(time.time()) + 600) == 200
            assert process.stop() == 0


PUSH_PATH = "/0123456789abcdef0123456789abcdef"
PUSH_KEY = "a key for pushes"


def _push(port: int, t: int) -> int:
    body = {"event_type": 1, "stream_id": "s", "sequence": "1", "event_time": t, "t": t}
    body["sign"] = hashlib.md5(f"{PUSH_KEY}{t}".encode()).hexdigest()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{PUSH_PATH}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return int(answer.status)


@contextmanager
def dating_proxy(endpoint: str, ahead: float) -> Iterator[str]:
    """A reverse proxy before the platform that writes its own, wrong `Date`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = endpoint.partition("/common_access")[0] + self.path
            try:
                with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                    status, body = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, body = error.code, error.read()
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + ahead, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/common_access"
        finally:
            server.shutdown()


def _set(place: Environment, offset: float) -> None:
    place.ask(lambda: setattr(place.sandbox.clock, "offset", offset))


def _ten_polls(place: Environment) -> None:
    target = place.counts.polls + 10
    until(lambda: place.counts.polls >= target)


# ---------------------------------------------------------------- a second daemon


def test_a_second_daemon_on_one_spool_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        first = daemon.run()
        place.enqueue(500)
        until(lambda: place.hook.files.total() == 500)
        second, third = daemon.start(), daemon.start("drain")
        for process in (second, third):
            assert process.wait() == 1
            reason = process.said("failed")[0]["reason"]
            assert str(daemon.spool_file) in reason
            assert "another poller owns it" in reason
            assert "Traceback" not in process.stderr
        place.enqueue(500)
        until(lambda: place.hook.files.total() == 1000)
        until(lambda: len(daemon.printed(torn=True)[0]) == 1000)
        assert first.stop() == 0
        assert [len(printed) for printed in daemon.printed()] == [1000, 0, 0]


# ---------------------------------------------------------------- a full disk


@contextmanager
def small_disk(folder: Path, mebibytes: int = 40) -> Iterator[Path]:
    """A file system in memory."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.root
def test_a_full_disk_pauses_polling_and_nothing_else_and_ends_by_itself(tmp_path: Path) -> None:
    needs_root("mounts a small tmpfs")
    # In the end it must hold the events twice (14 MiB each), in the WAL and in the file, beside the journal.
    with environment(tmp_path) as place, small_disk(tmp_path, mebibytes=64) as disk:
        spool = {"type": "sqlite", "path": str(disk / "spool.db"), "min_free": "0B"}
        with scenario(place, tmp_path, spool=spool, journal={"size": "16MiB"}) as daemon:
            place.turn(500)
            process = daemon.run()
            _fill_once_polled(place, disk)
            place.enqueue(20_000)
            until(lambda: process.said("polling_paused"), what="for the disk to be full")
            assert "disk is full" in process.said("polling_paused")[0]["reason"]
            status, why = process.get("/readyz")
            assert status == 503
            assert "polling is paused" in why
            _polling_rests(place)
            place.turn(200)
            owed = process.metric("backlog_events", sink="hook")
            until(lambda: process.metric("backlog_events", sink="hook") == 0)
            delivered = place.hook.files.total()
            assert delivered >= owed
            assert process.said("polling_resumed") == []
            removed = place.counts.removed
            assert 0 < delivered <= removed < 20_000
            (disk / "ballast").unlink()
            until(lambda: process.said("polling_resumed"), 30, "for polling to resume")
            until(lambda: place.depth == 0 and process.metric("journal_bytes") == 0)  # all is in the spool
            until(lambda: process.metric("backlog_events") == 0)
            until(lambda: process.get("/readyz")[0] == 200)
            assert process.stop() == 0
            books = daemon.books()
            assert len(books.removed) == 20_000
            assert books.lost() == []
            assert place.hook.files == dict.fromkeys(books.spooled, 1)
            print(f"\nfull disk: paused after {removed} of 20000, {delivered} delivered meanwhile, lost=0")


@pytest.mark.root
def test_what_was_in_flight_when_the_disk_filled_is_in_the_journals_own_space(tmp_path: Path) -> None:
    """Not a byte is left, polls come in, the daemon is killed: what it had received is there when there is room."""
    needs_root("mounts a small tmpfs")
    with environment(tmp_path) as place, small_disk(tmp_path) as disk:
        spool = {"type": "sqlite", "path": str(disk / "spool.db"), "min_free": "0B"}
        with scenario(
            place, tmp_path, endpoint=place.wire.endpoint, spool=spool, journal={"size": "16MiB"}
        ) as daemon:
            process = daemon.run()
            _fill_once_polled(place, disk, leave=0)
            place.wire.delay = 0.1
            place.enqueue(10_000)
            until(lambda: process.said("polling_paused"), what="for the disk to be full")
            _polling_rests(place)
            until(lambda: place.wire.in_flight == 0)
            held = process.metric("journal_bytes")
            assert held > 0, "nothing was in flight"
            assert os.statvfs(disk).f_bavail == 0
            removed = place.counts.removed
            process.kill()
            place.wire.delay = 0.0
            (disk / "ballast").unlink()
            again = daemon.run()
            assert again.said("running")[0]["left_over"] > 0
            until(lambda: place.depth == 0 and again.metric("journal_bytes") == 0)
            until(lambda: again.metric("backlog_events") == 0)
            assert again.stop() == 0
            books = daemon.books()
            assert len(books.removed) == 10_000
            assert books.lost() == []
            print(f"\nkilled on a full disk: {removed} removed, {held:.0f} blocks in the journal, lost=0")


@pytest.mark.root
def test_a_disk_below_min_free_is_reported_before_anything_is_polled_and_its_end_is_noticed(
    tmp_path: Path,
) -> None:
    needs_root("mounts a small tmpfs")
    with environment(tmp_path) as place, small_disk(tmp_path) as disk:
        spool = {"type": "sqlite", "path": str(disk / "spool.db"), "min_free": "12MiB"}
        with scenario(place, tmp_path, spool=spool, journal={"size": "16MiB"}) as daemon:
            (disk / "ballast").write_bytes(bytes(16 << 20))
            place.enqueue(1000)
            process = daemon.run()
            until(lambda: process.said("polling_paused"))
            (line,) = process.said("polling_paused")
            assert "min_free is 12 MiB" in line["reason"]
            status, why = process.get("/readyz")
            assert (status, "min_free is 12 MiB" in why) == (503, True)
            assert place.counts.polls == 0
            (disk / "ballast").unlink()
            until(lambda: place.hook.files.total() == 1000)
            assert len(process.said("polling_paused")) == len(process.heard("polling_resumed")) == 1
            until(lambda: process.get("/readyz")[0] == 200)
            assert process.stop() == 0
            assert daemon.books().lost() == []


def _fill(disk: Path, leave: int = 1 << 20) -> None:
    """Leave so many bytes."""
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(1 << 16))
        except OSError:
            ballast.truncate(ballast.tell() - leave)


def _fill_once_polled(place: Environment, disk: Path, leave: int = 1 << 20) -> None:
    """The same, once the daemon polls: it has proved by then that it can write, and pauses in front of a page only."""
    until(lambda: place.counts.polls > 0, what="for the daemon to poll")
    _fill(disk, leave)


def _polling_rests(place: Environment) -> None:
    """No poll for a second; those in flight at first may come in."""
    calm, polls = time.monotonic(), place.counts.polls
    end = calm + 30
    while time.monotonic() - calm < 1.0:
        if place.counts.polls != polls:
            calm, polls = time.monotonic(), place.counts.polls
        assert time.monotonic() < end, "polling went on"
        time.sleep(0.01)


# ---------------------------------------------------------------- bad configurations

ORDINARY = 6


@pytest.mark.timeout(1200)
def test_a_bad_configuration_exits_78_at_the_right_line_and_connects_nowhere(
    tmp_path: Path, soak: bool
) -> None:
    chosen = CASES if soak else CASES[:: len(CASES) // ORDINARY][:ORDINARY]
    commands = ("run", "drain")
    with counting_port() as (port, callers), ThreadPoolExecutor(2) as pool:
        runs = []
        for number, case in enumerate(chosen):
            for command in commands if soak else (commands[number % 2],):
                folder = tmp_path / f"{command}-{number}"
                folder.mkdir()
                runs.append(pool.submit(_refused, case, folder, command, port))
        problems = [problem for run in runs for problem in run.result()]
        assert problems == []
        assert callers == []
        print(f"\nbad configurations: {len(runs)} processes, 0 polls")


def _moved(said: str) -> str:
    return re.sub(r"(?<=first on line )\d+", lambda line: str(int(line[0]) + 1), said)


def _refused(case: Case, folder: Path, command: str, port: int) -> list[str]:
    """What is wrong with how this case was refused."""
    endpoint = f"    endpoint: http://127.0.0.1:{port}/common_access\n".encode()
    moved = case.text.startswith(b"accounts:\n  main:\n    app_id") and b"endpoint:" not in case.text
    if moved:  # the platform is reachable, so that a poll would be seen
        case = replace(
            case,
            text=case.text.replace(b"  main:\n", b"  main:\n" + endpoint, 1),
            expected=tuple((line + (line > 2), column, _moved(said)) for line, column, said in case.expected),
        )
    process = Process(lay(case, folder), command, environ=ENVIRON)
    try:
        code = process.wait()
    finally:
        process.kill()
    found, problems = process.stderr, []
    if code != 78:
        problems.append(f"{case.name}: exit {code}: {found[-500:]}")
    if process.stdout_file.read_bytes():
        problems.append(f"{case.name}: something on stdout")
    if CANARY in found:
        problems.append(f"{case.name}: a secret in {found}")
    for line, column, said in case.expected:
        if not any(f"poller.yaml:{line}:{column}: " in text and said in text for text in found.splitlines()):
            problems.append(f"{case.name}: not at {line}:{column}: {said}: {found}")
    return problems
