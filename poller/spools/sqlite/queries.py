"""What is read from the spool file, each by one statement or a few, on the reading connection."""

import sqlite3
from datetime import datetime
from pathlib import Path

from poller.core.errors import Unreadable
from poller.core.history import Origin
from poller.core.model import DeadLetter, Filter, Quarantined
from poller.spools.pages import LOAD_EVENTS, page_lines
from poller.spools.rows import (
    DEAD_COLUMNS,
    QUARANTINE_COLUMNS,
    dead_of,
    moment,
    number_of,
    quarantined_of,
    readable_rows,
    reads_back,
)
from poller.spools.sqlite.page_index import CRC
from poller.spools.sqlite.schema import where
from poller.spools.tail import Chunk


def load_pages(start: int, reader: sqlite3.Connection) -> list[Chunk]:
    """Some pages of the log from that of number `start` on, in order; not decoded if their checksum is right.

    They end before a page that cannot be read. Raises `Unreadable` if that is the first one.
    """
    rows = reader.execute(
        f"SELECT first, events, {CRC} FROM page WHERE first >= coalesce("  # noqa: S608 - our own words
        "(SELECT max(first) FROM page WHERE first <= ?), 0) ORDER BY first",
        (start,),
    )
    pages, left = list[Chunk](), LOAD_EVENTS
    for first, blob, crc in rows:
        try:
            page = Chunk(number_of(first), page_lines(first, blob, crc))
        except Unreadable:
            if not pages:
                raise
            break  # the pages before it are good and go out first
        if page.end <= start:
            continue
        pages.append(page)
        left -= page.end - max(page.first, start)
        if left <= 0:
            break
    rows.close()  # a statement that is not at its end would keep the WAL from being emptied
    return pages


def received_at(number: int, reader: sqlite3.Connection) -> datetime | None:
    """When the event of this number was received, or the first one after it."""
    row = reader.execute(
        "SELECT received_at FROM page WHERE last >= ? AND first >= coalesce("  # `last` has no index
        "(SELECT max(first) FROM page WHERE first <= ?), 0) ORDER BY first LIMIT 1",
        (number, number),
    ).fetchone()
    return moment(row[0]) if row else None


@reads_back
def origin(number: int, reader: sqlite3.Connection) -> Origin | None:
    """Where the event of this number came from; None if it is not in the log."""
    row = reader.execute(
        "SELECT source, about, asked_at, page.received_at, outcome, last - page.first + 1"
        " FROM page LEFT JOIN page_index USING (first) WHERE page.first <= ? AND last >= ?"
        " ORDER BY page.first DESC LIMIT 1",
        (number, number),
    ).fetchone()
    if row is None:
        return None
    source, about, asked_at, received, outcome, events = row
    return Origin(
        source=source or "",
        about=about or "",
        asked_at=None if asked_at is None else moment(asked_at),
        received_at=moment(received),
        outcome=outcome or "",
        events=events,
    )


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
