"""The rows of `gap`: pictures that are missing between two pictures of the same task."""

from collections.abc import Sequence

import asyncpg

from poller.core.history import GAPS_KEPT, Gap, LatePicture
from poller.core.selection import Selection
from poller.runtime.clock import Clock
from poller.spools.history_rows import GAP_COLUMNS, gap_of, gap_row
from poller.spools.postgres.conditions import affected, all_of, arrays, as_text, is_old, spread
from poller.spools.postgres.schema import to_bytes, to_text
from poller.spools.retention import PRUNE_STEP
from poller.spools.rows import Row, blob_of, epoch, readable_rows, reads_back

_ROWS = spread(
    "text",
    "text",
    "bytea",
    "float8",
    "float8",
    "bigint",
    "bytea",
    "bigint",
    "float8",
    "float8",
    "float8",
    "bigint",
)
_PUT = f"INSERT INTO gap ({GAP_COLUMNS}) SELECT * FROM {_ROWS} ON CONFLICT DO NOTHING"  # noqa: S608 - our own words
_FILL = (
    "UPDATE gap SET filled = least(missing, filled + late.count) FROM"  # noqa: S608 - our own words
    f" (SELECT id, count(*) FROM gap JOIN {spread('text', 'bytea', 'float8')} AS picture (account, stream_id, at)"
    " USING (account, stream_id) WHERE from_at < picture.at AND to_at > picture.at GROUP BY id) AS late"
    " WHERE gap.id = late.id"
)


async def put_gaps(connection: asyncpg.Connection, gaps: Sequence[Gap], late: Sequence[LatePicture]) -> None:
    """Add the gaps that are new. Then each late picture fills the gap that it lies in."""
    if gaps:
        await connection.execute(_PUT, *arrays(map(_row, gaps)))
    if late:
        pictures = [(one.account, to_bytes(one.stream_id), epoch(one.taken_at)) for one in late]
        await connection.execute(_FILL, *arrays(pictures))


async def gaps(chosen: Selection, limit: int, reader: asyncpg.Connection) -> list[Gap]:
    """The selected gaps, those that end last first."""
    condition, arguments = all_of(
        [
            ("account = {}", None if chosen.account is None else as_text(chosen.account)),
            ("stream_id = {}", None if chosen.stream is None else to_bytes(chosen.stream)),
            ("to_at > {}", None if chosen.taken_since is None else epoch(chosen.taken_since)),
            ("from_at < {}", None if chosen.taken_until is None else epoch(chosen.taken_until)),
        ]
    )
    rows = await reader.fetch(
        f"SELECT {GAP_COLUMNS} FROM gap WHERE {condition}"  # noqa: S608 - our own words
        f' ORDER BY to_at DESC, id COLLATE "C" LIMIT ${len(arguments) + 1}',
        *arguments,
        limit,
    )
    return readable_rows("gap", _gap_of, rows)


async def prune_gaps(connection: asyncpg.Connection, clock: Clock, retain: float) -> bool:
    """Delete some gaps that ended long ago; true if there may be more."""
    condition, ends = is_old("to_at", clock.young(max(retain, GAPS_KEPT)))
    gone = await connection.execute(
        f"DELETE FROM gap WHERE id IN"  # noqa: S608 - our own words
        f" (SELECT id FROM gap WHERE {condition} ORDER BY to_at LIMIT {PRUNE_STEP})",
        *ends,
    )
    return affected(gone) == PRUNE_STEP


def _row(gap: Gap) -> Row:
    id, account, _, from_at, to_at, missing, _, *rest = gap_row(gap)
    return (id, account, to_bytes(gap.stream_id), from_at, to_at, missing, to_bytes(gap.why), *rest)


@reads_back
def _gap_of(row: Row) -> Gap:
    id, account, stream_id, from_at, to_at, missing, why, *rest = row
    stream, said = to_text(blob_of(stream_id)), to_text(blob_of(why))
    return gap_of((id, account, stream, from_at, to_at, missing, said, *rest))
