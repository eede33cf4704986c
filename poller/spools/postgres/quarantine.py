"""The table `quarantine`: adding rejects, deleting them, and taking them out to be read again."""

from collections.abc import Collection, Iterable

import asyncpg

from poller.core.model import Reject
from poller.spools.postgres.conditions import affected, arrays, as_text, spread
from poller.spools.postgres.schema import to_bytes
from poller.spools.rows import Row, reject_row

_PUT = (
    "INSERT INTO quarantine (id, source, received_at, reason, encoding, body)"  # noqa: S608 - our own words
    f" SELECT * FROM {spread('bytea', 'text', 'float8', 'bytea', 'text', 'bytea')} ON CONFLICT DO NOTHING"
)


async def write_rejects(connection: asyncpg.Connection, source: str, rejects: Iterable[Reject]) -> None:
    """Add rejects of a source. One that is there already stays as it is."""
    if rows := [_row(source, reject) for reject in rejects]:
        await connection.execute(_PUT, *arrays(rows))


def _row(source: str, reject: Reject) -> Row:
    id, _, received_at, _, _, body = reject_row(source, reject)
    return (id, source, received_at, to_bytes(reject.reason), as_text(reject.encoding), body)


async def take(connection: asyncpg.Connection, source: str, numbers: Collection[int]) -> list[int]:
    """Delete rejects of a source that are read again; returns the numbers of those that were there, ascending."""
    rows = await connection.fetch(
        "DELETE FROM quarantine WHERE source = $1 AND n = ANY($2::bigint[]) RETURNING n",
        source,
        list(numbers),
    )
    return sorted(n for (n,) in rows)


async def purge(connection: asyncpg.Connection, numbers: Collection[int]) -> int:
    """Delete rejects; returns how many there were."""
    if not numbers:
        return 0
    return affected(
        await connection.execute("DELETE FROM quarantine WHERE n = ANY($1::bigint[])", list(numbers))
    )
