"""What the durable counts (`history.Tally`) grow by, as every engine with a database adds it up."""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from poller.core.history import Book
from poller.spools.sink_queue import Changes

Counts = dict[tuple[str, Book], tuple[int, datetime]]
"""By owner and book: how many more, and when the last of them was."""


class PossibleLoss(msgspec.Struct, frozen=True, kw_only=True):
    """A possible loss that is to be counted; see `SpoolHistory.count_loss`."""

    where: str
    count: int
    at: datetime


def lost(losses: Iterable[PossibleLoss]) -> Counts:
    """The counts of possible losses."""
    counts: Counts = {}
    for loss in losses:
        _add(counts, (loss.where, Book.POSSIBLY_LOST), loss.count, loss.at)
    return counts


def settled(due: Iterable[Changes]) -> Counts:
    """The counts of what settlements have delivered and given up."""
    counts: Counts = {}
    for changes in due:
        if (done := changes.settled) is not None:
            _add(counts, (changes.sink, Book.DELIVERED), len(done.numbers) + len(done.ids), done.at)
        if changes.dead:
            _add(counts, (changes.sink, Book.DEAD), len(changes.dead), changes.dead[-1].died_at)
    return counts


def _add(counts: Counts, key: tuple[str, Book], more: int, at: datetime) -> None:
    counts[key] = (counts[key][0] + more if key in counts else more, at)
