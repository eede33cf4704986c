"""What happened to one event: where it came from, where it is stored, and its progress at each sink."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import timedelta

import msgspec

from poller.core.history import Delivery, SinkProgress, Stage
from poller.core.model import Attempt, Event, Filter
from poller.core.selection import Numbered, Selection
from poller.operations.log_steps import steps
from poller.operations.look import check_account
from poller.operations.masking import mask
from poller.operations.operator_context import OperatorContext
from poller.operations.requests import ControlError, Request, Row, Rows, Verb
from poller.qcloud.events.picture_ids import picture_ids
from poller.qcloud.events.screenshots import KIND
from poller.qcloud.wire.addresses import addresses

NEAR = timedelta(hours=1)
"""A picture of the stream is looked for in this time before the moment, and then in the whole log."""
_ID = re.compile(r"[0-9a-f]{32}")


async def _trace(context: OperatorContext, request: Request) -> Rows:
    if request.at is not None:
        check_account(context, request.selection.account)
    ids = [] if request.at is not None else _ids(context, request)
    known = [id for id in ids if await context.spool.remembers(id)]
    looking = _nearest(context, request) if request.at is not None else _by_id(context, known or ids)
    async for found in looking:
        yield None if found is None else await _stored_row(context, *found)
        if found is not None:
            return
    yield await _missing_row(context, known or ids, remembered=bool(known))


def _ids(context: OperatorContext, request: Request) -> Sequence[str]:
    asked, account = request.event, request.selection.account
    if _ID.fullmatch(asked):
        return [asked]
    accounts = context.settings.accounts
    if account is not None and account not in accounts:  # also one of which only the log knows
        raise ControlError(f"no account {account} is configured; there are: {', '.join(sorted(accounts))}")
    if not accounts:
        raise ControlError("no account can be read from the configuration: give the id of the event")
    ids = [
        id
        for name, settings in accounts.items()
        if account in (None, name)
        for id in picture_ids(asked, name, addresses(settings).picture_base, context.clock.now())
    ]
    if not ids:
        raise ControlError(
            "neither an id nor a file name that says when the picture was taken: give the id of the event, or a stream"
            " and --at TIME"
        )
    return ids


Looking = AsyncGenerator[Numbered | None, None]
"""None after each step, and the event once it is found."""


async def _by_id(context: OperatorContext, ids: Sequence[str]) -> Looking:
    """The newest event with one of these ids."""
    async for found in steps(context.spool, Selection(ids=frozenset(ids)), newest_first=True):
        yield found[0] if found else None


async def _nearest(context: OperatorContext, request: Request) -> Looking:
    """The newest picture of a stream that was taken at the moment or before."""
    assert request.at is not None
    until = request.at + timedelta(microseconds=1)
    for since in (request.at - NEAR, None):
        chosen = msgspec.structs.replace(
            request.selection, kinds=frozenset({KIND}), taken_since=since, taken_until=until
        )
        best: list[Numbered] = []
        async for found in steps(context.spool, chosen, newest_first=True):
            best = sorted([*best, *found], key=lambda one: one[1].occurred_at)[-1:]
            yield None
        if best:
            yield best[0]
            return


# ---------------------------------------------------------------- rows


async def _stored_row(context: OperatorContext, number: int, event: Event) -> Row:
    origin = await context.spool.origin(number)
    return {
        **_NOWHERE,
        "id": event.id,
        "state": "stored",
        "number": number,
        **_event_row(event),
        "polled": None if origin is None else msgspec.to_builtins(origin),
        "sinks": await _sinks(context, number, event.id, event),
    }


def _event_row(event: Event | None) -> Row:
    if event is None:
        return {}
    return {
        "kind": event.kind,
        "account": event.account,
        "stream": event.stream_id or None,
        "file_name": event.fields.get("file_name"),
        "taken_at": event.occurred_at,
        "received_at": event.received_at,
    }


async def _missing_row(context: OperatorContext, ids: Sequence[str], *, remembered: bool) -> Row:
    """An event that is not in the log: pruned if its id is remembered or a dead letter is left, else unknown."""
    letters = await context.spool.dead(1, Filter(ids=frozenset(ids))) if ids else []
    event = letters[0].event if letters else None
    id = event.id if event is not None else ids[0] if remembered or len(ids) == 1 else None
    if id is None or not (letters or remembered):
        return {**_NOWHERE, "id": id, "state": "unknown", "running": context.running}
    sinks = await _sinks(context, 0, id, event)
    return {**_NOWHERE, "id": id, "state": "pruned", **_event_row(event), "sinks": sinks}


_NOWHERE: Row = {
    "id": None,
    "state": None,
    "number": None,
    **dict.fromkeys(("kind", "account", "stream", "file_name", "taken_at", "received_at")),
    "polled": None,
    "sinks": [],
}


async def _sinks(context: OperatorContext, number: int, id: str, event: Event | None) -> list[Row]:
    # the progress first: an event that is settled in between counts as delivered
    progress = await context.spool.progress(number, id, event)
    delivered: dict[str, list[Delivery]] = {}
    for one in await context.spool.deliveries(number, id):
        delivered.setdefault(one.sink, []).append(one)
    rows = [sink_row(one, delivered.pop(one.sink, []), pruned=number == 0) for one in progress]
    rows += [
        sink_row(SinkProgress(sink=sink, stage=Stage.SETTLED), some, pruned=number == 0)
        for sink, some in delivered.items()
    ]
    return [{**row, **await _file(context, str(row["sink"]), event)} for row in rows]


def sink_row(progress: SinkProgress, delivered: Sequence[Delivery], *, pruned: bool) -> Row:
    """The progress of an event at a sink. A delivery counts more than a batch that was in hand a moment ago."""
    if delivered and progress.stage in (Stage.SETTLED, Stage.IN_HAND, Stage.UNWANTED):
        last = delivered[-1]
        row = _outcome("delivered", progress.sink, last.history, at=last.at, attempt=last.attempt)
        return {**row, "took": last.took, "deliveries": len(delivered)}
    state = "pruned" if pruned and progress.stage is Stage.SETTLED else _WORDS[progress.stage]
    row = _outcome(state, progress.sink, progress.history, due=progress.due, attempts=progress.attempts)
    return {**row, "reason": mask(progress.reason) or None, "deliveries": len(delivered)}


_WORDS: Mapping[Stage, str] = {
    Stage.PENDING: "waiting",
    Stage.RETRYING: "waiting",
    Stage.IN_HAND: "in hand",
    Stage.DEAD: "dead",
    Stage.UNWANTED: "not wanted",
    Stage.SETTLED: "unknown",
}
"""`unknown`: nothing is recorded, because the event came before the sink or its dead letter was purged."""


def _outcome(state: str, sink: str, history: Sequence[Attempt], **more: object) -> Row:
    failed = [{"at": one.at, "reason": mask(one.reason)} for one in history]
    return {"sink": sink, "state": state, **more, "failed": failed}


async def _file(context: OperatorContext, sink: str, event: Event | None) -> Row:
    path = None if event is None else context.file_of(sink, event)
    if path is None:
        return {}
    return {"file": str(path), "present": await asyncio.to_thread(path.is_file)}


VERBS: dict[Verb, Callable[[OperatorContext, Request], Rows]] = {Verb.TRACE: _trace}
