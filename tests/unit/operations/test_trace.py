"""The verb `trace` over a spool, without a socket between."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from poller.cli.trace import lines
from poller.control import ControlError, OperatorContext, Request, Row, Verb, answer
from poller.core.model import Dead, Done, Outcome, Retry
from poller.core.selection import Selection
from poller.daemon.wiring import build_sink, event_filter
from poller.qcloud.wire.account import Account
from poller.runtime.metrics import Metrics
from poller.settings import load
from poller.spools.sqlite import SqliteSpool
from poller.testing import ManualClock, some_event, some_reading
from tests.fakes import sqlite_spool
from tests.patience import patiently

CONFIG = """
accounts: {main: {app_id: 1, key: abc, cos: {bucket: shots, app_id: 1250000000}}}
sources: {shots: {type: screenshot_queue, account: main}}
spool: {type: sqlite, path: spool.db}
sinks:
  archive: {type: download, directory: pictures}
  hook: {type: webhook, url: "https://example.com/", only: {streams: [room]}}
"""
DAY = 86_400.0

Scenario = Callable[[OperatorContext, SqliteSpool, ManualClock], Awaitable[None]]


def tell(folder: Path, scenario: Scenario) -> None:
    async def run_scenario() -> None:
        (folder / "poller.yaml").write_text(CONFIG)
        settings, clock = load(folder / "poller.yaml"), ManualClock()
        accounts = {name: Account(name, given) for name, given in settings.accounts.items()}
        async with sqlite_spool(folder, clock, retain=DAY) as spool:
            for name, sink in settings.sinks.items():
                await spool.attach(name, event_filter(sink.only))
            context = OperatorContext(
                settings=settings,
                spool=spool,
                clock=clock,
                metrics=Metrics(),
                source=lambda name: None,
                sink={name: build_sink(name, one, accounts) for name, one in settings.sinks.items()}.get,
            )
            await scenario(context, spool, clock)

    asyncio.run(patiently(run_scenario()))


async def asked(context: OperatorContext, **words: Any) -> list[Row]:
    request = Request(verb=Verb.TRACE, **words)
    return [row async for row in answer(context, request) if row is not None]


async def traced(context: OperatorContext, event: str) -> tuple[Any, dict[str, Any]]:
    """The only row, and its sinks by name."""
    (row,) = await asked(context, event=event)
    sinks: Any = row["sinks"]
    return row, {sink["sink"]: sink for sink in sinks}


async def settle(spool: SqliteSpool, sink: str, *outcomes: Outcome) -> None:
    await spool.settle(await spool.claim(sink, len(outcomes)), outcomes)


def test_each_sink_has_its_own_outcome(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(*range(5))])
        no = Retry(after=5, reason="HTTP 503")
        await settle(spool, "archive", Done(), no, Dead(reason="HTTP 404"))
        in_hand = await spool.claim("archive", 1)
        states = [(await traced(context, some_event(n).id))[1]["archive"]["state"] for n in range(5)]
        assert states == ["delivered", "waiting", "dead", "in hand", "waiting"]
        clock.pass_time(5)
        await settle(spool, "archive", Done())
        row, sinks = await traced(context, some_event(1).id)
        assert (row["state"], row["number"], row["stream"], row["account"]) == ("stored", 2, "room", "main")
        delivered = sinks["archive"]
        assert (delivered["state"], delivered["attempt"], delivered["at"]) == ("delivered", 2, clock.now())
        assert [failed["reason"] for failed in delivered["failed"]] == ["HTTP 503"]
        assert sinks["hook"]["state"] == "waiting"
        await spool.settle(in_hand, [Done()])
        assert (await traced(context, some_event(3).id))[1]["archive"]["state"] == "delivered"

    tell(tmp_path, scenario)


def test_a_file_of_a_sink_is_named_and_said_to_be_there_or_not(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(1)])
        await settle(spool, "archive", Done())
        event = some_event(1)
        file = (
            tmp_path / "pictures" / f"{event.occurred_at:%Y-%m-%d}" / "room" / str(event.fields["file_name"])
        )
        _, sinks = await traced(context, event.id)
        assert (sinks["archive"]["file"], sinks["archive"]["present"]) == (str(file), False)
        file.parent.mkdir(parents=True)
        file.touch()
        assert (await traced(context, event.id))[1]["archive"]["present"] is True
        assert "file" not in sinks["hook"]

    tell(tmp_path, scenario)


def test_an_event_is_found_by_its_file_name_in_every_account_and_form(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(*range(9))])
        event = some_event(4)
        name = str(event.fields["file_name"])
        for asked_for in (event.id, name, f"/srv/pictures/2026-01-02/room/{name}", event.url or ""):
            row, _ = await traced(context, asked_for)
            assert (row["id"], row["number"]) == (event.id, 5)
        with pytest.raises(ControlError, match="no account other"):
            await asked(context, event=name, selection=Selection(account="other"))
        with pytest.raises(ControlError, match="no account other"):
            await asked(context, at=datetime.now(UTC), selection=Selection(account="other", stream="room"))
        with pytest.raises(ControlError, match="neither an id nor a file name"):
            await asked(context, event="cat.jpg")

    tell(tmp_path, scenario)


def test_the_last_picture_of_a_stream_before_a_moment_is_found(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(3, 1, 2, 700)])
        await spool.append("shots", [some_reading(1, 2, 3, stream="hall")])
        room = Selection(stream="room")

        async def at(n: int, seconds: float) -> list[object]:
            moment = some_event(n).occurred_at + timedelta(seconds=seconds)
            return [row["id"] for row in await asked(context, selection=room, at=moment)]

        assert await at(2, 0) == [some_event(2).id]
        assert await at(3, -0.001) == [some_event(2).id]
        assert await at(650, 0) == [some_event(3).id]
        assert await at(9_000, 0) == [some_event(700).id]
        assert await at(1, -1) == [None]

    tell(tmp_path, scenario)


def test_pruned_and_unknown_events_have_their_own_words(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(1, 2)])
        await settle(spool, "archive", Done(), Dead(reason="HTTP 404"))
        await settle(spool, "hook", Done(), Done())
        clock.pass_time(2 * DAY)
        while (await spool.prune()).more:
            pass
        row, sinks = await traced(context, some_event(1).id)
        assert (row["state"], row["number"]) == ("pruned", None)
        assert {sink["state"] for sink in sinks.values()} == {"pruned"}
        row, sinks = await traced(context, str(some_event(2).fields["file_name"]))
        assert (row["state"], row["stream"]) == ("pruned", "room")
        assert (sinks["archive"]["state"], sinks["archive"]["reason"]) == ("dead", "HTTP 404")
        row, sinks = await traced(context, some_event(3).id)
        assert (row["state"], sinks) == ("unknown", {})

    tell(tmp_path, scenario)


def test_a_dead_letter_that_was_delivered_after_a_retry_is_delivered(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(1)])
        await settle(spool, "hook", Dead(reason="HTTP 422"))
        (letter,) = await spool.dead(9)
        await spool.retry_dead("hook", [letter.number], 9)
        assert (await traced(context, some_event(1).id))[1]["hook"]["state"] == "waiting"
        await settle(spool, "hook", Done())
        assert (await traced(context, some_event(1).id))[1]["hook"]["state"] == "delivered"

    tell(tmp_path, scenario)


def test_an_event_that_a_sink_does_not_want_is_said_to_be_unwanted(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(1, stream="hall")])
        _, sinks = await traced(context, some_event(1, stream="hall").id)
        assert {name: sink["state"] for name, sink in sinks.items()} == {
            "archive": "waiting",
            "hook": "not wanted",
        }

    tell(tmp_path, scenario)


def test_people_read_one_line_for_each_fact(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(1, 2)])
        await settle(spool, "hook", Retry(after=60, reason="HTTP 503\x1b[2J"), Done())
        event = some_event(1)
        (row,) = await asked(context, event=event.id)
        origin = {
            "source": "shots",
            "about": "",
            "asked_at": event.received_at - timedelta(seconds=2),
            "received_at": event.received_at,
            "outcome": "full",
            "events": 87,
        }
        assert list(lines({**row, "polled": origin}, event.id, utc=True)) == [
            f"screenshot {event.id}",
            "  stream     room of account main",
            f"  file name  {event.fields['file_name']}",
            "  taken      2026-01-02T03:04:15Z",
            "  polled     by shots: asked 2026-01-02T03:04:14Z, answered 2026-01-02T03:04:16Z, full, 87 new events",
            "  stored     received 2026-01-02T03:04:16Z, number 1",
            "  archive    waiting",
            f"             file {tmp_path}/pictures/2026-01-02/room/{event.fields['file_name']} (not there)",
            "  hook       waiting, next attempt 2026-01-02T03:05:05Z: HTTP 503\\x1b[2J",
            "             tried 2026-01-02T03:04:05Z: HTTP 503\\x1b[2J",
        ]
        (row,) = await asked(context, event=some_event(2).id)
        assert "  hook       delivered 2026-01-02T03:04:05Z, attempt 1, within 0 s" in lines(
            row, "", utc=True
        )
        (row,) = await asked(context, event=some_event(3).id)
        unknown, note = lines(row, some_event(3).id, utc=True)
        assert unknown.startswith(f"{some_event(3).id}: unknown: ")
        assert "no daemon runs" in note

    tell(tmp_path, scenario)
