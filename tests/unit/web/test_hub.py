"""The hub, over a spool in memory: what a viewer sees, whatever happens to its connection."""

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.control import OperatorContext
from poller.core.catalogue import Key
from poller.core.model import ParsedPage, PollOutcome
from poller.core.spool import Away
from poller.runtime.metrics import Metrics
from poller.settings import Settings
from poller.spools.memory import MemorySpool
from poller.testing import ManualClock, some_change, some_event
from poller.web.hub import KEPT, PACE, Hub, pause_after
from poller.web.ring import Place
from poller.web.streams import key_of, seconds
from tests.fakes import SharedMemory
from tests.patience import patiently

NAMES = tuple("abcdef")


class Town:
    """A spool whose streams can be forgotten, a clock that stands still, and a hub."""

    def __init__(self, spool: Callable[[ManualClock], MemorySpool] | None = None) -> None:
        self.clock = ManualClock()
        made = MemorySpool.Settings(type="memory")
        self.spool = spool(self.clock) if spool else MemorySpool("spool", made, {}, self.clock)
        context = OperatorContext(
            settings=Settings.model_construct(accounts={}, sources={}, spool=made, sinks={}),
            spool=self.spool,
            clock=self.clock,
            metrics=Metrics(),
            source=lambda name: None,
        )
        self.hub = Hub(lambda: context)
        self._numbers = iter(range(1_000_000))

    async def picture(self, stream: str) -> None:
        await self._append(some_event(next(self._numbers), stream=stream))

    async def change(self, stream: str, state: str) -> None:
        await self._append(some_change(next(self._numbers), state, stream=stream))

    async def _append(self, event: Any) -> None:
        await self.spool.append("shots", [ParsedPage(events=(event,), rejects=(), outcome=PollOutcome.FULL)])

    def forget(self, stream: str) -> None:
        self.spool._catalogue.forget(lambda one: one.stream_id == stream)

    async def look(self) -> None:
        """What the hub does every 250 ms while it is watched, and for each snapshot."""
        self.clock.pass_time(PACE)
        await self.hub.snapshot()

    async def snapshot(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await self.hub.snapshot()).plain)
        return found

    def truth(self) -> dict[Key, list[object]]:
        return {
            key_of(one): [one.last_number, seconds(one.last_screenshot), one.state, one.cadence]
            for one in self.spool.streams()
        }


