"""`poller drain`: exit 0 when everything is delivered, and only then."""

import json
import random
import time
from pathlib import Path
from typing import Any

from poller.sandbox import POISONS, Answers

from .environment import Environment, environment, until
from .rig import scenario, webhook
from .test_operate import rows


def test_a_drained_queue_is_delivered_and_stdout_holds_nothing_but_events(tmp_path: Path) -> None:
    with (
        environment(tmp_path) as place,
        scenario(place, tmp_path, log={"level": "debug", "format": "auto"}) as daemon,
    ):
        place.enqueue(1050)
        assert daemon.drain() == 0, daemon.processes[-1].stderr
        removed = {one.path for one in place.oracle.removed()}
        assert len(removed) == 1050
        lines = daemon.processes[0].stdout_file.read_bytes().splitlines()
        events = [json.loads(line) for line in lines]
        assert {event["specversion"] for event in events} == {"1.0"}
        assert {event["type"] for event in events} == {"com.qcloud.live.screenshot"}
        assert {event["data"]["file_name"] for event in events} == removed
        assert len(events) == 1050
        assert place.hook.files == dict.fromkeys(removed, 1)
        assert daemon.books().lost() == []


def test_a_dead_delivery_makes_drain_fail_and_takes_no_neighbour_along(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        place.enqueue(300)
        guilty = {"load_1234_1_0_0_0_300_169.jpg"}
        place.ask(lambda: _refuse_one(place, guilty))
        assert daemon.drain() == 1
        books = daemon.books()
        assert books.dead == {"hook": guilty}
        assert set(place.hook.files) == set(books.spooled) - guilty
        assert len(books.spooled) == 300
        assert daemon.drain() == 0, "what is dead already is no failure of the next run"


def _refuse_one(place: Environment, guilty: set[str]) -> None:
    """The receiver refuses one of the messages that wait."""
    head = place.sandbox.platform.queue()._messages[150].head
    guilty.clear()
    guilty.add(json.loads(head + b"}")["path"])
    place.hook.refused_files = guilty


def test_drain_gives_up_at_its_timeout_with_a_sink_that_hangs(tmp_path: Path) -> None:
    with environment(tmp_path) as place:
        sinks = {"console": {"type": "stdout"}, "hook": webhook(place, timeout="500ms")}
        with scenario(place, tmp_path, sinks=sinks) as daemon:
            place.enqueue(100)
            place.turn("hang")
            assert daemon.start("drain", "--timeout", "8s").wait() == 1
            assert len(daemon.printed()[0]) == 100
            place.turn(200)
            assert daemon.drain() == 0
            assert len(place.hook.files) == 100
            assert len(daemon.printed()[0]) == 100, "stdout had them already"


def test_drain_waits_for_a_poll_in_flight_although_another_found_the_queue_empty(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, endpoint=place.wire.endpoint) as daemon:
        place.wire.delays.extend([0.0, 0.0, 3.0])
        place.enqueue(400)
        code, printed = daemon.drain(), daemon.printed()[0]
        assert len(place.oracle.removed()) == 400
        assert daemon.books().lost() == []
        assert (code, len(printed), len(place.hook.files)) == (0, 400, 400)


def test_drain_delivers_what_came_while_it_drained_before_it_says_done(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, endpoint=place.wire.endpoint) as daemon:
        place.wire.delay = 0.02
        place.enqueue(50)
        process = daemon.start("drain")
        pauses = random.Random(7)
        for _ in range(2000):  # seldom enough that a poll finds nothing now and then
            if not process.alive:
                break
            place.enqueue(1)
            time.sleep(pauses.random() * 0.08)
        assert process.wait() == 0
        removed = {one.path for one in place.oracle.removed()}
        assert set(daemon.printed()[0]) == removed
        assert set(place.hook.files) == removed


# ---------------------------------------------------------------- every form of answer

FORMS: list[dict[str, Any]] = [
    {},
    *({"output": kind} for kind in ("array", "list")),
    *({"empty": kind} for kind in ("array", "null", "missing", "10003")),
    *({"count": kind} for kind in ("string", "wrong")),
    {"ret": "string"},
    {"extra": True},
    {"success": "查询成功!"},
    *({"fields": kind} for kind in ("create_time", "pic_full_url")),
    *({"url": kind} for kind in ("slash", "full", "query")),
    {"content_type": "text/html"},
    {"content_type": ""},
    *({"encoding": kind} for kind in ("utf-8-bom", "utf-16")),
    {"gzip": True},
    {"pretty": True},
    *({"framing": kind} for kind in ("chunked", "close")),
    {"output": "list", "empty": "10003", "count": "wrong", "ret": "string", "url": "query", "gzip": True},
    {"output": "array", "encoding": "utf-16", "pretty": True, "framing": "close", "fields": "pic_full_url"},
    {"empty": "null", "extra": True, "encoding": "utf-8-bom", "gzip": True, "framing": "chunked"},
]


def test_every_form_of_answer_is_read(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        process, total = daemon.run(), 0
        for form in FORMS:
            place.ask(lambda form=form: place.sandbox.platform.set_form(Answers(**form)))  # type: ignore[misc]
            place.enqueue(130)
            total += 130
            until(lambda total=total: place.hook.files.total() >= total, 20, f"with {form}")  # type: ignore[misc]
            polls = place.counts.polls
            until(lambda polls=polls: place.counts.polls > polls + 2, 20, f"for an empty answer of {form}")  # type: ignore[misc]
        assert process.metric("polls_total", outcome="uncertain") == 0
        assert process.metric("polls_total", outcome="failed") == 0
        assert process.metric("quarantined_total") == 0
        assert process.stop() == 0
        books = daemon.books()
        assert books.lost() == []
        assert place.hook.files == dict.fromkeys(books.spooled, 1)
        assert len(books.spooled) == total >= 1000


def test_a_queue_is_drained_in_whatever_form_it_says_that_it_is_empty(tmp_path: Path, soak: bool) -> None:
    for number, form in enumerate(FORMS if soak else FORMS[-3:-2]):
        folder = tmp_path / str(number)
        with environment(folder, answers=Answers(**form)) as place, scenario(place, folder) as daemon:
            place.enqueue(120)
            assert daemon.drain() == 0, daemon.processes[-1].stderr
            assert place.hook.files == dict.fromkeys(daemon.books().spooled, 1)
            assert len(place.hook.files) == 120


# ---------------------------------------------------------------- messages that would break a reader


def test_poison_hurts_no_neighbour_and_none_of_it_is_lost(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        for _ in range(10):
            place.enqueue(90)
            place.ask(lambda: place.sandbox.platform.queue().enqueue_poison(POISONS))
        assert daemon.drain() == 0, daemon.processes[-1].stderr
        books = daemon.books()
        removed = books.removed
        assert len(removed) == 10 * (90 + len(POISONS)) >= 1000
        good = {str(one.path) for one in removed if one.poison is None}
        assert {one.poison for one in removed} == {None, *POISONS}
        assert good <= set(place.hook.files)
        assert books.lost() == []
        assert set(place.hook.files) == set(books.spooled)
        bodies = [body for _, body in books.quarantine]
        assert sum(body == b'{"stream_id":"poison"}' for body in bodies) >= 1, (
            "it names no picture, and is kept"
        )
        kept = {one.poison for one in removed if one.path in set(books.spooled)} - {None}
        print(f"\npoison read as events: {sorted(map(str, kept))}; in quarantine: {len(bodies)} pieces")


def test_drain_is_done_when_running_replays_are_done_too(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path) as daemon:
        place.enqueue(300)
        assert daemon.drain() == 0
        for number in (1, 2):
            assert rows(daemon, "replay", "hook", "--yes")[0]["replay"] == number
        assert daemon.drain() == 0
        assert set(place.hook.files.values()) == {3}
        assert [row["state"] for row in rows(daemon, "replays")] == ["done", "done"]
        assert rows(daemon, "replay", "hook", "--yes")[0]["replay"] == 3
        assert rows(daemon, "replays", "pause", "3")[0]["state"] == "paused"
        assert daemon.drain() == 0, "a paused replay is not waited for"
        assert rows(daemon, "replays", "resume", "3")[0]["state"] == "running"
        place.turn(503)
        assert daemon.drain("2s") == 1
        (line,) = daemon.processes[-1].said("drain_failed")
        assert "sink hook: replay 3 is not done" in line["reason"]
