"""What operators order from the pages, and how far it is.

Each action is a command of `poller` that runs as a job. An action on many entries names the number of them that was
shown: if another number matches, nothing is done, and the answer says how many match now.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from poller.core.model import Filter
from poller.operations.requests import Request, Row, Verb
from poller.operations.verbs import STEP, answer
from poller.web.backend import Backend, json_answer
from poller.web.filters import (
    AuditFilter,
    BadRequest,
    DeadFilter,
    Number,
    QuarantineFilter,
    ReplayFilter,
    Words,
    read_body,
    read_query,
)
from poller.web.jobs import Job, Jobs
from poller.web.refusals import Handler, explained, operate_only, refuse, role_of

WAIT: Final = 5.0
"""Seconds that an answer waits for the job's count. A longer count goes on; its job says how it ended."""
COUNT_FOR: Final = 5.0
"""Seconds after which the count of a replay stops."""

Order = tuple[Request, int, int]
"""A command, the number of entries that it is about, and the number of entries of one step."""


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body. A field that is not known is an error."""


class SinkBody(_Strict, frozen=True, kw_only=True):
    """Which sink to pause or resume."""

    sink: Words


class DeadBody(_Strict, frozen=True, kw_only=True):
    """Which dead letters, and how many were shown."""

    filter: DeadFilter
    expect: Number


class QuarantineBody(_Strict, frozen=True, kw_only=True):
    """Which rejects, and how many were shown."""

    filter: QuarantineFilter
    expect: Number


class ReplayBody(_Strict, frozen=True, kw_only=True):
    """Which events a sink gets again, and how many were shown. `below` is from the count."""

    sink: Words
    filter: ReplayFilter
    expect: Number
    below: Number | None = None


class AuditBody(_Strict, frozen=True, kw_only=True):
    """Which pictures to audit."""

    filter: AuditFilter = AuditFilter()


class Nothing(_Strict, frozen=True, kw_only=True):
    """An empty object."""


class ReplayQuery(ReplayFilter, frozen=True, kw_only=True):
    """The parameters of a replay's count."""

    sink: Words


def routes(backend: Backend, jobs: Jobs) -> list[web.RouteDef]:
    """The paths of this module."""

    def action(path: str, order: Callable[[web.Request], Awaitable[Order]]) -> web.RouteDef:
        return web.post(path, operate_only(_start(backend, jobs, order)))

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
        web.get("/api/replay", operate_only(_count_replay(backend))),
        web.get("/api/replays", explained(_replays(backend))),
        web.get("/api/job/{id}", explained(_show(jobs))),
    ]


def _start(backend: Backend, jobs: Jobs, read: Callable[[web.Request], Awaitable[Order]]) -> Handler:
    """Start a job. Whoever asked waits a moment for the count, so that a changed one is told at once."""

    async def start(request: web.Request) -> web.Response:
        order, total, step = await read(request)
        verb = order.verb.value
        rows = answer(backend.context(), order)
        job = jobs.start(rows, verb=verb, role=role_of(request), total=total, step=step)
        try:
            async with asyncio.timeout(WAIT):
                await job.underway.wait()
        except TimeoutError:
            pass  # still counting
        return _describe(job)

    return start


def _describe(job: Job) -> web.Response:
    if job.error is not None and job.done == 0:
        return refuse(job.error)
    return json_answer(job.describe(), 202)


# ---------------------------------------------------------------- the orders


def _sink(verb: Verb) -> Callable[[web.Request], Awaitable[Order]]:
    async def order(request: web.Request) -> Order:
        body = await read_body(request, SinkBody)
        return Request(verb=verb, sink=body.sink), 1, 0

    return order


def _stored(
    verb: Verb, kind: type[DeadBody] | type[QuarantineBody]
) -> Callable[[web.Request], Awaitable[Order]]:
    async def order(request: web.Request) -> Order:
        body: DeadBody | QuarantineBody = await read_body(request, kind)
        chosen: Filter = body.filter.chosen()
        return Request(verb=verb, chosen=chosen, expect=body.expect), body.expect, STEP

    return order


async def _replay(request: web.Request) -> Order:
    body = await read_body(request, ReplayBody)
    chosen = body.filter.selection()
    order = Request(verb=Verb.REPLAY, sink=body.sink, selection=chosen, expect=body.expect, below=body.below)
    return order, body.expect, 0


def _change(verb: Verb) -> Callable[[web.Request], Awaitable[Order]]:
    async def order(request: web.Request) -> Order:
        await read_body(request, Nothing)
        return Request(verb=verb, number=_number(request.match_info["n"])), 1, 0

    return order


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadRequest("a replay has a number")
    return int(text)


async def _audit(request: web.Request) -> Order:
    body = await read_body(request, AuditBody)
    return Request(verb=Verb.AUDIT, selection=body.filter.selection()), 1, 0


# ---------------------------------------------------------------- what is asked beside


def _count_replay(backend: Backend) -> Handler:
    """What a replay would send now. A count that takes too long ends, and is not complete."""

    async def count(request: web.Request) -> web.Response:
        query = read_query(request, ReplayQuery)
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
            return json_answer({"error": "no job of this id is known; it may have ended long ago"}, 404)
        return json_answer(job.describe())

    return show
