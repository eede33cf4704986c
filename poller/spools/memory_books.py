"""What the memory spool remembers of the past: deliveries, counts and gaps."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from poller.core.history import Book, Delivery, Gap, LatePicture, Tally
from poller.core.selection import Selection
from poller.spools.delivered import Delivered, Settled, rows


class MemoryBooks:
    """Deliveries, counts and gaps of one process."""

    def __init__(self) -> None:
        self._delivered: list[Delivered] = []
        self._redelivered: defaultdict[str, list[Delivery]] = defaultdict(list)
        """Deliveries of events without a number, by id."""
        self._tallies: dict[tuple[str, Book], Tally] = {}
        self._gaps: dict[str, Gap] = {}

    def record(self, sink: str, done: Settled) -> None:
        """Record and count what a sink has delivered."""
        self._delivered += rows([(sink, done)])
        for id in done.ids:
            self._redelivered[id].append(
                Delivery(sink=sink, at=done.at, attempt=done.attempt, took=done.took, history=done.history)
            )
        self.count(sink, Book.DELIVERED, len(done.numbers) + len(done.ids), done.at)

    def deliveries(self, number: int, id: str) -> list[Delivery]:
        """See `SpoolHistory.deliveries`."""
        found = [row.delivery for row in self._delivered if row.covers(number)]
        return sorted([*found, *self._redelivered.get(id, ())], key=lambda one: one.at)

    def forget_before(self, number: int, kept: int) -> None:
        """Forget deliveries of events before a number, and all but the newest `kept` of events without a number."""
        if self._delivered and self._delivered[0].last < number:
            self._delivered = [row for row in self._delivered if row.last >= number]
        for id in list(self._redelivered)[:-kept]:
            del self._redelivered[id]

    def count(self, owner: str, book: Book, more: int, at: datetime) -> None:
        """Add to a count."""
        if more:
            before = self._tallies.get((owner, book))
            count = more + (before.count if before else 0)
            self._tallies[owner, book] = Tally(owner=owner, book=book, count=count, at=at)

    def tallies(self) -> list[Tally]:
        """See `SpoolHistory.tallies`."""
        return [tally for _, tally in sorted(self._tallies.items())]

    def note_gaps(self, gaps: Sequence[Gap], late: Sequence[LatePicture]) -> None:
        """Add gaps, and fill gaps by late pictures."""
        for gap in gaps:
            self._gaps.setdefault(gap.id, gap)
        for picture in late:
            for gap in filter(picture.fills, list(self._gaps.values())):
                self._gaps[gap.id] = msgspec.structs.replace(gap, filled=min(gap.missing, gap.filled + 1))

    def gaps(self, chosen: Selection) -> list[Gap]:
        """The selected gaps, those that end last first."""
        found = [gap for gap in self._gaps.values() if gap.is_selected(chosen)]
        return sorted(found, key=lambda gap: (-gap.to_at.timestamp(), gap.id))

    def drop_gaps(self, is_old: Callable[[Gap], bool]) -> None:
        """Forget old gaps."""
        self._gaps = {id: gap for id, gap in self._gaps.items() if not is_old(gap)}
