"""What this process has seen that may be lost for good, and when last: for `status` and `/readyz`."""

from datetime import datetime

import msgspec

from poller.runtime.clock import Clock


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which something may have been lost; `at` is when that last happened (UTC)."""

    where: str
    """The part that saw it: `source main`, `journal`, `spool`."""
    count: int
    """How often it happened: polls, pages, pushes or files, as `detail` says."""
    detail: str
    at: datetime
    damaged: bool
    """Whether something that was stored is damaged. That stays a reason in `/readyz` until the next start."""


class Losses:
    """The process's own account; it begins empty at each start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_where: dict[str, Loss] = {}

    def add(self, where: str, detail: str, *, count: int = 1, damaged: bool = False) -> None:
        """Count what may be lost; the newest detail of a part is kept. `detail` must hold no secret."""
        before = self._by_where.get(where)
        self._by_where[where] = Loss(
            where=where,
            count=count + (before.count if before else 0),
            detail=detail,
            at=self._clock.now(),
            damaged=damaged or (before is not None and before.damaged),
        )

    def all(self) -> list[Loss]:
        """Every way in which something may have been lost, the newest first."""
        return sorted(self._by_where.values(), key=lambda loss: loss.at, reverse=True)
