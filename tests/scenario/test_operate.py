"""What an operator asks and orders: of a running daemon by its socket, of the file when none runs."""

import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import commands, lives
from tests.commands import Ended

from .environment import PATIENCE, Environment, environment, until
from .rig import Process, Scenario, scenario, spool_with

MANY = 1000


def poller(daemon: Scenario, *words: str, code: int | None = 0) -> Ended:
    """A command on the story's configuration, to its end."""
    done = commands.poller(*words, "-c", str(daemon.config), folder=daemon.config.parent)
    assert code is None or done.returncode == code, (words, done)
    return done


def rows(daemon: Scenario, *words: str, code: int | None = 0) -> list[dict[str, Any]]:
    """What a command prints with --json."""
    return [json.loads(line) for line in poller(daemon, *words, "--json", code=code).stdout.splitlines()]


def sink(daemon: Scenario, name: str = "hook") -> dict[str, Any]:
    """One sink in `status`."""
    (status,) = rows(daemon, "status")
    return next(one for one in status["sinks"] if one["name"] == name)


def hook_refuses(daemon: Scenario, place: Environment, count: int) -> Process:
    """A daemon whose webhook refused so many events: they are dead letters, and it works again."""
    place.turn(422)
    process = daemon.run()
    place.enqueue(count)
    until(lambda: process.metric("dead_letters", sink="hook") == count, what="for dead letters")
    place.turn(200)
    return process


def states(process: Process) -> list[tuple[str, str | None]]:
    """The log's lines on the hook's state."""
    return [
        (line["event"], line.get("reason"))
        for line in process.log
        if line["event"] in ("sink_paused", "sink_resumed", "sink_disabled")
    ]


# ---------------------------------------------------------------- dead letters


