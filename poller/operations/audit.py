"""`audit`: which pictures never came, by the gaps that are known and by the log itself."""

from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec

from poller.core.history import Gap, LatePicture
from poller.core.model import Event
from poller.core.selection import ALL_EVENTS, Selection
from poller.core.spool import SpoolAdmin
from poller.operations.log_steps import steps
from poller.operations.look import check_account
from poller.operations.operator_context import OperatorContext
from poller.operations.requests import MOST_ROWS, ControlError, Request, Row, Rows, Verb
from poller.pipeline.gaps import LOOKED_AT, PICTURE, Auditor, Key
from poller.settings import AccountSettings, AuditSettings

MARGIN: Final = timedelta(minutes=10)
"""How far before a range the log is read, so that the pictures before it tell the interval."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit of a range found.

    gaps:       those that are known and those that the log shows, in the order of their beginning
    known:      the ids of those that were reported
    pictures:   how many pictures of the range were looked at
    streams:    of how many streams
    unaudited:  streams with pictures in the range whose names do not say the task, so that they cannot be audited
    log_begins: when the oldest event that is still in the log was received; None for an empty log
    """

    gaps: tuple[Gap, ...]
    known: frozenset[str]
    pictures: int
    streams: int
    unaudited: tuple[Key, ...]
    log_begins: datetime | None

    @property
    def missing(self) -> int:
        """How many pictures are missing still."""
        return sum(gap.missing - gap.filled for gap in self.gaps)


async def find_gaps(
    spool: SpoolAdmin, accounts: Mapping[str, AccountSettings], chosen: Selection, now: datetime
) -> AsyncGenerator[Findings | None, None]:
    """Audit a range of the log, whether or not the running audit did. Changes nothing.

    `account`, `stream`, `taken_since` and `taken_until` of `chosen` select. Yields None after each short step, and the
    findings at last. What came in the last minute is not judged yet.
    """
    auditor = Auditor(_settle(accounts))
    range_ = _Range(chosen)
    found: list[Gap] = []
    late: list[LatePicture] = []
    async for step in steps(spool, range_.read, start=await _first(spool, chosen)):
        for _, event in step:
            range_.count(auditor, event)
        if step:
            found += auditor.judge(step[-1][1].received_at.timestamp())
            late += auditor.take_late()
        yield None
    found += auditor.judge(now.timestamp())
    known = await spool.gaps(chosen, MOST_ROWS)
    oldest = (await spool.scan(ALL_EVENTS, None, 1)).found
    yield Findings(
        gaps=_merge(known, [gap for gap in _filled(found, late) if gap.is_selected(chosen)]),
        known=frozenset(gap.id for gap in known),
        pictures=range_.pictures,
        streams=len(range_.streams),
        unaudited=tuple(sorted(range_.unaudited)),
        log_begins=oldest[0][1].received_at if oldest else None,
    )


class _Range:
    """Counts what was looked at in the chosen range."""

    def __init__(self, chosen: Selection) -> None:
        self.read = Selection(account=chosen.account, stream=chosen.stream, kinds=LOOKED_AT)
        self.pictures = 0
        self.streams: set[Key] = set()
        self.unaudited: set[Key] = set()
        self._chosen = chosen

    def count(self, auditor: Auditor, event: Event) -> None:
        before = auditor.pictures
        auditor.take(event)
        if event.kind != PICTURE or not self._chosen.selects(event):
            return
        key = (event.account, event.stream_id)
        if auditor.pictures > before:
            self.pictures += 1
            self.streams.add(key)
        else:
            self.unaudited.add(key)


def _settle(accounts: Mapping[str, AccountSettings]) -> Callable[[str], float]:
    """The setting of each account, also of those where the running audit is off; else the default."""
    usual = AuditSettings().settle
    known = {name: settings.audit.settle for name, settings in accounts.items()}
    return lambda account: known.get(account, usual)


async def _first(spool: SpoolAdmin, chosen: Selection) -> int | None:
    return None if chosen.taken_since is None else await spool.number_at(chosen.taken_since - MARGIN)


def _filled(found: Iterable[Gap], late: Iterable[LatePicture]) -> Iterator[Gap]:
    """The gaps, each with the number of its pictures that came after it was judged."""
    times: dict[Key, list[datetime]] = {}
    for one in sorted(late, key=lambda picture: picture.taken_at):
        times.setdefault((one.account, one.stream_id), []).append(one.taken_at)
    for gap in found:
        came = times.get((gap.account, gap.stream_id), [])
        inside = bisect_left(came, gap.to_at) - bisect_right(came, gap.from_at)
        yield msgspec.structs.replace(gap, filled=min(gap.missing, inside))


def _merge(known: Iterable[Gap], found: Iterable[Gap]) -> tuple[Gap, ...]:
    """The known gaps, and those found beside them. A gap that was filled in part shows as smaller ones in the log."""
    by_stream: dict[Key, list[Gap]] = {}
    for gap in known:
        by_stream.setdefault((gap.account, gap.stream_id), []).append(gap)
    new = [
        gap
        for gap in found
        if not any(
            one.from_at < gap.to_at and gap.from_at < one.to_at
            for one in by_stream.get((gap.account, gap.stream_id), ())
        )
    ]
    every = [*(gap for gaps in by_stream.values() for gap in gaps), *new]
    return tuple(sorted(every, key=lambda gap: (gap.from_at, gap.account, gap.stream_id)))


# ---------------------------------------------------------------- the command


async def _audit(context: OperatorContext, request: Request) -> Rows:
    """A row for each gap, then one that sums up."""
    _check_known(context, request.selection)
    accounts = context.settings.accounts
    async for findings in find_gaps(context.spool, accounts, request.selection, context.clock.now()):
        if findings is None:
            yield None
            continue
        for gap in findings.gaps:
            yield gap_row(gap, reported=gap.id in findings.known)
        yield _summary(findings)


def _check_known(context: OperatorContext, chosen: Selection) -> None:
    """Raise `ControlError` for an account or a stream that nobody knows, of which nothing could be missing."""
    check_account(context, chosen.account)
    known = {one.stream_id for one in context.spool.streams() if chosen.account in (None, one.account)}
    if chosen.stream is not None and chosen.stream not in known:
        raise ControlError(f"no stream {chosen.stream} is known: `poller streams` lists them")


def gap_row(gap: Gap, *, reported: bool) -> Row:
    """A gap as a row. `reported` says whether it became an event."""
    return {
        "id": gap.id,
        "account": gap.account,
        "stream": gap.stream_id,
        "from": gap.from_at,
        "to": gap.to_at,
        "missing": gap.missing,
        "filled": gap.filled,
        "cadence": gap.cadence,
        "push_started_at": gap.push_started_at,
        "task_started_at": gap.task_started_at,
        "first_missing_offset": gap.first_missing_offset,
        "why": gap.why,
        "reported": reported,
    }


def _summary(findings: Findings) -> Row:
    return {
        "pictures": findings.pictures,
        "streams": findings.streams,
        "gaps": len(findings.gaps),
        "missing": findings.missing,
        "unaudited": [
            {"account": account, "stream": stream} for account, stream in findings.unaudited[:MOST_ROWS]
        ],
        "log_begins": findings.log_begins,
    }


AUDIT_VERBS = {Verb.AUDIT: _audit}
