"""The durable counts (`history.Tally`), changed in the transactions that store what they count.

Each session has rows of its own, so that no transaction waits for one of another session.
"""

from collections.abc import Iterable
from datetime import datetime

import asyncpg

from poller.core.history import Book, Tally
from poller.spools.books import Counts, PossibleLoss, lost, settled
from poller.spools.history_rows import tally_of
from poller.spools.postgres.conditions import arrays, spread
from poller.spools.rows import epoch, readable_rows
from poller.spools.sink_queue import Changes

_COUNT = (
    f"INSERT INTO tally SELECT * FROM {spread('text', 'text', 'bigint', 'bigint', 'float8')}"  # noqa: S608 - our own words
    " ON CONFLICT (owner, book, session) DO UPDATE"
    " SET count = tally.count + excluded.count, at = greatest(tally.at, excluded.at)"
)


async def count_taken(
    connection: asyncpg.Connection, session: int, source: str, more: int, at: datetime
) -> None:
    """Add to the number of events that a source has brought."""
    await _count_all(connection, session, {(source, Book.TAKEN): (more, at)})


async def count_losses(connection: asyncpg.Connection, session: int, losses: Iterable[PossibleLoss]) -> None:
    """Add possible losses."""
    await _count_all(connection, session, lost(losses))


async def count_settled(connection: asyncpg.Connection, session: int, due: Iterable[Changes]) -> None:
    """Add what settlements have delivered and given up."""
    await _count_all(connection, session, settled(due))


async def _count_all(connection: asyncpg.Connection, session: int, counts: Counts) -> None:
    rows = [
        (owner, book.value, session, more, epoch(at)) for (owner, book), (more, at) in counts.items() if more
    ]
    if rows:
        await connection.execute(_COUNT, *arrays(rows))


async def tallies(reader: asyncpg.Connection) -> list[Tally]:
    """All counts, each the sum over all sessions."""
    rows = await reader.fetch(
        "SELECT owner, book, sum(count)::bigint, max(at) FROM tally GROUP BY owner, book"
        ' ORDER BY owner COLLATE "C", book COLLATE "C"'
    )
    return readable_rows("tally", tally_of, map(tuple, rows))
