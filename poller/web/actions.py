"""The actions of the pages: each is a command of `poller` that runs as a job.

An action on many entries names the number of entries that the page has shown. If another number matches, nothing is
done, and the answer says how many match now. `Access` lets only operators send actions.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from aiohttp import web
from aiohttp.typedefs import Handler

from poller.operations.requests import Request, Row, Verb
from poller.operations.verbs import STEP, answer
from poller.web.backend import Backend, json_answer
from poller.web.callers import ROLE, check_operator
from poller.web.errors import WebError
from poller.web.filters import (
    AuditFilter,
    DeadFilter,
    Number,
    QuarantineFilter,
    ReplayFilter,
    Strict,
    Words,
    read_body,
    read_query,
)
from poller.web.jobs import Job, Jobs

WAIT: Final = 5.0
"""Seconds that an answer waits for the job's count. A longer count goes on; its job says how it ended."""
COUNT_FOR: Final = 5.0
"""Seconds after which the count of a replay stops."""


class Order(NamedTuple):
    """A command, and the number of entries that it changes. `step` entries are one step of it; 0 for a single step."""

    request: Request
    total: int = 1
    step: int = 0


class SinkBody(Strict, frozen=True, kw_only=True):
    """Which sink to pause or resume."""

    sink: Words


class DeadBody(Strict, frozen=True, kw_only=True):
    """Which dead letters, and how many were shown."""

    filter: DeadFilter
    expect: Number


class QuarantineBody(Strict, frozen=True, kw_only=True):
    """Which rejects, and how many were shown."""

    filter: QuarantineFilter
    expect: Number


class ReplayBody(Strict, frozen=True, kw_only=True):
    """Which events a sink gets again, and how many were shown. `below` is from the count."""

    sink: Words
    filter: ReplayFilter
    expect: Number
    below: Number | None = None


class AuditBody(Strict, frozen=True, kw_only=True):
    """Which pictures to audit."""

    filter: AuditFilter = AuditFilter()


class Nothing(Strict, frozen=True, kw_only=True):
    """An empty object."""


class ReplayQuery(ReplayFilter, frozen=True, kw_only=True):
    """The parameters of a replay's count."""

    sink: Words


def routes(backend: Backend, jobs: Jobs) -> list[web.RouteDef]:
    """The paths of this module."""

    def action(path: str, order: Callable[[web.Request], Awaitable[Order]]) -> web.RouteDef:
        return web.post(path, _start(backend, jobs, order))

    return [
        action("/api/pause", _sink(Verb.PAUSE)),
        action("/api/resume", _sink(Verb.RESUME)),
        action("/api/dead/retry", _stored(Verb.DEAD_RETRY, DeadBody)),
        action("/api/dead/purge", _stored(Verb.DEAD_PURGE, DeadBody)),
        action("/api/quarantine/retry", _stored(Verb.QUARANTINE_RETRY, QuarantineBody)),
        action("/api/quarantine/purge", _stored(Verb.QUARANTINE_PURGE, QuarantineBody)),
        action("/api/replay", _replay),
        action("/api/replays/{n}/pause", _change(Verb.REPLAYS_PAUSE)),
        action("/api/replays/{n}/resume", _change(Verb.REPLAYS_RESUME)),
        action("/api/replays/{n}/cancel", _change(Verb.REPLAYS_CANCEL)),
        action("/api/audit", _audit),
        web.get("/api/replay", _count_replay(backend)),
        web.get("/api/replays", _replays(backend)),
        web.get("/api/job/{id}", _show(jobs)),
    ]


def _start(backend: Backend, jobs: Jobs, read: Callable[[web.Request], Awaitable[Order]]) -> Handler:
    """Start a job. The answer waits a moment for the count, so that it can report a changed one."""

    async def start(request: web.Request) -> web.Response:
        order = await read(request)
        job = jobs.start(
            answer(backend.context(), order.request),
            verb=order.request.verb.value,
            role=request[ROLE],
            total=order.total,
            step=order.step,
        )
        try:
            async with asyncio.timeout(WAIT):
                await job.underway.wait()
        except TimeoutError:
            pass  # still counting
        return _describe(job)

    return start


def _describe(job: Job) -> web.Response:
    if job.error is not None and job.done == 0:
        raise job.error
    return json_answer(job.describe(), 202)


# ---------------------------------------------------------------- the orders


def _sink(verb: Verb) -> Callable[[web.Request], Awaitable[Order]]:
    async def order(request: web.Request) -> Order:
        body = await read_body(request, SinkBody)
        return Order(Request(verb=verb, sink=body.sink))

    return order


def _stored(
    verb: Verb, kind: type[DeadBody] | type[QuarantineBody]
) -> Callable[[web.Request], Awaitable[Order]]:
    async def order(request: web.Request) -> Order:
        body: DeadBody | QuarantineBody = await read_body(request, kind)
        order = Request(verb=verb, chosen=body.filter.chosen(), expect=body.expect)
        return Order(order, body.expect, STEP)

    return order


async def _replay(request: web.Request) -> Order:
    body = await read_body(request, ReplayBody)
    chosen = body.filter.selection()
    order = Request(verb=Verb.REPLAY, sink=body.sink, selection=chosen, expect=body.expect, below=body.below)
    return Order(order, body.expect)


def _change(verb: Verb) -> Callable[[web.Request], Awaitable[Order]]:
    async def order(request: web.Request) -> Order:
        await read_body(request, Nothing)
        return Order(Request(verb=verb, number=_number(request.match_info["n"])))

    return order


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise WebError(400, "a replay has a number")
    return int(text)


async def _audit(request: web.Request) -> Order:
    body = await read_body(request, AuditBody)
    return Order(Request(verb=Verb.AUDIT, selection=body.filter.selection()))


# ---------------------------------------------------------------- counts, replays and jobs


def _count_replay(backend: Backend) -> Handler:
    """What a replay would send now. A count that takes too long ends, and is not complete."""

    async def count(request: web.Request) -> web.Response:
        check_operator(request)
        query = read_query(request.query, ReplayQuery)
        order = Request(verb=Verb.REPLAY, sink=query.sink, selection=query.selection(), dry=True)
        ends = time.monotonic() + COUNT_FOR
        found: Row | None = None
        async for row in answer(backend.context(), order):
            found = row
            if row is None and time.monotonic() >= ends:
                return json_answer({"sink": query.sink, "count": None, "complete": False})
        assert found is not None
        return json_answer({**found, "count": found["events"], "complete": True})

    return count


def _replays(backend: Backend) -> Handler:
    async def replays(request: web.Request) -> web.Response:
        return json_answer({"rows": await backend.rows(Request(verb=Verb.REPLAYS))})

    return replays


def _show(jobs: Jobs) -> Handler:
    async def show(request: web.Request) -> web.Response:
        job = jobs.get(request.match_info["id"])
        if job is None:
            raise WebError(404, "no job of this id is known; it may have ended long ago")
        return json_answer(job.describe())

    return show
