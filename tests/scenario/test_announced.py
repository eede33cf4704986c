"""Who captured a notification announces pictures beforehand: the queue's own message sets it right."""

import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from poller.sandbox.query.messages import Said

from ..integration.sources.pushes import post, signed
from .environment import Environment, environment, until
from .rig import Scenario, scenario, webhook
from .test_callbacks import BOTH, OK, address_of

KINDS = ("foreign host", "own host, too early", "foreign host, delivered")


def _name(kind: str) -> str:
    taken = int(time.time()) - 20
    return f"room-{KINDS.index(kind)}_{taken}_{taken}_10_300_169.jpg"


def _announced(place: Environment, kind: str, name: str) -> dict[str, Any]:
    body = {"event_type": 200, "stream_id": name.partition("_")[0], "pic_url": "/" + name}
    if kind.startswith("foreign"):
        return {**body, "pic_full_url": f"http://elsewhere.example/{name}"}
    return {**body, "pic_full_url": f"{place.pictures}/{name}"}


def _genuine(place: Environment, names: list[str]) -> None:
    """The platform stores the pictures and writes their messages."""
    sandbox = place.sandbox

    def say() -> None:
        queue = sandbox.platform.queue()
        sandbox.pictures.put_many(queue.customer.host_label, names, sandbox._synthetic._jpeg(300, 169))
        queue.enqueue([Said(stream_id=name.partition("_")[0], path=name, create_time=0) for name in names])
        sandbox.platform.wakeup.ring()

    place.ask(say)


def _settings(place: Environment, folder: Path) -> dict[str, Any]:
    archive = {"type": "download", "directory": str(folder / "pictures"), "template": "{name}"}
    return {
        "sources": BOTH,
        # a picture that is not there is given up at once, so that the test need not wait for it
        "sinks": {
            "archive": {**archive, "allow_cidr": ["127.0.0.0/8"], "give_up_after": "0s"},
            "hook": webhook(place),
        },
    }


def _announce_all(place: Environment, daemon: Scenario, **environ: str) -> list[str]:
    process = daemon.start(**environ)
    names = [_name(kind) for kind in KINDS]
    address = address_of(process)
    for kind, name in zip(KINDS, names, strict=True):
        assert post(address, signed(_announced(place, kind, name))) == OK
    until(lambda: set(place.hook.files) == set(names), what="for the webhook to have them")
    until(lambda: process.metric("dead_letters", sink="archive") == len(names), what="for dead letters")
    until(lambda: _settled(daemon.spool_file, len(names)), what="for the settlements to be durable")
    return names


def _settled(file: Path, count: int) -> bool:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as spool:
        (position,) = spool.execute("SELECT min(position) FROM sink").fetchone()
    return bool(position > count)


def _set_right(place: Environment, folder: Path, names: list[str]) -> None:
    stored = [folder / "pictures" / name for name in names]
    until(lambda: all(path.exists() for path in stored), what="for the genuine pictures")
    assert place.hook.files == Counter(names), "the webhook had each of them, and gets none again"


def test_a_picture_that_a_stranger_announced_beforehand_is_downloaded_all_the_same(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, **_settings(place, tmp_path)) as daemon:
        names = _announce_all(place, daemon)
        (process,) = daemon.processes
        _genuine(place, names)
        _set_right(place, tmp_path, names)
        until(lambda: process.metric("dead_letters", sink="archive") == 0)
        assert process.stop() == 0, process.stderr


@pytest.mark.parametrize("killed", ["before the queue tells it", "while it is set right"])
def test_a_kill_while_a_wrong_announcement_is_set_right_costs_no_picture(tmp_path: Path, killed: str) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, **_settings(place, tmp_path)) as daemon:
        names = _announce_all(place, daemon, POLLER_FAILPOINT="correction.written:1")
        if killed.startswith("before"):
            daemon.processes[0].kill()
        _genuine(place, names)
        assert daemon.processes[0].wait() == -9
        daemon.run()
        _set_right(place, tmp_path, names)
        assert daemon.processes[-1].stop() == 0
