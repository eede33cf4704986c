"""The verbs that look at the log, over a spool, without a socket between."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from poller.control import ControlError, OperatorContext, Request, Verb, answer
from poller.core.catalogue import Stream
from poller.core.model import Event, ParsedPage, PollOutcome
from poller.core.ports import Sink
from poller.core.selection import Selection
from poller.daemon.wiring import event_filter
from poller.operations.stream_states import attention
from poller.runtime.metrics import Metrics
from poller.settings import load
from poller.sinks.download import Download
from poller.spools.sqlite import SqliteSpool
from poller.testing import START, ManualClock, anything, some_change, some_event
from tests.fakes import sqlite_spool
from tests.patience import patiently

CONFIG = """
accounts: {main: {app_id: 1, key: abc, cos: {bucket: shots, app_id: 1250000000}}}
sources: {shots: {type: screenshot_queue, account: main}}
spool: {type: sqlite, path: spool.db}
sinks:
  archive: {type: download, directory: pictures, template: "{stream}/{name}", only: {streams: [room]}}
  console: {type: stdout}
"""

Scenario = Callable[[OperatorContext, SqliteSpool, ManualClock], Awaitable[None]]


def run(folder: Path, scenario: Scenario) -> None:
    (folder / "poller.yaml").write_text(CONFIG)
    settings = load(folder / "poller.yaml")
    made = settings.sinks["archive"]
    assert isinstance(made, Download.Settings)
    archive: Sink = Download("archive", made, {"main": Hosts()})

    async def run_scenario() -> None:
        clock = ManualClock()
        async with sqlite_spool(folder, clock) as spool:
            await spool.attach("archive", anything)
            context = OperatorContext(
                settings=settings,
                spool=spool,
                clock=clock,
                metrics=Metrics(),
                source=lambda name: None,
                sink={"archive": archive}.get,
                wants=lambda name: event_filter(settings.sinks[name].only),
            )
            await scenario(context, spool, clock)

    asyncio.run(patiently(run_scenario()))


class Hosts:
    picture_hosts = frozenset({"shots-1250000000.file.myqcloud.com"})


async def append(spool: SqliteSpool, *events: Event) -> None:
    await spool.append("shots", [ParsedPage(events=events, rejects=(), outcome=PollOutcome.FULL)])


async def rows(context: OperatorContext, verb: Verb, **asked: Any) -> list[dict[str, Any]]:
    return [dict(row) async for row in answer(context, Request(verb=verb, **asked)) if row is not None]


async def events(context: OperatorContext, **asked: Any) -> tuple[list[int], bool]:
    """The numbers of the events in the answer, and whether there are more."""
    *found, last = await rows(context, Verb.EVENTS, **asked)
    assert last["head"] == context.spool.head
    return [row["number"] for row in found], last["more"]


async def events_onwards(context: OperatorContext, limit: int, **asked: Any) -> list[int]:
    """The numbers of all events, by one answer after the other."""
    numbers, start = list[int](), None
    while start != 0:
        *found, last = await rows(context, Verb.EVENTS, onwards=True, limit=limit, start=start, **asked)
        assert len(found) <= limit
        assert last["head"] == context.spool.head
        numbers += [row["number"] for row in found]
        start = last["following"]
    return numbers


async def picture(context: OperatorContext, seconds: float, stream: str = "room") -> dict[str, Any]:
    """The answer of `find` for the time that many seconds after the start."""
    at = START + timedelta(seconds=seconds)
    (row,) = await rows(context, Verb.FIND, selection=Selection(stream=stream), at=at)
    return row


# ---------------------------------------------------------------- events


def test_events_are_the_newest_or_all_and_always_oldest_first(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await append(spool, *(some_event(n) for n in range(30)))
        await append(spool, *(some_event(n, stream="hall") for n in range(30, 1_300)))
        assert await events(context, limit=3) == ([1_298, 1_299, 1_300], True)
        assert await events(context, limit=1_300) == (list(range(1, 1_301)), False)
        for limit in (7, 500, 650, 10_000):
            assert await events_onwards(context, limit) == list(range(1, 1_301))
        assert await events(context, selection=Selection(stream="room"), limit=2) == ([29, 30], True)
        assert await events(context, selection=Selection(stream="room"), limit=30) == (
            list(range(1, 31)),
            False,
        )
        assert await events(context, selection=Selection(kinds=frozenset({"channel"}))) == ([], False)
        between = Selection(since=some_event(5).received_at, until=some_event(8).received_at)
        assert await events_onwards(context, 2, selection=between) == [6, 7, 8]

    run(tmp_path, scenario)


def test_an_event_is_shown_as_its_sinks_get_it(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await append(spool, some_event(1))
        first, _ = await rows(context, Verb.EVENTS)
        assert bytes(msgspec.json.encode(first["event"])) == some_event(1).encoded

    run(tmp_path, scenario)


def test_an_empty_log_and_an_unknown_account(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        assert await events(context) == ([], False)
        assert await rows(context, Verb.STREAMS) == []
        for verb in (Verb.EVENTS, Verb.STREAMS, Verb.LATEST):
            with pytest.raises(ControlError, match="no account nobody is configured; there are: main"):
                await rows(context, verb, selection=Selection(account="nobody", stream="room"))

    run(tmp_path, scenario)


# ---------------------------------------------------------------- pictures


def test_the_nearest_picture_within_two_cadences_is_found(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await append(spool, *(some_event(n) for n in (0, 1, 2, 3, 10, 11)))
        for seconds, number in ((0, 0), (14, 1), (16, 2), (49, 3), (-19, 0), (130, 11)):
            found = (await picture(context, seconds))["picture"]
            assert found["id"] == some_event(number).id, seconds
            assert found["taken"] == some_event(number).occurred_at
            assert found["url"] == some_event(number).url

    run(tmp_path, scenario)


def test_where_there_is_none_the_nearest_before_and_after_are_named(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await append(spool, *(some_event(n) for n in range(4)))
        await append(spool, some_event(90), some_event(20))
        await append(spool, some_event(12), some_event(5), some_event(21))
        row = await picture(context, 87)
        assert (row["picture"], row["before"], row["after"]) == (
            None,
            some_event(5).occurred_at,
            some_event(12).occurred_at,
        )
        assert (await picture(context, -500))["before"] is None
        assert (await picture(context, 5_000))["after"] is None
        first = await rows(
            context, Verb.FIND, selection=Selection(stream="room"), at=datetime.min.replace(tzinfo=UTC)
        )
        assert first[0]["after"] == START

    run(tmp_path, scenario)


def test_a_picture_that_arrived_late_is_found_all_the_same(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await append(spool, *(some_event(n) for n in range(10, 900)))
        await append(spool, some_event(5))
        await append(spool, some_event(4, stream="hall"))
        assert (await picture(context, 51))["picture"]["id"] == some_event(5).id
        (row,) = await rows(context, Verb.LATEST, selection=Selection(stream="room"))
        assert row["picture"]["id"] == some_event(899).id

    run(tmp_path, scenario)


def test_a_picture_has_the_path_of_each_sink_that_keeps_files_and_wants_it(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await append(spool, some_event(1), some_event(1, stream="hall"))
        name = str(some_event(1).fields["file_name"])
        place = tmp_path / "pictures" / "room" / name
        (row,) = await rows(context, Verb.LATEST, selection=Selection(stream="room"))
        assert row["picture"]["files"] == [{"sink": "archive", "path": str(place), "present": False}]
        place.parent.mkdir(parents=True)
        place.write_bytes(b"a picture")
        assert (await picture(context, 12))["picture"]["files"][0]["present"]
        assert (await picture(context, 12, stream="hall"))["picture"]["files"] == []

    run(tmp_path, scenario)


def test_a_stream_of_several_accounts_needs_the_account(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await append(spool, some_event(1), some_event(2, account="other"))
        for verb in (Verb.LATEST, Verb.FIND):
            with pytest.raises(ControlError, match=r"several accounts: name one of main, other"):
                await rows(context, verb, selection=Selection(stream="room"), at=START)
            with pytest.raises(ControlError, match="no stream hall is known"):
                await rows(context, verb, selection=Selection(stream="hall"), at=START)
        (row,) = await rows(context, Verb.LATEST, selection=Selection(stream="room", account="other"))
        assert row["picture"]["id"] == some_event(2, account="other").id

    run(tmp_path, scenario)


def test_a_stream_without_a_picture_has_no_latest_one(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await append(spool, some_change(1, "live"))
        assert (await rows(context, Verb.LATEST, selection=Selection(stream="room")))[0]["picture"] is None
        row = await picture(context, 1)
        assert (row["picture"], row["before"], row["after"]) == (None, None, None)

    run(tmp_path, scenario)


# ---------------------------------------------------------------- streams


def test_streams_that_need_attention_come_first_then_by_name(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        for stream in ("a", "b", "c", "d"):
            last = {"a": 30, "b": 24, "c": 27, "d": 30}[stream]
            await append(spool, *(some_event(n, stream=stream) for n in range(last + 1)))
        await append(spool, some_change(30, "interrupted", stream="d"), some_change(30, "live", stream="a"))
        clock.pass_time(305)
        found = await rows(context, Verb.STREAMS)
        assert [(row["stream"], row["attention"]) for row in found] == [
            ("b", "no pictures"),
            ("d", "interrupted"),
            ("c", "late"),
            ("a", None),
        ]
        assert [(row["cadence"], row["age"]) for row in found] == [(10, 65), (10, 5), (10, 35), (10, 5)]
        assert [row["stream"] for row in await rows(context, Verb.STREAMS, state="live")] == ["a"]
        assert await rows(context, Verb.STREAMS, state="disabled") == []

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("state", "cadence", "silent", "expected"),
    [
        ("live", 10.0, 25.0, ""),
        ("live", 10.0, 25.1, "late"),
        ("live", 10.0, 40.1, "no pictures"),
        ("live", 10.0, 1e6, "no pictures"),
        ("live", None, 1e6, ""),
        (None, 10.0, 3_000.0, "no pictures"),
        (None, 10.0, 3_601.0, ""),
        ("interrupted", 10.0, 1.0, "interrupted"),
        ("disabled", None, 3_600.0, "disabled"),
        ("interrupted", 10.0, 3_601.0, ""),
    ],
)
def test_a_stream_needs_attention(
    state: str | None, cadence: float | None, silent: float, expected: str
) -> None:
    stream = Stream(
        account="main",
        stream_id="room",
        first_seen=START,
        last_seen=START,
        state=state,
        last_screenshot=START,
        cadence=cadence,
    )
    assert attention(stream, silent) == expected


# ---------------------------------------------------------------- without a daemon


def test_without_a_daemon_nothing_passes(tmp_path: Path) -> None:
    async def scenario(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        for verb in (Verb.TAP, Verb.TOP):
            with pytest.raises(ControlError, match="no daemon runs"):
                await rows(context, verb)

    run(tmp_path, scenario)
