"""The table `meta`: single facts about the file, by name."""

import sqlite3

from poller.core.model import LARGEST_NUMBER
from poller.spools.moving import RECORDS
from poller.spools.rows import blob_of, number_of, reads_back
from poller.spools.sqlite.schema import ahead

COMMITS = "commits"
"""The number of transactions that took in pages."""
CATALOGUE = "catalogue"
"""The first event number that the written catalogue lacks."""
KEPT_AS = "journal "
"""A row `journal <source>` of `meta` has the highest journal number among the committed pages of the source."""


@reads_back
def read_factor(connection: sqlite3.Connection) -> bytes | None:
    """The random bytes that the file was created with; None if they are gone."""
    factor = connection.execute("SELECT value FROM meta WHERE name='factor'").fetchone()
    return None if factor is None else blob_of(factor[0])


@reads_back
def read_number(connection: sqlite3.Connection, name: str) -> int:
    """The number of this name; 0 if there is none."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


def put_number(connection: sqlite3.Connection, name: str, number: int) -> None:
    """Write a number."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, str(number)))


def raise_number(connection: sqlite3.Connection, name: str, number: int) -> None:
    """Write a number unless a higher one is there."""
    connection.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
        " WHERE CAST(value AS INTEGER) < CAST(excluded.value AS INTEGER)",
        (name, str(number)),
    )


@reads_back
def highest_kept_as(connection: sqlite3.Connection) -> int:
    """The highest journal number among the committed pages of all sources."""
    rows = connection.execute("SELECT value FROM meta WHERE name GLOB ? || '*'", (KEPT_AS,)).fetchall()
    return max((int(value) for (value,) in rows), default=0)


@reads_back
def next_number(connection: sqlite3.Connection) -> int:
    """The number of the next event, by the pages and the positions of the sinks."""
    last = connection.execute("SELECT max(last) FROM page").fetchone()[0] or 0
    position = connection.execute("SELECT max(position) FROM sink").fetchone()[0] or 1
    return max(number_of(last) + 1, number_of(position))


@reads_back
def extent(connection: sqlite3.Connection) -> tuple[int, int]:
    """The number of transactions that took in pages, and the number of the next event."""
    return read_number(connection, COMMITS), next_number(connection)


@reads_back
def read_records(connection: sqlite3.Connection) -> dict[str, bytes]:
    """The records of moves that there are (`spools.moving`)."""
    rows = connection.execute("SELECT name, value FROM meta WHERE name IN (?, ?, ?)", RECORDS).fetchall()
    return {name: blob_of(value) for name, value in rows}


@reads_back
def numbers_ahead(connection: sqlite3.Connection, sink: str) -> list[int]:
    """The numbers of the dead letters of a sink from its position on."""
    names = connection.execute(
        "SELECT name FROM meta WHERE name BETWEEN ? AND ?", (ahead(sink, 0), ahead(sink, LARGEST_NUMBER))
    ).fetchall()
    return [int(name.rpartition(" ")[2]) for (name,) in names]


@reads_back
def ordered_since(connection: sqlite3.Connection, sink: str, ordered: bool, begin: int) -> int | None:
    """The number from which on an ordered sink has been served in order; None for a sink without ordering.

    A sink that becomes ordered now is served in order from the number `begin` on.
    """
    name = f"ordered {sink}"
    if not ordered:
        connection.execute("DELETE FROM meta WHERE name = ?", (name,))
        return None
    connection.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, str(begin)))
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return int(row[0])
