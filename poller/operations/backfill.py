"""Finds pictures in an account's bucket that never came, and appends them as ordinary events.

Which parts of the bucket are listed follows from the pictures that did come: a name tells its push (grammar A), or its
stream and day (grammar B). New streams of a day are found by the folder of the day. An event's id is a hash of the
picture's path, so the spool drops what came already. Everything may be cancelled and repeated.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog

from poller.core.model import Event, ParsedPage, PollOutcome
from poller.core.selection import Selection
from poller.core.spool import SpoolAdmin
from poller.operations.log_steps import STEP, steps
from poller.operations.operator_context import OperatorContext
from poller.operations.requests import ControlError, Request, Row, Rows
from poller.qcloud.cos.bucket import Bucket, has_keys, no_keys
from poller.qcloud.cos.listing import ListPage
from poller.qcloud.events.name_ranges import (
    BETWEEN,
    NameRange,
    days,
    range_of_day,
    ranges_beside,
    root_of,
)
from poller.qcloud.events.screenshots import KIND, event_of_key
from poller.qcloud.wire.account import Account
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics

log = structlog.get_logger("backfill")

SETTLED: Final = 60.0
"""Seconds after which a picture can be found: an upload takes 15, and the list is consistent only after a while."""
MARGIN: Final = timedelta(minutes=10)
"""How long before and after a range of time the pictures came that say where to look."""
TOGETHER: Final = 1_000
"""The pictures that are appended in one commit."""
REMEMBERED: Final = timedelta(days=29)
"""How old a picture may be: ids are remembered for 30 days, so an older picture that came would come again."""
LONGEST: Final = timedelta(days=1)
"""How far before a lost answer its pictures may have been taken."""
HEARTBEAT: Final = 5.0
"""Seconds between two signs that a look is still running."""
REPORT_EVERY: Final = 1.0

Result = TypeVar("Result")


class Lists(Protocol):
    """Lists a bucket. `Bucket` does."""

    def pages(
        self, prefix: str, *, after: str = "", delimiter: str = ""
    ) -> AsyncGenerator[ListPage, None]: ...


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """Pictures taken from `since` to `until` (UTC); those of one stream unless `stream` is None."""

    since: datetime
    until: datetime
    stream: str | None = None

    def holds(self, event: Event) -> bool:
        """Whether a picture belongs to it."""
        return self.since <= event.occurred_at <= self.until and self.stream in (None, event.stream_id)


class Progress(msgspec.Struct, kw_only=True):
    """What a look has come to: requests made, keys listed, and pictures that are new."""

    requests: int = 0
    listed: int = 0
    pictures: int = 0


def source_name(account: str) -> str:
    """The name under which pictures from the bucket are appended and counted. No source can be configured with it."""
    return f"backfill {account}"


class Backfill:
    """Looks for the missing pictures of one account."""

    def __init__(
        self,
        account: str,
        picture_base: str | None,
        bucket: Lists,
        spool: SpoolAdmin,
        *,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self.account = account
        self._base = picture_base
        self._bucket = bucket
        self._spool = spool
        self._metrics = metrics
        self._clock = clock

    async def look(self, period: Period) -> AsyncGenerator[Progress, None]:
        """Look for pictures of a period; yields after each request what was found so far.

        Pictures younger than a minute are left to a later look, and pictures of which the spool may have forgotten
        that they came are left alone. Raises `ListingFailed` or `StorageError`; what was found until then is in the
        spool.
        """
        now = self._clock.now()
        period = msgspec.structs.replace(
            period,
            since=max(period.since, now - REMEMBERED),
            until=min(period.until, now - timedelta(seconds=SETTLED)),
        )
        done = Progress()
        if period.until < period.since:
            return
        ranges, roots = await self._known(period)
        async for one in self._new_streams(roots, period, done):
            ranges[one] = None
        async for progress in self._put_in(ranges, period, done):
            yield progress
        log.info(
            "backfilled",
            account=self.account,
            since=period.since.isoformat(),
            until=period.until.isoformat(),
            requests=done.requests,
            listed=done.listed,
            pictures=done.pictures,
        )
        yield done

    # ------------------------------------------------------------ where to look

    async def _known(self, period: Period) -> tuple[dict[NameRange, None], set[str]]:
        """Where pictures of the known streams lie, and the folders in which the folders of days lie."""
        chosen = Selection(
            account=self.account,
            stream=period.stream,
            kinds=frozenset({KIND}),
            taken_since=period.since - MARGIN,
            taken_until=period.until + MARGIN,
        )
        ranges: dict[NameRange, None] = {}
        roots = {""}
        start = await self._spool.number_at(period.since - MARGIN)
        async for step in steps(self._spool, chosen, start=start):
            for name in {str(event.fields.get("file_name", "")) for _, event in step}:
                ranges.update(dict.fromkeys(ranges_beside(name, period.since, period.until)))
                roots.update(root for root in (root_of(name),) if root is not None)
        return ranges, roots

    async def _new_streams(
        self, roots: Iterable[str], period: Period, done: Progress
    ) -> AsyncGenerator[NameRange, None]:
        """Where the streams of the days' folders lie. One request names up to a thousand streams."""
        for day in days(period.since, period.until):
            for root in sorted(roots):
                prefix = f"{root}{day}/{period.stream or ''}"
                async for page in self._bucket.pages(prefix, delimiter=BETWEEN):
                    done.requests += 1
                    for found in page.prefixes:
                        if period.stream is None or found == prefix + BETWEEN:
                            yield range_of_day(found, day, period.since, period.until)

    # ------------------------------------------------------------ what is there

    async def _put_in(
        self, ranges: Iterable[NameRange], period: Period, done: Progress
    ) -> AsyncGenerator[Progress, None]:
        pages: list[ParsedPage] = []
        for one in ranges:
            async with aclosing(self._bucket.pages(one.prefix, after=one.after)) as listed:
                async for page in listed:
                    done.requests += 1
                    done.listed += len(page.keys)
                    pages.append(self._parse(one.prefix, page.keys, period))
                    if sum(len(parsed.events) for parsed in pages) >= TOGETHER:
                        done.pictures += await self._append(pages)
                        pages = []
                    yield done
                    if one.last and page.keys and page.keys[-1] > one.last:
                        break
        done.pictures += await self._append(pages)

    def _parse(self, prefix: str, keys: Iterable[str], period: Period) -> ParsedPage:
        now = self._clock.now()
        found = (
            event_of_key(key, account=self.account, picture_base=self._base, received_at=now) for key in keys
        )
        events = tuple(event for event in found if event is not None and period.holds(event))
        return ParsedPage(events=events, rejects=(), outcome=PollOutcome.PARTIAL, about=prefix)

    async def _append(self, pages: list[ParsedPage]) -> int:
        pages = [page for page in pages if page.events]
        if not pages:
            return 0
        new = await to_the_end(self._spool.append(source_name(self.account), pages))
        events = sum(len(page.events) for page in pages)
        self._metrics.events.labels(KIND).inc(new[KIND])
        self._metrics.known_events.labels(KIND).inc(events - new[KIND])
        self._metrics.backfilled.labels(self.account).inc(new[KIND])
        return new[KIND]


