"""One stream between two times: `/api/stream`.

The log is read newest first, in short steps with the loop free between. A request takes about 100 ms of steps. Then its
answer is partial, and names the number below which the next request goes on.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from aiohttp import web

from poller.core.catalogue import Stream
from poller.core.history import Gap
from poller.core.model import LARGEST_NUMBER, Event
from poller.core.selection import Numbered, Selection
from poller.operations.look import find_stream
from poller.operations.operator_context import OperatorContext
from poller.web.backend import Backend, json_answer
from poller.web.errors import WebError
from poller.web.filters import Seconds, Strict, Words, moment, read_query
from poller.web.streams import seconds

USUAL: Final = timedelta(hours=1)
BUDGET: Final = 0.1
"""Seconds of steps in one request."""
STEP: Final = 500
MOST_PICTURES: Final = 10_000
MOST_GAPS: Final = 1_000
LONGEST_SEGMENT: Final = timedelta(hours=2)
"""A recorded segment is found by its end, which may lie that long after the window."""
AHEAD: Final = timedelta(minutes=10)
"""The most time by which a picture may seem to have been received before it was taken."""
_CHANNEL: Final = frozenset({"channel"})


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. `below` is the number at which an earlier answer stopped."""

    stream: Stream
    since: datetime
    until: datetime
    below: int | None

    def has(self, at: datetime) -> bool:
        """Whether a moment lies in the window."""
        return self.since <= at < self.until

    @property
    def chosen(self) -> Selection:
        """All events that may belong to the window."""
        return self._of_stream(since=self.since, until=_later(self.until, LONGEST_SEGMENT))

    @property
    def changes_before(self) -> Selection:
        """The changes of state before the window."""
        return msgspec.structs.replace(self._of_stream(since=None, until=self.since), kinds=_CHANNEL)

    def _of_stream(self, *, since: datetime | None, until: datetime) -> Selection:
        account, id = self.stream.account, self.stream.stream_id
        return Selection(account=account, stream=id, taken_since=since, taken_until=until)


class Reading:
    """What has been read of a window, newest first."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self.pictures: list[tuple[int, datetime]] = []
        self.states: list[tuple[datetime, str | None, str]] = []
        self.recordings: list[Event] = []
        self.below: int | None = None
        """Where to go on; None if everything has been read."""

    @property
    def room(self) -> int:
        """How many more pictures may be in the answer."""
        return MOST_PICTURES - len(self.pictures)

    def note(self, found: Sequence[Numbered]) -> None:
        """Sort events by their kind."""
        for number, event in found:
            if event.kind == "screenshot" and self._window.has(event.occurred_at):
                self.pictures.append((number, event.occurred_at))
            elif event.kind == "channel" and self._window.has(event.occurred_at):
                self.states.append(state_of(event))
            elif event.kind == "recording":
                self.recordings.append(event)


def state_of(event: Event) -> tuple[datetime, str | None, str]:
    """The state that a channel event reports: since when, which state, and which source reported it."""
    fields = event.fields
    state = fields.get("state")
    return event.occurred_at, None if state is None else str(state), str(fields.get("seen_by") or "")


# ---------------------------------------------------------------- reading


async def read(context: OperatorContext, window: Window, budget: float) -> Reading:
    """Read the window for about this number of seconds."""
    reading, clock = Reading(window), context.clock
    ends = clock.monotonic() + budget
    floor = await context.spool.number_at(_earlier(window.since, AHEAD))
    start: int | None = (context.spool.head if window.below is None else window.below) - 1
    while start is not None and start >= floor:
        step = await context.spool.scan(window.chosen, start, min(STEP, reading.room), newest_first=True)
        reading.note(step.found)
        start = step.following
        if start is not None and start >= floor and (clock.monotonic() >= ends or not reading.room):
            reading.below = start + 1
            return reading
    if (before := await _state_before(context, window, ends)) is not None:
        reading.states.append(before)
    return reading


async def _state_before(
    context: OperatorContext, window: Window, ends: float
) -> tuple[datetime, str | None, str] | None:
    """The state in which the stream was when the window begins; None if that is unknown or takes too long to find."""
    stream = window.stream
    if stream.state_since is not None and stream.state_since < window.since:
        return stream.state_since, stream.state, stream.seen_by
    start: int | None = context.spool.head - 1
    while start is not None and stream.state is not None:
        step = await context.spool.scan(window.changes_before, start, STEP, newest_first=True)
        if step.found:
            return max((state_of(event) for _, event in step.found), key=lambda one: one[0])
        if context.clock.monotonic() >= ends:
            break
        start = step.following
    return None


def _earlier(at: datetime, by: timedelta) -> datetime:
    return at - by if at - datetime.min.replace(tzinfo=UTC) > by else at


def _later(at: datetime, by: timedelta) -> datetime:
    return at + by if datetime.max.replace(tzinfo=UTC) - at > by else at


# ---------------------------------------------------------------- the answer


async def timeline(context: OperatorContext, window: Window, budget: float = BUDGET) -> dict[str, object]:
    """The answer. See the reference of the pages' interface."""
    reading = await read(context, window, budget)
    stream = window.stream
    chosen = Selection(
        account=stream.account,
        stream=stream.stream_id,
        taken_since=window.since,
        taken_until=window.until,
    )
    gaps = await context.spool.gaps(chosen, MOST_GAPS)
    pictures = sorted((seconds(taken), number) for number, taken in reading.pictures)
    states = sorted(set(reading.states), key=lambda one: one[0])
    return {
        "account": stream.account,
        "id": stream.stream_id,
        "now": seconds(context.clock.now()),
        "state": stream.state,
        "cadence": stream.cadence,
        "pictures": [(number, taken) for taken, number in pictures],
        "gaps": [_gap_row(gap) for gap in sorted(gaps, key=lambda gap: gap.from_at)],
        "states": [{"at": seconds(at), "state": state, "by": by} for at, state, by in states],
        "recordings": recording_rows(window, reading.recordings),
        "complete": reading.below is None,
        "below": reading.below,
        "since": seconds(window.since),
        "until": seconds(window.until),
    }


