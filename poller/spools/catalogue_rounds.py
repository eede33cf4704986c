"""When the catalogue of streams is written, and which part of it. Decides only; an engine writes the rows.

A round writes all streams that have changed since the round before began. It begins when it has four events for each
row, or after half a minute: where each of many streams has a picture every ten seconds, rows would be most of what is
written. At its beginning the catalogue holds all events below the number `covered`. Each transaction writes a portion,
the streams as they are by then. With the last portion, the engine writes the number. A transaction behind one that
belongs to a burst writes nothing, unless the round is overdue.

After a crash, the events from the written number on are noted again. Rows of an unfinished round are newer than that
number. A stream keeps its state when events are noted again that its state includes.
"""

from collections.abc import Iterable, Sequence

import msgspec

from poller.core.catalogue import Catalogue, Key, Stream
from poller.runtime.clock import Clock
from poller.spools.rows import reads_back

EVERY = 5.0
"""The least seconds between two rounds. After a crash, the later events are read from the log."""
LONGEST = 30.0
"""Seconds after a round until the next one begins, however few events there are."""
EVENTS_A_ROW = 4
OVERDUE = 60.0
"""Seconds after a round from which on bursts do not hold up the next one."""
PORTION = 2_000
"""Rows written in one transaction, which takes some ten milliseconds."""
BURST = 100
"""A transaction with more new events is part of a burst: it holds several answers."""

_read = msgspec.msgpack.Decoder(Stream)
_packed = msgspec.msgpack.Encoder().encode


@reads_back
def catalogue_of(rows: Iterable[Sequence[bytes]]) -> Catalogue:
    """The catalogue as it is written, from the column `known`; raises `Unreadable`."""
    return Catalogue(_read.decode(known) for (known,) in rows)


class Portion(msgspec.Struct, frozen=True):
    """What one transaction writes: account, stream id and state of streams. `covered` comes with the last portion."""

    rows: list[tuple[str, str, bytes]]
    covered: int | None


class CatalogueRounds:
    """The rounds of one catalogue. The writer calls `keep` or `discard` after each transaction."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._ended = clock.monotonic() - LONGEST
        self._left: list[Key] = []
        """The streams that the round has still to write, in reverse order."""
        self._covered = 0
        """The first number that the last round, or the one that has begun, does not cover."""
        self._written = 0
        self._in_burst = False

    @property
    def unfinished(self) -> bool:
        """Whether a round has begun and not ended. Other threads may ask."""
        return bool(self._left)

    def _next(self, covered: int, *, whole: bool) -> Portion | None:
        """The portion that a transaction writes at its beginning, or with `whole` all that has changed; None for none.

        `covered` is the number that the transaction's first event gets.
        """
        if whole:
            self._begin(covered)
            return self._portion(len(self._left))
        since = self._clock.monotonic() - self._ended
        if self._in_burst and since < OVERDUE:
            return None
        if not self._left and self._is_due(since, covered - self._covered):
            self._begin(covered)
        return self._portion(PORTION)

    def _is_due(self, since: float, events: int) -> bool:
        worth = events >= EVENTS_A_ROW * len(self._catalogue.unsaved)
        return since >= LONGEST or (since >= EVERY and worth)

    def _portion(self, most: int) -> Portion | None:
        if not self._left:
            return None
        some = self._left[-most:]
        self._written = len(some)
        rows = [(*key, _packed(stream)) for key in reversed(some) if (stream := self._catalogue.find(key))]
        last = self._written == len(self._left)
        return Portion(rows, self._covered if last else None)

    def _begin(self, covered: int) -> None:
        # sorted: rows that follow each other lie close together where they are stored
        self._left = sorted(self._catalogue.unsaved.union(self._left), reverse=True)
        self._catalogue.unsaved.clear()
        self._covered = covered

    def keep(self, events: int) -> None:
        """The transaction is durable, with this number of events."""
        self._in_burst = events > BURST
        if self._written:
            del self._left[-self._written :]
            self._written = 0
            if not self._left:
                self._ended = self._clock.monotonic()

    def discard(self) -> None:
        """The transaction was rolled back: its portion is written again."""
        self._written = 0
