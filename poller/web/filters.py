"""The filters of paths and bodies: what a browser may say, read strictly, and what it means to the commands."""

import math
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web

from poller.core.model import LARGEST_NUMBER, Filter
from poller.core.selection import Selection
from poller.operations.requests import ControlError

LAST_SECOND = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
MOST_ROWS = 500

Seconds = Annotated[float, msgspec.Meta(ge=0, le=LAST_SECOND)]
"""Unix time."""
Number = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]
Words = Annotated[str, msgspec.Meta(max_length=4096)]
Params = TypeVar("Params", bound=msgspec.Struct)


class BadRequest(ControlError):
    """The path's parameters or the body are not what the path takes."""


class DeadFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selects dead letters. `reason` is a part of the reason, `id` the id of the event."""

    sink: Words | None = None
    stream: Words | None = None
    reason: Words | None = None
    id: Words | None = None
    since: Seconds | None = None
    until: Seconds | None = None

    def chosen(self) -> Filter:
        """The same for the commands."""
        return Filter(
            of=self.sink,
            stream=self.stream,
            reason=self.reason,
            ids=None if self.id is None else frozenset({self.id}),
            since=_moment(self.since),
            before=_moment(self.until),
        )


class QuarantineFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selects rejects. `reason` is a part of the reason, `id` the number of the reject."""

    source: Words | None = None
    reason: Words | None = None
    id: Words | None = None
    since: Seconds | None = None
    until: Seconds | None = None

    def chosen(self) -> Filter:
        """The same for the commands."""
        return Filter(
            of=self.source,
            reason=self.reason,
            ids=None if self.id is None else frozenset({self.id}),
            since=_moment(self.since),
            before=_moment(self.until),
        )


class ReplayFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selects events of the log by when they were received, stream, account and kind."""

    since: Seconds | None = None
    until: Seconds | None = None
    streams: Annotated[tuple[Words, ...], msgspec.Meta(max_length=1)] = ()
    account: Words | None = None
    kinds: frozenset[Words] = frozenset()

    def selection(self) -> Selection:
        """The same for the commands."""
        return Selection(
            account=self.account,
            stream=self.streams[0] if self.streams else None,
            kinds=self.kinds,
            since=_moment(self.since),
            until=_moment(self.until),
        )


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selects pictures by when they were taken, stream and account."""

    since: Seconds | None = None
    until: Seconds | None = None
    stream: Words | None = None
    account: Words | None = None

    def selection(self) -> Selection:
        """The same for the commands."""
        return Selection(
            account=self.account,
            stream=self.stream,
            taken_since=_moment(self.since),
            taken_until=_moment(self.until),
        )


def _moment(seconds: float | None) -> datetime | None:
    if seconds is None:
        return None
    if not math.isfinite(seconds):
        raise BadRequest("a time is no number of seconds")
    return datetime.fromtimestamp(seconds, UTC)


def read_query(request: web.Request, kind: type[Params]) -> Params:
    """The parameters of a path. `kinds` are separated by commas. Raises `BadRequest`."""
    twice = [name for name, times in Counter(request.query.keys()).items() if times > 1]
    if twice:
        raise BadRequest(f"`{twice[0]}` is given more than once")
    values = {name: _value(name, text) for name, text in request.query.items()}
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"bad parameters: {error}") from None


def _value(name: str, text: str) -> str | list[str]:
    if name == "streams":  # a stream id may hold commas
        return [text] if text else []
    return [one for one in text.split(",") if one] if name == "kinds" else text


async def read_body(request: web.Request, kind: type[Params]) -> Params:
    """The JSON object of a body. Raises `BadRequest`."""
    if request.content_type != "application/json":
        raise BadRequest("the body must be JSON: Content-Type: application/json")
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"bad body: {error}") from None
