"""Dead letters and quarantine: `/api/dead`, `/api/quarantine`, and one entry of each with all that is known.

A list comes with the number of all entries that match, and with their reasons. Counting is bounded by time: an answer
that is not complete says where the next request goes on.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Generic

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from poller.core.model import DeadLetter, Filter, Quarantined
from poller.operations.masking import mask
from poller.operations.operator_context import OperatorContext
from poller.operations.requests import Row
from poller.operations.verbs import LETTERS, REJECTS, Numbered, Stored
from poller.web.backend import Backend, json_answer
from poller.web.errors import WebError
from poller.web.filters import MOST_ROWS, DeadFilter, Number, QuarantineFilter, Strict, Words, read_query

COUNT_FOR: Final = 1.0
"""Seconds after which counting stops."""
MOST_REASONS: Final = 200
"""The most reasons that are counted by themselves; the others count as `OTHER`."""
OTHER: Final = "other reasons"
MOST_NAMES: Final = 20


Limit = Annotated[int, msgspec.Meta(ge=0, le=MOST_ROWS)]


class DeadQuery(DeadFilter, frozen=True, kw_only=True):
    """The parameters of `/api/dead`.

    below: only entries with lower numbers
    limit: the most rows
    count: whether the entries are counted, too
    """

    below: Number | None = None
    limit: Limit = 50
    count: bool = True


class QuarantineQuery(QuarantineFilter, frozen=True, kw_only=True):
    """The parameters of `/api/quarantine`, which mean the same."""

    below: Number | None = None
    limit: Limit = 50
    count: bool = True


class OneQuery(Strict, frozen=True, kw_only=True):
    """The parameter of one entry: an event may be a dead letter of several sinks."""

    sink: Words | None = None


class Reason:
    """One reason: how many entries have it, of which sinks or sources, and when the newest one came."""

    def __init__(self) -> None:
        self.count = 0
        self.names: set[str] = set()
        self.newest = 0.0

    def add(self, name: str, at: datetime) -> None:
        """Count one entry."""
        self.count += 1
        if len(self.names) < MOST_NAMES:
            self.names.add(name)
        self.newest = max(self.newest, at.timestamp())


class Reasons:
    """The entries by their reasons."""

    def __init__(self) -> None:
        self.count = 0
        self._found: dict[str, Reason] = {}

    def add(self, reason: str, name: str, at: datetime) -> None:
        """Count one entry."""
        self.count += 1
        known = reason in self._found or len(self._found) < MOST_REASONS
        self._found.setdefault(reason if known else OTHER, Reason()).add(name, at)

    def rows(self) -> list[tuple[str, int, list[str], float]]:
        """Reason, count, names, time of the newest; the most frequent first."""
        ordered = sorted(self._found.items(), key=lambda one: (-one[1].count, one[0]))
        return [(reason, one.count, sorted(one.names), round(one.newest, 3)) for reason, one in ordered]


@dataclass(frozen=True, kw_only=True)
class Listed(Generic[Numbered]):
    """A kind of stored things, as the pages list them. `key` gives an entry's reason, owner and time."""

    stored: Stored[Numbered]
    key: Callable[[Numbered], tuple[str, str, datetime]]

    async def rows(
        self, context: OperatorContext, chosen: Filter, limit: int
    ) -> tuple[list[Row], int | None]:
        """The newest entries, and the `below` that continues them; None if there are no more."""
        found: list[Numbered] = []
        async for some in self.stored.steps(context, chosen, limit + 1):
            found += some
        shown = found[:limit]
        rows = [{**self.stored.row(one), "number": one.number} for one in shown]
        return rows, shown[-1].number if len(found) > limit and shown else None

    async def count(
        self, context: OperatorContext, chosen: Filter, seconds: float
    ) -> tuple[Reasons, int | None]:
        """The entries by reason, and the `below` that continues the count; None if it is complete."""
        found, ends = Reasons(), time.monotonic() + seconds
        async for some in self.stored.steps(context, chosen):
            for one in some:
                found.add(*self.key(one))
            if time.monotonic() >= ends:
                return found, some[-1].number
        return found, None

    async def answer(self, backend: Backend, query: DeadQuery | QuarantineQuery) -> Row:
        """The answer to a list."""
        context = backend.context()
        chosen = msgspec.structs.replace(query.chosen(), below=query.below)
        rows, below = await self.rows(context, chosen, query.limit) if query.limit else ([], None)
        row: Row = {"rows": rows, "below": below, "count": None, "reasons": []}
        if not query.count:
            return {**row, "complete": True}
        reasons, onwards = await self.count(context, chosen, COUNT_FOR)
        return {
            **row,
            "count": reasons.count if onwards is None else None,
            "counted": reasons.count,
            "count_below": onwards,
            "reasons": reasons.rows(),
            "complete": onwards is None,
        }

    async def show(self, backend: Backend, chosen: Filter) -> Sequence[Row]:
        """Entries with all that is known of them."""
        context = backend.context()
        return [
            {**self.stored.row(one), "number": one.number, **self.stored.details(context, one)}
            async for some in self.stored.steps(context, chosen, MOST_ROWS)
            for one in some
        ]


DEAD: Final = Listed[DeadLetter](
    stored=LETTERS, key=lambda letter: (mask(letter.reason), letter.sink, letter.died_at)
)
QUARANTINE: Final = Listed[Quarantined](
    stored=REJECTS, key=lambda kept: (mask(kept.reject.reason), kept.source, kept.reject.received_at)
)


def routes(backend: Backend) -> list[web.RouteDef]:
    """The paths of this module."""

    async def dead(request: web.Request) -> web.Response:
        query = read_query(request.query, DeadQuery)
        return json_answer(await DEAD.answer(backend, query))

    async def quarantine(request: web.Request) -> web.Response:
        query = read_query(request.query, QuarantineQuery)
        return json_answer(await QUARANTINE.answer(backend, query))

    return [
        web.get("/api/dead", dead),
        web.get("/api/dead/{id}", _one(backend, DEAD)),
        web.get("/api/quarantine", quarantine),
        web.get("/api/quarantine/{id}", _one(backend, QUARANTINE)),
    ]


def _one(backend: Backend, listed: Listed[Numbered]) -> Handler:
    """One entry with all that is known of it."""

    async def show(request: web.Request) -> web.Response:
        of = read_query(request.query, OneQuery).sink
        rows = await listed.show(backend, Filter(ids=frozenset({request.match_info["id"]})))
        found = [row for row in rows if of in (None, row.get("sink"))]
        if not found:
            raise WebError(404, "it is not here any more")
        return json_answer(found[0])

    return show
