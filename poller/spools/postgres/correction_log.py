"""Corrections of stored events, for the other daemons: they have some of these events in memory."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from poller.core.selection import Numbered
from poller.runtime.clock import Clock
from poller.spools.postgres.conditions import arrays, is_old, spread
from poller.spools.rows import epoch, event_of

KEPT: Final = 3600.0
"""Seconds that corrections are kept: longer than any daemon goes on without a look."""

_ROWS = spread("bigint", "float8", "bigint", "bytea")
_PUT = f"INSERT INTO correction (session, at, number, event) SELECT * FROM {_ROWS}"  # noqa: S608 - our own words


class Corrected(msgspec.Struct, frozen=True):
    """Corrected events with their numbers, and where to go on."""

    known: list[Numbered]
    last: int


async def put(connection: asyncpg.Connection, session: int, known: Iterable[Numbered], now: datetime) -> None:
    """Add corrections."""
    await connection.execute(
        _PUT, *arrays([(session, epoch(now), number, event.encoded) for number, event in known])
    )


async def last(reader: asyncpg.Connection) -> int:
    """The number of the newest correction; 0 if there is none."""
    return int(await reader.fetchval("SELECT coalesce(max(n), 0) FROM correction"))


async def since(n: int, session: int, reader: asyncpg.Connection) -> Corrected:
    """The corrections of other sessions behind the one of this number."""
    rows = await reader.fetch(
        "SELECT n, number, event FROM correction WHERE n > $1 AND session <> $2 ORDER BY n", n, session
    )
    known = [(number, event_of(event)) for _, number, event in rows]
    return Corrected(known, max((n for n, _, _ in rows), default=n))


async def prune(connection: asyncpg.Connection, clock: Clock) -> None:
    """Delete old corrections."""
    condition, ends = is_old("at", clock.young(KEPT))
    await connection.execute(f"DELETE FROM correction WHERE {condition}", *ends)  # noqa: S608 - our own words
