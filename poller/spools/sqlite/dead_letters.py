"""Dead letters of the spool file: reading some, deleting some, and making waiting batches of them."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from poller.core.model import DeadLetter, Event, unchanged
from poller.runtime.failpoints import reached
from poller.spools.rows import DEAD_COLUMNS, dead_of, readable_rows, waiting_row
from poller.spools.sqlite.schema import PUT_WAITING, json_list
from poller.spools.waiting import Waiting, revive


def dead_letters(
    connection: sqlite3.Connection, sink: str, column: str, values: Iterable[object], limit: int = -1
) -> list[DeadLetter]:
    """The dead letters of a sink whose `column` (`n` or `event_id`) is one of `values`, oldest first."""
    rows = connection.execute(
        f"SELECT {DEAD_COLUMNS} FROM dead WHERE sink = ?"  # noqa: S608 - our own words
        f" AND {column} IN (SELECT value FROM json_each(?)) ORDER BY n LIMIT ?",
        (sink, json_list(values), limit),
    )
    return readable_rows("dead letter", dead_of, rows)


def requeue_dead(
    connection: sqlite3.Connection,
    sink: str,
    letters: Sequence[DeadLetter],
    now: datetime,
    *,
    together: int = 1,
    rebuild: Callable[[Event], Event] = unchanged,
) -> list[Waiting]:
    """Exchange dead letters for batches of up to `together` that wait for their retry."""
    found = revive(letters, together, now, rebuild)
    for waiting in found:
        connection.execute(PUT_WAITING, waiting_row(sink, waiting))
    if found:
        reached("dead.moved")
        purge_dead(connection, [letter.number for letter in letters])
    return found


def purge_dead(connection: sqlite3.Connection, numbers: Sequence[int]) -> Counter[str]:
    """Delete dead letters; returns how many of each sink there were."""
    rows = connection.execute(
        "DELETE FROM dead WHERE n IN (SELECT value FROM json_each(?)) RETURNING sink", (json_list(numbers),)
    )
    return Counter(sink for (sink,) in rows.fetchall())
