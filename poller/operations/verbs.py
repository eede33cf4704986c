"""The verbs: each yields rows. What changes something does so in short steps, each of them durable on its own."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec
import structlog

from poller.core.model import Choice, DeadLetter, Page, Quarantined, Reading
from poller.core.ports import PushedSource, Source
from poller.operations.masking import bytes_shown, masked, public_form
from poller.operations.operator_context import Works
from poller.operations.requests import MOST_ROWS, ControlError, Request, Row, Verb
from poller.operations.status import status
from poller.pipeline.ingest import Scribe
from poller.qcloud.events.rebuilding import rebuilder

log = structlog.get_logger("control")

STEP = 200
"""How many a step reads, retries or purges: a commit of a few milliseconds, between which polls commit theirs."""
STILL_AT_IT = 5.0

Numbered = TypeVar("Numbered", DeadLetter, Quarantined)
Rows = AsyncGenerator[Row | None, None]


def answer(works: Works, request: Request) -> Rows:
    """What a request comes to. Raises `PollerError` while it is iterated."""
    return _VERBS[request.verb](works, request)


# ---------------------------------------------------------------- the daemon and its sinks


async def _status(works: Works, request: Request) -> Rows:
    yield await status(works)


async def _reload(works: Works, request: Request) -> Rows:
    if works.reload is None:
        raise ControlError("no daemon runs: its next start reads the file")
    reloading = asyncio.ensure_future(works.reload(dry=request.dry))
    while not (await asyncio.wait({reloading}, timeout=STILL_AT_IT))[0]:
        yield None  # a poll in flight is waited for
    yield {"changes": reloading.result().lines(), "done": not request.dry}


async def _pause(works: Works, request: Request, *, paused: bool) -> Rows:
    courier = works.courier(request.sink)
    before = request.sink in await works.spool.paused()
    await works.spool.pause(request.sink, paused)  # first: what is told must hold after a crash
    row: Row = {"sink": request.sink, "state": "paused" if paused else "stopped"}
    changed = before != paused
    if courier is not None:
        was = courier.standing
        courier.hold() if paused else courier.resume()
        if not paused:
            await works.spool.retry_now(request.sink)
        row["state"] = courier.standing.state.value
        changed = changed or was != courier.standing
    yield {**row, "changed": changed}


# ---------------------------------------------------------------- dead letters


async def _dead_list(works: Works, request: Request) -> Rows:
    async for letters in _letters(works, request.chosen, min(request.limit, MOST_ROWS)):
        for letter in letters:
            yield _letter_row(letter)


async def _dead_show(works: Works, request: Request) -> Rows:
    async for letters in _letters(works, request.chosen, MOST_ROWS):
        for letter in letters:
            yield {
                **_letter_row(letter),
                "first_attempt_at": letter.first_attempt_at,
                "history": [{"at": one.at, "reason": one.reason} for one in letter.history],
                "event": msgspec.Raw(public_form(letter.event.encoded)),
            }


async def _dead_retry(works: Works, request: Request) -> Rows:
    retried = gone = full = 0
    rebuild = rebuilder(works.settings.accounts)
    async for letters in _letters(works, request.chosen):
        by_sink: defaultdict[str, list[int]] = defaultdict(list)
        for letter in letters:
            by_sink[letter.sink].append(letter.number)
        for sink, numbers in by_sink.items():
            if sink not in works.settings.sinks:
                gone += len(numbers)
                continue
            together = works.settings.sinks[sink].batch.max_events
            count = await works.spool.retry_dead(sink, numbers, together, rebuild)
            retried, full = retried + count, full + len(numbers) - count
        yield None
    yield _done(works, request, retried=retried, left=gone + full, why=_why_dead(gone, full))


def _why_dead(gone: int, full: int) -> str:
    reasons = {
        f"{gone} of sinks that are not configured": gone,
        f"{full} for which there is no room beside what waits for a retry: come again later": full,
    }
    return "; ".join(reason for reason, count in reasons.items() if count)


async def _dead_purge(works: Works, request: Request) -> Rows:
    purged = 0
    async for letters in _letters(works, request.chosen):
        purged += await works.spool.purge_dead([letter.number for letter in letters])
        yield None
    yield _done(works, request, purged=purged)


async def _letters(
    works: Works, chosen: Choice, limit: int | None = None
) -> AsyncGenerator[list[DeadLetter], None]:
    """A letter that dies again meanwhile has a higher number, and is not met twice.

    A sink that is not configured any more may still have letters; else its name is a mistake.
    """
    found = False
    async for letters in _downwards(works.spool.dead, chosen, limit):
        found = True
        yield letters
    if not found and chosen.of is not None:
        works.known_sink(chosen.of)


def _letter_row(letter: DeadLetter) -> Row:
    return {
        "id": letter.event.id,
        "sink": letter.sink,
        "stream": letter.event.stream_id,
        "kind": letter.event.kind,
        "died_at": letter.died_at,
        "attempts": letter.attempts,
        "reason": masked(letter.reason),
    }


# ---------------------------------------------------------------- quarantine


async def _quarantine_list(works: Works, request: Request) -> Rows:
    async for some in _rejects(works, request.chosen, min(request.limit, MOST_ROWS)):
        for kept in some:
            yield _reject_row(kept)


async def _quarantine_show(works: Works, request: Request) -> Rows:
    keys = [account.key_value for account in works.settings.accounts.values()]
    async for some in _rejects(works, request.chosen, MOST_ROWS):
        for kept in some:
            shown = bytes_shown(kept.reject.body, kept.reject.encoding, keys)
            yield {**_reject_row(kept), "encoding": kept.reject.encoding, **shown}


async def _quarantine_retry(works: Works, request: Request) -> Rows:
    read = events = left = 0
    reasons: set[str] = set()
    async for some in _rejects(works, request.chosen):
        by_source: defaultdict[str, list[Quarantined]] = defaultdict(list)
        for kept in some:
            by_source[kept.source].append(kept)
        for name, rejects in by_source.items():
            source = works.source(name)
            if source is None or not _may_read_again(source):
                reasons.add(f"source {name} {_why_not_read(works, name, source)}")
                left += len(rejects)
                continue
            readings = await _read_again(works, source, rejects)
            events += (await works.spool.read_again(name, readings)).total()
            read, left = read + len(readings), left + len(rejects) - len(readings)
        yield None
    yield _done(works, request, read=read, events=events, left=left, why="; ".join(sorted(reasons)))


def _why_not_read(works: Works, name: str, source: Source | PushedSource | None) -> str:
    if source is not None:
        return "asks again by itself"
    return "is badly configured: see `check`" if name in works.settings.sources else "is not configured"


def _may_read_again(source: Source | PushedSource) -> bool:
    # an old answer of a source that asks again would tell the past as if it were now
    return isinstance(source, PushedSource) or source.destructive


async def _read_again(
    works: Works, source: Source | PushedSource, rejects: Sequence[Quarantined]
) -> dict[int, Reading]:
    """What can be read now, by number: what gives no event stays where it is."""
    memory = (await works.spool.memory(source.name)).get("", b"")
    scribe = Scribe(source, works.spool, works.metrics)
    found = {}
    for kept in rejects:
        page = Page(
            source=source.name,
            received_at=kept.reject.received_at,
            status=200,
            encoding=kept.reject.encoding,
            whole=True,
            body=kept.reject.body,
        )
        reading = scribe.read(page, _reader(source, page, memory), memory)
        if reading.events:
            found[kept.number] = reading
    return found


def _reader(source: Source | PushedSource, page: Page, memory: bytes) -> Callable[[], Reading]:
    if isinstance(source, PushedSource):
        return partial(source.read, page)
    return partial(source.read, page, memory)


async def _quarantine_purge(works: Works, request: Request) -> Rows:
    purged = 0
    async for some in _rejects(works, request.chosen):
        purged += await works.spool.purge_quarantine([kept.number for kept in some])
        yield None
    yield _done(works, request, purged=purged)


async def _rejects(
    works: Works, chosen: Choice, limit: int | None = None
) -> AsyncGenerator[list[Quarantined], None]:
    found = False
    async for rejects in _downwards(works.spool.quarantined, chosen, limit):
        found = True
        yield rejects
    if not found and chosen.of is not None and chosen.of not in works.settings.sources:
        known = ", ".join(sorted(works.settings.sources))
        raise ControlError(f"no source {chosen.of} is configured; there are: {known}")


def _reject_row(kept: Quarantined) -> Row:
    return {
        "id": str(kept.number),
        "source": kept.source,
        "received_at": kept.reject.received_at,
        "bytes": len(kept.reject.body),
        "reason": masked(kept.reject.reason),
    }


# ---------------------------------------------------------------- what is common


async def _downwards(
    fetch: Callable[[int, Choice], Awaitable[list[Numbered]]], chosen: Choice, limit: int | None
) -> AsyncGenerator[list[Numbered], None]:
    """What is chosen, a step at a time, downwards by number."""
    while limit is None or limit > 0:
        some = await fetch(STEP if limit is None else min(STEP, limit), chosen)
        if not some:
            return
        yield some
        chosen = msgspec.structs.replace(chosen, below=some[-1].number)
        limit = None if limit is None else limit - len(some)


def _done(works: Works, request: Request, *, why: str = "", **counts: int) -> Row:
    if works.running:
        log.info("operator_asked", verb=request.verb.value, **counts)
    return {**counts, "why": why} if why else dict(counts)


_VERBS: dict[Verb, Callable[[Works, Request], Rows]] = {
    Verb.STATUS: _status,
    Verb.RELOAD: _reload,
    Verb.PAUSE: partial(_pause, paused=True),
    Verb.RESUME: partial(_pause, paused=False),
    Verb.DEAD_LIST: _dead_list,
    Verb.DEAD_SHOW: _dead_show,
    Verb.DEAD_RETRY: _dead_retry,
    Verb.DEAD_PURGE: _dead_purge,
    Verb.QUARANTINE_LIST: _quarantine_list,
    Verb.QUARANTINE_SHOW: _quarantine_show,
    Verb.QUARANTINE_RETRY: _quarantine_retry,
    Verb.QUARANTINE_PURGE: _quarantine_purge,
}
