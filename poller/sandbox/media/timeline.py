"""A push's media time, out of timestamps that wrap, jump, and differ between audio and video."""

from __future__ import annotations

MAX_JUMPS = 1000
"""Of a push; its clock is not believed where it jumps more often, or nonsense would make files without end."""
_BACK = 1000


class Timeline:
    """Gives each message its position: milliseconds since the push's first, going on across wraps."""

    def __init__(self, limit: int) -> None:
        """`limit` in milliseconds: a longer step forward is a jump, as is one of more than a second back."""
        self._limit = limit
        self._last: dict[int, tuple[int, int]] = {}
        self._jumps = 0

    def place(self, kind: int, timestamp: int) -> tuple[int, bool]:
        """A message's position, and whether its kind's clock jumped: then the position is that of its last one.

        After a jump the other kind is held against this one anew; where the two are too far apart, they are taken to
        be at the same moment.
        """
        own = self._last.get(kind)
        before, position = own or next(iter(self._last.values()), (timestamp, 0))
        step = (timestamp - before + (1 << 31)) % (1 << 32) - (1 << 31)
        jumped = False
        if not (-_BACK if own else -self._limit) <= step <= self._limit:
            step = 0
            jumped = own is not None and self._jumps < MAX_JUMPS
        if jumped:
            self._jumps += 1
            self._last.clear()
        self._last[kind] = (timestamp, position + step)
        return position + step, jumped


class Gops:
    """How long the push's groups of pictures are, with the audio that comes beside them; in milliseconds."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._longest = 0
        self._previous = 0
        self._began: int | None = None
        self._reached = 0

    @property
    def expected(self) -> int:
        """What the one that begins now may take: as much as the longest that fits the limit, or as the previous."""
        return max(self._longest, self._previous)

    def begin(self, position: int) -> None:
        """A keyframe."""
        if self._began is not None:
            self._previous = self._reached - self._began
            if self._previous <= self._limit:
                self._longest = max(self._longest, self._previous)
        self._began = self._reached = position

    def reach(self, end: int) -> None:
        """A message that ends then."""
        self._reached = max(self._reached, end)

    def forget(self) -> None:
        """The group in progress cannot be measured."""
        self._began = None
