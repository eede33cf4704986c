"""`sync: filesystem` of the sink `download` under the running daemon, on a disk whose syncs fail or hang."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from ..integration.sinks.download.shots import needs_syncfs
from .environment import Environment, environment, needs_root, until
from .rig import Process, scenario, webhook
from .tracing import traced

pytestmark = [pytest.mark.root, pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")]
COUNT = 300
HANG = "delay_enter=120000000"
"""Two minutes, in microseconds: longer than the daemon is waited for."""


def sinks(place: Environment, folder: Path, **more: Any) -> dict[str, Any]:
    """The pictures, and a webhook, which shows whether the rest of the daemon goes on."""
    needs_root("attaches strace to the daemon")
    needs_syncfs(folder)
    archive = {
        "type": "download",
        "directory": str(folder / "pictures"),
        "allow_cidr": ["127.0.0.0/8"],
        "allow_hosts": ["127.0.0.1"],
        "sync": "filesystem",
        **more,
    }
    return {"archive": archive, "hook": webhook(place)}


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "pictures").rglob("*.jpg")}


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_batches_whose_syncfs_failed_come_again(tmp_path: Path, error: str) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, sinks=sinks(place, tmp_path)) as daemon:
        process = daemon.run()
        with traced(process, tmp_path / "trace", [], "syncfs", f"error={error}:when=1..2") as trace:
            place.enqueue(COUNT, pictures=True)
            until(lambda: len(names(tmp_path)) == COUNT, what="for the pictures")
            until(lambda: process.metric("backlog_events", sink="archive") == 0)
        assert trace.times("INJECTED") >= 1
        reasons = {line["reason"] for line in process.said("delivery_failed")}
        assert reasons == {"disk: Input/output error" if error == "EIO" else "the disk is full"}
        assert process.metric("dead_letters", sink="archive") == 0
        assert process.stop() == 0


def has_exited(process: Process) -> bool:
    """Whether the main thread has ended, even if the kernel waits for another thread."""
    return Path(f"/proc/{process.child.pid}/stat").read_text().rpartition(") ")[2].startswith("Z")


def test_a_syncfs_that_hangs_holds_up_neither_the_daemon_nor_its_stop(tmp_path: Path) -> None:
    """A batch that times out in it is not delivered; the next daemon delivers it."""
    with (
        environment(tmp_path) as place,
        scenario(place, tmp_path, sinks=sinks(place, tmp_path, timeout="1s")) as daemon,
    ):
        process = daemon.run()
        with traced(process, tmp_path / "trace", [], "syncfs", HANG, abrupt=True):
            place.enqueue(COUNT, pictures=True)
            until(lambda: process.said("delivery_failed"), what="for the timeout")
            until(lambda: place.hook.files.total() == COUNT, what="for the webhook")
            assert process.get("/healthz")[0] == 200
            assert process.metric("backlog_events", sink="archive") == COUNT
            assert names(tmp_path) == set()
            process.signal(signal.SIGTERM)
            until(lambda: has_exited(process), what="for the stop")
        assert process.wait() == 0
        assert {line["sink"] for line in process.said("delivery_failed")} == {"archive"}
        assert daemon.drain() == 0
        assert len(names(tmp_path)) == COUNT
        assert list((tmp_path / "pictures" / ".incoming").iterdir()) == []
        assert daemon.books().lost() == []
