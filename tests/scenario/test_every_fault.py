"""Every fault that the sandbox knows, each ordered by name, under the running daemon: it fires, and nothing is lost."""

import urllib.request
from pathlib import Path
from typing import Any

import pytest

from poller.sandbox import API_FAULTS, CALLBACK_FAULTS, COS_FAULTS, QUERY_FAULTS, Customer, read_notified

from .environment import Environment, environment, until
from .rig import scenario
from .test_every_way import CALLBACK_KEY, PATH, SOURCES, order, spooled, waiting
from .test_faults import NOT_WHOLE

SHORT: dict[str, dict[str, Any]] = {
    "latency": {"seconds": 0.05},
    "drip": {"seconds": 0.0},
    "endless": {"size": 6 << 20},
    "bomb": {"size": 20 << 20},
    "late": {"seconds": 1.0},
}
"""So that they take a moment only."""
SLOW = {"hang"}
"""What ends by our deadline of 30 seconds; with --soak."""


def order_all(place: Environment, target: str, names: set[str]) -> None:
    """Each of them happens once, in the order of their names; good answers between them end a source's back-off."""
    faults = place.sandbox.faults[target]
    for name in sorted(names):
        place.ask(lambda name=name: faults.order(name, **SHORT.get(name, {})))  # type: ignore[misc]
        if good := {"api": 1, "query": 4}.get(target):
            place.ask(lambda good=good: faults.order("latency", good, seconds=0.0))  # type: ignore[misc]


def all_fired(place: Environment, target: str, names: set[str]) -> None:
    faults = place.sandbox.faults[target]
    until(lambda: faults.ordered == 0, what="for every fault to fire")
    assert set(faults.fired) == names
    assert min(faults.fired.values()) == 1


def test_every_fault_of_the_queue_costs_at_most_its_own_answer(tmp_path: Path, soak: bool) -> None:
    names = set(API_FAULTS) - (set() if soak else SLOW)
    with environment(tmp_path) as place, scenario(place, tmp_path, source={"max_delay": "10ms"}) as daemon:
        order_all(place, "api", names)
        place.enqueue(200 * len(names) + 1000)
        process = daemon.run()
        all_fired(place, "api", names)
        until(lambda: place.depth == 0)
        until(lambda: process.metric("polls_total") == place.counts.polls)
        assert process.metric("polls_total", outcome="uncertain") == len(names & NOT_WHOLE)
        assert process.stop() == 0
        assert daemon.drain() == 0
        books = daemon.books()
        books.check_once()
        assert {one.fault for one in books.lost()} <= NOT_WHOLE
        assert set(place.hook.files) == set(books.spooled)
        assert len(books.spooled) >= 1000


def test_every_fault_of_lists_and_states_is_got_over(tmp_path: Path, soak: bool) -> None:
    names = set(QUERY_FAULTS) - (set() if soak else SLOW)
    asked = {"type": "channel_status", "account": "main", "channels": ["live_1"], "interval": "100ms"}
    tapes = {
        "type": "recordings",
        "account": "main",
        "channels": ["live_1"],
        "while_live": "1s",
        "rate": "100/s",
    }
    sinks = {"console": {"type": "stdout"}}
    with (
        environment(tmp_path, interval=1.0) as place,
        scenario(place, tmp_path, sources={"states": asked, "tapes": tapes}, sinks=sinks) as daemon,
    ):
        order_all(place, "query", names)
        process = daemon.run()
        order(place, "streams", {"start": ["live_1"]})
        all_fired(place, "query", names)
        until(
            lambda: [one["data"]["state"] for one in spooled(daemon.spool_file)["channel"]].count("live") >= 1
        )
        assert process.heard("poll_failed")
        assert process.stop() == 0
        states = [(one["subject"], one["data"]["state"]) for one in spooled(daemon.spool_file)["channel"]]
        assert states.count(("live_1", "live")) == 1
        assert len(set(states)) == len(states), "each change is reported once"


