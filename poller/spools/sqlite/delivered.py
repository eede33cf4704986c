"""Who delivered which events: writing the rows of `delivered` and `redelivered`, finding them, and deleting them."""

import sqlite3
from collections.abc import Iterator, Sequence

from poller.core.errors import Unreadable
from poller.core.history import Delivery
from poller.spools.delivered import LONGEST_ROW, Delivered, rows
from poller.spools.rows import Row, epoch, history_blob, history_of, moment, readable_rows, reads_back, typed
from poller.spools.sink_queue import Changes
from poller.spools.sqlite.pruning import Stretches, is_old

PRUNED_AT_ONCE = 2_000

_COLUMNS = "sink, at, first, last, holes, attempt, took_ms, history"
_PUT = f"INSERT INTO delivered ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own words
_PUT_AGAIN = (
    "INSERT INTO redelivered (event_id, sink, at, attempt, took_ms, history) VALUES (?, ?, ?, ?, ?, ?)"
)
_DeliveredRow = tuple[str, float, int, int, bytes, int, int, bytes]
_AgainRow = tuple[str, float, int, int, bytes]


def record(connection: sqlite3.Connection, due: Sequence[Changes]) -> None:
    """Record what settlements have delivered."""
    settled = [(changes.sink, done) for changes in due if (done := changes.settled) is not None]
    connection.executemany(_PUT, [_row(one) for one in rows(settled)])
    for sink, done in settled:
        if done.ids:
            rest = (sink, epoch(done.at), done.attempt, _ms(done.took), history_blob(done.history))
            connection.executemany(_PUT_AGAIN, [(id, *rest) for id in done.ids])


def _row(one: Delivered) -> Row:
    return (
        one.sink,
        epoch(one.at),
        one.first,
        one.last,
        one.holes,
        one.attempt,
        _ms(one.took),
        history_blob(one.history),
    )


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


def deliveries(number: int, id: str, reader: sqlite3.Connection) -> list[Delivery]:
    """See `SpoolHistory.deliveries`."""
    near = reader.execute(
        f"SELECT {_COLUMNS} FROM delivered"  # noqa: S608 - our own words
        " WHERE last BETWEEN ? AND ? AND first <= ? ORDER BY n",
        (number, number + LONGEST_ROW - 1, number),
    )
    again = reader.execute(
        "SELECT sink, at, attempt, took_ms, history FROM redelivered WHERE event_id = ? ORDER BY n", (id,)
    )
    found = [one.delivery for one in readable_rows("delivery", _delivered_of, near) if one.covers(number)]
    found += readable_rows("delivery", _delivery_of, again)
    return sorted(found, key=lambda one: one.at)


@reads_back
def _delivered_of(row: Row) -> Delivered:
    sink, at, first, last, holes, attempt, took, history = typed(row, _DeliveredRow)
    return Delivered(
        sink=sink,
        at=moment(at),
        first=first,
        last=last,
        holes=holes,
        attempt=attempt,
        took=took / 1000,
        history=history_of(history),
    )


@reads_back
def _delivery_of(row: Row) -> Delivery:
    sink, at, attempt, took, history = typed(row, _AgainRow)
    return Delivery(sink=sink, at=moment(at), attempt=attempt, took=took / 1000, history=history_of(history))


def misshapen(connection: sqlite3.Connection) -> Iterator[str]:
    """The faults of the table `delivered`, for a check. A file of schema 1 has no such table."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'delivered'").fetchone():
        return
    for n, *row in connection.execute(f"SELECT n, {_COLUMNS} FROM delivered"):  # noqa: S608 - our own words
        try:
            found = _delivered_of(tuple(row))
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
