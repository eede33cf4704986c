"""Parameters and bodies of requests, read strictly, and the filters of the commands that they stand for."""

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web
from multidict import MultiMapping

from poller.core.model import LARGEST_NUMBER, Filter
from poller.core.selection import Selection
from poller.web.errors import WebError

LAST_SECOND = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
MOST_ROWS = 500

Seconds = Annotated[float, msgspec.Meta(ge=0, le=LAST_SECOND)]
"""Unix time."""
Number = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]
Words = Annotated[str, msgspec.Meta(max_length=4096)]
Params = TypeVar("Params", bound=msgspec.Struct)


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters or a body. A member that is not known is an error."""


class StoredFilter(Strict, frozen=True, kw_only=True):
    """What the filters of dead letters and rejects have in common. `reason` is a part of the reason."""

    reason: Words | None = None
    id: Words | None = None
    since: Seconds | None = None
    until: Seconds | None = None

    def _chosen(self, of: str | None, stream: str | None) -> Filter:
        return Filter(
            of=of,
            stream=stream,
            reason=self.reason,
            ids=None if self.id is None else frozenset({self.id}),
            since=moment(self.since),
            before=moment(self.until),
        )


class DeadFilter(StoredFilter, frozen=True, kw_only=True):
    """Selects dead letters. `id` is the id of the event."""

    sink: Words | None = None
    stream: Words | None = None

    def chosen(self) -> Filter:
        """The same for the commands."""
        return self._chosen(self.sink, self.stream)


class QuarantineFilter(StoredFilter, frozen=True, kw_only=True):
    """Selects rejects. `id` is the number of the reject."""

    source: Words | None = None

    def chosen(self) -> Filter:
        """The same for the commands."""
        return self._chosen(self.source, None)


class ReplayFilter(Strict, frozen=True, kw_only=True):
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
            since=moment(self.since),
            until=moment(self.until),
        )


class AuditFilter(Strict, frozen=True, kw_only=True):
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
            taken_since=moment(self.since),
            taken_until=moment(self.until),
        )


def moment(seconds: float | None) -> datetime | None:
    """The time of these Unix seconds."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def read_query(query: MultiMapping[str], kind: type[Params]) -> Params:
    """The parameters of a request. An empty one counts as absent. Raises `WebError` (400)."""
    twice = [name for name, times in Counter(query.keys()).items() if times > 1]
    if twice:
        raise WebError(400, f"`{twice[0]}` is given more than once")
    values = {name: _value(name, text) for name, text in query.items() if text}
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise WebError(400, f"bad parameters: {error}") from None


def _value(name: str, text: str) -> str | list[str]:
    """`kinds` are separated by commas. `streams` is one id, which may hold commas."""
    if name == "streams":
        return [text]
    return [one for one in text.split(",") if one] if name == "kinds" else text


async def read_body(request: web.Request, kind: type[Params]) -> Params:
    """The JSON object of a body. Raises `WebError` (400)."""
    if request.content_type != "application/json":
        raise WebError(400, "the body must be JSON: Content-Type: application/json")
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise WebError(400, f"bad body: {error}") from None
