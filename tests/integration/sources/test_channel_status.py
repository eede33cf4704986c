"""The channels' states: one event a change, three answers in a row, calls spread evenly."""

import json
import os
import random
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from poller.core.model import Event, ParsedPage, PollOutcome, RawPage
from poller.qcloud.wire.account import Account
from poller.sandbox import Answers, Customer, Load, Sandbox
from poller.settings import AccountSettings
from poller.sources.channel_status import (
    ChannelMemory,
    ChannelStatus,
    ChannelStatusSettings,
    PollSchedule,
    learn_state,
)
from poller.testing import START
from tests.scenario.environment import environment
from tests.scenario.environment import until as until_in_town
from tests.scenario.rig import scenario

from .platform import configured, events_of, play, running, until, until_events

MINE = Customer()


def states(events: list[Event]) -> list[tuple[str, object]]:
    return [(event.stream_id, event.fields["state"]) for event in events]


# ---------------------------------------------------------------- what is learned, without a clock


def walked(*said: str, confirm: int = 3) -> list[tuple[int, str]]:
    known, changes = ChannelMemory(), []
    for moment, state in enumerate(said, start=1):
        known, changed = learn_state(known, state, float(moment), confirm)
        if changed is not None:
            changes.append((int(changed), known.state))
    return changes


@pytest.mark.parametrize(
    ("said", "changes"),
    [
        ("L L L", [(1, "live")]),
        ("L I I L I I L", [(1, "live")]),
        ("L I I I I I", [(1, "live"), (2, "interrupted")]),
        ("L I I I L", [(1, "live"), (2, "interrupted"), (5, "live")]),
        ("I I I", [(1, "interrupted")]),
        ("I I L", [(3, "live")]),
        ("N N N", []),
        ("N L", [(2, "live")]),
        ("L N I N", [(1, "live"), (2, "interrupted")]),
        ("L D D L", [(1, "live"), (2, "disabled"), (4, "live")]),
        ("D I I I", [(1, "disabled"), (2, "interrupted")]),
    ],
)
def test_a_change_is_reported_once_and_an_interruption_after_three_answers(
    said: str, changes: list[tuple[int, str]]
) -> None:
    names = {"L": "live", "I": "interrupted", "D": "disabled", "N": "never"}
    assert walked(*(names[letter] for letter in said.split())) == changes


def test_how_many_answers_confirm_can_be_set() -> None:
    assert walked("live", "interrupted", confirm=1) == [(1, "live"), (2, "interrupted")]
    assert walked(*["live"], *["interrupted"] * 4, confirm=5) == [(1, "live")]


# ---------------------------------------------------------------- whose turn it is, without a clock


def asked(
    turns: PollSchedule, seconds: float, step: float = 0.001, start: float = 0.0
) -> list[tuple[float, str]]:
    found = []
    for n in range(int(seconds / step)):
        now = start + n * step
        while turns.wait(now) == 0.0 and (channel := turns.take(now)) is not None:
            found.append((now, channel))
    return found


def test_each_channel_is_asked_once_in_an_interval_and_evenly() -> None:
    turns = PollSchedule(10.0)
    turns.follow([str(n) for n in range(100)], 0.0)
    calls = asked(turns, 30.0)
    assert len(calls) in range(299, 302)
    gaps = [after - before for (before, _), (after, _) in pairwise(calls)]
    assert max(gaps) < 0.11
    assert {channel for _, channel in calls[:100]} == {str(n) for n in range(100)}
    assert [channel for _, channel in calls[:100]] == [channel for _, channel in calls[100:200]]


def test_a_doubtful_channel_is_asked_sooner_but_never_more_than_two_for_one() -> None:
    turns = PollSchedule(8.0)
    turns.follow([str(n) for n in range(80)], 0.0)
    turns.doubt("7", 0.0)
    first = next(now for now, channel in asked(turns, 8.0) if channel == "7" and now >= 1.9)
    assert first < 2.2
    for n in range(80):
        turns.doubt(str(n), 8.0)
    assert len(asked(turns, 8.0, start=8.0)) <= 3 * 81


