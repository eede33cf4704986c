"""Pages of a real daemon: the present state of all streams, each change of it, and one stream's past."""

import gzip
import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.feed import Feed, feeding
from tests.patience import PATIENCE

from .environment import Environment, environment, until
from .rig import Process, Scenario, scenario
from .test_web_access import holds_connection

PROMPT = 1.0
"""Seconds within which a page shows a change."""
STREAMS = 64


class Message(NamedTuple):
    """One server-sent event."""

    id: str
    event: str
    data: Any


class Follower:
    """A page that follows the changes."""

    def __init__(self, port: int, query: str = "", last: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._connection.request("GET", f"/api/live{query}", headers={"Last-Event-ID": last} if last else {})
        self.port = int(self._connection.sock.getsockname()[1])
        """Our own end of the connection."""
        self.answer = self._connection.getresponse()
        self.id = last

    def read(self) -> Message:
        """The next message; the time is left out, which has no number."""
        fields: dict[str, str] = {}
        while True:
            line = self.answer.readline().decode().rstrip("\n")
            assert self.answer.fp is not None, "the stream ended"
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif fields.get("event") == "time":
                fields = {}
            elif "data" in fields:
                self.id = fields["id"]
                return Message(self.id, fields.get("event", ""), json.loads(fields["data"]))

    def until(self, wanted: Callable[[Message], bool]) -> Message:
        while not wanted(message := self.read()):
            pass
        return message

    def close(self) -> None:
        self.answer.close()
        self._connection.close()


def port_of(daemon: Process) -> int:
    return int(daemon.heard("web_listens")[0]["port"])


def ask(port: int, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@contextmanager
def following(port: int, query: str = "", last: str = "") -> Iterator[Follower]:
    follower = Follower(port, query, last)
    try:
        yield follower
    finally:
        follower.close()


def at(state: dict[str, Any]) -> str:
    """The parameters that go on from a state."""
    return f"?epoch={state['epoch']}&seq={state['seq']}"


@contextmanager
def pages(folder: Path) -> Iterator[tuple[Environment, Scenario]]:
    """A town and a configuration with pages."""
    with (
        environment(folder) as town,
        scenario(town, folder / "daemon", web={"listen": "127.0.0.1:0"}) as daemons,
    ):
        yield town, daemons


def until_known(port: int, numbers: int) -> dict[str, Any]:
    """The state, once it knows of so many pictures."""
    states: list[dict[str, Any]] = []

    def known() -> bool:
        states.append(ask(port, "/api/streams"))
        return max((row[3] for row in states[-1]["streams"]), default=0) >= numbers

    until(known, what=f"for picture {numbers}")
    return states[-1]


def test_a_page_sees_all_streams_and_each_change_within_a_second(tmp_path: Path, soak: bool) -> None:
    with pages(tmp_path) as (town, daemons):
        port = port_of(daemons.run())
        town.enqueue(4, streams=2)
        state = until_known(port, 4)
        assert {(row[1], row[2], row[6]) for row in state["streams"]} == {
            ("main", "load_1234_1", None),
            ("main", "load_1234_2", None),
        }
        assert {row[3] for row in state["streams"]} == {3, 4}
        assert all(abs(state["now"] - row[5]) < 60 for row in state["streams"])
        with following(port, at(state)) as page:
            time.sleep(0.5)  # the page is at rest
            begun = time.monotonic()
            town.enqueue(1, streams=2)
            changed = page.read()
            if soak:  # a machine with other work may take longer
                assert time.monotonic() - begun < PROMPT
            (row,) = changed.data["s"]
            named = {one[0]: one for one in state["streams"]}
            assert named[row[0]][2] == "load_1234_1"
            assert row[1] == 5
            assert row[2] == named[row[0]][4] + 10
            town.enqueue(3, streams=3)
            new = page.until(lambda message: "new" in message.data)
            assert [one[2] for one in new.data["new"]] == ["load_1234_3"]
            assert new.data["new"][0][0] not in named


def test_a_page_goes_on_where_it_was_and_begins_anew_after_a_restart(tmp_path: Path) -> None:
    with pages(tmp_path) as (town, daemons):
        daemon = daemons.run()
        port = port_of(daemon)
        town.enqueue(2, streams=2)
        state = until_known(port, 2)
        with following(port, at(state)) as page:
            town.enqueue(2, streams=2)
            page.until(lambda message: any(row[1] == 4 for row in message.data["s"]))
            own = page.port
        last = page.id
        until(lambda: not holds_connection(port, own), what="for the daemon to notice that the page has left")
        for turn in range(1, 4):
            town.enqueue(2, streams=2)
            until(lambda turn=turn: daemon.metric("events_total", kind="screenshot") == 4 + 2 * turn)  # type: ignore[misc]
            time.sleep(0.6)  # a page that is away costs nothing, so that all of this becomes one message
        with following(port, last=last) as page:
            message = page.read()
            assert sorted(row[1] for row in message.data["s"]) == [9, 10]
            assert int(message.id.partition("-")[2]) == int(last.partition("-")[2]) + 1
        assert daemon.stop() == 0
        again = daemons.run()
        port = port_of(again)
        with following(port, last=page.id) as page:
            assert page.read() == Message(page.id, "reset", {})
        after = ask(port, "/api/streams")
        assert after["epoch"] != state["epoch"]
        assert sorted(row[3] for row in after["streams"]) == [9, 10]


def test_the_state_is_compressed_for_a_client_that_takes_it(tmp_path: Path) -> None:
    with pages(tmp_path) as (town, daemons):
        port = port_of(daemons.run())
        town.enqueue(500, streams=500)
        until_known(port, 500)
        url = f"http://127.0.0.1:{port}/api/streams"
        request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip, br"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            body = answer.read()
            assert answer.headers["Content-Encoding"] == "gzip"
        refusing = urllib.request.Request(url, headers={"Accept-Encoding": "gzip;q=0, br"})
        with urllib.request.urlopen(refusing, timeout=PATIENCE) as answer:
            assert answer.headers["Content-Encoding"] is None
        plain = gzip.decompress(body)
        assert len(json.loads(plain)["streams"]) == 500
        assert len(body) < len(plain) / 3


def test_a_quiet_connection_shows_that_it_is_alive(tmp_path: Path) -> None:
    with pages(tmp_path) as (_, daemons):
        port = port_of(daemons.run())
        with following(port, at(ask(port, "/api/streams"))) as page:
            assert page.answer.readline() == b"retry: 1000\n"
            assert page.answer.readline() == b"\n"
            begun = time.monotonic()
            assert page.answer.readline() == b"event: time\n"
            assert time.monotonic() - begun > 10
            now = json.loads(page.answer.readline().removeprefix(b"data: "))["now"]
            assert abs(now - time.time()) < PATIENCE


def test_a_page_stops_with_the_daemon(tmp_path: Path) -> None:
    with pages(tmp_path) as (_, daemons):
        daemon = daemons.run()
        with following(port_of(daemon)):
            assert daemon.stop() == 0


def test_a_stream_between_two_times(tmp_path: Path) -> None:
    with pages(tmp_path) as (town, daemons):
        port = port_of(daemons.run())
        town.enqueue(40, streams=2)
        state = until_known(port, 40)
        name, last = state["streams"][0][2], state["streams"][0][4]
        answer = ask(port, f"/api/stream?id={name}&account=main&since={last - 95}&until={last + 1}")
        assert [taken for _, taken in answer["pictures"]] == [
            last - 10 * back for back in reversed(range(10))
        ]
        assert (answer["complete"], answer["gaps"], answer["recordings"]) == (True, [], [])
        for query, status in (("id=nobody", 404), (f"id={name}&since=x", 400), ("", 400)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(port, f"/api/stream?{query}")
            assert refused.value.code == status
            assert json.load(refused.value)["error"]


def test_pages_that_never_read_harm_nobody(tmp_path: Path, soak: bool) -> None:
    """The state of health is reported within 100 ms, other pages go on, and those that hang are cut."""
    with (
        feeding(tmp_path, streams=2000, rate=2000, admin={"listen": "127.0.0.1:0"}) as feed,
        ExitStack() as stack,
    ):
        port = port_of(feed.daemon)
        feed.daemon.get("/healthz")
        state = feed.get("/api/streams")
        query = at(state)
        hung = [stack.enter_context(hanging(port, f"/api/live{query}")) for _ in range(STREAMS - 1)]
        page = stack.enter_context(following(port, query))
        page.read()
        with pytest.raises(urllib.error.HTTPError) as refused:
            feed.get("/api/live")
        assert refused.value.code == 503
        took = []
        for _ in range(50):
            page.read()
            begun = time.monotonic()
            assert feed.daemon.get("/healthz")[0] == 200
            took.append(time.monotonic() - begun)
        assert sorted(took)[len(took) // 2] < (0.1 if soak else 1.0)
        assert hung
        until(lambda: is_admitted(feed), what="for pages that do not read to be cut")
        page.until(lambda message: bool(message.data.get("s")))


@contextmanager
def hanging(port: int, path: str) -> Iterator[socket.socket]:
    """Somebody who asks and reads nothing. The small buffer is full at once."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", port))
        one.sendall(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (path.encode(), port))
        yield one


def is_admitted(feed: Feed) -> bool:
    """Whether there is a place for one more page."""
    try:
        urllib.request.urlopen(f"{feed.url}/api/live", timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return False
    return True