def test_dead_letters_are_listed_shown_retried_and_purged_while_the_daemon_runs(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process = hook_refuses(daemon, place, 30)
        assert stat.S_IMODE((tmp_path / "spool.db.sock").stat().st_mode) == 0o600
        listed = rows(daemon, "dead", "list")
        assert len(listed) == 30
        assert {(row["sink"], row["reason"], row["kind"]) for row in listed} == {
            ("hook", "HTTP 422", "screenshot")
        }
        assert rows(daemon, "dead", "list", "--limit", "3") == listed[:3]
        for words in (
            ["--sink", "console"],
            ["--reason", "HTTP 5"],
            ["--older-than", "1h"],
            ["--stream", "no"],
        ):
            assert rows(daemon, "dead", "list", *words) == []
        first = listed[0]["id"]
        (shown,) = rows(daemon, "dead", "show", first)
        assert shown["event"]["id"] == first
        assert shown["history"][-1]["reason"] == "HTTP 422"
        assert poller(daemon, "dead", "retry", code=2).stdout == ""
        assert poller(daemon, "dead", "purge", code=2).stdout == ""
        assert rows(daemon, "dead", "retry", first) == [{"retried": 1, "left": 0}]
        until(lambda: place.hook.files.total() == 1)
        assert rows(daemon, "dead", "retry", first, code=1) == [{"retried": 0, "left": 0}]
        assert rows(daemon, "dead", "purge", listed[1]["id"]) == [{"purged": 1}]
        assert rows(daemon, "dead", "retry", "--sink", "hook", "--newer-than", "1h") == [
            {"retried": 28, "left": 0}
        ]
        until(lambda: place.hook.files.total() == 29)
        assert poller(daemon, "dead", "list").stdout == ""
        assert process.metric("dead_letters", sink="hook") == 0
        said = [
            (line["verb"], line.get("retried"), line.get("purged")) for line in process.said("operator_asked")
        ]
        assert said[0] == ("dead retry", 1, None)
        assert ("dead purge", None, 1) in said
        assert process.stop() == 0
        assert not (tmp_path / "spool.db.sock").exists()


def test_dead_letters_are_retried_on_the_file_and_delivered_by_the_next_daemon(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        assert hook_refuses(daemon, place, 30).stop() == 0
        listed = rows(daemon, "dead", "list")
        assert len(listed) == 30
        table = poller(daemon, "dead", "list", "--limit", "2").stdout.splitlines()
        assert table[0].split() == ["id", "sink", "stream", "died_at", "attempts", "reason"]
        assert [line.split()[0] for line in table[1:]] == [row["id"] for row in listed[:2]]
        assert rows(daemon, "dead", "purge", listed[0]["id"]) == [{"purged": 1}]
        assert rows(daemon, "dead", "retry", "--all") == [{"retried": 29, "left": 0}]
        row = sink(daemon)
        assert (row["state"], row["backlog"], row["dead"]) == ("stopped", 29, 0)
        process = daemon.run()
        until(lambda: place.hook.files.total() == 29)
        assert process.stop() == 0
        assert len(place.hook.files) == 29


def test_what_is_forgotten_for_its_age_is_reported_and_counted(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        assert hook_refuses(daemon, place, 40).stop() == 0
        _as_an_older_version_left_it(daemon.spool_file)
        spool_with(daemon, retain_dead="0s", retain_quarantine="0s")
        process = daemon.run()
        until(lambda: process.metric("expired_total", what="dead_letter") == 40)
        until(lambda: process.metric("expired_total", what="quarantine") == 3)
        letters = [(line["sink"], line["count"]) for line in process.heard("dead_letters_expired")]
        assert {name for name, _ in letters} == {"hook"}
        assert sum(count for _, count in letters) == 40
        assert sum(line["count"] for line in process.heard("quarantine_expired")) == 3
        assert process.stop() == 0


@pytest.mark.timeout(600)
def test_a_daemon_killed_in_the_middle_of_a_retry_has_lost_no_letter(tmp_path: Path, soak: bool) -> None:
    """Each is still dead, or owed: also in a life whose socket was left behind by a kill."""
    rng, met, kills = random.Random("retry"), 0, 20 if soak else 3
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        assert hook_refuses(daemon, place, MANY).stop() == 0
        place.turn(
            "hang"
        )  # so that what is owed stays owed, and nobody waits for a second attempt afterwards
        for _ in range(kills):
            process = daemon.run()
            words, said = ["dead", "retry", "--all", "-c", str(daemon.config)], tmp_path / "said"
            with said.open("wb") as file:
                retry = lives.start(words, cwd=tmp_path, stdout=file, stderr=file)
            begun = rng.random() < 0.8
            until(lambda p=process, b=begun: not b or p.metric("dead_letters", sink="hook") < MANY)  # type: ignore[misc]
            time.sleep(rng.uniform(0.0, 0.01))
            assert process.kill() == -signal.SIGKILL
            retry.wait(PATIENCE)
            assert "Traceback" not in said.read_text()
            books = daemon.books()
            dead, waiting = books.dead.get("hook", set()), books.waiting
            assert len(dead | waiting) == MANY, "a letter is gone"
            met += bool(waiting)
        assert met, "no kill came after a retry had begun"
        place.turn(200)
        process = daemon.run()
        poller(daemon, "dead", "retry", "--all", code=None)
        until(lambda: len(place.hook.files) == MANY, 30, "for all letters to be delivered")
        assert process.stop() == 0


# ---------------------------------------------------------------- quarantine


def test_what_can_be_read_now_becomes_events_and_the_rest_stays(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        assert daemon.run().stop() == 0
        _as_an_older_version_left_it(daemon.spool_file)
        process = daemon.run()
        listed = rows(daemon, "quarantine", "list")
        assert [row["source"] for row in listed] == ["gone", "shots", "shots"]
        (shown,) = rows(daemon, "quarantine", "show", listed[1]["id"])
        assert '"stream_id":"old-room"' in shown["body"]
        (shown,) = rows(daemon, "quarantine", "show", listed[2]["id"])
        assert shown["body"] == '{"torn":"sign=***&x",'
        (row,) = rows(daemon, "quarantine", "retry", "--all")
        assert (row["read"], row["events"], row["left"]) == (1, 2, 2)
        assert "source gone is not configured" in row["why"]
        until(lambda: place.hook.files.total() == 2)
        assert rows(daemon, "quarantine", "purge", "--source", "gone") == [{"purged": 1}]
        assert process.stop() == 0
        assert rows(daemon, "quarantine", "retry", "--all", code=1) == [{"read": 0, "events": 0, "left": 1}]
        assert rows(daemon, "quarantine", "purge", "--all") == [{"purged": 1}]
        assert rows(daemon, "quarantine", "list") == []


def _as_an_older_version_left_it(spool: Path) -> None:
    """A whole page that it could not read, packed as it came; and one of a source that is gone."""
    code = f"""
import asyncio, gzip
from datetime import UTC, datetime
from poller.core.model import PollOutcome, ParsedPage, Reject
from poller.spools.sqlite import SqliteSpool
message = '{{"stream_id":"old-room","pic_url":"old-room_1700000000_1700000000_%d_300_169.jpg"}}'
page = ('{{"ret":0,"output":{{"data":[%s]}}}}' % ",".join(message % n for n in (10, 20))).encode()
def left(body, encoding):
    at = datetime.now(UTC)
    reject = Reject(received_at=at, reason="reading raised KeyError", encoding=encoding, body=body)
    return [ParsedPage(events=(), rejects=(reject,), outcome=PollOutcome.FAILED)]
async def leave():
    settings = SqliteSpool.Settings(type="sqlite", path={str(spool)!r})
    async with SqliteSpool("spool", settings, {{}}) as spool:
        await spool.append("shots", left(b'{{"torn":"sign=abcdef&x",', ""))
        await spool.append("shots", left(gzip.compress(page), "gzip"))
        await spool.append("gone", left(page, ""))
asyncio.run(leave())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---------------------------------------------------------------- pause and resume, and what sinks do by themselves


def test_an_operators_pause_keeps_deliveries_survives_a_restart_and_is_no_failure(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        first = daemon.run()
        place.enqueue(10)
        until(lambda: place.hook.files.total() == 10)
        assert rows(daemon, "pause", "hook") == [{"sink": "hook", "state": "paused", "changed": True}]
        assert rows(daemon, "pause", "hook") == [{"sink": "hook", "state": "paused", "changed": False}]
        until(lambda: states(first) == [("sink_paused", "by the operator")], what="for the log's own thread")
        place.enqueue(20)
        until(lambda: first.metric("backlog_events", sink="hook") == 20)
        until(lambda: first.metric("backlog_events", sink="console") == 0)
        assert first.metric("sink_paused", sink="hook") == 1
        first.kill()
        second = daemon.run()
        assert states(second) == [("sink_paused", "by the operator")]
        until(lambda: second.get("/readyz")[0] == 200)
        assert json.loads(second.get("/readyz")[1])["notes"] == ["sink hook: paused: by the operator"]
        row = sink(daemon)
        assert (row["state"], row["why"], row["backlog"]) == ("paused", "by the operator", 20)
        assert place.hook.files.total() == 10
        assert rows(daemon, "resume", "hook") == [{"sink": "hook", "state": "serving", "changed": True}]
        until(lambda: place.hook.files.total() == 30)
        turns = [("sink_paused", "by the operator"), ("sink_resumed", None)]
        until(lambda: states(second) == turns, what="for the log's own thread")
        assert second.metric("sink_paused", sink="hook") == 0
        assert "there are: console, hook" in poller(daemon, "pause", "hok", code=1).stderr
        assert second.stop() == 0
        assert rows(daemon, "pause", "hook") == [{"sink": "hook", "state": "paused", "changed": True}]
        assert sink(daemon)["state"] == "paused"
        third = daemon.run()
        place.enqueue(5)
        until(lambda: third.metric("backlog_events", sink="hook") == 5)
        assert place.hook.files.total() == 30
        assert third.stop() == 0
        assert rows(daemon, "resume", "hook") == [{"sink": "hook", "state": "stopped", "changed": True}]
        assert daemon.drain() == 0
        assert place.hook.files.total() == 35


def test_a_sink_that_fails_for_long_is_seen_everywhere_and_reported_once(tmp_path: Path) -> None:
    with (
        environment(tmp_path) as place,
        scenario(place, tmp_path, admin={"listen": "127.0.0.1:0", "sink_age_limit": "1s"}) as daemon,
    ):
        process = daemon.run()
        place.turn(503)
        place.enqueue(1200)  # a failure holds back only its own batch, until five fail in a row
        until(lambda: process.said("sink_paused"))
        until(lambda: process.metric("backlog_events", sink="hook") == 1200, what="for all to be polled")
        why = "probed after 5 failures in a row: HTTP 503"
        row = sink(daemon)
        assert (row["state"], row["why"], row["last_error"]) == ("paused", why, "HTTP 503")
        assert row["backlog"] == 1200
        assert process.metric("sink_paused", sink="hook") == 1
        until(lambda: process.get("/readyz")[0] == 503)
        ready = json.loads(process.get("/readyz")[1])
        (status,) = rows(daemon, "status")
        assert ready["reasons"] == status["reasons"] == [f"sink hook: paused: {why}"]
        assert (ready["ready"], status["ready"], ready["notes"], status["notes"]) == (False, False, [], [])
        assert process.get("/readyz?for=pushes")[0] == 200
        assert process.metric("sink_ready", sink="hook") == process.metric("ready") == 0
        until(lambda: process.said("not_ready"))
        assert process.said("not_ready")[0]["reasons"] == ready["reasons"]
        table = poller(daemon, "status").stdout
        assert why in table
        place.turn(200)
        poller(daemon, "resume", "hook")
        until(lambda: place.hook.files.total() > 0)
        until(lambda: process.said("sink_resumed"), what="for the log's own thread")
        assert states(process) == [("sink_paused", why), ("sink_resumed", None)]
        place.turn(410)
        place.enqueue(100)
        until(lambda: process.said("sink_disabled"))
        assert (sink(daemon)["state"], sink(daemon)["why"]) == ("disabled", "HTTP 410")
        assert "sink hook: disabled: HTTP 410" in process.get("/readyz")[1]
        assert process.metric("sink_paused", sink="hook") == 1
        place.turn(200)
        assert rows(daemon, "resume", "hook")[0]["state"] == "serving"
        until(lambda: len(place.hook.files) == 1300, 60)
        turns = ["sink_paused", "sink_resumed", "sink_disabled", "sink_resumed"]
        until(lambda: [word for word, _ in states(process)] == turns, what="for the log's own thread")
        assert process.stop() == 0


# ---------------------------------------------------------------- the socket and the file


def test_who_talks_nonsense_or_nothing_is_cut_and_holds_nobody_up(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process, path, refused = daemon.run(), str(tmp_path / "spool.db.sock"), 0
        huge = b'{"verb":"dead list","chosen":{"below":99999999999999999999}}\n'
        for nonsense in (
            huge,
            b"\n",
            b"{}\n",
            b'{"verb":"fly"}\n',
            b"\xff\n",
            b"[" * 99_999 + b"\n",
            b"x" * (2 << 20),
        ):
            with closing(socket.socket(socket.AF_UNIX)) as caller:
                caller.settimeout(PATIENCE)
                caller.connect(path)
                try:
                    caller.sendall(nonsense)
                    answer = caller.recv(65536)
                except OSError:
                    continue
                assert answer == b"" or b'"error":"not a request' in answer
                refused += bool(answer)
        assert refused, "none of it was read as a request"
        silent = []
        for _ in range(10):
            caller = socket.socket(socket.AF_UNIX)
            caller.settimeout(PATIENCE)
            caller.connect(path)
            silent.append(caller)
        assert sink(daemon)["state"] == "serving"
        assert silent[0].recv(10) == b"", "cut at the deadline"
        late = socket.socket(socket.AF_UNIX)
        late.connect(path)
        place.enqueue(100)
        until(lambda: place.hook.files.total() == 100)
        assert process.stop() == 0
        for caller in (*silent, late):
            caller.close()


def test_a_path_too_long_for_a_socket_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / ("deep-" * 30) / ("x" * 60)
    folder.mkdir(parents=True)
    spool = {"type": "sqlite", "path": str(folder / f"{'s' * 120}.db")}
    with environment(tmp_path) as place, scenario(place, tmp_path, spool=spool) as daemon:
        process = daemon.run()
        assert process.said("control_failed") == []
        assert sink(daemon)["state"] == "serving"
        assert len(os.listdir(folder)) >= 4
        assert process.stop() == 0


def test_a_spool_in_memory_is_asked_beside_its_journal_and_not_at_all_without_a_daemon(
    tmp_path: Path,
) -> None:
    spool, journal = {"type": "memory", "path": ""}, {"path": str(tmp_path / "j"), "size": "16MiB"}
    with environment(tmp_path) as place, scenario(place, tmp_path, spool=spool, journal=journal) as daemon:
        settings = json.loads(daemon.config.read_text())
        del settings["spool"]["path"]
        daemon.config.write_text(json.dumps(settings))
        process = hook_refuses(daemon, place, 5)
        assert (tmp_path / "j.sock").is_socket()
        assert rows(daemon, "dead", "retry", "--all") == [{"retried": 5, "left": 0}]
        until(lambda: place.hook.files.total() == 5)
        assert process.stop() == 0
        assert "no daemon runs" in poller(daemon, "status", code=1).stderr


def test_nothing_is_made_where_no_spool_is(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path / "new") as daemon:
        assert "there is no spool" in poller(daemon, "status", code=1).stderr
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["poller.yaml"]
        daemon.config.write_text("accounts: {}\n")
        poller(daemon, "dead", "list", code=78)
