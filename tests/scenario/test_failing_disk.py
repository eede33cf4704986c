"""A disk that refuses writes or takes its time with syncs, under the running daemon: nothing is lost or reordered."""

import shutil
from pathlib import Path

import pytest

from .environment import environment, needs_root, until
from .rig import scenario
from .tracing import traced

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
SPOOL, JOURNAL = "spool.db-wal", "spool.db.journal"


@pytest.mark.root
@pytest.mark.parametrize(("file", "error"), [(SPOOL, "EIO"), (JOURNAL, "EIO"), (JOURNAL, "ENOSPC")])
def test_a_write_that_failed_ends_the_daemon_and_the_next_one_has_everything(
    tmp_path: Path, file: str, error: str
) -> None:
    needs_root("attaches strace to the daemon")
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        fault = f"error={error}:when=5"
        with traced(process, tmp_path / "trace", [tmp_path / file], "pwrite64", fault) as trace:
            place.enqueue(5000)
            assert process.wait() == 1
        assert trace.times("INJECTED") == 1
        assert process.said("failed"), process.stderr
        assert bool(process.said("journal_failed")) is (file == JOURNAL)
        assert daemon.drain() == 0
        books = daemon.books()
        assert len(books.removed) == 5000
        assert books.lost() == []
        assert set(place.hook.files) == set(books.spooled)


@pytest.mark.root
def test_a_write_for_which_there_is_no_space_pauses_polling_until_there_is(tmp_path: Path) -> None:
    needs_root("attaches strace to the daemon")
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        fault = "error=ENOSPC:when=5..12"
        with traced(process, tmp_path / "trace", [tmp_path / SPOOL], "pwrite64", fault) as trace:
            place.enqueue(5000)
            until(lambda: process.said("polling_paused"))
            assert "disk is full" in process.said("polling_paused")[0]["reason"]
            until(lambda: process.said("polling_resumed"), what="for polling to resume")
            until(lambda: place.depth == 0 and place.hook.files.total() == 5000)
        assert trace.times("INJECTED") >= 1
        assert process.stop() == 0
        books = daemon.books()
        assert books.lost() == []
        assert place.hook.files == dict.fromkeys(books.spooled, 1)


@pytest.mark.root
def test_a_disk_whose_syncs_take_long_loses_and_reorders_nothing(tmp_path: Path) -> None:
    needs_root("attaches strace to the daemon")
    one_after_the_other = {"console": {"type": "stdout"}}
    with (
        environment(tmp_path) as place,
        scenario(place, tmp_path, source={"max_in_flight": 1}, sinks=one_after_the_other) as daemon,
    ):
        process = daemon.run()
        files, calls = [tmp_path / SPOOL, tmp_path / JOURNAL], "fsync,fdatasync"
        with traced(process, tmp_path / "trace", files, calls, "delay_enter=150000") as trace:
            place.enqueue(2000)
            until(lambda: place.counts.removed == 2000 and process.metric("journal_bytes") == 0)
            until(lambda: process.metric("backlog_events") == 0)
        assert trace.times("DELAYED") >= 20, "each page and each commit waited for its sync"
        assert process.get("/readyz")[0] == 200
        assert process.stop() == 0
        removed = [one.path for one in place.oracle.removed()]
        assert len(removed) == 2000
        assert daemon.printed() == [removed]
        assert daemon.books().lost() == []
