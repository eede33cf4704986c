"""A damaged spool, and syncs that fail under the daemon: it goes on, or ends and comes back; nothing is lost."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .environment import environment, needs_root, until
from .rig import scenario


def test_a_damaged_spool_is_moved_aside_said_once_and_polling_goes_on(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        daemon.spool_file.write_bytes(b"no database" * 4000)
        process = daemon.run()
        place.enqueue(500)
        until(lambda: place.hook.files.total() == 500)
        (line,) = process.said("spool_began_anew")
        (aside,) = tmp_path.glob("spool.db.corrupt-*")
        assert line["level"] == "error"
        assert line["moved_to"] == str(aside)
        assert f"poller spool salvage {aside} -c FILE" in line["remedy"]
        assert aside.read_bytes() == b"no database" * 4000
        assert process.metric("spool_files_aside") == 1
        assert process.get("/readyz")[0] == 200
        assert process.stop() == 0
        again = daemon.run()
        assert again.said("spool_began_anew") == []
        assert again.metric("spool_files_aside") == 1, "until somebody has taken it away"
        assert again.stop() == 0


def test_check_and_export_work_beside_a_running_daemon_and_salvage_says_why_not(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        place.enqueue(1000)
        until(lambda: place.hook.files.total() == 1000)
        with place.feeding():
            checked = daemon.look_after("check")
            exported = daemon.look_after("export")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert ": good: " in checked.stdout
        assert len(exported.stdout.splitlines()) >= 1000
        assert all(json.loads(line)["specversion"] == "1.0" for line in exported.stdout.splitlines())
        refused = daemon.look_after("salvage", str(daemon.config))
        assert refused.returncode == 1
        assert "another poller owns it: stop it first" in refused.stderr
        assert process.stop() == 0
        assert daemon.books().lost() == []


TAKEN_AWAY = {
    "the log and the mark": (["-wal", ".head"], ["journal_damaged"]),
    "the log, the mark and the index": (["-wal", "-shm", ".head"], ["journal_damaged"]),
    "the file and its log": (["", "-wal", "-shm"], ["spool_damaged", "journal_damaged"]),
    "all but the journal": (["", "-wal", "-shm", ".head", ".clock", ".lock"], ["journal_damaged"]),
    "all": (["", "-wal", "-shm", ".head", ".clock", ".lock", ".journal"], []),
}


@pytest.mark.parametrize("what", TAKEN_AWAY)
def test_a_spool_that_lost_everything_it_had_committed_says_so_once_unless_its_journal_is_gone_too(
    tmp_path: Path, what: str
) -> None:
    ends, events = TAKEN_AWAY[what]
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        place.enqueue(500)
        until(lambda: place.hook.files.total() == 500)
        process.kill()
        for end in ends:
            daemon.spool_file.with_name(daemon.spool_file.name + end).unlink(missing_ok=True)
        again = daemon.run()
        said = [line["event"] for line in again.log if line["level"] == "error"]
        assert said == events
        if events:
            assert "the spool lacks pages" in again.get("/readyz")[1]
        assert again.stop() == 0
        third = daemon.run()
        assert [line for line in third.log if line["level"] == "error"] == []
        until(lambda: third.get("/readyz")[0] == 200)
        place.enqueue(100)
        until(lambda: place.hook.files.total() == 600)
        assert third.stop() == 0


@pytest.mark.parametrize("file", ["spool.db-wal", "spool.db.journal"])
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_daemon_whose_sync_failed_ends_and_the_next_one_has_everything(tmp_path: Path, file: str) -> None:
    needs_root("attaches strace to the daemon")
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        place.enqueue(500)
        until(lambda: place.hook.files.total() == 500)
        trace, calls = tmp_path / "trace", "fsync,fdatasync"
        inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO:when=2"]
        command = ["strace", "-f", "-o", str(trace), "-P", str(tmp_path / file), *inject]
        tracer = subprocess.Popen([*command, "-p", str(process.child.pid)], stderr=subprocess.PIPE, text=True)
        try:
            assert tracer.stderr is not None
            assert "attached" in tracer.stderr.readline()
            place.enqueue(5000)
            assert process.wait() == 1
        finally:
            tracer.terminate()
            tracer.wait(30)
        assert "INJECTED" in trace.read_text()
        assert process.said("failed"), process.stderr
        assert daemon.drain() == 0
        books = daemon.books()
        assert len(books.removed) == 5500
        assert books.lost() == []
        assert set(place.hook.files) == set(books.spooled)
