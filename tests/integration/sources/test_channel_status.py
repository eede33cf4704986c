"""The channels' states: one event a change, three answers in a row, calls spread evenly."""

import json
import os
import random
import re
import signal
import time
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest

from poller.core.model import Event, ParsedPage, PollOutcome, RawPage
from poller.qcloud.wire.account import Account
from poller.sandbox import Answers, Customer, Load, Sandbox
from poller.settings import AccountSettings
from poller.sources.channel_status import (
    LATEST,
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

LANES = ChannelStatusSettings.model_fields["max_in_flight"].default
CHANNEL = re.compile(rb"[?&]Param\.s\.channel_id=([^& ]+)")


class Calls:
    """The calls that the platform hears, with their times. A call is heard after its channel's turn, never before."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.channels: list[str] = []

    def hear(self, request: bytes) -> None:
        found = CHANNEL.search(request)
        assert found is not None, request
        self.times.append(time.monotonic())
        self.channels.append(found[1].decode())

    def most_within(self, seconds: float) -> int:
        """The most calls within any span of this length."""
        first, most = 0, 0
        for last, moment in enumerate(list(self.times)):
            while moment - self.times[first] > seconds:
                first += 1
            most = max(most, last - first + 1)
        return most


def most_made_up(times: Sequence[float], step: float) -> float:
    """By how many calls a span of time has more than are due in it, of all spans."""
    ahead = [n - moment / step for n, moment in enumerate(times)]
    return max(here - least + 1 for here, least in zip(ahead, accumulate(ahead, min), strict=True))


def fewest_others_between(channels: Sequence[str]) -> int:
    """How many calls there are at least between two for the same channel."""
    last: dict[str, int] = {}
    fewest = len(channels)
    for n, channel in enumerate(channels):
        fewest = min(fewest, n - last.get(channel, -len(channels)) - 1)
        last[channel] = n
    return fewest


def test_how_uneven_calls_are_is_seen() -> None:
    even = [n / 50 for n in range(500)]
    assert most_made_up(even, 1 / 50) == pytest.approx(1)
    assert most_made_up([*even[:100], *(moment + 3 for moment in even[100:])], 1 / 50) == pytest.approx(1)
    assert most_made_up([*even[:100], *[even[250]] * 150, *even[250:]], 1 / 50) == pytest.approx(151)
    assert fewest_others_between(["a", "b", "c"] * 3) == 2
    assert fewest_others_between(["a", "b", "c", "a", "c", "b"]) == 1


def test_calls_for_many_channels_are_even_and_few_are_made_up_for(tmp_path: Path, soak: bool) -> None:
    """The daemon is halted for a while too. A machine that starves it may only take calls away, for it makes up for
    little.

    So neither the most calls nor their order depends on the machine, and the least shows in the best moment.
    """
    many, interval = (10_000, 60) if soak else (250, 5)
    step, calls = interval / many, Calls()
    channels = [f"room-{n}" for n in range(many)]
    states = {"type": "channel_status", "account": "main", "channels": channels, "interval": f"{interval}s"}
    with (
        environment(tmp_path) as place,
        scenario(
            place,
            tmp_path,
            endpoint=place.wire.endpoint,
            sinks={"console": {"type": "stdout"}},
            sources={"states": states},
        ) as daemon,
    ):
        place.wire.heard = calls.hear
        for channel in random.Random(1).sample(channels, many // 2):
            place.ask(lambda channel=channel: place.sandbox.channels.begin(MINE.app_id, channel))  # type: ignore[misc]
        process = daemon.run()
        until_in_town(lambda: len(calls.times) > many // 4)
        process.signal(signal.SIGSTOP)
        time.sleep(3 * LATEST)
        process.signal(signal.SIGCONT)
        until_in_town(lambda: len(calls.times) > many * 3 // 2)
        until_in_town(
            lambda: calls.most_within(interval * 0.4) > many * 0.4 * 0.9, what="for calls as many as due"
        )
        used = _cpu(process.child.pid)
        assert process.stop() == 0
    made_up, each = most_made_up(calls.times, step), used / len(calls.times)
    print(f"\n{many} channels in {interval} s: made up for {made_up:.0f}; {each * 1000:.1f} ms of CPU each")
    assert made_up <= LATEST / step + 1 + LANES
    assert set(calls.channels) == set(channels)
    assert fewest_others_between(calls.channels) >= many - 1 - 2 * LANES, "each other has its turn first"


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