class Viewer:
    """A page: it asks for the state, follows the changes, and goes on where it was after a lost connection."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.rows: dict[int, list[Any]] = {}
        self.jobs: list[Any] = []
        self.place: Place | None = None
        self.resets = 0
        self._following: AsyncGenerator[bytes, None] | None = None

    async def read(self, most: int) -> None:
        """Take up to so many of the messages that are there. Without a connection, make one."""
        if self.place is None:
            await self._begin()
        assert self.place is not None
        if self._following is None:
            self._following = self.town.hub.messages(self.place)
        for _ in range(most):
            if self.town.hub.ring.next(self.place) == b"":
                return
            await self._take(await anext(self._following))

    async def lose(self) -> None:
        if self._following is not None:
            await self._following.aclose()
            self._following = None

    async def _begin(self) -> None:
        state = await self.town.snapshot()
        self.rows = {row[0]: row for row in state["streams"]}
        self.place = Place(state["epoch"], state["seq"])

    async def _take(self, message: bytes) -> None:
        fields = dict(line.split(": ", 1) for line in message.decode().strip().split("\n"))
        if fields.get("event") == "reset":
            self.resets += 1
            await self.lose()
            await self._begin()
            self._following = self.town.hub.messages(self.place)
            return
        self.place = Place.read(fields["id"])
        if fields.get("event") == "job":
            self.jobs.append(json.loads(fields["data"]))
            return
        content = json.loads(fields["data"])
        for ordinal in content.get("gone", ()):
            del self.rows[ordinal]
        for row in content.get("new", ()):
            assert row[0] not in self.rows
            self.rows[row[0]] = row
        for ordinal, *rest in content["s"]:
            self.rows[ordinal][3:] = rest

    def state(self) -> dict[Key, list[object]]:
        found = {
            (row[1], row[2]): [number, taken, state, cadence]
            for row in self.rows.values()
            for number, taken, _, state, cadence in [row[3:]]
        }
        assert len(found) == len(self.rows)
        return found


def run(scenario: Callable[[Town], Awaitable[None]]) -> None:
    async def entered() -> None:
        town = Town()
        async with town.spool:
            await scenario(town)

    asyncio.run(patiently(entered()))


STEPS = st.one_of(
    st.tuples(st.just("picture"), st.sampled_from(NAMES)),
    st.tuples(st.just("state"), st.sampled_from(NAMES)),
    st.tuples(st.just("forget"), st.sampled_from(NAMES)),
    st.tuples(st.just("look"), st.just("")),
    st.tuples(st.just("long pause"), st.just("")),
    st.tuples(st.just("jump"), st.just("")),
    st.tuples(st.just("read"), st.integers(0, 2)),
    st.tuples(st.just("lose"), st.integers(0, 2)),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=50))
def test_a_viewer_that_loses_its_connection_at_random_sees_the_final_state(
    steps: list[tuple[str, Any]],
) -> None:
    async def scenario(town: Town) -> None:
        viewers = [Viewer(town) for _ in range(3)]
        for what, which in steps:
            await do(town, viewers, what, which)
        await town.look()
        for viewer in viewers:
            await viewer.read(1000)
            assert viewer.state() == town.truth()
            await viewer.lose()

    run(scenario)


async def do(town: Town, viewers: list[Viewer], what: str, which: Any) -> None:
    if what == "picture":
        await town.picture(which)
    elif what == "state":
        await town.change(which, "live" if town.clock.monotonic() % 0.5 else "interrupted")
    elif what == "forget":
        town.forget(which)
    elif what == "look":
        await town.look()
    elif what == "long pause":
        town.clock.pass_time(KEPT + 1)
    elif what == "jump":
        town.clock.jump(3600.0)
    elif what == "read":
        await viewers[which].read(2)
    else:
        await viewers[which].lose()


def test_a_viewer_that_comes_back_within_a_minute_goes_on_where_it_was() -> None:
    async def scenario(town: Town) -> None:
        viewer = Viewer(town)
        await town.picture("a")
        await viewer.read(10)
        await viewer.lose()
        for _ in range(10):
            await town.picture("a")
            town.clock.pass_time(KEPT / 11)
            await town.look()
        await viewer.read(100)
        assert viewer.state() == town.truth()
        assert viewer.resets == 0
        await viewer.lose()

    run(scenario)


def test_a_viewer_that_stays_away_longer_begins_anew() -> None:
    async def scenario(town: Town) -> None:
        viewer = Viewer(town)
        await town.picture("a")
        await viewer.read(10)
        await viewer.lose()
        for _ in range(20):
            await town.picture("a")
            town.clock.pass_time(KEPT / 11)
            await town.look()
        await viewer.read(100)
        assert viewer.resets == 1
        assert viewer.state() == town.truth()
        await viewer.lose()

    run(scenario)


def test_viewers_begin_anew_when_the_wall_clock_is_set() -> None:
    """Ages then agree with those of the commands, which ask the clock for them."""

    async def scenario(town: Town) -> None:
        viewer = Viewer(town)
        await town.picture("a")
        await viewer.read(10)
        await town.look()
        town.clock.jump(7200.0)
        await town.look()
        await viewer.read(10)
        assert viewer.resets == 1
        state = await town.snapshot()
        (stream,) = town.spool.streams()
        assert abs(state["now"] - state["streams"][0][5] - town.clock.age(stream.last_seen)) < 0.01
        await viewer.lose()

    run(scenario)


def test_the_progress_of_a_job_reaches_viewers_that_come_back() -> None:
    async def scenario(town: Town) -> None:
        viewer = Viewer(town)
        await viewer.read(10)
        await viewer.lose()
        town.hub.publish("job", {"job": 3, "done": 1, "total": 2, "state": "running", "error": None})
        await viewer.read(10)
        assert viewer.jobs == [{"job": 3, "done": 1, "total": 2, "state": "running", "error": None}]
        await viewer.lose()

    run(scenario)


def test_the_state_is_encoded_once_for_all_who_ask_at_the_same_time() -> None:
    async def scenario(town: Town) -> None:
        await town.picture("a")
        first, *others = await asyncio.gather(*(town.hub.snapshot() for _ in range(20)))
        assert all(one is first for one in others)
        assert json.loads(gzip.decompress(await town.hub.compressed())) == json.loads(first.plain)
        assert town.hub.looks == 1
        town.clock.pass_time(PACE)
        assert await town.hub.snapshot() is not first

    run(scenario)


def test_the_hub_looks_while_it_is_watched_and_not_otherwise() -> None:
    async def scenario(town: Town) -> None:
        async with town.hub as hub:
            await town.picture("a")
            await asyncio.sleep(2 * PACE)
            assert hub.looks == 0
            with hub.watched():
                async with aclosing(hub.messages(None)) as messages:
                    await anext(message async for message in messages if b"reset" in message)
                    town.clock.pass_time(PACE)
                    await town.picture("a")
                    told = await anext(message async for message in messages if b'"s":[[' in message)
            content = msgspec.json.decode(told.partition(b"data: ")[2])
            assert content["s"][0][:2] == [0, 2]
            looks = hub.looks
            await town.picture("a")
            await asyncio.sleep(2 * PACE)
            assert hub.looks <= looks + 1  # the look that was under way when the viewer left

    run(scenario)


def test_the_more_changes_the_later_the_next_look_up_to_a_second() -> None:
    assert [pause_after(found) for found in (0, 125, 1000, 2000, 4000, 100_000)] == [
        0.25,
        0.25,
        0.25,
        0.5,
        1,
        1,
    ]


def test_an_idle_log_costs_no_looks() -> None:
    async def scenario(town: Town) -> None:
        async with town.hub as hub:
            with hub.watched():
                await asyncio.sleep(4 * PACE)
                assert hub.looks == 1

    run(scenario)


def test_viewers_end_with_the_error_that_ended_the_looks() -> None:
    async def scenario(town: Town) -> None:
        async with town.hub as hub:
            with hub.watched():
                async with aclosing(hub.messages(None)) as messages:
                    await anext(messages)  # the first look
                    town.spool.streams = None  # type: ignore[assignment, method-assign]
                    town.clock.pass_time(PACE)
                    await town.picture("a")
                    with pytest.raises(TypeError):
                        await anext(messages)

    run(scenario)


def test_viewers_end_when_the_hub_ends() -> None:
    async def scenario(town: Town) -> None:
        async def follow(hub: Hub) -> None:
            async for _ in hub.messages(None):
                pass

        async with town.hub as hub:
            following = asyncio.create_task(follow(hub))
            await asyncio.sleep(0)
        await following

    run(scenario)


async def test_viewers_hear_since_when_the_database_of_a_shared_spool_is_away_and_when_it_is_back() -> None:
    town = Town(SharedMemory)
    assert isinstance(town.spool, SharedMemory)
    await town.picture("a")
    state = await town.snapshot()
    assert state["away"] is None
    place = Place(state["epoch"], state["seq"])
    town.spool.outage = Away(since=town.clock.now(), why="connection refused")
    since = seconds(town.clock.now())
    for away in (since, None):
        await town.look()
        await town.look()
        message = town.hub.ring.next(place)
        assert message, "it is told, although no stream changed"
        assert json.loads(message.decode().split("data: ")[1])["away"] == away
        assert (await town.snapshot())["away"] == away
        place = Place(place.epoch, place.seq + 1)
        assert town.hub.ring.next(place) == b"", "it is told once"
        town.spool.outage = None
