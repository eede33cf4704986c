"""Notifications pushed to a real daemon: kept when answered, stored once, refused while they cannot be kept."""

import hashlib
import http.client
import json
import random
import socket
import sqlite3
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from poller.sandbox import Customer
from tests.integration.sources.pushes import (
    INTERRUPTED_2017,
    KEY,
    PATH,
    RECORDING_2018,
    SAMPLES,
    STARTED_2017,
    post,
    shot,
    signature,
    signed,
)

from .environment import Environment, environment, until
from .rig import Process, Scenario, scenario, webhook

OK = (200, b'{"code":0}')


def receiver(**more: Any) -> dict[str, Any]:
    listen = {"listen": "127.0.0.1:0", "path": PATH, "key": KEY}
    return {"type": "callbacks", "account": "main", **listen, **more}


BOTH = {
    "shots": {"type": "screenshot_queue", "account": "main", "min_delay": "10ms", "max_delay": "250ms"},
    "pushed": receiver(),
}


@contextmanager
def receiving(place: Environment, folder: Path, **more: Any) -> Iterator[Scenario]:
    """A configuration whose only source is the receiver."""
    with scenario(place, folder, **{"sources": {"pushed": receiver()}, **more}) as daemon:
        yield daemon


def address_of(process: Process) -> str:
    until(lambda: process.said("receiving") or not process.alive, what="for the receiver to listen")
    assert process.alive, process.stderr
    return str(process.said("receiving")[0]["at"])


def spooled(file: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as spool:
        pages = spool.execute("SELECT events FROM page ORDER BY first").fetchall()
    return [json.loads(line) for (events,) in pages for line in events.split(b"\n")]


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["data"]["file_name"] for event in events if event["type"].endswith(".screenshot")]


# ---------------------------------------------------------------- kept


@pytest.mark.timeout(1800)
def test_what_was_answered_200_is_there_after_a_kill_that_follows_at_once(tmp_path: Path, soak: bool) -> None:
    kills, rng = 200 if soak else 8, random.Random("kill a receiver")
    acknowledged: set[str] = set()
    numbers = iter(range(10**9))
    with environment(tmp_path) as place, receiving(place, tmp_path) as daemon, ThreadPoolExecutor(4) as pool:
        for _ in range(kills):
            process = daemon.start()
            address = address_of(process)

            def crowd(address: str = address) -> list[str]:
                """Push until nobody is there any more."""
                taken = []
                with suppress(OSError, http.client.HTTPException):
                    while True:
                        picture = shot(next(numbers))
                        if post(address, signed(picture))[0] == 200:
                            taken.append(picture["pic_url"])
                return taken

            others = [pool.submit(crowd) for _ in range(3)]
            for _ in range(rng.randrange(1, 12)):
                picture = shot(next(numbers))
                assert post(address, signed(picture)) == OK
                acknowledged.add(picture["pic_url"])
            process.kill()
            for other in others:
                acknowledged.update(other.result())
        found = Counter(names(spooled(daemon.spool_file)))
        assert acknowledged <= found.keys()
        assert set(found.values()) == {1}
        assert daemon.drain() == 0, daemon.processes[-1].stderr
        assert set(place.hook.files) == found.keys()
    print(f"\nkill -9 after a 200: {kills=} acknowledged={len(acknowledged)} lost=0")
    assert len(acknowledged) >= 4 * kills


def test_a_stop_answers_what_it_took_and_then_takes_nothing(tmp_path: Path) -> None:
    with environment(tmp_path) as place, receiving(place, tmp_path) as daemon, ThreadPoolExecutor(4) as pool:
        process = daemon.run()
        address, acknowledged = address_of(process), set[str]()
        assert process.get("/readyz")[0] == 200

        def push(number: int) -> None:
            picture = shot(number)
            with suppress(OSError, http.client.HTTPException):
                if post(address, signed(picture))[0] == 200:
                    acknowledged.add(picture["pic_url"])

        pushes = [pool.submit(push, number) for number in range(1000)]
        until(lambda: len(acknowledged) > 100)
        idle = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
        assert process.stop() == 0, process.stderr
        for one in pushes:
            one.result()
        idle.close()
        with pytest.raises(ConnectionError):
            post(address, signed(shot(1)))
        assert acknowledged <= set(names(spooled(daemon.spool_file)))
        assert 100 < len(acknowledged) < 1000


