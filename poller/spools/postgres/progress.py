"""The progress of an event as far as the tables say."""

from collections import Counter

import asyncpg

from poller.core.history import SinkProgress, Stage
from poller.spools.event_progress import dead_progress, settled_progress, waiting_progress
from poller.spools.lanes import key_of, lane_of, sink_of
from poller.spools.postgres.conditions import as_text
from poller.spools.postgres.dead_letters import letter_of
from poller.spools.postgres.schema import to_bytes
from poller.spools.postgres.waiting_rows import WAITING_COLUMNS
from poller.spools.rows import DEAD_COLUMNS, readable_rows, waiting_of

_SETTLED = """
SELECT name, EXISTS (SELECT FROM dead_ahead WHERE dead_ahead.sink = name AND number = $1) OR (
    $1 < position AND NOT EXISTS (SELECT FROM share WHERE share.sink = name AND first <= $1 AND upto > $1)
) FROM sink WHERE position IS NOT NULL
"""


async def stored(
    number: int, id: str, stream: tuple[str, str] | None, reader: asyncpg.Connection
) -> dict[str, SinkProgress]:
    """The progress at each sink of an event of this stream."""
    done: dict[str, bool] = dict(map(tuple, await reader.fetch(_SETTLED, number)))
    lanes = Counter(sink_of(key) for key in done)
    found = {
        sink: _by_position(sink, done[key_of(sink, lane_of(stream, count)) if sink not in done else sink])
        for sink, count in lanes.items()
    }
    letters = await reader.fetch(
        f"SELECT {DEAD_COLUMNS} FROM dead WHERE event_id = $1",  # noqa: S608 - our own words
        as_text(id),
    )
    found |= {
        letter.sink: dead_progress(letter) for letter in readable_rows("dead letter", letter_of, letters)
    }
    return found | await _waiting(id, reader)


def _by_position(sink: str, settled: bool) -> SinkProgress:
    return settled_progress(sink) if settled else SinkProgress(sink=sink, stage=Stage.PENDING)


async def _waiting(id: str, reader: asyncpg.Connection) -> dict[str, SinkProgress]:
    rows = await reader.fetch(
        f"SELECT sink, {WAITING_COLUMNS} FROM waiting WHERE position($1::bytea IN events) > 0"  # noqa: S608 - our own words
        ' ORDER BY id COLLATE "C"',
        to_bytes(id),
    )
    found = readable_rows(
        "waiting batch", lambda row: (sink_of(str(row[0])), waiting_of(row[1:])), [tuple(row) for row in rows]
    )
    return {
        sink: waiting_progress(sink, waiting)
        for sink, waiting in found
        if any(event.id == id for _, event in waiting.members)
    }
