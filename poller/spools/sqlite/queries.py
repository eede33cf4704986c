"""What is read from the spool file, each by one statement or a few, on the reading connection."""

import sqlite3
from datetime import datetime
from pathlib import Path

from poller.core.model import LARGEST_NUMBER, DeadLetter, Event, Filter, Quarantined
from poller.core.selection import Scan, Selection
from poller.spools.log_scan import selected
from poller.spools.sink_queue import Member
from poller.spools.sqlite.schema import (
    DEAD_COLUMNS,
    QUARANTINE_COLUMNS,
    dead_of,
    epoch,
    events_of,
    moment,
    quarantined_of,
    readable_rows,
    where,
)

LOAD_PAGES = 8


def load_events(start: int, reader: sqlite3.Connection) -> list[Member]:
    """Some events of the log from number `start` on, in order."""
    rows = reader.execute(
        "SELECT first, events FROM page WHERE first >= coalesce("
        "(SELECT max(first) FROM page WHERE first <= ?), 0) ORDER BY first LIMIT ?",
        (start, LOAD_PAGES),
    )
    members = [member for first, blob in rows for member in enumerate(events_of(blob), first)]
    return [member for member in members if member[0] >= start]


def received_at(number: int, reader: sqlite3.Connection) -> datetime | None:
    """When the event of this number was received, or the first one after it."""
    row = reader.execute(
        "SELECT received_at FROM page WHERE last >= ? AND first >= coalesce("  # `last` has no index
        "(SELECT max(first) FROM page WHERE first <= ?), 0) ORDER BY first LIMIT 1",
        (number, number),
    ).fetchone()
    return moment(row[0]) if row else None


def scan(
    chosen: Selection, start: int | None, limit: int, newest_first: bool, reader: sqlite3.Connection
) -> Scan:
    """One step through the log; see `SpoolHistory.scan`."""
    order, bound = ("DESC", "first <= ?") if newest_first else ("ASC", "last >= ?")
    reach = (LARGEST_NUMBER if newest_first else 0) if start is None else start
    rows = reader.execute(
        f"SELECT first, last, events FROM page WHERE {bound} ORDER BY first {order} LIMIT ?",  # noqa: S608 - our own words
        (reach, LOAD_PAGES + 1),
    ).fetchall()
    members = [
        member
        for first, _, blob in rows[:LOAD_PAGES]
        for events in readable_rows("page", lambda stored: events_of(stored[0]), [(blob,)])
        for member in enumerate(events, first)
    ]
    if newest_first:
        members = [member for member in reversed(members_in_order(members)) if member[0] <= reach]
    else:
        members = [member for member in members if member[0] >= reach]
    more = rows[LOAD_PAGES:]
    following = None if not more else more[0][1] if newest_first else more[0][0]
    return selected(chosen, members, limit, following)


def members_in_order(members: list[Member]) -> list[Member]:
    """Members by number."""
    return sorted(members, key=lambda member: member[0])


def number_at(moment: datetime, head: int, reader: sqlite3.Connection) -> int:
    """The number behind the last page that was received before a moment, or the first number."""
    row = reader.execute(
        "SELECT last FROM page WHERE received_at < ? ORDER BY first DESC LIMIT 1", (epoch(moment),)
    ).fetchone()
    if row is not None:
        return int(row[0]) + 1
    first = reader.execute("SELECT min(first) FROM page").fetchone()[0]
    return head if first is None else int(first)


def recent(limit: int, reader: sqlite3.Connection) -> list[Event]:
    """The newest events, newest first."""
    found: list[Event] = []
    for row in reader.execute("SELECT events FROM page ORDER BY first DESC"):
        for events in readable_rows("page", lambda stored: events_of(stored[0]), [row]):
            found.extend(reversed(events))
        if len(found) >= limit:
            break
    return found[:limit]


def dead_letters(limit: int, chosen: Filter, reader: sqlite3.Connection) -> list[DeadLetter]:
    """Dead letters, newest first."""
    condition, arguments = where(chosen, of="sink", id="event_id", at="died_at", stream="stream_id")
    rows = reader.execute(
        f"SELECT {DEAD_COLUMNS} FROM dead WHERE {condition} ORDER BY n DESC LIMIT ?",  # noqa: S608 - our own words
        (*arguments, limit),
    )
    return readable_rows("dead letter", dead_of, rows)


def paused(reader: sqlite3.Connection) -> frozenset[str]:
    """The sinks that the operator paused."""
    return frozenset(name for (name,) in reader.execute("SELECT name FROM sink WHERE paused"))


def count_dead(reader: sqlite3.Connection) -> list[tuple[str, int]]:
    """How many dead letters each sink has."""
    return reader.execute("SELECT sink, count(*) FROM dead GROUP BY sink").fetchall()


def quarantined(limit: int, chosen: Filter, reader: sqlite3.Connection) -> list[Quarantined]:
    """The contents of quarantine, newest first."""
    condition, arguments = where(chosen, of="source", id="CAST(n AS TEXT)", at="received_at")
    rows = reader.execute(
        f"SELECT {QUARANTINE_COLUMNS} FROM quarantine WHERE {condition} ORDER BY n DESC LIMIT ?",  # noqa: S608
        (*arguments, limit),
    )
    return readable_rows("reject", quarantined_of, rows)


def quarantine_size(reader: sqlite3.Connection) -> int:
    """How many pieces are in quarantine."""
    return int(reader.execute("SELECT count(*) FROM quarantine").fetchone()[0])


def size(path: Path) -> int:
    """The size of a file in bytes; 0 without one, or when its folder cannot be searched."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
