"""Moving pages from the journal to quarantine when no source can parse them.

Such a page is damaged, or its source is no longer configured. The pages of a configured source are recovered by its
intake (`Intake.run`). Moving is repeated while the spool is full, so that no page waits for a restart.
"""

from collections.abc import Collection, Sequence

import structlog

from poller.core.errors import StorageFull
from poller.core.model import ParsedPage, PollOutcome, Reject
from poller.core.spool import Spool
from poller.pipeline.ingest import whole_reject
from poller.pipeline.journal import Journal
from poller.pipeline.journal_file import NOBODY

log = structlog.get_logger("daemon")


def describe_damage(journal: Journal, kept_as: int | None) -> tuple[str, int] | None:
    """The damage in words, and how many pages may be gone; None for a journal that is whole and fits the spool.

    `kept_as` is the highest page number that the spool has committed, 0 when it has none; None when it cannot tell.
    """
    if journal.damage is not None:
        return journal.damage.detail, journal.damage.pages
    if kept_as is None:
        return None
    if kept_as > journal.last_number:
        return f"it is not the one that the spool knows: what it kept after page {kept_as} may be gone", 1
    if kept_as < journal.committed:
        missing = journal.committed - kept_as
        return (
            f"the spool lacks pages that the journal saw committed, up to number {journal.committed}",
            missing,
        )
    return None


class Orphans:
    """Commits pages without a source to quarantine. The daemon calls `step` again and again."""

    def __init__(self, spool: Spool, journal: Journal) -> None:
        self._spool = spool
        self._journal = journal
        self._reported = False

    async def step(self, sources: Collection[str], keys: Sequence[str]) -> None:
        """Commit every page that belongs to none of `sources`, while the spool has room. `keys` are masked in it."""
        try:
            await self._report_damage(sources, keys)
            for source in sorted(self._journal.leftover_sources() - set(sources)):
                await self._report_leftovers(source, keys)
        except StorageFull as error:  # sinks make room, so the daemon must go on
            if not self._reported:
                log.warning("page_stays_in_journal", reason=str(error), pages=self._journal.leftover_count)
            self._reported = True
        else:
            self._reported = False

    async def _report_leftovers(self, source: str, keys: Sequence[str]) -> None:
        pages = dict(self._journal.take_leftovers(source))
        try:
            for number, page in list(pages.items()):
                reject = whole_reject(page, f"source {source} is not configured any more", *keys)
                await self._spool.append(source, [_reading(reject, number)])
                self._journal.release(number, committed=True)
                del pages[number]
        finally:
            self._journal.hand_back(pages)

    async def _report_damage(self, sources: Collection[str], keys: Sequence[str]) -> None:
        if not self._journal.has_damaged:
            return
        for page in self._journal.damage.remains if self._journal.damage else ():
            source = page.source if page.source in sources else NOBODY
            reject = whole_reject(page, "damaged in the journal", *keys)
            await self._spool.append(source, [_reading(reject, 0)])
        self._journal.release_damaged()


def _reading(reject: Reject, number: int) -> ParsedPage:
    return ParsedPage(events=(), rejects=(reject,), outcome=PollOutcome.PARTIAL, kept_as=number)
