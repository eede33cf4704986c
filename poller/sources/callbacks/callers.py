"""Callers of the receiver: their addresses behind proxies, their refusals, and their repeated requests.

Everything here is pure, except that `Refusals` and `Replays` are tables.
"""

from collections import OrderedDict
from collections.abc import Sequence

from poller.runtime.addresses import Address, Network, address, caller_key, holds

MOST_CALLERS = 1024
REPORTED = 10
"""The most refusals of one caller that are reported in `PERIOD` seconds."""
REPORTED_IN_ALL = 60
"""The most refusals of all callers that are reported in `PERIOD` seconds."""
PERIOD = 60.0
MOST_REMEMBERED = 20_000


def caller(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    """The address of a request's caller; None if it is unknown.

    `forwarded` has the values of the `X-Forwarded-For` headers. Each proxy appends the address of its own
    peer, so only the entries of trusted proxies count. The caller is the rightmost address that is not a
    trusted proxy.
    """
    hop = address(peer)
    hops = [one for field in forwarded for one in field.split(",")]
    while hop is not None and hops and holds(trusted, hop):
        hop = address(hops.pop())
    return hop


class Refusals:
    """Counts refusals by caller. An IPv6 network (/64) is one caller. The caller that was not seen for longest is
    forgotten first."""

    def __init__(self) -> None:
        self._since: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._all = (0.0, 0)

    def count(self, caller: Address | None, now: float) -> bool:
        """Count a refusal; returns whether to report it."""
        name = caller_key(caller)
        since, count = self._since.pop(name, (now, 0))
        if now - since >= PERIOD:
            since, count = now, 0
        self._since[name] = (since, count + 1)
        while len(self._since) > MOST_CALLERS:
            self._since.popitem(last=False)
        return count < REPORTED and self._among_all(now)

    def _among_all(self, now: float) -> bool:
        since, count = self._all
        if now - since >= PERIOD:
            since, count = now, 0
        self._all = (since, count + 1)
        return count < REPORTED_IN_ALL


class Replays:
    """Remembers committed requests by their digest, as long as their signatures are valid.

    The table is bounded, and the oldest digest is forgotten first. That does no harm: the spool recognises an
    event by its id.
    """

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def holds(self, digest: bytes, now: float) -> bool:
        """Whether the request with this digest was committed, and its signature is still valid."""
        return self._until.get(digest, now) > now

    def add(self, digest: bytes, until: float, now: float) -> None:
        """Remember a committed request until its signature expires."""
        self._until[digest] = until
        while self._until:
            oldest = next(iter(self._until))
            if len(self._until) <= self._most and self._until[oldest] > now:
                return
            del self._until[oldest]
