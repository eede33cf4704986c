"""The answers about single events: what happened to one, and the picture of a stream at a time.

`/api/event/{id}` takes what `poller trace` takes: the id of an event, or the name or URL of a picture's file. It also
takes `number:239`, the event with this number in the log. The answer is the row of `trace --json`, with the event
itself as `event`. `/api/find` answers with the row of `find --json`.
"""

import re
from datetime import UTC, datetime
from typing import Final

import msgspec
from aiohttp import web

from poller.core.model import LARGEST_NUMBER
from poller.core.moments import parse_moment
from poller.core.selection import Selection
from poller.operations.masking import public_form
from poller.operations.requests import Request, Row, Verb
from poller.web.backend import Backend, json_answer
from poller.web.errors import WebError
from poller.web.filters import Strict, Words, read_query

_NUMBER: Final = re.compile(r"number:([0-9]{1,19})")
_SECONDS: Final = re.compile(r"[0-9]{1,11}(?:\.[0-9]{1,9})?")


class FindQuery(Strict, frozen=True, kw_only=True):
    """The parameters of `/api/find`. `at` is in Unix seconds, or as `poller find` takes it."""

    stream: Words
    at: Words
    account: Words | None = None


class _Event(msgspec.Struct):
    id: str


_read_id: Final = msgspec.json.Decoder(_Event).decode


def routes(backend: Backend) -> list[web.RouteDef]:
    """The paths of this module."""

    async def event(request: web.Request) -> web.Response:
        named = request.match_info["id"]
        number = _number(named)
        return await _event(backend, named if number is None else await _id_of(backend, number))

    async def find(request: web.Request) -> web.Response:
        query = read_query(request.query, FindQuery)
        chosen = Selection(stream=query.stream, account=query.account)
        at = _moment(query.at, backend.context().clock.now())
        (row,) = await backend.rows(Request(verb=Verb.FIND, selection=chosen, at=at))
        return _masked(row)

    return [web.get("/api/event/{id}", event), web.get("/api/find", find)]


async def _event(backend: Backend, id: str) -> web.Response:
    (row,) = await backend.rows(Request(verb=Verb.TRACE, event=id))
    if row["state"] == "unknown":
        error = f"{row['id'] or id}: unknown: no such event was taken in the last 30 days"
        return _masked({**row, "event": None, "error": error}, status=404)
    number = row["number"]
    event = await _read(backend, number) if isinstance(number, int) and number else None
    return _masked({**row, "event": event})


def _number(named: str) -> int | None:
    """The number that a path names; None if it names an id or a file. Raises `WebError` (400)."""
    found = _NUMBER.fullmatch(named)
    if found is None:
        if named.startswith("number:"):
            raise WebError(400, "not a number of the log: write number:239")
        return None
    number = int(found[1])
    if not 0 < number <= LARGEST_NUMBER:
        raise WebError(400, f"not a number of the log: {number}")
    return number


async def _id_of(backend: Backend, number: int) -> str:
    event = await _read(backend, number)
    if event is None:
        raise WebError(404, f"number {number}: no such event is retained")
    return _read_id(event).id


async def _read(backend: Backend, number: int) -> msgspec.Raw | None:
    """The retained event with this number, as its sinks get it."""
    rows = await backend.rows(Request(verb=Verb.EVENTS, onwards=True, start=number, limit=1))
    event = next((row["event"] for row in rows if row.get("number") == number), None)
    return event if isinstance(event, msgspec.Raw) else None


def _moment(text: str, now: datetime) -> datetime:
    """Unix seconds, or a time as `poller find` takes it. Raises `WebError` (400)."""
    if _SECONDS.fullmatch(text):
        return datetime.fromtimestamp(float(text), UTC)
    try:
        return parse_moment(text, now)
    except ValueError as error:
        raise WebError(400, f"at: {error}") from None


def _masked(row: Row, status: int = 200) -> web.Response:
    """An answer without signatures: the queries of URLs are masked, because a viewer is no sink."""
    return json_answer(msgspec.Raw(public_form(msgspec.json.encode(row))), status)
