"""Forgetting what is settled or old, in bounded steps within the writer's transactions."""

import sqlite3
from datetime import datetime, timedelta

from poller.catalogue import Catalogue
from poller.failpoints import reached
from poller.spools.sqlite.schema import epoch

PRUNE_STEP = 32
STREAMS_KEPT = timedelta(days=30)
MEMORY_KEPT = timedelta(days=60)
"""Twice as long as a stream is known: what a source remembers about one that is gone is of no use."""


def prune_pages(connection: sqlite3.Connection, floor: int, before: float, step: int) -> bool:
    """Delete the log's oldest pages that end below a number and are older than an epoch; true for a whole step."""
    rows = connection.execute(
        "SELECT first, last, received_at FROM page ORDER BY first LIMIT ?", (step,)
    ).fetchall()
    old = [(first,) for first, last, at in rows if last < floor and at < before]
    connection.executemany("DELETE FROM page WHERE first = ?", old)
    reached("prune.written")
    return len(old) == step


def older(connection: sqlite3.Connection, table: str, column: str, before: float) -> list[int]:
    """The numbers of a table's oldest rows, a step of them at most."""
    rows = connection.execute(
        f"SELECT n FROM {table} WHERE {column} < ? ORDER BY {column} LIMIT ?",  # noqa: S608 - our own words
        (before, PRUNE_STEP),
    )
    return [n for (n,) in rows]


def prune_streams(connection: sqlite3.Connection, catalogue: Catalogue, now: datetime) -> None:
    """Forget streams that were not seen for long, and what sources remember about such."""
    gone = catalogue.forget(now - STREAMS_KEPT)
    connection.executemany("DELETE FROM stream WHERE account = ? AND stream_id = ?", gone)
    before = epoch(now - MEMORY_KEPT)
    connection.execute("DELETE FROM source WHERE about <> '' AND changed_at < ?", (before,))
