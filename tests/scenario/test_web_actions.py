"""What an operator orders from the pages is true afterwards for the commands, too; what has changed is asked again."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .environment import Environment, environment, until
from .rig import Process, Scenario, scenario
from .test_operate import _as_an_older_version_left_it, hook_refuses, rows, sink
from .web_client import OPERATOR, VIEWER, WebClient


@contextmanager
def pages(place: Environment, folder: Path, **settings: Any) -> Iterator[Scenario]:
    """A configuration with pages, an operator's token and a viewer's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "operate").write_text(OPERATOR)
    (folder / "look").write_text(VIEWER)
    for name in ("operate", "look"):
        (folder / name).chmod(0o600)
    web: Mapping[str, Any] = {
        "listen": "127.0.0.1:0",
        "token_file": str(folder / "operate"),
        "view_token_file": str(folder / "look"),
    }
    with scenario(place, folder, web=web, **settings) as daemon:
        yield daemon


def many_dead(daemon: Scenario, copies: int) -> int:
    """Multiply the dead letters of a stopped daemon's file; returns how many there are."""
    with closing(sqlite3.connect(daemon.spool_file)) as file, file:
        names = [row[1] for row in file.execute("PRAGMA table_info(dead)") if row[1] != "n"]
        columns = ", ".join(names)
        copied = columns.replace("event_id", "lower(hex(randomblob(16)))")
        file.execute(
            f"INSERT INTO dead ({columns}) SELECT {copied} FROM dead,"
            " (WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < ?) SELECT i FROM c)",
            (copies,),
        )
        count: int = file.execute("SELECT count(*) FROM dead").fetchone()[0]
        return count


# ---------------------------------------------------------------- sinks


def test_a_sink_that_is_paused_and_resumed_on_the_page_is_so_for_the_commands(tmp_path: Path) -> None:
    with environment(tmp_path) as place, pages(place, tmp_path) as daemon:
        process = daemon.run()
        client = WebClient(process, OPERATOR)
        job = client.done("/api/pause", {"sink": "hook"})
        assert (job["state"], job["result"]["state"]) == ("done", "paused")
        assert (sink(daemon)["state"], sink(daemon)["why"]) == ("paused", "by the operator")
        place.enqueue(10)
        until(lambda: sink(daemon)["backlog"] == 10)
        assert place.hook.files.total() == 0
        assert client.done("/api/resume", {"sink": "hook"})["result"]["state"] == "serving"
        until(lambda: place.hook.files.total() == 10)
        assert sink(daemon)["state"] == "serving"
        status, content = client.post("/api/pause", {"sink": "nowhere"})
        assert (status, content["error"]) == (400, "no sink nowhere is configured; there are: console, hook")
        said = [(line["verb"], line["role"]) for line in process.heard("action_started", 3)]
        assert said == [("pause", "operate"), ("resume", "operate"), ("pause", "operate")]
        assert process.stop() == 0


def test_a_sink_that_paused_by_itself_says_when_it_is_probed(tmp_path: Path) -> None:
    with environment(tmp_path) as place, pages(place, tmp_path) as daemon:
        place.turn(503)
        process = daemon.run()
        place.enqueue(1)
        client = WebClient(process, VIEWER)
        until(lambda: _named(client, "hook")["state"] == "paused")
        assert _named(client, "hook")["next_probe"] >= 0
        assert _named(client, "console")["next_probe"] is None
        process.kill()


def _named(client: WebClient, name: str) -> Any:
    return next(one for one in client.get("/api/status")[1]["sinks"] if one["name"] == name)


# ---------------------------------------------------------------- dead letters and quarantine


def test_dead_letters_are_listed_by_reason_retried_and_purged_as_counted(tmp_path: Path) -> None:
    with environment(tmp_path) as place, pages(place, tmp_path) as daemon:
        process = hook_refuses(daemon, place, 30)
        client = WebClient(process, OPERATOR)
        _, first = client.get("/api/dead", limit=20)
        assert (first["count"], first["complete"], len(first["rows"])) == (30, True, 20)
        ((reason, count, names, newest),) = first["reasons"]
        assert (reason, count, names) == ("HTTP 422", 30, ["hook"])
        assert newest > 1_700_000_000
        _, rest = client.get("/api/dead", limit=20, below=first["below"], count="false")
        assert (len(rest["rows"]), rest["below"]) == (10, None)
        assert [row["id"] for row in first["rows"] + rest["rows"]] == [
            row["id"] for row in rows(daemon, "dead", "list")
        ]
        one = first["rows"][0]
        _, shown = client.get(f"/api/dead/{one['id']}", sink="hook")
        assert [attempt["reason"] for attempt in shown["history"]][-1] == "HTTP 422"
        assert client.get(f"/api/dead/{one['id']}", sink="console")[0] == 404
        assert client.get("/api/dead", reason="HTTP 5")[1]["count"] == 0
        job = client.done("/api/dead/retry", {"filter": {"id": one["id"]}, "expect": 1})
        assert (job["done"], job["total"], job["result"]) == (1, 1, {"retried": 1, "left": 0})
        until(lambda: place.hook.files.total() == 1)
        job = client.done("/api/dead/purge", {"filter": {"sink": "hook", "reason": "HTTP 422"}, "expect": 29})
        assert job["result"] == {"purged": 29}
        assert rows(daemon, "dead", "list") == []
        assert sink(daemon)["dead"] == 0
        ended = [(line["verb"], line["role"], line["done"]) for line in process.heard("action_ended", 2)]
        assert ended == [("dead retry", "operate", 1), ("dead purge", "operate", 29)]
        assert process.stop() == 0


