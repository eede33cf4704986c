"""A limit of the attempts in a period, which several daemons may share."""

from collections.abc import Callable

from asyncio_throttle.throttler import Throttler


def alone() -> int:
    """How many share a limit that nobody else shares."""
    return 1


def divide(limit: int, period: float, sharers: int) -> tuple[int, float]:
    """One part of a limit for this number of `sharers`: attempts, and the period in seconds.

    All parts together are never more than the limit. Fewer attempts than sharers make the period longer.
    """
    if limit >= sharers:
        return limit // sharers, period
    return 1, period * sharers / limit


class Throttle(Throttler):
    """Lets `limit` attempts through in each period (in seconds), divided by how many share the limit.

    `sharers` is asked at each look, so that an attempt that waits profits when others leave.
    """

    def __init__(self, limit: int, period: float, sharers: Callable[[], int] = alone) -> None:
        # a waiting attempt looks again at this interval; a long period does not need a short one
        interval = min(max(period / 100, 0.01), 0.25)
        super().__init__(rate_limit=limit, period=period, retry_interval=interval)
        self.sharers = sharers
        self._whole = (limit, period)

    def flush(self) -> None:
        """Forget attempts that do not count any more. Called before each look at how many are left."""
        self.rate_limit, self.period = divide(*self._whole, max(1, self.sharers()))
        super().flush()  # type: ignore[no-untyped-call] # the package has no types

    async def acquire(self) -> None:
        """Wait until one more attempt is allowed. May be cancelled."""
        await super().acquire()  # type: ignore[no-untyped-call] # the package has no types
