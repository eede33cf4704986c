"""The table `source`: what each source remembers, by subject."""

from collections.abc import Mapping

import asyncpg

from poller.runtime.clock import Clock
from poller.spools.postgres.conditions import arrays, spread
from poller.spools.postgres.schema import to_bytes, to_text
from poller.spools.rows import blob_of, epoch, reads_back

_PUT = (
    f"INSERT INTO source SELECT * FROM {spread('text', 'bytea', 'bytea', 'float8')}"  # noqa: S608 - our own words
    " ON CONFLICT (name, about) DO UPDATE SET memory = excluded.memory, changed_at = excluded.changed_at"
    " WHERE source.memory <> excluded.memory"
)
_DROP = "DELETE FROM source WHERE name = $1 AND about = ANY($2::bytea[])"


async def memory(connection: asyncpg.Connection, source: str) -> dict[str, bytes]:
    """The memories of a source, by subject."""
    rows = await connection.fetch("SELECT about, memory FROM source WHERE name = $1", source)
    return dict(_memory_of(*row) for row in rows)


@reads_back
def _memory_of(about: object, memory: object) -> tuple[str, bytes]:
    return to_text(blob_of(about)), blob_of(memory)


async def write(
    connection: asyncpg.Connection, source: str, memories: Mapping[str, bytes], clock: Clock
) -> None:
    """Write memories that have changed, by subject. An empty one is deleted."""
    at = epoch(clock.now())
    if put := [(source, to_bytes(about), memory, at) for about, memory in memories.items() if memory]:
        await connection.execute(_PUT, *arrays(put))
    if gone := [to_bytes(about) for about, memory in memories.items() if not memory]:
        await connection.execute(_DROP, source, gone)
