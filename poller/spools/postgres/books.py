"""The durable counts (`history.Tally`), changed in the transactions that store what they count."""

from collections.abc import Iterable
from datetime import datetime

import asyncpg

from poller.core.history import Book, Tally
from poller.spools.books import Counts, PossibleLoss, lost, settled
from poller.spools.history_rows import TALLY_COLUMNS, tally_of
from poller.spools.postgres.conditions import arrays, spread
from poller.spools.rows import epoch, readable_rows
from poller.spools.sink_queue import Changes

_COUNT = (
    f"INSERT INTO tally SELECT * FROM {spread('text', 'text', 'bigint', 'float8')}"  # noqa: S608 - our own words
    " ON CONFLICT (owner, book) DO UPDATE"
    " SET count = tally.count + excluded.count, at = greatest(tally.at, excluded.at)"
)


async def count(connection: asyncpg.Connection, owner: str, book: Book, more: int, at: datetime) -> None:
    """Add to one count."""
    await _count_all(connection, {(owner, book): (more, at)})


async def count_losses(connection: asyncpg.Connection, losses: Iterable[PossibleLoss]) -> None:
    """Add possible losses."""
    await _count_all(connection, lost(losses))


async def count_settled(connection: asyncpg.Connection, due: Iterable[Changes]) -> None:
    """Add what settlements have delivered and given up."""
    await _count_all(connection, settled(due))


async def _count_all(connection: asyncpg.Connection, counts: Counts) -> None:
    rows = [(owner, book.value, more, epoch(at)) for (owner, book), (more, at) in counts.items() if more]
    if rows:
        await connection.execute(_COUNT, *arrays(rows))


async def tallies(reader: asyncpg.Connection) -> list[Tally]:
    """All counts."""
    rows = await reader.fetch(
        f'SELECT {TALLY_COLUMNS} FROM tally ORDER BY owner COLLATE "C", book COLLATE "C"'  # noqa: S608 - our own words
    )
    return readable_rows("tally", tally_of, map(tuple, rows))