def test_channels_come_and_go() -> None:
    turns = PollSchedule(10.0)
    assert turns.wait(0.0) is None
    turns.follow(["a"], 0.0)
    assert turns.take(0.0) == "a"
    turns.follow(["a", *(str(n) for n in range(9))], 1.0)
    assert turns.wait(1.0) == pytest.approx(1.0), "a new one is not made to wait for an old one's interval"
    assert "a" not in {channel for _, channel in asked(turns, 9.0, start=1.0)}
    turns.follow(["b"], 10.0)
    assert {channel for _, channel in asked(turns, 30.0, step=0.01, start=10.0)} == {"b"}


def test_a_late_caller_does_not_make_up_for_a_long_pause() -> None:
    turns = PollSchedule(10.0)
    turns.follow([str(n) for n in range(100)], 0.0)
    asked(turns, 1.0)
    late = [turns.take(1000.0) for _ in range(100)]
    assert sum(channel is not None for channel in late) <= 11


# ---------------------------------------------------------------- reading a page


def source(**settings: Any) -> ChannelStatus:
    account = Account("main", AccountSettings(app_id=1, key="k" * 32))
    built = ChannelStatusSettings(type="channel_status", account="main", **({"follow": "seen"} | settings))
    return ChannelStatus("states", built, {"main": account})


def page(body: object, status: int = 200) -> RawPage:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return RawPage(
        source="states", received_at=START, status=status, encoding="", whole=True, body=text, about="room"
    )


def test_an_event_tells_state_rate_and_reception() -> None:
    body = {"ret": 0, "output": [{"rate_type": 10, "recv_type": "3", "status": 1}]}
    reading = source().read(page(body), b"")
    (event,) = reading.events
    assert event.fields == {"state": "live", "seen_by": "channel_status", "rate_type": 10, "recv_type": 3}
    assert (event.stream_id, event.kind, event.occurred_at, event.url) == ("room", "channel", START, None)
    assert json.loads(event.message) == body["output"]
    assert (reading.outcome, reading.about) == (PollOutcome.FULL, "room")
    again = source().read(page(body), reading.memory)
    assert again == ParsedPage(
        events=(), rejects=(), outcome=PollOutcome.FULL, memory=reading.memory, about="room"
    )


def test_an_answer_that_says_nothing_changes_no_memory() -> None:
    for body, status in (({"ret": 1202}, 200), (b"<html>", 503), (b"", 200), ({"ret": 0}, 200)):
        reading = source().read(page(body, status), b'["live",2,5.0]')
        assert (reading.events, reading.memory) == ((), b'["live",2,5.0]')
        assert reading.outcome is not PollOutcome.FULL


# ---------------------------------------------------------------- beside the sandbox

QUICK = {"type": "channel_status", "interval": "100ms"}


@pytest.mark.parametrize(
    "form", [{}, {"status": "object", "ret": "string", "extra": True, "pretty": True}], ids=str
)
def test_a_channel_is_reported_through_all_its_states(tmp_path: Path, form: dict[str, Any]) -> None:
    async def scene(box: Sandbox) -> None:
        config = configured(tmp_path, box, {"states": {**QUICK, "channels": ["show", "never"]}})
        app_id = MINE.app_id
        async with running(config) as daemon:
            counts = box.platform.queue().counts
            await until(lambda: counts.statuses >= 6)
            assert await events_of(daemon, "channel") == []
            box.channels.begin(app_id, "show")
            await until_events(daemon, "channel", 1)
            box.channels.end(app_id, "show")
            await until_events(daemon, "channel", 2)
            box.channels.disable(app_id, "show")
            await until_events(daemon, "channel", 3)
            box.channels.disable(app_id, "show", disabled=False)
            box.channels.begin(app_id, "show")
            events = await until_events(daemon, "channel", 4)
            asked = counts.statuses
            await until(lambda: counts.statuses > asked + 20)
            assert await events_of(daemon, "channel") == events
            said = [("show", state) for state in ("live", "interrupted", "disabled", "live")]
            assert states(events) == said
            (stream,) = daemon.spool.streams()
            assert (stream.state, stream.seen_by) == ("live", "channel_status")
            assert daemon.journal._next_number == 1, "nothing of it goes through the journal"

    play(tmp_path, scene, answers=Answers(**form))


