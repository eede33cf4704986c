"""`/api/event` and `/api/find` over a spool: the rows of the verbs, without what a viewer must not see."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from poller.core.model import Dead, Done
from poller.daemon.wiring import build_sink, event_filter
from poller.operations.operator_context import OperatorContext
from poller.operations.requests import Request, Row, Verb
from poller.operations.verbs import answer
from poller.qcloud.wire.account import Account
from poller.runtime.metrics import Metrics
from poller.settings import load
from poller.spools.sqlite import SqliteSpool
from poller.testing import ManualClock, some_event, some_reading
from poller.web import events
from poller.web.backend import Backend
from poller.web.errors import errors_as_json
from tests.fakes import sqlite_spool
from tests.patience import patiently

CONFIG = """
accounts: {main: {app_id: 1, key: abc, cos: {bucket: shots, app_id: 1250000000}}}
sources: {shots: {type: screenshot_queue, account: main}}
spool: {type: sqlite, path: spool.db}
sinks: {archive: {type: download, directory: pictures}}
"""
SIGNED = "http://shots-1250000000.file.myqcloud.com/a.jpg?q-signature=0123456789abcdef&sign=hidden"

Get = Callable[[str], Awaitable[tuple[int, Any]]]
Scenario = Callable[[Get, OperatorContext, SqliteSpool, ManualClock], Awaitable[None]]


def tell(folder: Path, scenario: Scenario) -> None:
    async def run_scenario() -> None:
        (folder / "poller.yaml").write_text(CONFIG)
        settings, clock = load(folder / "poller.yaml"), ManualClock()
        accounts = {name: Account(name, given) for name, given in settings.accounts.items()}
        async with sqlite_spool(folder, clock, retain=86_400.0) as spool:
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
            app = web.Application(middlewares=[errors_as_json])
            app.add_routes(events.routes(Backend(context=lambda: context)))
            async with TestServer(app) as server, ClientSession(server.make_url("/")) as session:

                async def get(path: str) -> tuple[int, Any]:
                    async with session.get(path) as answer:
                        return answer.status, await answer.json()

                await scenario(get, context, spool, clock)

    asyncio.run(patiently(run_scenario()))


async def row_of(context: OperatorContext, request: Request) -> Row:
    (row,) = [row async for row in answer(context, request) if row is not None]
    return row


def test_an_event_is_found_by_id_number_file_name_and_url(tmp_path: Path) -> None:
    async def scenario(get: Get, context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(*range(5))])
        event = some_event(3)
        names = (event.id, "number:4", str(event.fields["file_name"]), quote(event.url or "", safe=""))
        for named in names:
            status, row = await get(f"/api/event/{named}")
            assert (status, row["id"], row["number"], row["state"]) == (200, event.id, 4, "stored"), named
            assert row["event"]["id"] == event.id
            assert row["event"]["data"]["file_name"] == event.fields["file_name"]

    tell(tmp_path, scenario)


def test_an_answer_is_the_row_of_trace_with_the_event(tmp_path: Path) -> None:
    async def scenario(get: Get, context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(1, 2)])
        await spool.settle(await spool.claim("archive", 2), [Done(), Dead(reason="HTTP 404")])
        for number, state in ((1, "delivered"), (2, "dead")):
            _, row = await get(f"/api/event/{some_event(number).id}")
            traced = await row_of(context, Request(verb=Verb.TRACE, event=some_event(number).id))
            assert row.keys() == {*traced, "event"}
            assert row["sinks"][0]["state"] == state

    tell(tmp_path, scenario)


def test_neither_answer_holds_the_query_of_a_url(tmp_path: Path) -> None:
    async def scenario(get: Get, context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [_reading_with(SIGNED)])
        event = some_event(1)
        for path in (
            f"/api/event/{event.id}",
            f"/api/find?stream=room&at={event.occurred_at.timestamp()}",
        ):
            status, row = await get(path)
            assert status == 200
            assert "a.jpg?***" in str(row)
            assert "hidden" not in str(row)
            assert "0123456789abcdef" not in str(row)

    tell(tmp_path, scenario)


def _reading_with(url: str) -> Any:
    reading = some_reading(1)
    return msgspec.structs.replace(reading, events=(some_event(1, url=url),))


def test_what_is_not_there_is_said_to_be_pruned_or_unknown(tmp_path: Path) -> None:
    async def scenario(get: Get, context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(1)])
        await spool.settle(await spool.claim("archive", 1), [Done()])
        clock.pass_time(2 * 86_400)
        while (await spool.prune()).more:
            pass
        status, row = await get(f"/api/event/{some_event(1).id}")
        assert (status, row["state"], row["event"]) == (200, "pruned", None)
        status, row = await get(f"/api/event/{'0' * 32}")
        assert (status, row["state"], "no such event was taken" in row["error"]) == (404, "unknown", True)
        status, row = await get("/api/event/number:99")
        assert (status, row) == (404, {"error": "number 99: no such event is retained"})

    tell(tmp_path, scenario)


@pytest.mark.parametrize(
    "named", ["cat.jpg", "number:", "number:0", "number:-1", f"number:{2**63}", "number:x"]
)
def test_what_names_no_event_is_refused(tmp_path: Path, named: str) -> None:
    async def scenario(get: Get, context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        status, row = await get(f"/api/event/{named}")
        assert (status, row.keys()) == (400, {"error"})

    tell(tmp_path, scenario)


def test_the_picture_at_a_time_is_found_by_unix_time_or_in_words(tmp_path: Path) -> None:
    async def scenario(get: Get, context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(*range(5))])
        at = some_event(2).occurred_at + timedelta(seconds=3)
        for written in (str(at.timestamp()), quote(at.isoformat())):
            status, row = await get(f"/api/find?stream=room&account=main&at={written}")
            assert (status, row["picture"]["number"]) == (200, 3)
        status, row = await get(f"/api/find?stream=room&at={at.timestamp() + 3600}")
        assert (status, row["picture"], row["after"]) == (200, None, None)

    tell(tmp_path, scenario)


@pytest.mark.parametrize(
    ("query", "status", "why"),
    [
        ("at=1", 400, "stream"),
        ("stream=room", 400, "at"),
        ("stream=room&at=soon", 400, "at"),
        ("stream=room&at=1795867645123", 400, "at"),
        ("stream=hall&at=1", 404, "no stream hall"),
        ("stream=room&account=other&at=1", 404, "no account other"),
        ("stream=twice&at=1", 400, "in several accounts"),
    ],
)
def test_a_search_that_cannot_be_answered_says_why(tmp_path: Path, query: str, status: int, why: str) -> None:
    async def scenario(get: Get, context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await spool.append("shots", [some_reading(1)])
        for account in ("main", "second"):
            twice = some_event(1, stream="twice", account=account)
            await spool.append("shots", [msgspec.structs.replace(some_reading(1), events=(twice,))])
        answered, row = await get(f"/api/find?{query}")
        assert (answered, row["error"].startswith(why) or why in row["error"]) == (status, True)

    tell(tmp_path, scenario)
