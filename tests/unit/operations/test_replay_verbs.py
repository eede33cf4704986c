"""Counting and ordering replays over a spool, without a socket between."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from poller.control import ControlError, OperatorContext, Request, Row, Verb, answer
from poller.core.model import Dead, Done, Retry
from poller.core.selection import Selection
from poller.operations.status import status
from poller.runtime.metrics import Metrics
from poller.settings import load, load_stored
from poller.spools.sqlite import SqliteSpool
from poller.testing import ManualClock, anything, some_event, some_reading
from tests.fakes import sqlite_spool
from tests.patience import patiently

CONFIG = """
accounts: {main: {app_id: 1, key: abc, cos: {bucket: shots, app_id: 1}}}
sources: {shots: {type: screenshot_queue, account: main}}
spool: {type: sqlite, path: spool.db}
sinks:
  hook: {type: webhook, url: "https://example.com/"}
  archive: {type: download, directory: pictures}
"""
Scenario = Callable[[OperatorContext, SqliteSpool, ManualClock], Awaitable[None]]


def tell(folder: Path, scenario: Scenario, *, stored: bool = False) -> None:
    (folder / "poller.yaml").write_text(CONFIG)

    async def run_scenario() -> None:
        clock = ManualClock()
        async with sqlite_spool(folder, clock, retain=60 * 86_400) as spool:
            for sink in ("hook", "archive"):
                await spool.attach(sink, anything)
            context = OperatorContext(
                settings=(load_stored if stored else load)(folder / "poller.yaml"),
                spool=spool,
                clock=clock,
                metrics=Metrics(),
                source=lambda name: None,
            )
            await scenario(context, spool, clock)

    asyncio.run(patiently(run_scenario()))


async def asked(context: OperatorContext, verb: Verb, **more: Any) -> list[Row]:
    return [row async for row in answer(context, Request(verb=verb, **more)) if row is not None]


async def settled(spool: SqliteSpool, *numbers: int) -> None:
    await spool.append("shots", [some_reading(*numbers)])
    for sink in ("hook", "archive"):
        batch = await spool.claim(sink, 100)
        await spool.settle(batch, [Done()] * len(batch.events))


def test_a_count_says_what_is_left_out_and_changes_nothing(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await settled(spool, 0, 1)
        await spool.append("shots", [some_reading(2, 3, 4)])
        for outcome in (Dead(reason="bad"), Retry(after=9, reason="no"), Done()):
            await spool.settle(await spool.claim("hook", 1), [outcome])
        (row,) = await asked(context, Verb.REPLAY, sink="hook", dry=True)
        assert row == {"sink": "hook", "events": 3, "pending": 1, "dead": 1, "old_pictures": 0, "below": 6}
        assert await asked(context, Verb.REPLAYS) == []

    tell(tmp_path, scenario)


@pytest.mark.parametrize("stored", [False, True])
def test_pictures_that_the_bucket_may_have_deleted_are_counted_for_a_sink_that_fetches_them(
    tmp_path: Path, stored: bool
) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await settled(spool, 0)
        clock.pass_time(15 * 86_400)
        await settled(spool, 130_000)
        clock.pass_time(60)
        for sink, old in (("hook", 0), ("archive", 1)):
            (row,) = await asked(context, Verb.REPLAY, sink=sink, dry=True)
            assert (row["events"], row["old_pictures"]) == (2, old)

    tell(tmp_path, scenario, stored=stored)


def test_an_order_whose_count_has_changed_is_refused_with_both_counts(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await settled(spool, 0, 1)
        (row,) = await asked(context, Verb.REPLAY, sink="hook", dry=True)
        await settled(spool, 2)
        with pytest.raises(ControlError, match="3 events are selected now, and not 2 as before"):
            await asked(context, Verb.REPLAY, sink="hook", expect=row["events"])
        assert await asked(context, Verb.REPLAYS) == []
        (row,) = await asked(context, Verb.REPLAY, sink="hook", expect=row["events"], below=row["below"])
        assert (row["events"], row["replay"]) == (2, 1)
        shown: dict[str, Any]
        (shown,) = (await status(context))["replays"]  # type: ignore[misc]
        assert (shown["sink"], shown["what"], shown["done"], shown["total"]) == ("hook", "all", 0, 2)

    tell(tmp_path, scenario)


def test_nothing_is_ordered_where_nothing_is_selected(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await settled(spool, 0, 1)
        later = Selection(since=some_event(1).received_at + timedelta(days=1))
        for chosen in (later, Selection(stream="no"), Selection(kinds=frozenset({"recording"}))):
            (row,) = await asked(context, Verb.REPLAY, sink="hook", selection=chosen)
            assert (row["events"], row.get("replay")) == (0, None)
        assert await asked(context, Verb.REPLAYS) == []
        with pytest.raises(ControlError, match="no sink nowhere"):
            await asked(context, Verb.REPLAY, sink="nowhere")

    tell(tmp_path, scenario)