async def to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Await work that must not be cancelled half-way. A cancellation is raised after the work has ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


# ---------------------------------------------------------------- the period of a lost answer


async def period_around(spool: SpoolAdmin, account: str, first: datetime, last: datetime) -> Period:
    """When the pictures were taken whose messages were lost by polls from `first` to `last`.

    The queue hands out its oldest messages first. So the lost ones lie between those that came before and those that
    came after. Where nothing came after, they were taken before the poll.
    """
    before = await _picture_times(spool, account, await spool.number_at(first) - 1, newest_first=True)
    after = await _picture_times(spool, account, await spool.number_at(last), newest_first=False)
    slack = timedelta(seconds=2 * _cadence(spool, account))
    return Period(
        since=max(min([*before, first]) - slack, first - LONGEST),
        until=min(last, max(after, default=last)) + slack,
    )


async def _picture_times(
    spool: SpoolAdmin, account: str, start: int, *, newest_first: bool
) -> list[datetime]:
    """When up to a thousand pictures next to a place in the log were taken."""
    if start < 1:
        return []
    chosen = Selection(account=account, kinds=frozenset({KIND}))
    scan = await spool.scan(chosen, start, STEP, newest_first=newest_first)
    return [event.occurred_at for _, event in scan.found]


def _cadence(spool: SpoolAdmin, account: str) -> float:
    """The longest usual seconds between two pictures of a stream of the account, within bounds."""
    known = [one.cadence for one in spool.streams() if one.account == account and one.cadence]
    return min(max([10.0, *known]), MARGIN.total_seconds() / 2)


# ---------------------------------------------------------------- the operator's command


async def backfill(context: OperatorContext, request: Request) -> Rows:
    """Look for the pictures that the request selects: a row of progress every second, and one at the end."""
    chosen = request.selection
    now = context.clock.now()
    period = Period(
        since=chosen.taken_since or now - timedelta(hours=1),
        until=chosen.taken_until or now,
        stream=chosen.stream,
    )
    if period.since < now - REMEMBERED:
        raise ControlError(
            f"pictures from more than {REMEMBERED.days} days ago could come twice: choose a later time"
        )
    for name in _accounts(context, chosen.account):
        async with aclosing(_backfill_account(context, name, period)) as rows:
            async for row in _with_heartbeats(rows):
                yield row


async def _with_heartbeats(rows: AsyncGenerator[Row, None]) -> Rows:
    """The rows, and None every few seconds while one is awaited, so that the client goes on waiting."""
    while True:
        following = asyncio.ensure_future(anext(rows, None))
        try:
            while not (await asyncio.wait({following}, timeout=HEARTBEAT))[0]:
                yield None
        finally:
            if not following.done():
                following.cancel()
                await asyncio.wait({following})
        if (row := following.result()) is None:
            return
        yield row


async def _backfill_account(context: OperatorContext, name: str, period: Period) -> AsyncGenerator[Row, None]:
    settings = context.settings.accounts[name]
    account = context.accounts.get(name) or Account(name, settings)
    async with Bucket(name, settings, account.ready) as bucket:
        looking = Backfill(
            name, account.picture_base, bucket, context.spool, metrics=context.metrics, clock=context.clock
        )
        progress, due = Progress(), context.clock.monotonic() + REPORT_EVERY
        async for progress in looking.look(period):
            if context.clock.monotonic() >= due:
                due = context.clock.monotonic() + REPORT_EVERY
                yield _row(name, progress, done=False)
        yield _row(name, progress, done=True)


def _row(account: str, progress: Progress, *, done: bool) -> Row:
    return {"account": account, **msgspec.structs.asdict(progress), "done": done}


def _accounts(context: OperatorContext, chosen: str | None) -> list[str]:
    """The chosen account, or all accounts that have keys. Raises `ControlError` if none is left."""
    accounts = context.settings.accounts
    if chosen is not None and chosen not in accounts:
        raise ControlError(f"no account {chosen} is configured; there are: {', '.join(sorted(accounts))}")
    names = [name for name in accounts if chosen in (None, name) and has_keys(accounts[name])]
    if not names:
        raise ControlError(no_keys(chosen or ", ".join(sorted(accounts))))
    return names