@pytest.mark.parametrize("how", ["retry", "purge"])
def test_a_count_that_has_changed_is_refused_with_the_new_one_and_nothing_is_done(
    tmp_path: Path, how: str
) -> None:
    with environment(tmp_path) as place, pages(place, tmp_path) as daemon:
        process = hook_refuses(daemon, place, 30)
        client = WebClient(process, OPERATOR)
        status, content = client.post(f"/api/dead/{how}", {"filter": {"sink": "hook"}, "expect": 29})
        assert (status, content) == (409, {"error": "30 match now, and not 29", "count": 30})
        assert len(rows(daemon, "dead", "list")) == 30
        assert place.hook.files.total() == 0
        assert process.stop() == 0


def test_quarantine_is_read_again_and_purged_on_the_page(tmp_path: Path) -> None:
    with environment(tmp_path) as place, pages(place, tmp_path) as daemon:
        assert daemon.run().stop() == 0
        _as_an_older_version_left_it(daemon.spool_file)
        process = daemon.run()
        client = WebClient(process, OPERATOR)
        _, found = client.get("/api/quarantine")
        assert (found["count"], found["reasons"][0][2]) == (3, ["gone", "shots"])
        torn = min(found["rows"], key=lambda row: row["bytes"])["id"]
        assert client.get(f"/api/quarantine/{torn}")[1]["body"] == '{"torn":"sign=***&x",'
        result = client.done("/api/quarantine/retry", {"filter": {}, "expect": 3})["result"]
        assert (result["read"], result["events"], result["left"]) == (1, 2, 2)
        assert client.post("/api/quarantine/purge", {"filter": {"source": "gone"}, "expect": 2})[0] == 409
        assert client.done("/api/quarantine/purge", {"filter": {}, "expect": 2})["result"] == {"purged": 2}
        assert rows(daemon, "quarantine", "list") == []
        assert process.stop() == 0


# ---------------------------------------------------------------- replays


def test_a_replay_is_counted_ordered_paused_and_cancelled_on_the_page(tmp_path: Path) -> None:
    with environment(tmp_path) as place, pages(place, tmp_path) as daemon:
        process = daemon.run()
        place.enqueue(200)
        until(lambda: sink(daemon)["delivered"] == 200 and sink(daemon)["backlog"] == 0)
        client = WebClient(process, OPERATOR)
        _, count = client.get("/api/replay", sink="hook", kinds="screenshot,gap", since=1_700_000_000)
        assert (count["count"], count["complete"]) == (200, True)
        body = {"sink": "hook", "filter": {"kinds": ["screenshot"]}, "below": count["below"]}
        status, content = client.post("/api/replay", {**body, "expect": 199})
        assert (status, content["count"]) == (409, 200)
        nothing = {"sink": "hook", "filter": {"until": 1}, "expect": 200}
        status, content = client.post("/api/replay", nothing)
        assert (status, content["count"]) == (409, 0), "that nothing is left is a changed count, too"
        assert rows(daemon, "replays") == []
        client.done("/api/pause", {"sink": "hook"})
        place.enqueue(50)  # what comes later does not change the count
        until(lambda: sink(daemon)["backlog"] == 50)
        job = client.done("/api/replay", {**body, "expect": 200})
        assert (job["result"]["replay"], job["result"]["events"]) == (1, 200)
        assert client.done("/api/replays/1/pause", {})["result"]["state"] == "paused"
        assert [row["state"] for row in rows(daemon, "replays")] == ["paused"]
        assert client.done("/api/replays/1/resume", {})["result"]["state"] == "running"
        client.done("/api/resume", {"sink": "hook"})
        until(lambda: rows(daemon, "replays")[0]["state"] == "done")
        assert place.hook.files.total() == 450
        assert client.post("/api/replays/1/cancel", {})[0] == 404
        assert client.get("/api/replays")[1]["rows"][0]["state"] == "done"
        assert process.stop() == 0


def test_an_audit_is_ordered_on_the_page(tmp_path: Path) -> None:
    with environment(tmp_path) as place, pages(place, tmp_path) as daemon:
        process = daemon.run()
        place.enqueue(20)
        until(lambda: sink(daemon)["delivered"] == 20)
        result = WebClient(process, OPERATOR).done("/api/audit", {"filter": {}})["result"]
        assert result["missing"] == 0
        assert process.stop() == 0


