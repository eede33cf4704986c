"""Who delivered which events, as every engine keeps it: rows of event numbers. Pure.

Layout
    A row says that one sink delivered the events `first` to `last`, without `holes`. If all of them belong to the row,
    `holes` is empty. Else it is a bitmap: bit i is set if `first + i` does not belong to the row. Bit 0 is the lowest
    bit of the first byte. A row spans at most `LONGEST_ROW` numbers, so a search for a number looks at few rows.

Size
    One commit makes one row of all batches of a sink that lie close together in the log and agree in attempt, history
    and second. That is a row for each commit if a sink takes one batch after the other.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import msgspec

from poller.core.history import Delivery
from poller.core.model import Attempt

LONGEST_ROW = 8_192
WIDEST_HOLE = 512
"""The most missing numbers in a row. Their bits take about as much room as another row."""


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """The events that one settlement delivered.

    numbers: their numbers in the log, ascending
    ids:     instead of numbers, the ids of retried dead letters
    took:    seconds from claim to settlement
    """

    numbers: tuple[int, ...]
    ids: tuple[str, ...]
    at: datetime
    attempt: int
    took: float
    history: tuple[Attempt, ...]


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """One row; see the layout."""

    sink: str
    at: datetime
    first: int
    last: int
    holes: bytes
    attempt: int
    took: float
    history: tuple[Attempt, ...]

    def covers(self, number: int) -> bool:
        """Whether the event of this number belongs to the row."""
        if not self.first <= number <= self.last:
            return False
        place = number - self.first
        return not self.holes or not self.holes[place // 8] >> place % 8 & 1

    @property
    def count(self) -> int:
        """The number of events that belong to the row."""
        return self.last - self.first + 1 - int.from_bytes(self.holes, "little").bit_count()

    @property
    def delivery(self) -> Delivery:
        """The delivery of each of them."""
        return Delivery(
            sink=self.sink, at=self.at, attempt=self.attempt, took=self.took, history=self.history
        )


Run = tuple[int, int]


def rows(settled: Iterable[tuple[str, Settled]]) -> list[Delivered]:
    """The rows of what sinks have delivered, for one commit."""
    groups: defaultdict[tuple[object, ...], list[Settled]] = defaultdict(list)
    for sink, one in settled:
        if one.numbers:
            groups[sink, one.attempt, one.history, int(one.at.timestamp())].append(one)
    return [
        Delivered(
            sink=str(sink),
            at=max(one.at for one in group),
            first=row[0][0],
            last=row[-1][1],
            holes=_holes(row),
            attempt=group[0].attempt,
            took=max(one.took for one in group),
            history=group[0].history,
        )
        for (sink, *_), group in groups.items()
        for row in _split(sorted(run for one in group for run in _runs(one.numbers)))
    ]


def _runs(numbers: Sequence[int]) -> list[Run]:
    """Ascending numbers as runs of consecutive ones, none longer than a row."""
    first, last = numbers[0], numbers[-1]
    if last - first + 1 == len(numbers):
        return [(start, min(last, start + LONGEST_ROW - 1)) for start in range(first, last + 1, LONGEST_ROW)]
    found: list[Run] = []
    end = first
    for number in numbers:
        if number != end or number - first == LONGEST_ROW:
            found.append((first, end - 1))
            first = number
        end = number + 1
    found.append((first, end - 1))
    return found


def _split(runs: Iterable[Run]) -> Iterator[list[Run]]:
    """Runs in order, those of one row together. A number that was delivered twice gets two rows."""
    row: list[Run] = []
    for first, last in runs:
        if row:
            apart = first - row[-1][1] - 1
            if not 0 <= apart <= WIDEST_HOLE or last - row[0][0] >= LONGEST_ROW:
                yield row
                row = []
        row.append((first, last))
    if row:
        yield row


def _holes(row: Sequence[Run]) -> bytes:
    if len(row) == 1:
        return b""
    start, end = row[0][0], row[-1][1]
    bits = bytearray(b"1") * (end - start + 1)  # the last bit first
    for first, last in row:
        bits[end - last : end - first + 1] = b"0" * (last - first + 1)
    holes = int(bits, 2)
    return holes.to_bytes((end - start) // 8 + 1, "little") if holes else b""
