"""The newest stretch of the log, in memory, so that fresh events reach the couriers without a read from disk."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import msgspec

from poller.core.model import Event, corrected
from poller.core.selection import Numbered


class Chunk(msgspec.Struct, frozen=True):
    """Events that were appended together, numbered from `first` on."""

    first: int
    events: Sequence[Event]

    @property
    def end(self) -> int:
        """The number after that of the last event."""
        return self.first + len(self.events)


def cut(chunks: Iterable[Chunk], start: int, limit: int) -> list[Chunk]:
    """Up to `limit` consecutive events of these chunks, which are in order, from number `start` or the next one on."""
    found: list[Chunk] = []
    for chunk in chunks:
        if chunk.end <= start:
            continue
        if limit <= 0 or (found and chunk.first > start):
            break
        start = max(start, chunk.first)
        skipped = start - chunk.first
        whole = not skipped and len(chunk.events) <= limit
        part = chunk if whole else Chunk(start, chunk.events[skipped : skipped + limit])
        found.append(part)
        limit -= len(part.events)
        start = part.end
    return found


def members_of(chunks: Iterable[Chunk]) -> list[Numbered]:
    """The events of chunks, with their numbers."""
    return [member for chunk in chunks for member in enumerate(chunk.events, chunk.first)]


class Tail:
    """Chunks in order. `most_bytes` bounds the encoded events that are held (None: no bound), and may be changed."""

    def __init__(self, most_bytes: int | None) -> None:
        self.most_bytes = most_bytes
        self._chunks: list[Chunk] = []
        self._firsts: list[int] = []
        self._sizes: list[int] = []
        self.bytes = 0

    def push(self, chunk: Chunk) -> None:
        """Add the newest chunk, and forget the oldest chunks beyond the bound."""
        place = bisect_right(self._firsts, chunk.first)  # commits may arrive slightly out of order
        size = sum([len(event.encoded) for event in chunk.events])
        self._firsts.insert(place, chunk.first)
        self._chunks.insert(place, chunk)
        self._sizes.insert(place, size)
        self.bytes += size
        if self.most_bytes is not None and self.bytes > self.most_bytes:
            self._forget(self._excess(self.most_bytes))

    @property
    def first(self) -> int:
        """The number of the oldest event that is held; 1 if none is."""
        return self._firsts[0] if self._firsts else 1

    def agrees(self, number: int, by: Event) -> bool:
        """Whether the event with that number is held and has this URL."""
        return any(event.url == by.url for _, event in self.members(number, 1) or ())

    def correct(self, number: int, by: Event) -> None:
        """Correct the event with that number if it is held."""
        place = bisect_right(self._firsts, number) - 1
        if place < 0 or self._chunks[place].end <= number:
            return
        chunk = self._chunks[place]
        at = number - chunk.first
        event = corrected(chunk.events[at], by)
        grown = len(event.encoded) - len(chunk.events[at].encoded)
        self._chunks[place] = Chunk(chunk.first, (*chunk.events[:at], event, *chunk.events[at + 1 :]))
        self._sizes[place] += grown
        self.bytes += grown

    def forget_before(self, number: int) -> None:
        """Drop whole chunks that end at or before a number."""
        count = 0
        while count < len(self._chunks) and self._chunks[count].end <= number:
            count += 1
        self._forget(count)

    def stretch(self, start: int, limit: int) -> list[Chunk] | None:
        """Up to `limit` consecutive events from `start` on; None when `start` is not held."""
        place = bisect_right(self._firsts, start) - 1
        if place < 0 or self._chunks[place].end <= start:
            return None
        return cut(self._chunks[place : place + limit], start, limit)  # each chunk has an event

    def members(self, start: int, limit: int) -> list[Numbered] | None:
        """The events of `stretch`, with their numbers."""
        found = self.stretch(start, limit)
        return None if found is None else members_of(found)

    def _excess(self, most: int) -> int:
        # forget half at once: forgetting a single chunk at every push would shift the lists every time
        count, left = 0, self.bytes
        while count < len(self._sizes) - 1 and left > most // 2:
            left -= self._sizes[count]
            count += 1
        return count

    def _forget(self, count: int) -> None:
        self.bytes -= sum(self._sizes[:count])
        del self._chunks[:count], self._firsts[:count], self._sizes[:count]
