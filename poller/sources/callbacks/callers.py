"""Who pushes: addresses behind proxies, allow lists, and how often a refusal is told. Pure but for two tables."""

from collections import OrderedDict
from collections.abc import Sequence

from poller.runtime.addresses import Address, Network, address, holds, household

MOST_CALLERS = 1024
TOLD = 10
"""Refusals of one caller that are told in `PERIOD` seconds."""
TOLD_IN_ALL = 60
"""Refusals of all callers that are told in `PERIOD` seconds."""
PERIOD = 60.0
MOST_REMEMBERED = 20_000


def caller(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    """Where a request comes from; None when that cannot be known.

    `forwarded` are the values of its `X-Forwarded-For` fields. Each hop adds whom it heard at the right, so
    that only what trusted proxies have added counts: the rightmost that is not one of them is the caller.
    """
    hop = address(peer)
    hops = [one for field in forwarded for one in field.split(",")]
    while hop is not None and hops and holds(trusted, hop):
        hop = address(hops.pop())
    return hop


class Refusals:
    """Counts refusals by caller; a network of IPv6 (/64) is one caller. Bounded: the longest unseen is forgotten."""

    def __init__(self) -> None:
        self._since: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._all = (0.0, 0)

    def told(self, caller: Address | None, now: float) -> bool:
        """Count one more refusal; whether it is among the few that are told."""
        name = household(caller)
        since, count = self._since.pop(name, (now, 0))
        if now - since >= PERIOD:
            since, count = now, 0
        self._since[name] = (since, count + 1)
        while len(self._since) > MOST_CALLERS:
            self._since.popitem(last=False)
        return count < TOLD and self._among_all(now)

    def _among_all(self, now: float) -> bool:
        since, count = self._all
        if now - since >= PERIOD:
            since, count = now, 0
        self._all = (since, count + 1)
        return count < TOLD_IN_ALL


class Replays:
    """What was taken already, by its hash, for as long as its signature lives. Bounded: the oldest goes first.

    What is forgotten does no harm: an event has its id, and the spool remembers that.
    """

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def holds(self, digest: bytes, now: float) -> bool:
        """Whether this was taken."""
        return self._until.get(digest, now) > now

    def add(self, digest: bytes, until: float, now: float) -> None:
        """Remember what was just committed."""
        self._until[digest] = until
        while self._until:
            oldest = next(iter(self._until))
            if len(self._until) <= self._most and self._until[oldest] > now:
                return
            del self._until[oldest]
