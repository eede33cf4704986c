"""The operator's commands that look at the log: events, single pictures, and streams."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from poller.core.catalogue import Key, Stream
from poller.core.model import Event
from poller.core.selection import Numbered, Selection
from poller.core.spool import SpoolAdmin
from poller.operations.log_steps import STEP, steps
from poller.operations.operator_context import OperatorContext
from poller.operations.requests import ControlError, NotKnown, Request, Row, Rows, Verb
from poller.operations.status import status
from poller.operations.stream_states import LATE, STREAMS_STEP, USUAL_CADENCE, attention

MOST_GAPS = 100_000
STILL_AT_IT = 5.0
_SHOT: Final = frozenset({"screenshot"})
_RANKS: Final = {LATE: 1, "": 2}
_INSTANT: Final = timedelta(microseconds=1)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


# ---------------------------------------------------------------- events


async def _events(context: OperatorContext, request: Request) -> Rows:
    """The selected events, oldest first: the newest `limit` of them, or with `onwards` the first ones from `start` on.

    The last row says whether there are more. Whoever reads on asks again, so that a slow reader keeps nothing open.
    """
    check_account(context, request.selection.account)
    head, limit = context.spool.head, max(1, request.limit)
    if request.onwards:
        async for row in _onwards(context.spool, request, limit):
            yield row if row is None or "number" in row else {"head": head, **row}
        return
    newest: list[Numbered] = []
    async for found in steps(context.spool, request.selection, start=head - 1, newest_first=True):
        newest += found
        if len(newest) > limit:
            break
        yield None
    for number, event in reversed(newest[:limit]):
        yield _event_row(number, event)
    yield {"head": head, "more": len(newest) > limit}


async def _onwards(spool: SpoolAdmin, request: Request, limit: int) -> Rows:
    start, left = request.start, limit
    while True:
        step = await spool.scan(request.selection, start, min(STEP, left))
        for number, event in step.found:
            yield _event_row(number, event)
        start, left = step.following, left - len(step.found)
        if start is None or left == 0:
            break
        yield None
    yield {"following": start or 0}


def _event_row(number: int, event: Event) -> Row:
    return {"number": number, "event": msgspec.Raw(event.encoded)}


# ---------------------------------------------------------------- pictures


async def _find(context: OperatorContext, request: Request) -> Rows:
    """The picture of a stream that was taken nearest to a time, within two cadences."""
    if request.at is None:
        raise ControlError("find: no time was given")
    stream = _stream(context, request.selection)
    async for row in _wait_for(_nearest(context, stream, request.at)):
        yield row


async def _nearest(context: OperatorContext, stream: Stream, at: datetime) -> Row:
    within = 2 * (stream.cadence or USUAL_CADENCE)
    since, until = _shift(at, -within), _shift(at, within + _INSTANT.total_seconds())
    found = await _all(context.spool, _shots(stream, taken_since=since, taken_until=until))
    row: Row = {"account": stream.account, "stream": stream.stream_id, "at": at, "within": within}
    if found:
        nearest = min(found, key=lambda one: (abs(one[1].occurred_at - at), one[0]))
        return {**row, "picture": await _picture(context, nearest)}
    before, after = (
        await _last_before(context.spool, stream, at),
        await _first_after(context.spool, stream, at),
    )
    return {**row, "picture": None, "before": before, "after": after}


async def _latest(context: OperatorContext, request: Request) -> Rows:
    """The picture of a stream that was taken last."""
    stream = _stream(context, request.selection)
    async for row in _wait_for(_newest(context, stream)):
        yield row


async def _newest(context: OperatorContext, stream: Stream) -> Row:
    row: Row = {"account": stream.account, "stream": stream.stream_id, "picture": None}
    if stream.last_screenshot is None:
        return row
    found = await _all(context.spool, _shots(stream, taken_since=stream.last_screenshot))
    if found:
        newest = max(found, key=lambda one: (one[1].occurred_at, one[0]))
        row["picture"] = await _picture(context, newest)
    return row


def _shots(
    stream: Stream, *, taken_since: datetime | None = None, taken_until: datetime | None = None
) -> Selection:
    return Selection(
        account=stream.account,
        stream=stream.stream_id,
        kinds=_SHOT,
        taken_since=taken_since,
        taken_until=taken_until,
    )


async def _all(spool: SpoolAdmin, chosen: Selection) -> list[Numbered]:
    return [one async for found in steps(spool, chosen) for one in found]


async def _last_before(spool: SpoolAdmin, stream: Stream, at: datetime) -> datetime | None:
    """When the last picture before a time was taken. Pictures may have arrived in another order."""
    async for found in steps(spool, _shots(stream, taken_until=at), newest_first=True):
        if found:
            known = found[0][1].occurred_at
            nearer = await _all(spool, _shots(stream, taken_since=known, taken_until=at))
            return max([event.occurred_at for _, event in nearer], default=known)
    return None


async def _first_after(spool: SpoolAdmin, stream: Stream, at: datetime) -> datetime | None:
    """When the first picture at or after a time was taken."""
    async for found in steps(spool, _shots(stream, taken_since=at)):
        if found:
            known = found[0][1].occurred_at
            nearer = await _all(spool, _shots(stream, taken_since=at, taken_until=known))
            return min([event.occurred_at for _, event in nearer], default=known)
    return None


async def _picture(context: OperatorContext, numbered: Numbered) -> Row:
    number, event = numbered
    return {
        "number": number,
        "id": event.id,
        "taken": event.occurred_at,
        "received": event.received_at,
        "url": event.url,
        "files": await asyncio.to_thread(lambda: [*_files(context, event)]),
    }


def _files(context: OperatorContext, event: Event) -> Iterator[Row]:
    """Where each sink that keeps files keeps that of an event."""
    for name in context.settings.sinks:
        if context.wants(name)(event) and (path := context.file_of(name, event)) is not None:
            yield {"sink": name, "path": str(path), "present": os.path.isfile(path)}


def _shift(at: datetime, seconds: float) -> datetime:
    try:
        return at + timedelta(seconds=seconds)
    except OverflowError:
        return _FIRST if seconds < 0 else _LAST


async def _wait_for(work: Coroutine[object, object, Row]) -> Rows:
    """Yields None while the work goes on, and then its row."""
    working = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({working}, timeout=STILL_AT_IT))[0]:
            yield None
        yield working.result()
    finally:
        working.cancel()


# ---------------------------------------------------------------- streams


async def _streams(context: OperatorContext, request: Request) -> Rows:
    """The streams of the catalogue, those that need attention first."""
    account, state = request.selection.account, request.state
    check_account(context, account)
    chosen = [
        stream for stream in context.spool.streams() if stream.stream_id and account in (None, stream.account)
    ]
    gaps = await _gaps(context.spool, account)
    rows: list[tuple[tuple[int, str, str], Row]] = []
    for start in range(0, len(chosen), STREAMS_STEP):
        for stream in chosen[start : start + STREAMS_STEP]:
            row = _stream_row(stream, context.clock.age)
            if state not in (None, row["state"], row["attention"]):
                continue
            row["gaps"] = gaps[stream.account, stream.stream_id]
            rank = _RANKS.get(str(row["attention"] or ""), 0)
            rows.append(((rank, stream.stream_id, stream.account), row))
        await asyncio.sleep(0)  # there may be 100,000 of them
        yield None
    for _, row in sorted(rows, key=lambda one: one[0]):
        yield row


async def _gaps(spool: SpoolAdmin, account: str | None) -> Counter[Key]:
    """How many gaps of each stream are known and not filled."""
    known = await spool.gaps(Selection(account=account), MOST_GAPS)
    return Counter((gap.account, gap.stream_id) for gap in known if gap.filled < gap.missing)


def _stream_row(stream: Stream, age: Callable[[datetime], float]) -> Row:
    last = stream.last_screenshot
    return {
        "account": stream.account,
        "stream": stream.stream_id,
        "attention": attention(stream, age(stream.last_seen)) or None,
        "state": stream.state,
        "state_since": stream.state_since,
        "cadence": stream.cadence,
        "last_picture": last,
        "age": None if last is None else round(age(last), 1),
    }


def find_stream(context: OperatorContext, account: str | None, id: str) -> Stream:
    """The stream with this id. Raises `NotKnown` if there is none, and `ControlError` if several accounts have one."""
    check_account(context, account)
    with_id = [one for one in context.spool.streams() if one.stream_id == id]
    found = [one for one in with_id if account in (None, one.account)]
    if len(found) > 1:
        accounts = ", ".join(sorted(one.account for one in found))
        raise ControlError(f"stream {id} is in several accounts: name one of {accounts}")
    if not found:
        where = "" if account is None else f" of account {account}"
        raise NotKnown(f"no stream {id}{where} is known: `poller streams` lists them")
    return found[0]


def _stream(context: OperatorContext, chosen: Selection) -> Stream:
    return find_stream(context, chosen.account, chosen.stream or "")


def check_account(context: OperatorContext, account: str | None) -> None:
    """Raise `NotKnown` for an account that is neither configured nor in the spool."""
    if account is None or account in context.settings.accounts:
        return
    known = {*context.settings.accounts, *(stream.account for stream in context.spool.streams())}
    if account not in known:
        raise NotKnown(f"no account {account} is configured; there are: {', '.join(sorted(known))}")


# ---------------------------------------------------------------- what goes on


async def _top(context: OperatorContext, request: Request) -> Rows:
    """The state of all parts, with counts from which rates can be computed."""
    await _check_running(context)
    yield {
        **await status(context),
        "at": context.clock.monotonic(),
        "head": context.spool.head,
        "polled": context.metrics.polled(),
        "delivered": context.metrics.delivered(),
    }


async def _tap(context: OperatorContext, request: Request) -> Rows:
    """The control socket answers `tap` by itself (`poller.operations.tap`), so that this is a stopped daemon's."""
    await _check_running(context)
    raise ControlError("tap: only the control socket can report events as they come")
    yield None


async def _check_running(context: OperatorContext) -> None:
    if not context.running:
        raise await context.no_daemon(", so no events come: `poller events` shows those in the file")


LOOK: Final[dict[Verb, Callable[[OperatorContext, Request], Rows]]] = {
    Verb.EVENTS: _events,
    Verb.FIND: _find,
    Verb.LATEST: _latest,
    Verb.STREAMS: _streams,
    Verb.TAP: _tap,
    Verb.TOP: _top,
}
