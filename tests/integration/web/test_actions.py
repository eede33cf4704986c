"""Actions over HTTP on a spool without a daemon: a changed count is reported, and an order that cannot be done."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler

from poller.core.model import Dead
from poller.operations.operator_context import OperatorContext
from poller.spools.sqlite import SqliteSpool
from poller.testing import ManualClock, some_reading
from poller.web import actions, stored
from poller.web.backend import Backend
from poller.web.callers import ROLE
from poller.web.errors import errors_as_json
from poller.web.jobs import Jobs
from poller.web.sessions import OPERATE
from tests.unit.operations.test_replay_verbs import tell

Client = TestClient[web.Request, web.Application]


@asynccontextmanager
async def served(context: OperatorContext) -> AsyncIterator[Client]:
    """The actions, asked by an operator."""

    @web.middleware
    async def give_role(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[ROLE] = OPERATE
        return await handler(request)

    backend = Backend(context=lambda: context)
    async with Jobs() as jobs:
        app = web.Application(middlewares=[errors_as_json, give_role])
        app.add_routes([*actions.routes(backend, jobs), *stored.routes(backend)])
        async with TestClient(TestServer(app)) as client:
            yield client


async def three_dead(spool: SqliteSpool) -> None:
    await spool.append("shots", [some_reading(0, 1, 2)])
    batch = await spool.claim("hook", 3)
    await spool.settle(batch, [Dead(reason="HTTP 415")] * 3)


def told(folder: Path, scenario: Callable[[Client, SqliteSpool], Any]) -> None:
    """Tell a story of three dead letters."""

    async def with_client(context: OperatorContext, spool: SqliteSpool, clock: ManualClock) -> None:
        await three_dead(spool)
        async with served(context) as client:
            await scenario(client, spool)

    tell(folder, with_client)


def test_an_operator_is_told_the_new_count_and_then_obeyed(tmp_path: Path) -> None:
    async def scenario(client: Client, spool: SqliteSpool) -> None:
        answer = await client.post("/api/dead/purge", json={"filter": {"sink": "hook"}, "expect": 2})
        assert (answer.status, (await answer.json())["count"]) == (409, 3)
        assert len(await spool.dead(10)) == 3
        answer = await client.post("/api/dead/purge", json={"filter": {"sink": "hook"}, "expect": 3})
        assert answer.status == 202
        job, state = (await answer.json())["job"], "running"
        while state == "running":
            state = (await (await client.get(f"/api/job/{job}")).json())["state"]
        assert state == "done"
        assert await spool.dead(10) == []

    told(tmp_path, scenario)


def test_an_order_that_cannot_be_carried_out_says_why(tmp_path: Path) -> None:
    async def scenario(client: Client, spool: SqliteSpool) -> None:
        for path, body, status in (
            ("/api/replays/7/cancel", {}, 404),
            ("/api/pause", {"sink": "nowhere"}, 400),
            ("/api/dead/purge", {"filter": {"sink": "nowhere"}, "expect": 0}, 400),
            ("/api/audit", {"filter": {"account": "nobody"}}, 404),
        ):
            answer = await client.post(path, json=body)
            assert (answer.status, bool((await answer.json())["error"])) == (status, True), path
        assert (await client.post("/api/pause", data=b'{"sink": "hook"}')).status == 400

    told(tmp_path, scenario)
