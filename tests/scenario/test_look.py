"""The commands that look at the log, asked of a running daemon and of the file of a stopped one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from poller.control.server import MOST_TAPS
from tests import commands, lives
from tests.commands import Ended

from .environment import PATIENCE, environment, until
from .rig import Process, Scenario, scenario


def poller(daemon: Scenario, *words: str, code: int = 0) -> Ended:
    done = commands.poller(*words, "-c", str(daemon.config), folder=daemon.config.parent)
    assert done.returncode == code, (words, done)
    return done


def lines(daemon: Scenario, *words: str) -> list[str]:
    return poller(daemon, *words).stdout.splitlines()


def rows(daemon: Scenario, *words: str, code: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in poller(daemon, *words, "--json", code=code).stdout.splitlines()]


class Reader:
    """A command that goes on, with its output in files."""

    def __init__(self, daemon: Scenario, *words: str) -> None:
        self._out = daemon.folder / f"reader-{time.monotonic_ns()}"
        with self._out.open("wb") as out, self._out.with_suffix(".err").open("wb") as err:
            self.child = lives.start(
                [*words, "-c", str(daemon.config)], cwd=daemon.folder, stdout=out, stderr=err
            )

    @property
    def stderr(self) -> str:
        return self._out.with_suffix(".err").read_text()

    @property
    def lines(self) -> list[str]:
        return self._out.read_text().splitlines()

    @property
    def ids(self) -> list[str]:
        whole, _, _ = self._out.read_bytes().rpartition(b"\n")
        return [json.loads(line)["id"] for line in whole.splitlines()]

    def until_begun(self) -> None:
        until(
            lambda: "from now on" in self.stderr or self.child.poll() is not None, what="for a tap to begin"
        )

    def end(self) -> None:
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.kill()
        self.child.wait(PATIENCE)


@contextmanager
def reading(daemon: Scenario, *words: str) -> Iterator[Reader]:
    reader = Reader(daemon, *words)
    try:
        yield reader
    finally:
        reader.end()


def delivered(daemon: Scenario, process: Process, count: int) -> None:
    until(lambda: process.metric("events_total") >= count, what=f"for {count} events")


# ---------------------------------------------------------------- events


def test_events_are_those_of_an_export_with_a_daemon_and_without(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        place.enqueue(120, streams=3)
        delivered(daemon, process, 120)
        exported = lines(daemon, "spool", "export")
        assert len(exported) == 120
        stream = json.loads(exported[0])["data"]["stream_id"]
        for stopped in (False, True):
            if stopped:
                assert process.stop() == 0
            assert lines(daemon, "events", "--json") == exported
            assert lines(daemon, "events", "--json", "--limit", "7") == exported[-7:]
            assert lines(daemon, "events", "--json", "--since", "1h") == exported
            assert lines(daemon, "events", "--json", "--until", "1h") == []
            assert lines(daemon, "events", "--json", "--kind", "recording") == []
            own = [line for line in exported if json.loads(line)["data"]["stream_id"] == stream]
            assert lines(daemon, "events", "--json", "--stream", stream, "--account", "main") == own
            nothing = poller(daemon, "events", "--stream", "not-there")
            assert (nothing.returncode, nothing.stdout) == (0, "")
            assert "no events that match" in nothing.stderr
            shown = poller(daemon, "events")
            assert len(shown.stdout.splitlines()) == 50
            assert "only the newest 50 are shown" in shown.stderr
            assert len(lines(daemon, "events", "--since", "1h")) == 120
            last = json.loads(exported[-1])
            when, kind, whose, file = re.split(" {2,}", shown.stdout.splitlines()[-1])
            assert (kind, whose, file) == ("screenshot", last["data"]["stream_id"], last["data"]["file_name"])
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", when)
            utc = lines(daemon, "events", "--utc", "--limit", "1")
            assert utc[0].startswith(f"{last['time'][:19]}Z  screenshot")


def test_following_goes_on_where_the_list_ends(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        place.enqueue(300)
        with reading(daemon, "events", "--json", "--follow", "--limit", "250") as reader:
            place.enqueue(700)
            delivered(daemon, process, 1_000)
            exported = [json.loads(line)["id"] for line in lines(daemon, "spool", "export")]
            until(lambda: reader.ids[-1:] == exported[-1:], what="for the newest event")
            assert reader.ids == exported[-len(reader.ids) :]
            assert len(reader.ids) >= 250
        with reading(daemon, "tap") as reader:
            reader.until_begun()
            assert process.stop() == 0
            assert reader.child.wait(PATIENCE) == 1
            assert "the daemon is stopping" in reader.stderr
        assert "no daemon runs" in poller(daemon, "events", "--follow", code=1).stderr
        assert "--follow" in poller(daemon, "events", "--follow", "--until", "10:00", code=2).stderr


def test_a_reader_that_has_enough_ends_the_command_quietly(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        place.enqueue(3_000)
        delivered(daemon, process, 3_000)
        command = f"{sys.executable} -m poller events --json -c {daemon.config} | head -n 2"
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert (len(done.stdout.splitlines()), done.stderr) == (2, "")
        assert process.stop() == 0


# ---------------------------------------------------------------- pictures and streams


def test_a_picture_is_found_by_its_time_with_its_url_and_its_file(tmp_path: Path) -> None:
    archive = {"type": "download", "directory": str(tmp_path / "pictures"), "allow_cidr": ["127.0.0.0/8"]}
    with environment(tmp_path) as place, scenario(place, tmp_path, sinks={"archive": archive}) as daemon:
        process = daemon.run()
        place.enqueue(40, streams=2, pictures=True)
        until(lambda: process.metric("deliveries_total", outcome="done") == 40, what="for the pictures")
        events = rows(daemon, "events")
        stream = events[0]["data"]["stream_id"]
        own = [event for event in events if event["data"]["stream_id"] == stream]
        for stopped in (False, True):
            if stopped:
                assert process.stop() == 0
            for event in (own[3], own[-1]):
                words = ["find", stream, event["time"]] if event is own[3] else ["latest", stream]
                (row,) = rows(daemon, *words)
                (file,) = row["picture"]["files"]
                assert row["picture"]["id"] == event["id"]
                assert file["present"]
                assert Path(file["path"]).read_bytes().startswith(b"\xff\xd8")
                (line,) = lines(daemon, *words, "--utc")
                assert line == "  ".join([event["time"][:19] + "Z", event["data"]["url"], file["path"]])
            missed = poller(daemon, "find", stream, "2020-01-01T00:00:00Z", "--utc", code=1)
            assert "no picture of" in missed.stderr
            assert f"the nearest after was taken at {own[0]['time'][:19]}Z" in missed.stderr
            assert "no stream nobody is known" in poller(daemon, "latest", "nobody", code=1).stderr


def test_streams_fit_80_columns(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        place.enqueue(40, streams=4)
        delivered(daemon, process, 40)
        found = rows(daemon, "streams")
        assert len(found) == 4
        head, *table = lines(daemon, "streams")
        assert head.split("  ")[0] == "stream"
        assert [line.split()[0] for line in table] == [row["stream"] for row in found]
        assert max(map(len, [head, *table])) <= 80
        assert {(row["account"], row["state"], row["cadence"]) for row in found} == {("main", None, 10)}
        assert process.stop() == 0
        assert [row["stream"] for row in rows(daemon, "streams")] == [row["stream"] for row in found]
        assert "no streams that match" in poller(daemon, "streams", "--state", "live").stderr


# ---------------------------------------------------------------- tap


def test_a_tap_shows_everything_from_now_on(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        assert "no daemon runs" in poller(daemon, "tap", code=1).stderr
        process = daemon.run()
        place.enqueue(100)
        delivered(daemon, process, 100)
        with reading(daemon, "tap", "--json") as reader, reading(daemon, "tap", "--sink", "hook") as people:
            reader.until_begun()
            people.until_begun()
            place.enqueue(5_000)
            delivered(daemon, process, 5_100)
            exported = [json.loads(line)["id"] for line in lines(daemon, "spool", "export")]
            until(lambda: len(reader.ids) >= 5_000 and len(people.lines) >= 5_000, what="for the taps")
            assert reader.ids == exported[100:]
            assert "missing" not in reader.stderr + people.stderr
        refused = poller(daemon, "tap", "--sink", "nobody", code=1).stderr
        assert refused.startswith("poller: no sink nobody"), "nothing was promised before"
        assert process.stop() == 0


def test_stopped_taps_slow_nobody_and_end_with_the_daemon(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon, ExitStack() as stack:
        process = daemon.run()
        taps = [stack.enter_context(reading(daemon, "tap", "--json")) for _ in range(MOST_TAPS)]
        for tap in taps:
            tap.until_begun()
            os.kill(tap.child.pid, signal.SIGSTOP)
        place.enqueue(20_000)
        until(lambda: place.hook.files.total() >= 20_000, what="for the deliveries")
        begun = time.monotonic()
        assert rows(daemon, "status")[0]["sinks"][1]["backlog"] == 0
        assert time.monotonic() - begun < PATIENCE / 3
        assert f"{MOST_TAPS} taps are open already" in poller(daemon, "tap", code=1).stderr
        os.kill(taps[0].child.pid, signal.SIGCONT)
        until(lambda: len(taps[0].ids) == 20_000, what="for the tap that goes on")
        assert len(set(taps[0].ids)) == 20_000
        taps[0].end()
        with reading(daemon, "tap") as another:
            another.until_begun()
            assert another.child.poll() is None
        taps[1].child.kill()
        place.enqueue(1_000)
        until(lambda: place.hook.files.total() >= 21_000, what="for the deliveries")
        assert process.stop() == 0
        assert "Unhandled" not in process.stderr
        assert process.said("library_error") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_tap_and_frees_its_place(tmp_path: Path, number: signal.Signals) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = daemon.run()
        for _ in range(MOST_TAPS + 2):
            with reading(daemon, "tap") as tap:
                tap.until_begun()
                tap.child.send_signal(number)
                assert tap.child.wait(PATIENCE) == -number
        assert process.stop() == 0