def test_no_notification_makes_the_daemon_read_the_queue(tmp_path: Path) -> None:
    """Whoever could push might else empty it at a moment of their choice."""
    rarely = {"type": "screenshot_queue", "account": "main", "min_delay": "10m", "max_delay": "10m"}
    sources = {"shots": rarely, "pushed": receiver()}
    sinks = {"console": {"type": "stdout"}}
    with environment(tmp_path) as place, scenario(place, tmp_path, sources=sources, sinks=sinks) as daemon:
        process = daemon.run()
        address = address_of(process)
        until(lambda: process.metric("polls_total", outcome="empty") == 1)
        polls = place.counts.polls
        place.enqueue(100)
        bodies = [*SAMPLES.values(), *map(shot, range(50))]
        for body in bodies:
            assert post(address, signed(body)) == OK
        until(lambda: len(process.stdout_file.read_text().splitlines()) == len(bodies))
        assert (place.depth, place.counts.polls) == (100, polls)


# ---------------------------------------------------------------- once


def test_a_picture_that_comes_by_the_queue_and_by_callback_is_one_event(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, sources=BOTH) as daemon:
        process = daemon.run()
        address = address_of(process)

        def queued(number: int) -> None:
            message = {name: shot(number)[name] for name in ("stream_id", "pic_url")}
            queue = place.sandbox.platform.queue()
            place.ask(lambda: queue.enqueue_raw(json.dumps(message).encode()))

        for number in range(50):
            queued(number)
        until(lambda: place.hook.files.total() == 50)
        for number in range(100):
            assert post(address, signed(shot(number))) == OK
        for number in range(50, 100):
            queued(number)
        until(lambda: process.metric("known_events_total", kind="screenshot") == 100)
        until(lambda: process.metric("backlog_events") == 0)
        assert process.metric("events_total", kind="screenshot") == 100
        assert process.metric("callbacks_total", source="pushed", outcome="accepted") == 100
        assert place.hook.files == {shot(number)["pic_url"]: 1 for number in range(100)}
        assert process.stop() == 0
        assert Counter(names(spooled(daemon.spool_file))) == {shot(n)["pic_url"]: 1 for n in range(100)}
        assert daemon.drain() == 0, "it does not wait for what others push"


ONCE = {"other": 1, "moderation": 1, "recording_status": 1, "push_exception": 1}


def test_every_kind_of_notification_arrives_once_however_often_it_is_repeated(tmp_path: Path) -> None:
    image_audit = {"streamId": "room", "channelId": "room", "score": 99, "type": [1], "img": "/a.jpg"}
    bodies = [
        *SAMPLES.values(),
        {"event_type": 332, "stream_id": "room", "record_event": "ended"},
        {"event_type": 321, "stream_id": "room", "report_interval": 5},
        {"event_type": 315, "stream_id": "room"},
        image_audit,
    ]
    with (
        environment(tmp_path) as place,
        receiving(place, tmp_path, sinks={"console": {"type": "stdout"}}) as daemon,
    ):
        process = daemon.run()
        address = address_of(process)
        captured = [signed(body) for body in bodies]
        for body in captured * 2 + [signed(body, t=int(time.time()) + 300) for body in bodies]:
            assert post(address, body) == OK
        assert process.metric("callbacks_total", outcome="known") == len(bodies)
        until(lambda: process.metric("backlog_events") == 0)
        assert process.stop() == 0
        printed = [json.loads(line) for line in process.stdout_file.read_text().splitlines()]
        kinds = Counter(event["type"].removeprefix("com.qcloud.live.") for event in printed)
        assert kinds == {"screenshot": 2, "recording": 2, "channel": 2, **ONCE}
        assert len({event["id"] for event in printed}) == len(bodies)
        by_time = {event["time"]: event for event in printed}
        assert by_time["2018-03-22T03:41:58Z"]["data"]["url"] == RECORDING_2018["video_url"]
        states = [event["data"]["state"] for event in printed if "state" in event["data"]]
        assert states == ["live", "interrupted"]
        assert STARTED_2017["sequence"] == INTERRUPTED_2017["sequence"]


