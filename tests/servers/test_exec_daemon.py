"""Commands of a real daemon: events pass into their database while both are killed, and they are bounded and ended."""

import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import yaml

from tests.patience import PATIENCE
from tests.scenario.environment import environment, until
from tests.scenario.rig import scenario

from . import through
from .processes import needs

COMMAND = """
import json, os, pathlib, sqlite3, sys
folder = pathlib.Path(sys.argv[1])
mark = folder / "running" / str(os.getpid())
mark.touch()
try:
    if (folder / "down").exists():
        sys.exit(75)
    events = [json.loads(line) for line in sys.stdin]
    database = sqlite3.connect(folder / "events.db", timeout=30)
    database.execute("PRAGMA synchronous = FULL")
    with database:
        rows = [(event.get("subject", ""), event["id"]) for event in events]
        database.executemany("INSERT INTO event (stream, id) VALUES (?, ?)", rows)
finally:
    mark.unlink()
"""


class Commands:
    """The command, as the server that `through` kills: every running one dies, and a new one fails until `start`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "running").mkdir(parents=True)
        self.killed = 0
        with closing(sqlite3.connect(folder / "events.db")) as database:
            database.execute("CREATE TABLE event (number INTEGER PRIMARY KEY, stream TEXT, id TEXT)")

    def kill(self) -> None:
        before, began = self.killed, time.monotonic()
        while self.killed == before:
            assert time.monotonic() - began < PATIENCE, "no command ran"
            for mark in (self.folder / "running").iterdir():
                self._kill_one(mark)
            time.sleep(0.001)
        (self.folder / "down").touch()

    def _kill_one(self, mark: Path) -> None:
        pid = int(mark.name)
        with suppress(OSError):
            found = os.pidfd_open(pid)
            # the number may have a new owner by now: only the command has this folder among its words
            if str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                signal.pidfd_send_signal(found, signal.SIGKILL)
                self.killed += 1
            os.close(found)
            mark.unlink()

    def start(self) -> None:
        (self.folder / "down").unlink()

    def stored(self) -> Iterator[tuple[str, str]]:
        with closing(sqlite3.connect(self.folder / "events.db")) as database:
            yield from database.execute("SELECT stream, id FROM event ORDER BY number").fetchall()


@pytest.mark.timeout(3600)
def test_events_pass_the_daemon_and_the_command_while_both_are_killed(tmp_path: Path, soak: bool) -> None:
    events, kills = through.FULL if soak else through.ORDINARY
    commands = Commands(tmp_path / "there")
    carried = through.carry(
        tmp_path / "way",
        commands,
        {"type": "exec", "command": [sys.executable, "-I", "-S", "-c", COMMAND, str(commands.folder)]},
        commands.stored,
        events=events,
        kills=kills,
    )
    through.check(carried, least=events)
    assert commands.killed >= kills // 2


# ---------------------------------------------------------------- commands of a real daemon


def program(folder: Path, script: str) -> str:
    """A script as a file; the configuration would read its dollar signs."""
    (folder / "command").write_text(script)
    (folder / "command").chmod(0o755)
    return str(folder / "command")


COUNTING = """#!/bin/sh
mkdir "$1/$$"
ls "$1" | grep -c '^[0-9]' >> "$1/counts"
sleep 0.05
rmdir "$1/$$"
"""


def test_no_more_commands_run_at_once_than_the_settings_say(tmp_path: Path) -> None:
    running = tmp_path / "running"
    running.mkdir()
    out = {"type": "exec", "command": [program(tmp_path, COUNTING), str(running)], "start": "earliest"}
    sinks = {"out": {**out, "batch": {"max_events": 1}, "concurrency": 3}}
    with environment(tmp_path) as place, scenario(place, tmp_path / "daemon", sinks=sinks) as daemon:
        place.enqueue(60)
        assert daemon.drain() == 0
    counts = [int(line) for line in (running / "counts").read_text().split()]
    assert (len(counts), max(counts)) == (60, 3)


HANGING = """#!/bin/sh
trap '' TERM
sleep 1000 &
echo $$ $! >> "$1"
sleep 1000
"""


def test_a_command_whose_time_is_over_is_ended_with_its_children_and_its_event_is_tried_again(
    tmp_path: Path,
) -> None:
    pids = tmp_path / "pids"
    out = {"type": "exec", "command": [program(tmp_path, HANGING), str(pids)], "timeout": "300ms"}
    sinks = {"out": {**out, "batch": {"max_events": 1}, "start": "earliest"}}
    with environment(tmp_path) as place, scenario(place, tmp_path / "daemon", sinks=sinks) as daemon:
        place.enqueue(1)
        process = daemon.run()
        until(lambda: pids.exists() and len(pids.read_text().split()) >= 4)
        assert process.stop() == 0
        assert not daemon.books().dead
        started = pids.read_text().split()
    assert len(started) >= 4
    assert [pid for pid in started if is_alive(pid)] == []


def is_alive(pid: str) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_documents_command_for_each_picture_gets_every_file_that_a_download_stored(
    tmp_path: Path,
) -> None:
    needs("jq", "apt-get install jq")
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "sinks.md").read_text()
    configuration, script = re.findall(
        r"```(?:yaml|shell)\n(.*?)```", guide[guide.index("### A command for") :], re.S
    )[:2]
    classify, command, folder = tmp_path / "classify", tmp_path / "each-picture", tmp_path / "pictures"
    classify.write_text(f'#!/bin/sh\nmd5sum "$1" >> {tmp_path}/seen\n')
    command.write_text(script.replace("/usr/local/bin/classify", str(classify)))
    for program in (classify, command):
        program.chmod(0o755)
    text = configuration.replace("/usr/local/bin/each-picture", str(command))
    sinks = yaml.safe_load(text.replace("/var/lib/poller/pictures", str(folder)))["sinks"]
    sinks["archive"]["allow_cidr"] = ["127.0.0.0/8"]
    sinks = {name: {**sink, "start": "earliest"} for name, sink in sinks.items()}
    with environment(tmp_path) as place, scenario(place, tmp_path / "daemon", sinks=sinks) as daemon:
        place.enqueue(30, pictures=True)
        assert daemon.drain() == 0
        assert not daemon.books().dead
        ids = {line.partition(b'"id":"')[2][:32].decode() for line in lines_of(daemon.spool_file)}
    sums, files = zip(*(line.split() for line in (tmp_path / "seen").read_text().splitlines()), strict=True)
    assert sorted(files) == sorted(str(folder / f"{id}.jpg") for id in ids)
    assert len(files) == 30
    assert len(set(sums)) == 1, "each is the sandbox's one picture"


def lines_of(spool: Path) -> list[bytes]:
    """The events of a spool, as JSON."""
    with closing(sqlite3.connect(f"{spool.as_uri()}?mode=ro", uri=True)) as file:
        pages = file.execute("SELECT events FROM page").fetchall()
    return [line for (events,) in pages for line in events.split(b"\n")]
