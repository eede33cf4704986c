"""The possible losses that this process has seen, and the time of the last one: for `status` and `/readyz`."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from poller.runtime.clock import Clock


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Possible losses of one part. `at` is the time of the last one (UTC)."""

    where: str
    """The part that noticed the loss: `source main`, `journal`, `spool`."""
    count: int
    """The number of polls, pages, pushes or files, as `detail` says."""
    detail: str
    at: datetime
    damaged: bool
    """Whether stored data is damaged. The damage stays a reason in `/readyz` until the next start."""


class Losses:
    """The losses of this process, one entry for each part. The list is empty at each start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_where: dict[str, Loss] = {}
        self._record: Callable[[str, int], None] = lambda where, count: None

    def record_in(self, record: Callable[[str, int], None]) -> None:
        """Also pass each loss on (`SpoolHistory.count_loss`), so that it is counted over all starts."""
        self._record = record

    def add(self, where: str, detail: str, *, count: int = 1, damaged: bool = False) -> None:
        """Count a possible loss. The newest `detail` of each part is kept; it must not contain a secret."""
        self._record(where, count)
        before = self._by_where.get(where)
        self._by_where[where] = Loss(
            where=where,
            count=count + (before.count if before else 0),
            detail=detail,
            at=self._clock.now(),
            damaged=damaged or (before is not None and before.damaged),
        )

    def all(self) -> list[Loss]:
        """The possible losses of all parts, the newest first."""
        return sorted(self._by_where.values(), key=lambda loss: loss.at, reverse=True)