def _gap_row(gap: Gap) -> dict[str, object]:
    return {
        "from": seconds(gap.from_at),
        "to": seconds(gap.to_at),
        "missing": gap.missing,
        "why": gap.why,
        "filled": gap.filled,
    }


def recording_rows(window: Window, events: Sequence[Event]) -> list[dict[str, object]]:
    """One row for each recorded segment that overlaps the window, oldest first.

    The platform reports each format of a segment by itself; `url_kind` lists the formats.
    """
    rows: dict[tuple[float, float], dict[str, object]] = {}
    for event in reversed(events):
        begin, end = segment_of(event)
        if end <= window.since or begin >= window.until:
            continue
        at = begin.timestamp(), end.timestamp()
        row = rows.setdefault(
            at,
            {"from": seconds(begin), "to": seconds(end), "url_kind": [], "bytes": None, "id": event.id},
        )
        _add_format(row, event.fields)
    return [rows[at] for at in sorted(rows)]


def _add_format(row: dict[str, object], fields: dict[str, object]) -> None:
    kinds, size = row["url_kind"], fields.get("file_size")
    if isinstance(kinds, list) and (kind := fields.get("file_format")) and kind not in kinds:
        kinds.append(kind)
    if isinstance(size, int | float):
        known = row["bytes"]
        row["bytes"] = size + (known if isinstance(known, int | float) else 0)


def segment_of(event: Event) -> tuple[datetime, datetime]:
    """The begin and the end of a recorded segment. Without a begin, it follows from the duration."""
    fields, end = event.fields, event.occurred_at
    try:
        return min(msgspec.convert(fields.get("start_time"), datetime), end), end
    except (msgspec.ValidationError, TypeError):  # TypeError: a time without a zone
        duration = fields.get("duration")
    if isinstance(duration, int | float) and 0 < duration < LONGEST_SEGMENT.total_seconds() * 12:
        return _earlier(end, timedelta(seconds=duration)), end
    return end, end


# ---------------------------------------------------------------- the question


class StreamQuery(Strict, frozen=True, kw_only=True):
    """The parameters of `/api/stream`. `below` is from an earlier answer."""

    id: Words
    account: Words | None = None
    since: Seconds | None = None
    until: Seconds | None = None
    below: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_NUMBER)] | None = None


def routes(backend: Backend) -> list[web.RouteDef]:
    """The paths of this module."""

    async def stream(request: web.Request) -> web.Response:
        context = backend.context()
        window = window_of(context, read_query(request.query, StreamQuery))
        return json_answer(await timeline(context, window))

    return [web.get("/api/stream", stream)]


def window_of(context: OperatorContext, query: StreamQuery) -> Window:
    """The window that a request asks for; by default the last hour. Raises `WebError` (400) and `ControlError`."""
    until = moment(query.until) or context.clock.now()
    since = moment(query.since) or _earlier(until, USUAL)
    if since >= until:
        raise WebError(400, "since: must be before until")
    stream = find_stream(context, query.account, query.id)
    return Window(stream=stream, since=since, until=until, below=query.below)
