"""All sources and sinks beside the sandbox, and whatever can go wrong at random, by seed: the books balance.

`pytest --soak --soak-minutes 60 tests/scenario/test_random_faults.py` is the hour; `--fault-seed` repeats a run.
"""

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from poller.sandbox import (
    API_FAULTS,
    CALLBACK_FAULTS,
    COS_FAULTS,
    QUERY_FAULTS,
    Answers,
    Customer,
    read_notified,
)
from tests.ports import lasting_port

from .environment import Environment, environment, until
from .repeats import Lives, printed
from .rig import Books, Process, Scenario, scenario, webhook
from .test_every_fault import SHORT
from .test_every_way import CALLBACK_KEY, PATH, SOURCES, STREAMS, order, waiting
from .test_faults import NOT_WHOLE
from .test_held_up import frozen
from .test_operate import rows
from .test_operation import _fill, small_disk

LANES = 4
RECENT = 40
"""Polls before a kill among which those in flight are found: a slow one may be overtaken."""
SIDES = ("api", "cos", "query", "callback")
LONG = {"hang", "latency", "drip", "late"}
"""What would only make the run slow; `test_every_fault` has them."""
LARGE = {"endless", "bomb"}


class Weather:
    """What goes wrong, one thing after the other, each kind as often as the others."""

    def __init__(self, daemon: Scenario, place: Environment, disk: Path | None, rng: random.Random) -> None:
        self._daemon = daemon
        self._place = place
        self._disk = disk
        self._rng = rng
        self.count: Counter[str] = Counter()
        self.kills: list[int] = []
        """How many polls the platform had seen at each."""
        self._kinds: list[Callable[[], None]] = [
            self._kill, self._kill, self._terminate, self._freeze, self._bad_answers, self._bad_answers, self._bad_hook
        ]  # fmt: skip
        if disk is not None:
            self._kinds.append(self._full_disk)
        self.lives = Lives(daemon)
        self.process = daemon.run()

    def blow(self, seconds: float) -> None:
        """Until so many seconds are over, every kind has had its turn, and each side has met a fault."""
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(self.count) < len(set(self._kinds)) or 0 in self.met().values():
            assert time.monotonic() < end + 120, (self.count, self.met())
            for kind in self._rng.sample(self._kinds, len(self._kinds)):
                self._place.enqueue(self._rng.randrange(100, 600), pictures=True)
                self._flow()
                kind()
                self.count[kind.__name__.strip("_")] += 1

    def met(self) -> dict[str, int]:
        """How often something has gone wrong, on each side."""
        upstream = {side: self._place.sandbox.faults[side].fired.total() for side in SIDES}
        return upstream | on_our_side(self._daemon, self._disk)

    def _flow(self) -> None:
        """Let some messages come through, if the weather permits."""
        target = self._place.counts.removed + self._rng.randrange(1, 200)
        end = time.monotonic() + self._rng.uniform(0.1, 1.0)
        until(lambda: self._place.counts.removed >= target or time.monotonic() > end)
        assert self.process.alive, self.process.stderr[-3000:]

    def _kill(self) -> None:
        assert self.process.kill() == -signal.SIGKILL
        self._place.settled()
        self.kills.append(self._place.counts.polls)
        self.lives.ended("kill")
        self.process = self._daemon.run()

    def _terminate(self) -> None:
        self.process.signal(signal.SIGTERM)
        twice = self._rng.random() < 0.3
        if twice:
            self.process.signal(signal.SIGTERM)
        assert self.process.wait() == 0, self.process.stderr[-3000:]
        self.lives.ended("second signal" if twice else "signal")
        self.process = self._daemon.run()

    def _freeze(self) -> None:
        self.lives.stood_still.add(self._daemon.lives)
        with frozen(self.process):
            time.sleep(self._rng.uniform(0.1, 4.0))

    def _bad_answers(self) -> None:
        for name in self._rng.sample(sorted(set(API_FAULTS) - LONG), 4):
            self._place.order(name, **SHORT.get(name, {}))

    def _bad_hook(self) -> None:
        self._place.turn(self._rng.choice((401, 429, 500, 503, "hang", "refuse")))
        self._flow()
        self._place.turn(200)

    def _full_disk(self) -> None:
        assert self._disk is not None
        daemon = len(self.process.said("polling_paused"))
        _fill(self._disk, leave=0)
        end = time.monotonic() + 10.0  # it may be in trouble with the platform just then
        while len(self.process.said("polling_paused")) == daemon and time.monotonic() < end:
            self._flow()
        (self._disk / "ballast").unlink()


