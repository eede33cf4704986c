"""Servers under test are killed whole, are ready only if they are, and leave nothing behind, however a run ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenario.environment import PATIENCE, until

from . import processes, trees
from .guard import ROOT
from .processes import ServerProcess, free_port, needs, run

LISTENS = """
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
"""
FORKS = """
for _ in range(3):
    if not os.fork():
        for _ in range(100):
            if not os.fork():
                os.setsid()
                break
        break
"""
SLEEPS = "time.sleep(600)\n"


def server_in(folder: Path, *, more: str = "", port: int | None = None, says: bytes = b"") -> ServerProcess:
    """A small server whose processes have the folder's name in their command line."""
    folder.mkdir(exist_ok=True)
    given = port or free_port()
    argv = [sys.executable, "-c", LISTENS + more + SLEEPS, str(given), str(folder)]
    return ServerProcess(folder, given, argv, says)


def processes_of(folder: Path) -> list[int]:
    """Those that live and have the folder in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it is gone
            continue
        if str(folder).encode() in words:
            found.append(int(entry.name))
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    one = server_in(tmp_path / "server")
    try:
        one.start()
        yield one
    finally:
        one.stop()


def test_no_child_escapes_a_kill_although_children_are_made_all_the_time(tmp_path: Path) -> None:
    server = server_in(tmp_path / "server", more=FORKS)
    for _ in range(4):
        server.start()
        until(lambda: len(processes_of(server.folder)) > 10)
        server.kill()
        escaped = processes_of(server.folder)
        for pid in escaped:
            os.kill(pid, signal.SIGKILL)
        assert escaped == []


def test_a_server_that_hangs_answers_nobody_until_it_goes_on(tmp_path: Path) -> None:
    answers = "while True: listener.accept()[0].sendall(b'hello')\n"
    server = server_in(tmp_path / "server", more=answers)
    server.start()
    try:
        with server.frozen():
            call = socket.create_connection(("127.0.0.1", server.port))
            call.settimeout(0.3)
            with pytest.raises(TimeoutError):
                call.recv(5)
        call.settimeout(None)
        assert call.recv(5) == b"hello"
        call.close()
    finally:
        server.stop()


def test_a_port_that_another_process_has_makes_no_server_ready(server: ServerProcess, tmp_path: Path) -> None:
    late = server_in(tmp_path / "late", port=server.port)
    with pytest.raises(AssertionError, match=r"(?s)has ended.*Address already in use"):
        late.start()
    late.stop()


def test_what_an_earlier_start_has_said_makes_no_server_ready(tmp_path: Path) -> None:
    once = "os.path.exists('again') and sys.exit('no second time'); open('again', 'w')\n"
    server = server_in(tmp_path / "server", says=b"ready")
    server._argv = [sys.executable, "-c", "import os, sys\n" + once + LISTENS + SLEEPS, str(server.port)]
    server.start()
    with pytest.raises(AssertionError, match="no second time"):
        server.restart()
    server.stop()


def test_a_server_that_ended_by_itself_is_noticed_and_started_for_the_next_test(
    server: ServerProcess,
) -> None:
    assert server._process is not None
    server._process.terminate()
    server._process.wait()
    with pytest.raises(AssertionError, match="had ended by itself with -15"):
        server.kill()
    server.mend()
    assert trees.listens(server._process.pid, server.port)


def test_a_server_that_a_test_left_hanging_goes_on(server: ServerProcess) -> None:
    server.freeze()
    server.mend()
    with socket.create_connection(("127.0.0.1", server.port)):
        server.kill()


def test_a_server_that_runs_is_not_started_again_and_serves_the_next_test(server: ServerProcess) -> None:
    first = server.pid
    with pytest.raises(AssertionError, match="runs already"):
        server.start()
    server.mend()
    assert (server.pid, processes_of(server.folder)) == (first, [first])
    server.kill()
    server.start()


def test_a_server_that_is_not_ready_in_time_is_ended_and_started_for_the_next_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = server_in(tmp_path / "server", says=b"never")
    monkeypatch.setattr(processes, "PATIENCE", 0.1)
    with pytest.raises(AssertionError, match="is not ready"):
        late.start()
    assert processes_of(late.folder) == []
    monkeypatch.undo()
    late._says = b"ready"
    late.mend()
    late.kill()


def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", 'sleep 600 & "$0" -c "import time; time.sleep(600)" "$1"']
    with pytest.raises(TimeoutError):
        run([*argv, sys.executable, str(tmp_path)], cwd=tmp_path, within=0.5)
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("ci", [True, False])
def test_a_missing_server_is_named_and_is_a_failure_in_ci_alone(
    monkeypatch: pytest.MonkeyPatch, ci: bool
) -> None:
    monkeypatch.setenv("CI", "true" if ci else "")
    kind = pytest.fail.Exception if ci else pytest.skip.Exception
    with pytest.raises(kind, match="needs no-such-server: apt-get install it"):
        needs("no-such-server", "apt-get install it")


# ---------------------------------------------------------------- the end of a run

WITHIN = """
import time
from pathlib import Path
import pytest
from tests.servers.guard import folder_kept
from tests.servers.test_processes import server_in

@pytest.fixture(scope="module")
def server():
    with folder_kept(Path({folder!r})) as folder:
        one = server_in(folder, more="os.fork() or os.setsid()\\n")
        one.start()
        yield one
        one.stop()

@pytest.mark.timeout({limit}, method="thread", func_only=True)
def test_it(server):
    Path({told!r}).touch()
    {body}
"""


@pytest.mark.parametrize(
    ("end", "workers"),
    [("passes", 0), ("fails", 1), ("late", 1), ("SIGINT", 0), ("SIGINT", 1), ("SIGTERM", 1), ("SIGKILL", 1)],
)
def test_nothing_is_left_however_a_run_ends(tmp_path: Path, end: str, workers: int) -> None:
    folder, told = tmp_path / "folder", tmp_path / "told"
    body = {"passes": "pass", "fails": "assert False"}.get(end, "time.sleep(600)")
    file = tmp_path / "test_it.py"
    file.write_text(
        WITHIN.format(folder=str(folder), told=str(told), body=body, limit=1 if end == "late" else 600)
    )
    options = [
        *("-p", "xdist", "-p", "pytest_timeout"),
        "-c",
        "/dev/null",
        "--rootdir",
        str(tmp_path),
        "-n",
        str(workers),
        "--basetemp",
        str(tmp_path / "b"),
    ]
    with (tmp_path / "output").open("wb") as output:
        child = subprocess.Popen(
            ["env", "--default-signal=INT", sys.executable, "-m", "pytest", *options, str(file)],
            cwd=ROOT,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # their imports are most of such a run
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        until(told.exists, what=f"for {(tmp_path / 'output').read_text()}")
        if end.startswith("SIG"):
            assert len(processes_of(folder)) == 2
            os.killpg(child.pid, signal.Signals[end])
        code = child.wait(PATIENCE)
    finally:
        if child.poll() is None:
            trees.kill(child.pid)
            child.wait()
    assert (code == 0) is (end == "passes"), (tmp_path / "output").read_text()
    until(lambda: not processes_of(folder), what="for the processes to be gone")
    until(lambda: not folder.exists(), what="for the folder to be gone")
