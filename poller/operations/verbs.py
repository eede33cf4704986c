"""The operator's commands. Each is a generator of rows.

A command that changes many entries does so in short steps. Each step is durable on its own, so a command may be cut
short and repeated.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import msgspec
import structlog

from poller.core.errors import StorageFull
from poller.core.model import DeadLetter, Filter, ParsedPage, Quarantined, RawPage
from poller.core.ports import PushedSource, Source
from poller.core.spool import Shared, SpoolAdmin
from poller.operations import replay, trace
from poller.operations.audit import AUDIT_VERBS
from poller.operations.backfill import backfill
from poller.operations.health import in_words
from poller.operations.look import LOOK
from poller.operations.masking import mask, public_bytes, public_form
from poller.operations.operator_context import OperatorContext
from poller.operations.requests import MOST_ROWS, ControlError, CountChanged, Request, Row, Rows, Verb
from poller.operations.status import status
from poller.pipeline.ingest import Ingest
from poller.qcloud.events.rebuilding import rebuilder

log = structlog.get_logger("control")

STEP = 200
"""The entries that one step reads, retries or purges. A step takes a few milliseconds, so polls can commit between."""
STILL_AT_IT = 5.0

Numbered = TypeVar("Numbered", DeadLetter, Quarantined)


def answer(context: OperatorContext, request: Request) -> Rows:
    """The rows of the answer to a request. Iterating it may raise `PollerError`."""
    rows = _VERBS[request.verb](context, request)
    return _explain(context.spool, rows) if context.running and isinstance(context.spool, Shared) else rows


async def _explain(spool: Shared, rows: Rows) -> Rows:
    """The same rows. If the database of the spool does not answer, the error says what the daemon does meanwhile."""
    try:
        async with aclosing(rows):
            async for row in rows:
                yield row
    except StorageFull as error:
        why = in_words(spool.away) if spool.away is not None else f"the database does not answer: {error}"
        raise StorageFull(
            f"{why}. The daemon lives, and tries again until the database answers: see `poller status`"
        ) from None


# ---------------------------------------------------------------- the daemon and its sinks


async def _status(context: OperatorContext, request: Request) -> Rows:
    yield await status(context)


async def _reload(context: OperatorContext, request: Request) -> Rows:
    if context.reload is None:
        raise await context.no_daemon(": its next start reads the file")
    reloading = asyncio.ensure_future(context.reload(dry=request.dry))
    while not (await asyncio.wait({reloading}, timeout=STILL_AT_IT))[0]:
        yield None  # the reload waits for a poll in flight
    yield {"changes": reloading.result().lines(), "done": not request.dry}


async def _pause(context: OperatorContext, request: Request, *, paused: bool) -> Rows:
    courier = context.courier(request.sink)
    before = request.sink in await context.spool.paused()
    await context.spool.pause(request.sink, paused)  # first, because the answer must hold after a crash
    row: Row = {"sink": request.sink, "state": "paused" if paused else "stopped"}
    changed = before != paused
    if courier is not None:
        was = courier.status
        courier.hold() if paused else courier.resume()
        if not paused:
            await context.spool.retry_now(request.sink)
        row["state"] = courier.status.state.value
        changed = changed or was != courier.status
    yield {**row, "changed": changed}


# ---------------------------------------------------------------- what is stored


@dataclass(frozen=True, kw_only=True)
class Stored(Generic[Numbered]):
    """A kind of stored things: dead letters or rejects."""

    fetch: Callable[[SpoolAdmin], Callable[[int, Filter], Awaitable[list[Numbered]]]]
    purge: Callable[[SpoolAdmin], Callable[[Sequence[int]], Awaitable[int]]]
    row: Callable[[Numbered], Row]
    details: Callable[[OperatorContext, Numbered], Row]
    """What `show` adds to the row."""
    check_name: Callable[[OperatorContext, str], None]
    """Raise `ControlError` for a sink or source that is not configured."""

    async def steps(
        self, context: OperatorContext, chosen: Filter, limit: int | None = None
    ) -> AsyncGenerator[list[Numbered], None]:
        """What is chosen, a step at a time, downwards by number. New ones have higher numbers and are not met.

        A sink or source that is not configured any more may still have some; else its name is a mistake.
        """
        fetch, below = self.fetch(context.spool), chosen
        while limit is None or limit > 0:
            some = await fetch(STEP if limit is None else min(STEP, limit), below)
            if not some:
                break
            yield some
            below = msgspec.structs.replace(chosen, below=some[-1].number)
            limit = None if limit is None else limit - len(some)
        if below is chosen and chosen.of is not None:
            self.check_name(context, chosen.of)


async def _list(stored: Stored[Numbered], context: OperatorContext, request: Request) -> Rows:
    async for some in stored.steps(context, request.chosen, min(request.limit, MOST_ROWS)):
        for one in some:
            yield stored.row(one)


async def _show(stored: Stored[Numbered], context: OperatorContext, request: Request) -> Rows:
    async for some in stored.steps(context, request.chosen, MOST_ROWS):
        for one in some:
            yield {**stored.row(one), **stored.details(context, one)}


async def _count(stored: Stored[Numbered], context: OperatorContext, request: Request) -> Filter:
    """The filter for a change of the entries that match now; those that come later do not match it.

    Raises `ControlError` if the request expects another number of them.
    """
    if request.expect is None:
        return request.chosen
    count, newest = 0, 0
    async for some in stored.steps(context, request.chosen):
        count, newest = count + len(some), max(newest, some[0].number)
    if count != request.expect:
        raise CountChanged(f"{count} match now, and not {request.expect}", count=count)
    return msgspec.structs.replace(request.chosen, below=newest + 1)


async def _purge(stored: Stored[Numbered], context: OperatorContext, request: Request) -> Rows:
    purged = 0
    async for some in stored.steps(context, await _count(stored, context, request)):
        purged += await stored.purge(context.spool)([one.number for one in some])
        yield None
    yield _done(context, request, purged=purged)


def _done(context: OperatorContext, request: Request, *, why: str = "", **counts: int) -> Row:
    if context.running:
        log.info("operator_asked", verb=request.verb.value, **counts)
    return {**counts, "why": why} if why else dict(counts)


# ---------------------------------------------------------------- dead letters


async def _dead_retry(context: OperatorContext, request: Request) -> Rows:
    retried = gone = full = 0
    rebuild = rebuilder(context.settings.accounts)
    async for letters in LETTERS.steps(context, await _count(LETTERS, context, request)):
        by_sink: defaultdict[str, list[int]] = defaultdict(list)
        for letter in letters:
            by_sink[letter.sink].append(letter.number)
        for sink, numbers in by_sink.items():
            if sink not in context.settings.sinks:
                gone += len(numbers)
                continue
            together = context.settings.sinks[sink].batch.max_events
            count = await context.spool.retry_dead(sink, numbers, together, rebuild)
            retried, full = retried + count, full + len(numbers) - count
        yield None
    yield _done(context, request, retried=retried, left=gone + full, why=_why_dead(gone, full))


def _why_dead(gone: int, full: int) -> str:
    reasons = {
        f"{gone} of sinks that are not configured": gone,
        f"{full} for which there is no room beside what waits for a retry: come again later": full,
    }
    return "; ".join(reason for reason, count in reasons.items() if count)


def _letter_row(letter: DeadLetter) -> Row:
    return {
        "id": letter.event.id,
        "sink": letter.sink,
        "stream": letter.event.stream_id,
        "kind": letter.event.kind,
        "died_at": letter.died_at,
        "attempts": letter.attempts,
        "reason": mask(letter.reason),
    }


def _letter_details(context: OperatorContext, letter: DeadLetter) -> Row:
    return {
        "first_attempt_at": letter.first_attempt_at,
        "history": [{"at": one.at, "reason": mask(one.reason)} for one in letter.history],
        "event": msgspec.Raw(public_form(letter.event.encoded)),
    }


LETTERS = Stored[DeadLetter](
    fetch=lambda spool: spool.dead,
    purge=lambda spool: spool.purge_dead,
    row=_letter_row,
    details=_letter_details,
    check_name=OperatorContext.known_sink,
)


# ---------------------------------------------------------------- quarantine


async def _quarantine_retry(context: OperatorContext, request: Request) -> Rows:
    read = events = left = 0
    reasons: set[str] = set()
    async for some in REJECTS.steps(context, await _count(REJECTS, context, request)):
        by_source: defaultdict[str, list[Quarantined]] = defaultdict(list)
        for kept in some:
            by_source[kept.source].append(kept)
        for name, rejects in by_source.items():
            source = context.source(name)
            if source is None or not _may_read_again(source):
                reasons.add(f"source {name} {_why_not_read(context, name, source)}")
                left += len(rejects)
                continue
            readings = await _read_again(context, source, rejects)
            events += (await context.spool.read_again(name, readings)).total()
            read, left = read + len(readings), left + len(rejects) - len(readings)
        yield None
    yield _done(context, request, read=read, events=events, left=left, why="; ".join(sorted(reasons)))


def _why_not_read(context: OperatorContext, name: str, source: Source | PushedSource | None) -> str:
    if source is not None:
        return "asks again by itself"
    return "is badly configured: see `check`" if name in context.settings.sources else "is not configured"


def _may_read_again(source: Source | PushedSource) -> bool:
    # a source that is not destructive polls again anyway; its old answer would report a past state as the present one
    return isinstance(source, PushedSource) or source.destructive


async def _read_again(
    context: OperatorContext, source: Source | PushedSource, rejects: Sequence[Quarantined]
) -> dict[int, ParsedPage]:
    """The results of rejects that can be parsed now, by number. A reject that gives no event stays in quarantine."""
    memory = (await context.spool.memory(source.name)).get("", b"")
    ingest = Ingest(source, context.spool, context.metrics)
    found = {}
    for kept in rejects:
        page = RawPage(
            source=source.name,
            received_at=kept.reject.received_at,
            status=200,
            encoding=kept.reject.encoding,
            whole=True,
            body=kept.reject.body,
        )
        reading = ingest.read(page, memory)
        if reading.events:
            found[kept.number] = reading
    return found


def _reject_row(kept: Quarantined) -> Row:
    return {
        "id": str(kept.number),
        "source": kept.source,
        "received_at": kept.reject.received_at,
        "bytes": len(kept.reject.body),
        "reason": mask(kept.reject.reason),
    }


def _reject_details(context: OperatorContext, kept: Quarantined) -> Row:
    keys = [account.key_value for account in context.settings.accounts.values()]
    encoding = kept.reject.encoding
    return {"encoding": encoding, **public_bytes(kept.reject.body, encoding, keys)}


REJECTS = Stored[Quarantined](
    fetch=lambda spool: spool.quarantined,
    purge=lambda spool: spool.purge_quarantine,
    row=_reject_row,
    details=_reject_details,
    check_name=OperatorContext.known_source,
)


async def _pages(context: OperatorContext, request: Request) -> Rows:
    """An address that opens the pages. The file mode of the socket says who may ask for it."""
    if not context.running:
        raise await context.no_daemon(", so it serves no pages")
    if context.pages is None:
        raise ControlError("the configuration has no section web, so the daemon serves no pages")
    yield {"address": context.pages()}


_VERBS: dict[Verb, Callable[[OperatorContext, Request], Rows]] = {
    Verb.STATUS: _status,
    Verb.RELOAD: _reload,
    Verb.PAUSE: partial(_pause, paused=True),
    Verb.RESUME: partial(_pause, paused=False),
    Verb.DEAD_LIST: partial(_list, LETTERS),
    Verb.DEAD_SHOW: partial(_show, LETTERS),
    Verb.DEAD_RETRY: _dead_retry,
    Verb.DEAD_PURGE: partial(_purge, LETTERS),
    Verb.QUARANTINE_LIST: partial(_list, REJECTS),
    Verb.QUARANTINE_SHOW: partial(_show, REJECTS),
    Verb.QUARANTINE_RETRY: _quarantine_retry,
    Verb.QUARANTINE_PURGE: partial(_purge, REJECTS),
    **replay.VERBS,
    **LOOK,
    **trace.VERBS,
    **AUDIT_VERBS,
    Verb.BACKFILL: backfill,
    Verb.PAGES: _pages,
}