@pytest.mark.timeout(5400)
def test_after_random_faults_on_all_sides_the_books_balance(
    tmp_path: Path, fault_seconds: float, fault_seed: int
) -> None:
    print(f"\nrandom faults: --fault-seed {fault_seed}, {fault_seconds:.0f} s")
    rng, port = random.Random(fault_seed), lasting_port()
    customer = Customer(callback_url=f"http://127.0.0.1:{port}{PATH}", callback_key=CALLBACK_KEY)
    with ExitStack() as stack:
        place = stack.enter_context(
            environment(
                tmp_path,
                customers=(customer,),
                interval=1.0,
                segment=4.0,
                answers=Answers(fields="create_time", rows="spec", callbacks="2016"),
                callback_pace=0.002,
                callback_faults=rates(set(CALLBACK_FAULTS) - LONG, 0.3),
                cos_faults=rates(set(COS_FAULTS) - LONG - LARGE, 0.1),
                query_faults=rates(set(QUERY_FAULTS) - LONG - LARGE, 0.1),
                seed=fault_seed,
            )
        )
        # What is quarantined adds up; on a disk that is full for good no daemon starts.
        size = 40 + int(fault_seconds * 0.25)
        disk = stack.enter_context(small_disk(tmp_path, size)) if may_mount() else None
        daemon = stack.enter_context(everything(place, tmp_path, disk, port))
        weather = Weather(daemon, place, disk, rng)
        order(place, "streams", {"start": list(STREAMS)})
        weather.blow(fault_seconds)
        fired = weather.met()
        calm(place)
        order(place, "streams", {"stop": list(STREAMS)})  # what is out of order waits for this one
        clear(daemon, place, weather.process)
        assert weather.process.stop() == 0
        weather.lives.ended("signal")
        summary = balance(daemon, place, weather, tmp_path)
        again = weather.lives.explain()
        media(daemon, place)
    print(f"random faults: {dict(weather.count)} {fired=} {summary} again={dict(again)}")
    assert min(fired.values()) >= 1, fired


def rates(names: set[str], all_together: float) -> dict[str, float]:
    return dict.fromkeys(sorted(names), all_together / len(names))


def may_mount() -> bool:
    """Whether a full disk may be among the faults; loud where it may not."""
    if os.geteuid() != 0:
        assert os.environ.get("CI") != "true", "needs root: mounts a small disk"
        print("not root: no full disk among the faults")
    return os.geteuid() == 0


def everything(place: Environment, folder: Path, disk: Path | None, port: int) -> Any:
    """All sources and sinks; the spool on the small disk, where there is one."""
    pictures = {"kinds": ["screenshot"]}
    listen = {"listen": f"127.0.0.1:{port}", "path": PATH, "key": CALLBACK_KEY}
    pushed = {"type": "callbacks", "account": "main", **listen}
    archive = {
        "type": "download",
        "directory": str(folder / "pictures"),
        "template": "{name}",
        "timeout": "2s",
    }
    return scenario(
        place,
        folder,
        sources={**SOURCES, "pushed": pushed},
        sinks={
            "console": {"type": "stdout"},
            "hook": webhook(place, timeout="3s", only=pictures),
            "archive": {**archive, "allow_cidr": ["127.0.0.0/8"], "only": pictures},
        },
        spool={
            "type": "sqlite",
            "path": str((disk or folder) / "spool.db"),
            "min_free": "0B",
            "retain": "10s",
        },
        journal={"size": "16MiB"},
        account={"vod": {"biz_id": Customer().biz_id}},
    )


def calm(place: Environment) -> None:
    """Nothing goes wrong any more."""
    for side in SIDES:
        place.ask(place.sandbox.faults[side].clear)
    place.turn(200)


def clear(daemon: Scenario, place: Environment, process: Process) -> None:
    """All that waits comes through."""
    for name in ("hook", "archive"):
        rows(daemon, "resume", name, code=None)
    until(lambda: place.depth == 0, what="for the queue to be empty")
    until(lambda: waiting(place) == 0, what="for every notification to be answered")
    until(lambda: process.metric("journal_bytes") == 0, what="for the journal")
    until(lambda: waiting_for_media(daemon, place) == set(), what="for every recording and the last states")
    until(lambda: process.metric("backlog_events") == 0, 180, "for every delivery")