# ---------------------------------------------------------------- jobs


def test_a_job_goes_on_when_its_viewer_leaves(tmp_path: Path) -> None:
    with environment(tmp_path) as place, pages(place, tmp_path) as daemon:
        assert hook_refuses(daemon, place, 100).stop() == 0
        count = many_dead(daemon, 99)
        process = daemon.run()
        status, job = WebClient(process, OPERATOR).post("/api/dead/purge", {"filter": {}, "expect": count})
        assert (status, job["total"]) == (202, 10_000)
        until(lambda: sink(daemon)["dead"] == 0)
        (ended,) = process.heard("action_ended")
        assert ended["done"] == count
        assert WebClient(process, VIEWER).ended(job["job"])["result"] == {"purged": count}
        assert process.stop() == 0


def test_a_stop_in_the_midst_of_a_job_ends_it_between_two_steps(tmp_path: Path) -> None:
    with environment(tmp_path) as place, pages(place, tmp_path) as daemon:
        assert hook_refuses(daemon, place, 100).stop() == 0
        count = many_dead(daemon, 999)
        process = daemon.run()
        status, job = WebClient(process, OPERATOR).post("/api/dead/purge", {"filter": {}, "expect": count})
        assert status == 202
        assert job["done"] < count
        assert process.stop() == 0
        (ended,) = process.heard("action_ended")
        assert ended["reason"] == "the daemon is stopping; what was done is done"
        left = _dead(daemon)
        assert 0 < left < count
        assert ended["done"] == count - left
        assert process.said("action_raised") == []


def _dead(daemon: Scenario) -> int:
    with closing(sqlite3.connect(daemon.spool_file)) as file:
        count: int = file.execute("SELECT count(*) FROM dead").fetchone()[0]
        return count


# ---------------------------------------------------------------- who may, and what is wrong


def test_a_viewer_looks_and_changes_nothing(tmp_path: Path) -> None:
    with environment(tmp_path) as place, pages(place, tmp_path) as daemon:
        process = hook_refuses(daemon, place, 3)
        viewer = WebClient(process, VIEWER)
        assert viewer.get("/api/dead")[1]["count"] == 3
        bodies = {
            "/api/pause": {"sink": "hook"},
            "/api/resume": {"sink": "hook"},
            "/api/dead/retry": {"filter": {}, "expect": 3},
            "/api/dead/purge": {"filter": {}, "expect": 3},
            "/api/quarantine/retry": {"filter": {}, "expect": 0},
            "/api/quarantine/purge": {"filter": {}, "expect": 0},
            "/api/replay": {"sink": "hook", "filter": {}, "expect": 0},
            "/api/replays/1/cancel": {},
            "/api/audit": {},
        }
        assert {path: viewer.post(path, body)[0] for path, body in bodies.items()} == dict.fromkeys(
            bodies, 403
        )
        assert viewer.get("/api/replay", sink="hook")[0] == 403
        assert process.said("action_started") == []
        assert (sink(daemon)["state"], sink(daemon)["dead"]) == ("serving", 3)
        assert process.stop() == 0


def test_what_is_not_exactly_an_order_is_refused(tmp_path: Path) -> None:
    with environment(tmp_path) as place, pages(place, tmp_path) as daemon:
        process: Process = daemon.run()
        client = WebClient(process, OPERATOR)
        for path, content in (
            ("/api/pause", {"sink": "hook", "why": "fun"}),
            ("/api/pause", {}),
            ("/api/pause", {"sink": 7}),
            ("/api/dead/purge", {"filter": {}}),
            ("/api/dead/purge", {"filter": {"snik": "hook"}, "expect": 0}),
            ("/api/dead/purge", {"filter": {"since": -1}, "expect": 0}),
            ("/api/dead/purge", {"filter": {"since": "2026-01-01"}, "expect": 0}),
            ("/api/dead/purge", {"filter": {}, "expect": -1}),
            ("/api/dead/purge", {"filter": {}, "expect": 1 << 63}),
            ("/api/replay", {"sink": "hook", "filter": {"streams": ["a", "b"]}, "expect": 0}),
            ("/api/replays/1/pause", {"sink": "hook"}),
            ("/api/replays/one/pause", {}),
        ):
            assert client.post(path, content)[0] == 400, (path, content)
        for body in (b"", b"{", b'"\xff"', b"[" * 10_000, json.dumps([1]).encode()):
            assert client.send("/api/pause", body)[0] == 400, body[:20]
        for params in (
            {"limit": 100_000},
            {"since": "nan"},
            {"since": "yesterday"},
            {"snik": "hook"},
            {"below": -1},
        ):
            assert client.get("/api/dead", **params)[0] == 400, params
        assert client.get("/api/dead", sink="nowhere")[0] == 400
        assert client.get("/api/job/none")[0] == 404
        assert sink(daemon)["state"] == "serving"
        assert process.stop() == 0
