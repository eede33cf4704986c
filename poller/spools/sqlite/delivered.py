"""Who delivered which events: writing the rows of `delivered` and `redelivered`, finding them, and deleting them."""

import sqlite3
from collections.abc import Iterator, Sequence

from poller.core.errors import Unreadable
from poller.core.history import Delivery
from poller.spools.delivered import LONGEST_ROW, rows
from poller.spools.history_rows import (
    AGAIN_COLUMNS,
    DELIVERED_COLUMNS,
    DELIVERY_COLUMNS,
    again_rows,
    delivered_of,
    delivered_row,
    delivery_of,
)
from poller.spools.retention import Stretches
from poller.spools.rows import readable_rows
from poller.spools.sink_queue import Changes
from poller.spools.sqlite.pruning import is_old

PRUNED_AT_ONCE = 2_000

_PUT = f"INSERT INTO delivered ({DELIVERED_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own words
_PUT_AGAIN = f"INSERT INTO redelivered ({AGAIN_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own words


def record(connection: sqlite3.Connection, due: Sequence[Changes]) -> None:
    """Record what settlements have delivered."""
    settled = [(changes.sink, done) for changes in due if (done := changes.settled) is not None]
    connection.executemany(_PUT, [delivered_row(one) for one in rows(settled)])
    for sink, done in settled:
        connection.executemany(_PUT_AGAIN, again_rows(sink, done))


def deliveries(number: int, id: str, reader: sqlite3.Connection) -> list[Delivery]:
    """See `SpoolHistory.deliveries`."""
    near = reader.execute(
        f"SELECT {DELIVERED_COLUMNS} FROM delivered"  # noqa: S608 - our own words
        " WHERE last BETWEEN ? AND ? AND first <= ? ORDER BY n",
        (number, number + LONGEST_ROW - 1, number),
    )
    again = reader.execute(
        f"SELECT {DELIVERY_COLUMNS} FROM redelivered WHERE event_id = ? ORDER BY n",  # noqa: S608 - our own words
        (id,),
    )
    found = [one.delivery for one in readable_rows("delivery", delivered_of, near) if one.covers(number)]
    found += readable_rows("delivery", delivery_of, again)
    return sorted(found, key=lambda one: one.at)


def misshapen(connection: sqlite3.Connection) -> Iterator[str]:
    """The faults of the table `delivered`, for a check. A file of schema 1 has no such table."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'delivered'").fetchone():
        return
    for n, *row in connection.execute(f"SELECT n, {DELIVERED_COLUMNS} FROM delivered"):  # noqa: S608 - our own words
        try:
            found = delivered_of(tuple(row))
        except Unreadable as error:
            yield f"delivery {n}: does not read back: {error}"
            continue
        span = found.last - found.first + 1
        if not 0 < span <= LONGEST_ROW or len(found.holes) not in (0, (span + 7) // 8):
            yield f"delivery {n}: its holes do not fit the numbers {found.first} to {found.last}"


def prune_delivered(connection: sqlite3.Connection, following: int, young: Stretches) -> bool:
    """Delete a step of the rows whose events are gone, and of old rows without numbers; true if there may be more.

    `following` is the number of the next event. Without any `young` stretch (pruning of events of any age), rows
    without numbers are kept.
    """
    first = connection.execute("SELECT min(first) FROM page").fetchone()[0]
    full = _delete(connection, "delivered", "last < ?", "last", [following if first is None else first])
    if young:
        condition, ends = is_old("at", young)
        full |= _delete(connection, "redelivered", condition, "at", ends)
    return full


def _delete(
    connection: sqlite3.Connection, table: str, old: str, order: str, arguments: Sequence[float]
) -> bool:
    gone = connection.execute(
        f"DELETE FROM {table} WHERE n IN"  # noqa: S608 - our own words
        f" (SELECT n FROM {table} WHERE {old} ORDER BY {order} LIMIT ?)",
        (*arguments, PRUNED_AT_ONCE),
    )
    return gone.rowcount == PRUNED_AT_ONCE
