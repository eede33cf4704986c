"""The durable counts (`history.Tally`), changed in the transactions that store what they count."""

import sqlite3
from collections.abc import Iterable
from datetime import datetime

from poller.core.history import Book, Tally
from poller.spools.books import Counts, PossibleLoss, lost, settled
from poller.spools.history_rows import TALLY_COLUMNS, tally_of
from poller.spools.rows import epoch, readable_rows
from poller.spools.sink_queue import Changes

_COUNT = (
    "INSERT INTO tally VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET count = count + excluded.count, at = max(at, excluded.at)"
)


def count(connection: sqlite3.Connection, owner: str, book: Book, more: int, at: datetime) -> None:
    """Add to one count."""
    if more:
        connection.execute(_COUNT, (owner, book.value, more, epoch(at)))


def count_losses(connection: sqlite3.Connection, losses: Iterable[PossibleLoss]) -> None:
    """Add possible losses."""
    _count_all(connection, lost(losses))


def count_settled(connection: sqlite3.Connection, due: Iterable[Changes]) -> None:
    """Add what settlements have delivered and given up."""
    _count_all(connection, settled(due))


def _count_all(connection: sqlite3.Connection, counts: Counts) -> None:
    for (owner, book), (more, at) in counts.items():
        count(connection, owner, book, more, at)


def tallies(reader: sqlite3.Connection) -> list[Tally]:
    """All counts."""
    rows = reader.execute(f"SELECT {TALLY_COLUMNS} FROM tally ORDER BY owner, book")  # noqa: S608 - our own words
    return readable_rows("tally", tally_of, rows)
