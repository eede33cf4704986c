"""Dead letters of the spool: reading some, writing and deleting some, and making waiting batches of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import asyncpg

from poller.core.model import DeadLetter, Event, unchanged
from poller.runtime.failpoints import reached
from poller.spools.postgres.conditions import arrays, spread
from poller.spools.postgres.modes import put_unheld
from poller.spools.postgres.schema import to_bytes, to_text
from poller.spools.rows import (
    DEAD_COLUMNS,
    Row,
    blob_of,
    dead_of,
    dead_row,
    readable_rows,
    reads_back,
)
from poller.spools.waiting import revive

_CHOSEN = {"n": "n = ANY($2::bigint[])", "event_id": "event_id = ANY($2::text[])"}
_KINDS = ("text", "text", "bigint", "float8", "float8", "bytea", "bytea", "bytea", "bytea")
_PUT = (
    "INSERT INTO dead"  # noqa: S608 - our own words
    " (sink, event_id, attempts, first_attempt_at, died_at, reason, history, event, stream_id)"
    f" SELECT * FROM {spread(*_KINDS)} ON CONFLICT (sink, event_id) DO UPDATE SET n = DEFAULT,"
    " attempts = excluded.attempts, first_attempt_at = excluded.first_attempt_at, died_at = excluded.died_at,"
    " reason = excluded.reason, history = excluded.history, event = excluded.event, stream_id = excluded.stream_id"
)


async def dead_letters(
    connection: asyncpg.Connection, sink: str, column: str, values: Iterable[object], limit: int | None = None
) -> list[DeadLetter]:
    """The dead letters of a sink whose `column` (`n` or `event_id`) is one of `values`, oldest first."""
    rows = await connection.fetch(
        f"SELECT {DEAD_COLUMNS} FROM dead WHERE sink = $1 AND {_CHOSEN[column]} ORDER BY n LIMIT $3",  # noqa: S608
        sink,
        list(values),
        limit,
    )
    return readable_rows("dead letter", letter_of, rows)


@reads_back
def letter_of(row: Row) -> DeadLetter:
    """A dead letter from its row (`DEAD_COLUMNS`)."""
    sink, attempts, first_attempt_at, died_at, reason, *rest = row
    return dead_of((sink, attempts, first_attempt_at, died_at, to_text(blob_of(reason)), *rest))


async def put_dead(connection: asyncpg.Connection, letters: Iterable[DeadLetter]) -> None:
    """Write dead letters. One that takes the place of another gets a new number, and is the newest."""
    latest: dict[tuple[str, str], DeadLetter] = {}
    for letter in letters:
        key = (letter.sink, letter.event.id)
        latest.pop(key, None)
        latest[key] = letter
    if latest:
        await connection.execute(_PUT, *arrays(map(_row, latest.values())))


def _row(letter: DeadLetter) -> Row:
    sink, id, attempts, first_attempt_at, died_at, _, history, event, _ = dead_row(letter)
    reason, stream_id = to_bytes(letter.reason), to_bytes(letter.event.stream_id)
    return (sink, id, attempts, first_attempt_at, died_at, reason, history, event, stream_id)


async def requeue_dead(
    connection: asyncpg.Connection,
    sink: str,
    letters: Sequence[DeadLetter],
    now: datetime,
    *,
    together: int = 1,
    rebuild: Callable[[Event], Event] = unchanged,
) -> None:
    """Exchange dead letters for batches of up to `together` that wait for their retry, and that nobody holds."""
    if not letters:
        return
    await put_unheld(connection, sink, revive(letters, together, now, rebuild))
    reached("dead.moved")
    await purge_dead(connection, [letter.number for letter in letters])


async def purge_dead(connection: asyncpg.Connection, numbers: Sequence[int]) -> Counter[str]:
    """Delete dead letters; returns how many of each sink there were."""
    if not numbers:
        return Counter()
    rows = await connection.fetch(
        "DELETE FROM dead WHERE n = ANY($1::bigint[]) RETURNING sink", list(numbers)
    )
    return Counter(sink for (sink,) in rows)