def balance(daemon: Scenario, place: Environment, weather: Weather, folder: Path) -> dict[str, int]:
    """Every message is printed, in quarantine, or in a poll that was not whole or met a kill."""
    names = printed_names(daemon)
    books = Books(
        removed=place.oracle.removed(), spooled=sorted(names), quarantine=quarantine(daemon.spool_file)
    )
    strange = [poll for poll, some in books.lost_polls().items() if some[0].fault not in NOT_WHOLE]
    for poll in strange:
        assert any(poll <= kill < poll + RECENT for kill in weather.kills), (
            f"poll {poll} is lost without a kill"
        )
    for kill in weather.kills:
        assert sum(poll <= kill < poll + RECENT for poll in strange) <= 2 * LANES, (
            "two kills may lie close together"
        )
    assert len(strange) <= LANES * len(weather.kills)
    answered = {one.path for one in read_notified(folder / "platform") if one.event_type == 200}
    assert answered <= names, "what was answered 200 is there"
    assert names <= answered | {one.path for one in books.removed}, "nothing is invented"
    stored = {file.name for file in (folder / "pictures").iterdir() if file.is_file()}
    dead = dead_letters(daemon.spool_file)
    assert stored | dead.get("archive", set()) == names
    assert all((folder / "pictures" / name).read_bytes()[-2:] == b"\xff\xd9" for name in stored)
    assert set(dead) <= {"archive"}
    assert len(books.removed) >= 1000
    return {"removed": len(books.removed), "lost": len(books.lost()), "kept": len(names), "dead": len(dead)}


def on_our_side(daemon: Scenario, disk: Path | None) -> dict[str, int]:
    """How often the daemon met a webhook that was down, and a full disk."""
    met = {"hook": sum(len(process.said("delivery_failed")) for process in daemon.processes)}
    if disk is not None:
        paused = [line["reason"] for process in daemon.processes for line in process.said("polling_paused")]
        met["disk"] = sum("disk is full" in reason for reason in paused)
    return met


def happened(daemon: Scenario, kind: str) -> dict[str, dict[str, Any]]:
    """The events of a kind on every life's stdout, by id."""
    events = [event for process in daemon.processes for event in printed(process)]
    return {event["id"]: event for event in events if event["type"].endswith(f".{kind}")}


def recorded(place: Environment) -> set[str]:
    """Every recording of the streams, as the platform knows it."""
    page = place.sandbox.recordings.page
    found: set[str] = set()
    for name in STREAMS:
        for offset in count(0, 100):
            ask = partial(page, Customer().app_id, name, offset=offset, limit=100)
            some = place.ask(ask)[1]
            found.update(one.vid for one in some)
            if len(some) < 100:
                break
    return found


def states(daemon: Scenario, stream: str) -> list[str]:
    """What was reported of a channel, in the order of its time."""
    mine = [event for event in happened(daemon, "channel").values() if event["subject"] == stream]
    return [event["data"]["state"] for event in sorted(mine, key=lambda event: str(event["time"]))]


def waiting_for_media(daemon: Scenario, place: Environment) -> set[str]:
    """The recordings and streams of which the last is not reported yet."""
    taped = {event["data"]["vid"] for event in happened(daemon, "recording").values()}
    return (recorded(place) - taped) | {name for name in STREAMS if "interrupted" not in states(daemon, name)}


def media(daemon: Scenario, place: Environment) -> None:
    """Each recording is reported once, and each change of a channel."""
    tapes = [event["data"]["vid"] for event in happened(daemon, "recording").values()]
    assert len(set(tapes)) == len(tapes) >= len(STREAMS)
    assert set(tapes) == recorded(place)
    for name in STREAMS:
        assert states(daemon, name) == ["live", "interrupted"]


def printed_names(daemon: Scenario) -> set[str]:
    """The screenshots on every life's stdout."""
    return {event["data"]["file_name"] for event in happened(daemon, "screenshot").values()}


def quarantine(spool: Path) -> list[tuple[str, bytes]]:
    with closing(sqlite3.connect(f"{spool.as_uri()}?mode=ro", uri=True)) as file:
        return file.execute("SELECT reason, body FROM quarantine").fetchall()


def dead_letters(spool: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    with closing(sqlite3.connect(f"{spool.as_uri()}?mode=ro", uri=True)) as file:
        for sink, event in file.execute("SELECT sink, event FROM dead"):
            found.setdefault(sink, set()).add(json.loads(event)["data"]["file_name"])
    return found
