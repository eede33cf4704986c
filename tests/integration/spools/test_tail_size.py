"""A picture of each stream stays in memory, within a bound, so that a sink need not read them from the file."""

import asyncio
from pathlib import Path

import pytest

from poller.spools import table_spool
from poller.spools.sqlite import SqliteSpool
from poller.testing import ManualClock, anything, some_reading
from tests.fakes import sqlite_spool
from tests.patience import patiently


def in_memory_after(folder: Path, streams: int, events: int) -> int:
    """The number of events in memory after `events` events of each stream, in turns."""

    async def run() -> int:
        async with sqlite_spool(folder, ManualClock(), 0.0) as spool:
            assert isinstance(spool, SqliteSpool)
            await spool.attach("a", anything)
            for number in range(events):
                await spool.append(
                    "source", [some_reading(number, stream=f"s{place}") for place in range(streams)]
                )
            return spool.head - spool._dispatcher.tail.first

    return asyncio.run(patiently(run()))


@pytest.fixture(autouse=True)
def small_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_spool, "TAIL_BYTES", 5_000)
    monkeypatch.setattr(table_spool, "MOST_TAIL_BYTES", 60_000)


def test_with_few_streams_only_the_newest_events_are_in_memory(tmp_path: Path) -> None:
    assert in_memory_after(tmp_path, 2, 50) <= 10


def test_with_more_streams_a_picture_of_each_is_in_memory(tmp_path: Path) -> None:
    assert in_memory_after(tmp_path, 50, 1) == 50


def test_with_very_many_streams_memory_is_bounded(tmp_path: Path) -> None:
    assert in_memory_after(tmp_path, 300, 2) <= 150