def test_a_restart_repeats_no_old_change_and_tells_what_happened_meanwhile(tmp_path: Path) -> None:
    async def scene(box: Sandbox) -> None:
        config = configured(tmp_path, box, {"states": {**QUICK, "channels": ["a", "b"]}})
        counts = box.platform.queue().counts
        for channel in "ab":
            box.channels.begin(MINE.app_id, channel)
        async with running(config) as daemon:
            await until_events(daemon, "channel", 2)
        box.channels.end(MINE.app_id, "b")
        async with running(config) as daemon:
            await until_events(daemon, "channel", 3)
            asked = counts.statuses
            await until(lambda: counts.statuses > asked + 10)
            events = await events_of(daemon, "channel")
            assert sorted(states(events)[:2]) == [("a", "live"), ("b", "live")]
            assert states(events)[2:] == [("b", "interrupted")]

    play(tmp_path, scene)


def test_streams_seen_in_the_queue_are_followed(tmp_path: Path) -> None:
    sources = {
        "shots": {"type": "screenshot_queue", "min_delay": "10ms", "max_delay": "50ms"},
        "states": {**QUICK, "follow": "seen"},
    }

    async def scene(box: Sandbox) -> None:
        box.enqueue(Load(count=40, streams=4))
        async with running(configured(tmp_path, box, sources)) as daemon:
            await until(lambda: len(daemon.spool.streams()) == 4)
            names = {stream.stream_id for stream in daemon.spool.streams()}
            for name in names:
                box.channels.begin(MINE.app_id, name)
            events = await until_events(daemon, "channel", 4)
            assert {event.stream_id for event in events} == names

    play(tmp_path, scene)


def test_a_refused_source_says_so_and_recovers(tmp_path: Path) -> None:
    async def scene(box: Sandbox) -> None:
        config = configured(tmp_path, box, {"states": {**QUICK, "channels": ["a"]}}, key="wrong")
        async with running(config) as daemon:
            await until(lambda: daemon.components.intakes[0].failing)
            assert await events_of(daemon, "channel") == []

    play(tmp_path, scene)


# ---------------------------------------------------------------- many channels, as a process


def test_calls_for_many_channels_are_even_and_cheap(tmp_path: Path, soak: bool) -> None:
    many, interval, windows = (10_000, 60, 15) if soak else (500, 10, 4)
    channels = [f"room-{n}" for n in range(many)]
    states = {"type": "channel_status", "account": "main", "channels": channels, "interval": f"{interval}s"}
    sinks = {"console": {"type": "stdout"}}
    with (
        environment(tmp_path) as place,
        scenario(place, tmp_path, sinks=sinks, sources={"states": states}) as daemon,
    ):
        for channel in random.Random(1).sample(channels, many // 2):
            place.ask(lambda channel=channel: place.sandbox.channels.begin(MINE.app_id, channel))  # type: ignore[misc]
        process = daemon.run()
        until_in_town(lambda: place.counts.statuses > many // 20, 60)
        begun, cpu = time.monotonic(), _cpu(process.child.pid)
        looks = [(begun, place.counts.statuses)]
        for window in range(1, windows + 1):
            until_in_town(lambda window=window: time.monotonic() > begun + window * interval / 10, 60)  # type: ignore[misc]
            looks.append((time.monotonic(), place.counts.statuses))  # this process may be late to look
        took, used = looks[-1][0] - begun, _cpu(process.child.pid) - cpu

        def in_a_tenth(first: tuple[float, int], last: tuple[float, int]) -> float:
            return (last[1] - first[1]) / (last[0] - first[0]) * interval / 10

        each = [round(in_a_tenth(before, after)) for before, after in pairwise(looks)]
        due = many / 10
        print(
            f"\n{many} channels in {interval} s: calls in each tenth {each}, due {due:.0f}; {used / took:.1%} of a core"
        )
        assert process.stop() == 0
        off = 0.1 if soak else 0.3
        assert all(due * (1 - off) < count < due * (1 + off) for count in each), each
        assert due * 0.85 < in_a_tenth(looks[0], looks[-1]) < due * 1.15


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
