"""The sink keeps what every sink promises."""

import csv
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from poller_spreadsheet import Spreadsheet

from poller.api import SinkContract, SinkWorld


class TestSpreadsheet(SinkContract):
    """Subclass the contract and say how to build the sink, what has arrived, and how the other side breaks."""

    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[SinkWorld]:
        path = folder / "there" / "events.csv"
        path.parent.mkdir()

        def arrived() -> Sequence[str]:
            with path.open(newline="") as file:
                return [row[3] for row in csv.reader(file)]

        settings = Spreadsheet.Settings(type="spreadsheet", path=path)
        async with Spreadsheet("mine", settings, {}) as sink:
            yield SinkWorld(
                sink=sink,
                arrived=arrived,
                breaks=lambda: path.parent.rename(folder / "away"),
                mends=lambda: (folder / "away").rename(path.parent),
            )
