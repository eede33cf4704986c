"""The replayed events of one sink that wait: they go out after everything else, and fresh events do not wait for them.

A batch that was attempted comes again with its members. Batches that were never attempted may go out together. Of
batches that share a stream (`Entry.streams`), only the first may go out.
"""

import asyncio
from bisect import insort
from collections.abc import Callable, Collection, Iterable
from typing import Generic, NamedTuple, TypeVar

Key = tuple[str, str]
Carried = TypeVar("Carried")


class Entry(NamedTuple, Generic[Carried]):
    """A waiting batch.

    rank:    the lowest number of its events
    due:     when it may go out, on the monotonic clock
    streams: the streams whose order it keeps
    tried:   whether it was attempted
    """

    rank: int
    due: float
    size: int
    streams: Collection[Key]
    tried: bool
    batch: Carried


class Replayed(Generic[Carried]):
    """The waiting batches by rank. `most` is how many batches may be in hand at once."""

    def __init__(self, most: int) -> None:
        self.events = 0
        """The number of replayed events that wait or are in hand."""
        self.held = False
        """Whether the replay is paused: nothing is taken."""
        self.settled = asyncio.Event()
        """Set when a batch was settled."""
        self._most = most
        self._waiting: list[Entry[Carried]] = []
        self._in_hand: set[int] = set()
        self._last_try: set[int] = set()

    @property
    def batches(self) -> list[Carried]:
        """The waiting batches, by rank."""
        return [entry.batch for entry in self._waiting]

    @property
    def waiting(self) -> int:
        """The number of events in the waiting batches."""
        return sum(entry.size for entry in self._waiting)

    def add(self, entry: Entry[Carried]) -> None:
        """Add a batch."""
        insort(self._waiting, entry, key=lambda one: one.rank)
        self.events += entry.size

    def take(self, now: float, limit: int, is_free: Callable[[Key], bool]) -> list[Carried]:
        """The first batch that may go out, or untried batches of up to `limit` events together; empty if there is none.

        `is_free` is whether no event of a stream is in hand. The caller must report what it makes of them (`carry`).
        """
        if self.held or len(self._in_hand) >= self._most:
            return []
        taken: list[Entry[Carried]] = []
        places: list[int] = []
        blocked: set[Key] = set()
        room = limit
        for place, entry in enumerate(self._waiting):
            if taken and (room <= 0 or taken[0].tried):
                break
            together = not taken or (not entry.tried and entry.size <= room)
            free = blocked.isdisjoint(entry.streams) and all(map(is_free, entry.streams))
            if together and free and entry.due <= now:
                taken.append(entry)
                places.append(place)
                room -= entry.size
            else:
                blocked.update(entry.streams)
        for place in reversed(places):
            del self._waiting[place]
        return [entry.batch for entry in taken]

    def carry(self, rank: int) -> None:
        """Note that a batch is in hand."""
        self._in_hand.add(rank)

    def split(self, rank: int, second: int) -> None:
        """Note that a batch in hand became two, the second of them with the rank `second`."""
        self._in_hand.add(second)
        if rank in self._last_try:
            self._last_try.add(second)

    def put_down(self, rank: int, size: int) -> None:
        """Note that a batch of this size was settled. What is retried of it is added again."""
        self.events -= size
        self._in_hand.discard(rank)
        self._last_try.discard(rank)
        self.settled.set()

    def is_last_try(self, rank: int) -> bool:
        """Whether a batch in hand is not retried any more, because its replay was cancelled."""
        return rank in self._last_try

    def next_due(self, now: float) -> float | None:
        """Seconds until the next batch is due that is not due yet."""
        if self.held:
            return None
        return min((entry.due - now for entry in self._waiting if entry.due > now), default=None)

    def make_due(self, now: float) -> None:
        """Make all waiting batches due."""
        self._waiting = [entry._replace(due=min(entry.due, now)) for entry in self._waiting]

    def replace(self, change: Callable[[Carried], Carried]) -> None:
        """Replace each waiting batch by what `change` makes of it; its rank and streams stay."""
        self._waiting = [entry._replace(batch=change(entry.batch)) for entry in self._waiting]

    def cancel(self) -> None:
        """Forget what waits. What is in hand is not retried."""
        self.events -= self.waiting
        self._waiting = []
        self._last_try |= self._in_hand


def streams_of(keys: Iterable[Key | None]) -> frozenset[Key]:
    """The streams among the streams of events; an event without a stream has no order."""
    return frozenset(key for key in keys if key is not None)