def test_pictures_that_were_only_called_back_are_downloaded(tmp_path: Path) -> None:
    archive = {"type": "download", "directory": str(tmp_path / "pictures"), "allow_cidr": ["127.0.0.0/8"]}
    with (
        environment(tmp_path) as place,
        receiving(place, tmp_path, sinks={"archive": {**archive, "template": "{name}"}}) as daemon,
    ):
        place.enqueue(20, pictures=True)
        pictures = [message["pic_url"] for message in _polled(place)]
        assert len(pictures) == 20
        process = daemon.run()
        address = address_of(process)
        for name in pictures:
            body = {
                "event_type": 200,
                "stream_id": "room",
                "pic_url": "/" + name,
                "create_time": int(time.time()),
            }
            assert post(address, signed(body)) == OK
        until(lambda: process.metric("backlog_events") == 0)
        assert process.stop() == 0
        for name in pictures:
            with urllib.request.urlopen(f"{place.pictures}/{name}") as answer:
                assert (tmp_path / "pictures" / name).read_bytes() == answer.read()


def _polled(place: Environment) -> list[dict[str, Any]]:
    t = int(time.time()) + 60
    sign = hashlib.md5(f"{Customer().key}{t}".encode()).hexdigest()
    inputs = {"cmd": Customer().app_id, "interface": "Live_Queue_Get", "t": t, "sign": sign}
    query = urlencode({**inputs, "Param.n.bid": 100, "Param.n.count": 100})
    with urllib.request.urlopen(f"{place.endpoint}?{query}") as answer:
        found: list[dict[str, Any]] = json.load(answer)["output"]["data"]
        return found


# ---------------------------------------------------------------- refused while it cannot be kept


def test_a_full_spool_refuses_pushes_and_takes_them_again_when_there_is_room(tmp_path: Path) -> None:
    with environment(tmp_path) as place:
        place.turn(500)
        with receiving(place, tmp_path) as daemon, ThreadPoolExecutor(8) as pool:
            spool = {"type": "memory", "max_events": 1200}
            journal = {"path": str(tmp_path / "small.journal")}
            small = {**json.loads(daemon.config.read_text()), "spool": spool, "journal": journal}
            daemon.config.write_text(json.dumps({**small, "sinks": {"hook": webhook(place)}}))
            process = daemon.run()
            address = address_of(process)
            answers = list(pool.map(lambda n: post(address, signed(shot(n)))[0], range(1400)))
            assert Counter(answers).keys() == {200, 503}
            taken = Counter(answers)[200]
            assert 1200 <= taken < 1300, "what shared the last commit is taken whole"
            status, why = process.get("/readyz")
            assert status == 503
            assert "source pushed: takes nothing" in why
            assert process.metric("callbacks_total", outcome="unavailable") == 1400 - taken
            assert len(process.heard("receiving_paused")) == 1
            place.turn(200)
            refused = [n for n, answer in enumerate(answers) if answer == 503]
            until(lambda: post(address, signed(shot(refused[0])))[0] == 200, what="for room")
            for number in refused[1:]:
                until(lambda number=number: post(address, signed(shot(number)))[0] == 200)  # type: ignore[misc]
            until(lambda: place.hook.files.total() == 1400)
            assert len(process.heard("receiving_resumed")) == 1
            until(lambda: process.get("/readyz")[0] == 200)
            assert place.hook.files == {shot(n)["pic_url"]: 1 for n in range(1400)}
            assert process.stop() == 0


# ---------------------------------------------------------------- others do no harm


def test_slow_and_strange_clients_hold_up_neither_polls_nor_pushes(tmp_path: Path) -> None:
    with environment(tmp_path) as place, scenario(place, tmp_path, sources=BOTH) as daemon:
        process = daemon.run()
        address = address_of(process)
        host, _, port = address.rpartition(":")
        slow = [socket.create_connection((host, int(port))) for _ in range(100)]
        for number, one in enumerate(slow):
            one.sendall(f"POST {PATH} HTTP/1.1\r\nContent-Length: 9999\r\n".encode()[: 10 + number])
        open_files = Path(f"/proc/{process.child.pid}/fd")
        until(lambda: len(list(open_files.iterdir())) > 100, what="for all of them to be let in")
        place.enqueue(3000)
        for number in range(50):
            assert post(address, signed(shot(number))) == OK
            with socket.create_connection((host, int(port))) as strange, suppress(OSError):
                strange.sendall(random.Random(number).randbytes(2000))
        until(lambda: place.hook.files.total() == 3050)
        for one in slow:
            one.close()
        assert process.stop() == 0
        assert daemon.books().lost() == []


