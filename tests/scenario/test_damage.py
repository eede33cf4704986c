"""A damaged spool, and syncs that fail under the daemon: it goes on, or ends and comes back; nothing is lost."""

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from .environment import PATIENCE, environment, needs_root, until
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
        assert refused.stderr.startswith("poller: ")
        assert "another poller owns it: stop it first" in refused.stderr
        assert process.stop() == 0
        assert daemon.books().lost() == []


def alter(file: Path) -> str:
    """Change one bit of a picture's name in a page that is delivered late, in the bytes of the file.

    Returns the altered name, which is that of no picture.
    """
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
        blobs = [blob for (blob,) in db.execute("SELECT events FROM page ORDER BY first")]
    name: str = json.loads(blobs[len(blobs) * 3 // 4].split(b"\n")[0])["data"]["file_name"]
    altered = name.replace("_", "^", 1)  # `_` and `^` differ in one bit
    content, said = file.read_bytes(), b'"file_name":"%s"'
    assert content.count(said % name.encode()) == 1
    at = content.index(said % name.encode())
    with file.open("r+b") as stream:
        stream.seek(at)
        stream.write(said % altered.encode())
    return altered


@pytest.mark.parametrize("running", [False, True])
def test_an_event_that_was_altered_on_the_disk_is_never_posted(tmp_path: Path, running: bool) -> None:
    """The file of a stopped daemon and that of a running one: the next start moves it aside, and says so."""
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        place.turn(503)
        process = daemon.run()
        place.enqueue(5_000)
        until(lambda: process.metric("backlog_events", sink="hook") == 5_000)
        assert process.stop() == 0
        altered = "" if running else alter(daemon.spool_file)
        process = daemon.run()
        if running:
            altered = alter(daemon.spool_file)
        place.turn(200)
        assert process.wait() == 1
        again = daemon.run()
        (line,) = again.said("spool_began_anew")
        assert "its checksum is wrong" in line["reason"]
        assert again.stop() == 0
        salvaged = daemon.look_after("salvage", line["moved_to"])
        assert salvaged.returncode == 0, salvaged.stderr
        assert "its checksum is wrong" in salvaged.stderr
        assert daemon.drain() == 0
        files = place.hook.files
        assert altered not in files
        assert 4_900 <= len(files) < 5_000, "all but those of one page"


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
        until(lambda: process.metric("journal_bytes") == 0)  # else the kill leaves pages that come twice
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
            tracer.wait(PATIENCE)
        assert "INJECTED" in trace.read_text()
        assert process.said("failed"), process.stderr
        assert daemon.drain() == 0
        books = daemon.books()
        assert len(books.removed) == 5500
        assert books.lost() == []
        assert set(place.hook.files) == set(books.spooled)