def test_every_fault_of_the_store_ends_in_a_whole_picture_or_a_dead_letter(tmp_path: Path) -> None:
    names, folder = set(COS_FAULTS), tmp_path / "pictures"
    archive = {
        "type": "download",
        "directory": str(folder),
        "allow_cidr": ["127.0.0.0/8"],
        "template": "{name}",
    }
    sinks = {"archive": {**archive, "timeout": "2s", "max_bytes": "4MiB", "batch": {"max_events": 10}}}
    with environment(tmp_path) as place, scenario(place, tmp_path / "daemon", sinks=sinks) as daemon:
        order_all(place, "cos", names)
        place.enqueue(200, pictures=True)
        process = daemon.run()
        all_fired(place, "cos", names)
        until(lambda: process.metric("backlog_events") == 0 and place.depth == 0)
        assert process.metric("deliveries_total", sink="archive", outcome="retry") >= 10
        assert process.stop() == 0
        books = daemon.books()
        assert len(books.spooled) == 200
        dead = books.dead.get("archive", set())
        assert len(dead) <= 2, "what is endless, and what is gone"
        stored = {file.name: file.read_bytes() for file in folder.glob("*.jpg")}
        assert set(stored) == set(books.spooled) - dead
        for name, picture in stored.items():
            with urllib.request.urlopen(f"{place.pictures}/{name}") as answer:
                assert picture == answer.read()


@pytest.mark.parametrize("fault", ["late", pytest.param("lost", marks=pytest.mark.soak)])
def test_an_upload_that_is_late_is_waited_for_and_one_that_never_comes_is_a_dead_letter(
    tmp_path: Path, fault: str
) -> None:
    folder = tmp_path / "pictures"
    archive = {"type": "download", "directory": str(folder), "template": "{name}"}
    sinks = {"archive": {**archive, "allow_cidr": ["127.0.0.0/8"]}}
    with (
        environment(tmp_path, interval=1.0) as place,
        scenario(place, tmp_path / "daemon", sinks=sinks) as daemon,
    ):
        uploads = place.sandbox.faults["upload"]
        place.ask(lambda: uploads.order(fault, 2, **SHORT.get(fault, {})))
        process = daemon.run()
        order(place, "streams", {"start": ["live_1", "live_2"]})
        until(lambda: len(list(folder.glob("*.jpg"))) >= 4)
        order(place, "streams", {"stop": ["live_1", "live_2"]})
        assert uploads.fired == {fault: 2}
        until(lambda: process.metric("backlog_events") == 0 and place.depth == 0)
        assert process.metric("deliveries_total", sink="archive", outcome="postponed") >= 2
        assert process.stop() == 0
        books = daemon.books()
        dead = books.dead.get("archive", set())
        assert len(dead) == (2 if fault == "lost" else 0)
        assert {file.name for file in folder.glob("*.jpg")} == set(books.spooled) - dead
        assert len(books.spooled) == len(books.removed) >= 4


def test_every_fault_of_callbacks_is_got_over_by_the_platforms_repeats(tmp_path: Path) -> None:
    names = set(CALLBACK_FAULTS)
    customer = Customer(callback_url="http://127.0.0.1:9/", callback_key=CALLBACK_KEY)
    with (
        environment(tmp_path, customers=(customer,), interval=1.0, callback_pace=0.002, seed=4) as place,
        scenario(
            place, tmp_path, sources={"pushed": SOURCES["pushed"]}, sinks={"console": {"type": "stdout"}}
        ) as daemon,
    ):
        process = daemon.run()
        until(lambda: process.said("receiving"))
        order(place, "callbacks", {"url": f"http://{process.said('receiving')[0]['at']}{PATH}"})
        order_all(place, "callback", names)
        order(place, "streams", {"start": ["live_1", "live_2"]})
        all_fired(place, "callback", names)
        order(place, "streams", {"stop": ["live_1", "live_2"]})
        until(lambda: waiting(place) == 0, what="for every notification to be answered")
        until(lambda: process.metric("backlog_events") == 0)
        assert process.metric("callbacks_total", outcome="refused_signature") >= 2
        assert process.stop() == 0
        answered = {one.path for one in read_notified(tmp_path / "platform") if one.event_type == 200}
        stored = [one["data"]["file_name"] for one in spooled(daemon.spool_file)["screenshot"]]
        assert len(stored) == len(set(stored)) >= 4
        assert set(stored) == answered
        assert PATH not in process.stderr