# ---------------------------------------------------------------- secrets

CANARIES = {
    "key": "canary0callbacks0key0b7c1d2e3f4a",
    "path": "/canary-callbacks-path-51c0",
    "push secret": "ca0a27ca0a27ca0a27ca0a27ca0a27ca",
}


def test_no_secret_of_a_notification_is_found_anywhere(tmp_path: Path) -> None:
    key, path, secret = CANARIES.values()
    fields: dict[str, Any] = {
        "event_type": 1,
        "stream_id": "room",
        "sequence": "1",
        "stream_param": f"bizid=1&txSecret={secret}&txTime=5AB5247F",
        "more": [{"TxSecret": secret}, f"rtmp://push.example.com/live/room?txSecret={secret}", key],
    }
    environ = {"CANARY_KEY": key, "CANARY_PATH": path}
    sources = {"pushed": receiver(key="${CANARY_KEY}", path="${CANARY_PATH}")}
    log = {"level": "debug", "format": "json"}
    folder = tmp_path / "daemon"
    sinks = {"console": {"type": "stdout"}}
    with (
        environment(tmp_path) as place,
        receiving(place, folder, sources=sources, sinks=sinks, log=log) as daemon,
    ):
        process = daemon.start(**environ)
        address = address_of(process)
        bodies = [
            signed({**fields, "event_type": n, "sequence": str(n)}, key=key) for n in (1, 0, 100, 200, 332)
        ]
        for body in bodies * 2:
            assert post(address, body, path=path) == OK
        for wrong in (signed(fields, key="x"), signed(fields, key=key)[:-1], json.dumps(fields).encode()):
            for _ in range(20):
                assert post(address, wrong, path=path)[0] in (400, 403, 429)
        assert post(address, bodies[0], path=path, headers={"Content-Type": f"x/{secret}"})[0] == 415
        assert post(address, bodies[0], path=path + "/" + secret)[0] == 404
        _garbage(address, path, bodies[0])
        until(lambda: process.metric("backlog_events") == 0)
        pages = [process.get(page)[1] for page in ("/metrics", "/readyz", "/healthz")]
        command_line = Path(f"/proc/{process.child.pid}/cmdline").read_bytes()
        assert process.metric("callbacks_total", outcome="accepted") == 5
        assert process.metric("callbacks_total", outcome="refused_signature") == 40
        refusals = process.said("callback_refused")
        assert process.stop() == 0, process.stderr
        assert len(spooled(daemon.spool_file)) == 5
        files = {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        found = {**files, "pages": "\n".join(pages).encode(), "command line": command_line}
        signs = {json.loads(body)["sign"] for body in bodies} | {signature("x", int(time.time()) + 600)}
        for place_name, content in found.items():
            for canary in (*CANARIES.values(), *signs):
                assert canary.encode() not in content, place_name
        assert b"***" in files[str(daemon.spool_file)]
        assert 5 < len(refusals) <= 12, "they are reported, and not without end"
        assert all(
            set(line) == {"source", "account", "reason", "event", "level", "timestamp"} for line in refusals
        )


def _garbage(address: str, path: str, body: bytes) -> None:
    """What is no HTTP, with all secrets in it."""
    host, _, port = address.rpartition(":")
    lines = [
        b"POST " + path.encode() + b" HTTP/9.9\r\n\r\n" + body,
        b"POST " + path.encode() + b" HTTP/1.1\r\nContent-Length: x\r\n\r\n" + body,
        b"POST " + path.encode() + b" HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body,
        b"POST " + path.encode() + b" HTTP/1.1\r\nContent-Length: 9999\r\n\r\n" + body,
        body,
    ]
    for line in lines:
        with socket.create_connection((host, int(port))) as connection, suppress(OSError):
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1000)
