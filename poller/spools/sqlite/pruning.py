"""Deletes settled and old rows, in bounded steps inside the writer's transactions."""

import sqlite3

from poller.core.catalogue import Catalogue
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.spools.retention import MEMORY_KEPT, PRUNE_STEP, STREAMS_KEPT, Stretches
from poller.spools.sqlite.page_times import forget_late


def is_old(column: str, young: Stretches) -> tuple[str, list[float]]:
    """An SQL condition, with its arguments: the column's moment is old."""
    if len(young) == 1:  # the usual case, in which nobody set the clock: this form can use an index
        return f"{column} < ? ", [young[0][0]]
    conditions = ["1", *[f"{column} NOT BETWEEN ? AND ?" for _ in young]]
    return " AND ".join(conditions), [end for stretch in young for end in stretch]


def prune_pages(connection: sqlite3.Connection, floor: int, young: Stretches, step: int) -> bool:
    """Delete the oldest `step` pages of the log, as far as they end below `floor` and are old.

    True when all of them were deleted: then there may be more.
    """
    rows = connection.execute(
        "SELECT first, last, received_at FROM page ORDER BY first LIMIT ?", (step,)
    ).fetchall()
    old = [
        (first,)
        for first, last, at in rows
        if last < floor and not any(start <= at <= end for start, end in young)
    ]
    connection.executemany("DELETE FROM page WHERE first = ?", old)
    connection.executemany("DELETE FROM page_index WHERE first = ?", old)
    if old:
        forget_late(connection, old[-1][0] + 1)
    reached("prune.written")
    return len(old) == step


def older(connection: sqlite3.Connection, table: str, column: str, young: Stretches) -> list[int]:
    """The numbers of a table's oldest rows that are old, at most `PRUNE_STEP` of them."""
    condition, ends = is_old(column, young)
    rows = connection.execute(
        f"SELECT n FROM {table} WHERE {condition} ORDER BY {column} LIMIT ?",  # noqa: S608 - our own words
        (*ends, PRUNE_STEP),
    )
    return [n for (n,) in rows]


def prune_streams(connection: sqlite3.Connection, catalogue: Catalogue, clock: Clock) -> None:
    """Forget streams that were last seen long ago, and old memories of sources about streams."""
    gone = catalogue.forget(lambda stream: clock.age(stream.last_seen) > STREAMS_KEPT)
    connection.executemany("DELETE FROM stream WHERE account = ? AND stream_id = ?", gone)
    condition, ends = is_old("changed_at", clock.young(MEMORY_KEPT))
    connection.execute(f"DELETE FROM source WHERE about <> '' AND {condition}", ends)  # noqa: S608 - our own words
