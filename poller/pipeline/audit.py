"""The running audit: it follows the log, finds pictures that never came, and reports each gap as an event.

Purpose
    The queue gives each message once. What is lost between the platform and this machine leaves no trace but a hole
    between two pictures (`poller.pipeline.gaps`).

Invariants
    It is off the way of an event: nothing waits for it, and while it catches up, looking takes no more than `SHARE` of
    a core. What it finds of a stream and what it knows of that stream are committed in one transaction, with the number
    up to which it has read. So after a crash it goes on as if nothing had happened: no gap is reported twice, and none
    is left out.

Life cycle
    It begins at the end of the log when it runs for the first time. It reads in steps. A commit follows within seconds
    of a gap. Once a minute a round begins, which commits what is known of all streams, a portion with each step: the
    log takes no events while a transaction runs. The state is the memory of a source that no configuration can have
    (`SOURCE`), by stream. The position is its memory without a subject, and comes with the last portion. It is where
    the audit was when the round began. After a crash it reads on from there, and passes over what the state of a stream
    includes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import structlog

from poller.core.errors import StorageError
from poller.core.history import Gap, LatePicture
from poller.core.model import Event, ParsedPage, PollOutcome
from poller.core.selection import Selection
from poller.core.spool import SpoolAdmin
from poller.pipeline.gaps import GAP, LOOKED_AT, Auditor, Key, gap_event
from poller.runtime.clock import Clock
from poller.runtime.metrics import Metrics
from poller.settings import AccountSettings

SOURCE: Final = "(audit)"
STEP: Final = 500
SHARE: Final = 0.025
"""Of a core."""
WHOLE_COST: Final = 3.0
"""The cost of a step, with reading it from disk, is at most this factor times that of looking at it."""
SHORTEST_PAUSE: Final = 0.02
GATHER: Final = 1.0
"""Seconds in which events gather at the end of the log."""
REPORT_WITHIN: Final = 5.0
"""Seconds until what was found is committed."""
COMMIT_EVERY: Final = 60.0
"""Seconds between the beginnings of two rounds, in which the state of nearly all streams changes. A crash costs reading
that much of the log again, and what was read during the round."""
PORTION: Final = 1_000
"""The streams in one commit of a round, which takes some ten milliseconds."""
LAST_COMMIT: Final = 1.0
"""Seconds that a stop waits for a commit. A disk that hangs does not hold it up for longer."""
EPOCH: Final = datetime.fromtimestamp(0, UTC)
CHOSEN: Final = Selection(kinds=LOOKED_AT)

log = structlog.get_logger("audit")


class Audit:
    """Audits the pictures of all accounts that have it enabled.

    `accounts` returns the accounts as they are configured now.
    """

    def __init__(
        self,
        spool: SpoolAdmin,
        accounts: Callable[[], Mapping[str, AccountSettings]],
        *,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._spool = spool
        self._accounts = accounts
        self._clock = clock
        self._metrics = metrics
        self._settle: dict[str, float] = {}
        """How long holes stay open, for each audited account."""
        self._auditor = Auditor(self._settle.get)
        self.position = 0
        """The number of the next event to look at."""
        self._moment = 0.0
        self._gaps: list[Gap] = []
        self._late: list[LatePicture] = []
        self._stored_at = 0
        self._left: list[Key] = []
        """The streams that the round has still to commit, in reverse order."""
        self._covered: int | None = None
        """The position at which the round began; None between two rounds."""
        self._round_at = clock.monotonic() - COMMIT_EVERY
        self._reported_at = clock.monotonic() - REPORT_WITHIN

    async def run(self) -> None:
        """Follow the log for ever."""
        begun = False
        while True:
            try:
                if not begun:
                    await self.begin()
                begun = True
                pause = await self.step()
            except StorageError:  # the spool is full or fails, which others report
                pause = REPORT_WITHIN
            await asyncio.sleep(pause)
            if pause == GATHER:
                await self._until_more()

    async def begin(self) -> None:
        """Take up what an earlier process knew."""
        stored = dict(await self._spool.memory(SOURCE))
        position = stored.pop("", b"")
        self._auditor = Auditor(self._settle.get, stored)
        self._settle.clear()
        self._read_settings()
        self._auditor.drop(lambda account: account not in self._settle)
        self._stored_at = int(position) if position.isdigit() else 0
        if not self._stored_at:  # a round was cut off before there was a place: nobody knows what came since
            self._auditor.drop(lambda account: True)
        self.position = min(self._stored_at, self._spool.head) or self._spool.head
        self._moment = self._clock.now().timestamp()

    # ------------------------------------------------------------ one step

    async def step(self) -> float:
        """Look at some events and commit now and then; returns the seconds to wait before the next step."""
        head = self._spool.head
        self._read_settings()
        spent = await self._look(head) if self._settle and self.position < head else 0.0
        if not self._settle:
            self.position = head
        at_end = self.position >= head
        if at_end:
            self._moment = self._clock.now().timestamp()
        self._gaps += self._auditor.judge(self._moment, self.position)
        self._late += self._auditor.take_late()
        await self._commit_now_and_then()
        return GATHER if at_end else max(SHORTEST_PAUSE, WHOLE_COST * spent / SHARE)

    def _read_settings(self) -> None:
        """Read the settings as they are now, and drop what is known of accounts that are not audited any more.

        Later nobody knows what came in between.
        """
        now = {name: one.audit.settle for name, one in self._accounts().items() if one.audit.enabled}
        if now.keys() != self._settle.keys():
            self._auditor.drop(lambda account: account not in now)
            for account in now:  # 0 from the start, so that the first missing picture is an increase
                self._metrics.gap_pictures.labels(account)
        if now != self._settle:
            self._settle.clear()
            self._settle.update(now)

    async def _look(self, head: int) -> float:
        """Look at the next events; returns the seconds that it took."""
        found = await self._spool.scan(CHOSEN, self.position, STEP)
        if found.found and found.found[0][0] > self.position:
            await self._check_overtaken()
        begun = time.thread_time()
        for number, event in found.found:
            self._auditor.take(event, number)
        if found.found:
            self._moment = found.found[-1][1].received_at.timestamp()
        last = found.found[-1][0] + 1 if found.found else 0
        self.position = max(head, last) if found.following is None else found.following
        return time.thread_time() - begun

    async def _check_overtaken(self) -> None:
        """Begin anew if events were pruned before they were looked at: they must not look like a gap."""
        oldest = await self._spool.number_at(EPOCH)
        if oldest > self.position:
            log.warning("audit_overtaken", count=oldest - self.position)
            self._auditor.drop(lambda account: True)

    async def _until_more(self) -> None:
        """Wait for the next event; not for long while a hole is open or something is found, and not during a round."""
        if self._covered is not None:
            return
        soon = self._auditor.waits or self._gaps or self._late
        wait = REPORT_WITHIN if soon else COMMIT_EVERY if self._has_news else None
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._spool.wait_beyond(self.position)

    # ------------------------------------------------------------ committing

    async def _commit_now_and_then(self) -> None:
        now = self._clock.monotonic()
        if self._covered is None and now - self._round_at >= COMMIT_EVERY:
            self._round_at = now
            self._begin_round()
        found = bool(self._gaps or self._late)
        if self._covered is not None or (found and now - self._reported_at >= REPORT_WITHIN):
            self._reported_at = now
            await self._commit_to_the_end()

    async def _commit_to_the_end(self) -> None:
        """Commit. A cancellation waits a moment for the end, because the next audit begins with what is committed."""
        commit = asyncio.ensure_future(self._commit())
        try:
            await asyncio.shield(commit)
        except asyncio.CancelledError:
            with suppress(StorageError, TimeoutError):
                async with asyncio.timeout(LAST_COMMIT):
                    await commit
            raise

    def _begin_round(self) -> None:
        self._auditor.forget(self._moment, self.position)
        if self._has_news:
            self._covered = self.position
            self._left = sorted(self._auditor.changed, reverse=True)

    @property
    def _has_news(self) -> bool:
        off = self._stored_at > 0 or self._auditor.changed
        moved = self.position != self._stored_at if self._settle else off
        return bool(moved or self._gaps or self._late)

    async def _commit(self) -> None:
        """Commit what was found with what is known of its streams, and a portion of the round if one has begun."""
        gaps, late, portion = self._gaps, self._late, self._left[-PORTION:]
        place, ends = self._stored_at, False
        if self._covered is not None and len(portion) == len(self._left):
            place, ends = self._covered if self._settle else 0, True
        keys = {*portion, *((gap.account, gap.stream_id) for gap in gaps)}
        keys |= {(picture.account, picture.stream_id) for picture in late}
        states = self._auditor.states(keys, self.position)
        now = self._clock.now()
        events = tuple(gap_event(gap, now) for gap in gaps)
        readings = [
            _reading(memory=str(place).encode() if place else b"", events=events),
            *(_reading(about=about, memory=state) for about, state in states.items()),
        ]
        new = await self._spool.note_gaps(SOURCE, readings, gaps, late)
        self._auditor.keep(keys)
        self._stored_at, self._gaps, self._late = place, [], []
        del self._left[len(self._left) - len(portion) :]
        if ends:
            self._covered = None
        self._report(gaps, new)

    def _report(self, gaps: list[Gap], new: Counter[str]) -> None:
        """Count the gaps, and log one line for each account: an outage leaves a gap in every stream."""
        if gaps:
            self._metrics.events.labels(GAP).inc(new[GAP])
        for account in sorted({gap.account for gap in gaps}):
            own = [gap for gap in gaps if gap.account == account]
            missing = sum(gap.missing for gap in own)
            self._metrics.gap_pictures.labels(account).inc(missing)
            log.warning(
                "gap_found",
                account=account,
                gaps=len(own),
                missing=missing,
                stream=own[0].stream_id,
                since=own[0].from_at.isoformat(),
                until=own[0].to_at.isoformat(),
                reason=own[0].why,
            )


def _reading(*, about: str = "", memory: bytes, events: tuple[Event, ...] = ()) -> ParsedPage:
    return ParsedPage(events=events, rejects=(), outcome=PollOutcome.PARTIAL, about=about, memory=memory)
