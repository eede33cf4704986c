"""The streams are known after a kill at any step of a round that writes them, and a round holds up no burst."""

import asyncio
import random
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from poller.core.catalogue import Stream
from poller.core.model import Event, ParsedPage
from poller.spools import catalogue_rounds
from poller.spools.sqlite import SqliteSpool
from poller.testing import ManualClock, anything, some_change, some_event, some_reading
from tests.fakes import sqlite_spool
from tests.patience import patiently

STREAMS = 9


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two streams are written at a time, and more than four new events are a burst."""
    monkeypatch.setattr(catalogue_rounds, "PORTION", 2)
    monkeypatch.setattr(catalogue_rounds, "BURST", 4)


def tell(folder: Path, clock: ManualClock, scenario: Callable[[SqliteSpool], Awaitable[None]]) -> None:
    async def run_scenario() -> None:
        async with sqlite_spool(folder, clock, 0.0) as spool:
            await spool.attach("a", anything)
            await scenario(spool)

    asyncio.run(patiently(run_scenario()))


def page_of(*events: Event) -> ParsedPage:
    return msgspec.structs.replace(some_reading(), events=events)


def known(spool: SqliteSpool) -> dict[str, Stream]:
    return {stream.stream_id: stream for stream in spool.streams()}


def stored(spool: SqliteSpool) -> int:
    return int(spool._writer.connection.execute("SELECT count(*) FROM stream").fetchone()[0])


class Snapshots:
    """What `kill -9` would leave at statements that the writer begins, with the streams before and after them.

    One statement in `every` counts: a copy of the files is what takes long.
    """

    def __init__(self, spool_file: Path, folder: Path, every: int) -> None:
        self._file = spool_file
        self._folder = folder
        self._every = every
        self._statements = 0
        self.before: dict[str, Stream] = {}
        self.places: list[Path] = []
        self.expected: list[list[dict[str, Stream]]] = []
        self.portions = 0

    def take(self, statement: str) -> None:
        self.portions += statement.startswith("INSERT OR REPLACE INTO stream ")
        self._statements += 1
        if self._statements % self._every == 0:
            self._copy()

    def _copy(self) -> None:
        place = self._folder / str(len(self.places))
        place.mkdir(parents=True)
        for end in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{self._file}{end}", place / f"spool.db{end}")
        self.places.append(place)
        self.expected.append([self.before])

    def acknowledge(self, streams: dict[str, Stream]) -> None:
        """A transaction has ended: each of its statements leaves the streams before it or those after it."""
        for expected in self.expected:
            if expected[-1] is self.before:
                expected.append(streams)
        self.before = streams


def test_streams_are_known_wherever_a_round_is_cut_short_by_a_kill(tmp_path: Path, soak: bool) -> None:
    shots = Snapshots(tmp_path / "spool.db", tmp_path / "shots", 1 if soak else 7)
    clock, rng = ManualClock(), random.Random(7)

    async def filling(spool: SqliteSpool) -> None:
        spool._writer.connection.set_trace_callback(shots.take)
        for number in range(40):
            streams = [f"s{rng.randrange(STREAMS)}" for _ in range(3)]
            events = [some_event(number, stream=stream) for stream in dict.fromkeys(streams)]
            states = {stream: rng.choice(["live", "interrupted"]) for stream in streams}
            await spool.append("source", [page_of(*events)])
            shots.acknowledge(known(spool))
            changes = [some_change(number, state, stream=stream) for stream, state in states.items()]
            await spool.append("source", [page_of(*changes)])
            shots.acknowledge(known(spool))
            clock.pass_time(3.0)
        spool._writer.connection.set_trace_callback(None)

    tell(tmp_path, clock, filling)
    assert shots.portions > 30
    assert len(shots.places) > 100

    for place, expected in zip(shots.places, shots.expected, strict=True):

        async def again(spool: SqliteSpool, expected: list[dict[str, Stream]] = expected) -> None:
            assert known(spool) in expected

        tell(place, ManualClock(), again)


def test_a_burst_is_not_held_up_and_the_rest_is_written_when_it_ends(tmp_path: Path) -> None:
    clock = ManualClock()

    async def scenario(spool: SqliteSpool) -> None:
        await spool.append("source", [some_reading(0, stream=f"s{place}") for place in range(STREAMS)])
        for number in range(1, 6):
            await spool.append(
                "source", [some_reading(number, stream=f"s{place}") for place in range(STREAMS)]
            )
            assert stored(spool) == 0
        await spool.append("source", [some_reading(6)])
        await spool.append("source", [some_reading(7)])
        assert stored(spool) > 0
        while stored(spool) < STREAMS + 1:
            await asyncio.sleep(0.01)

    tell(tmp_path, clock, scenario)


def test_a_burst_that_does_not_end_holds_up_no_round_for_long(tmp_path: Path) -> None:
    clock = ManualClock()

    async def scenario(spool: SqliteSpool) -> None:
        clock.pass_time(100.0)
        await spool.append("source", [some_reading(0, stream=f"s{place}") for place in range(STREAMS)])
        await spool.append("source", [some_reading(1, stream=f"s{place}") for place in range(STREAMS)])
        assert stored(spool) > 0

    tell(tmp_path, clock, scenario)


def test_an_orderly_stop_leaves_nothing_to_read_again(tmp_path: Path) -> None:
    async def filling(spool: SqliteSpool) -> None:
        await spool.append("source", [some_reading(0, stream=f"s{place}") for place in range(STREAMS)])

    async def again(spool: SqliteSpool) -> None:
        assert stored(spool) == STREAMS
        assert spool._writer._catalogue_saved() == STREAMS + 1

    tell(tmp_path, ManualClock(), filling)
    tell(tmp_path, ManualClock(), again)
