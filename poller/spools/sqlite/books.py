"""The durable counts (`history.Tally`), changed in the transactions that store what they count."""

import sqlite3
from collections.abc import Iterable
from datetime import datetime

import msgspec

from poller.core.history import Book, Tally
from poller.spools.rows import epoch, moment, readable_rows, reads_back, typed
from poller.spools.sink_queue import Changes

_COUNT = (
    "INSERT INTO tally VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET count = count + excluded.count, at = max(at, excluded.at)"
)


class PossibleLoss(msgspec.Struct, frozen=True, kw_only=True):
    """A possible loss that is to be counted; see `SpoolHistory.count_loss`."""

    where: str
    count: int
    at: datetime


def count(connection: sqlite3.Connection, owner: str, book: Book, more: int, at: datetime) -> None:
    """Add to one count."""
    if more:
        connection.execute(_COUNT, (owner, book.value, more, epoch(at)))


def count_losses(connection: sqlite3.Connection, losses: Iterable[PossibleLoss]) -> None:
    """Add possible losses."""
    for loss in losses:
        count(connection, loss.where, Book.POSSIBLY_LOST, loss.count, loss.at)


def count_settled(connection: sqlite3.Connection, due: Iterable[Changes]) -> None:
    """Add what settlements have delivered and given up."""
    counts: dict[tuple[str, Book], tuple[int, datetime]] = {}
    for changes in due:
        if (done := changes.settled) is not None:
            _add(counts, (changes.sink, Book.DELIVERED), len(done.numbers) + len(done.ids), done.at)
        if changes.dead:
            _add(counts, (changes.sink, Book.DEAD), len(changes.dead), changes.dead[-1].died_at)
    for (sink, book), (more, at) in counts.items():
        count(connection, sink, book, more, at)


def _add(
    counts: dict[tuple[str, Book], tuple[int, datetime]], key: tuple[str, Book], more: int, at: datetime
) -> None:
    counts[key] = (counts[key][0] + more if key in counts else more, at)


def tallies(reader: sqlite3.Connection) -> list[Tally]:
    """All counts."""
    rows = reader.execute("SELECT owner, book, count, at FROM tally ORDER BY owner, book")
    return readable_rows("tally", _tally_of, rows)


@reads_back
def _tally_of(row: tuple[object, ...]) -> Tally:
    owner, book, number, at = typed(row, tuple[str, Book, int, float])
    return Tally(owner=owner, book=book, count=number, at=moment(at))
