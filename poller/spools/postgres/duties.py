"""Duties: what one session alone does, such as polling a queue, pruning, or serving an ordered sink."""

from collections.abc import Sequence
from typing import Final

from poller.spools.postgres.conditions import affected
from poller.spools.postgres.links import Link

UPKEEP: Final = "upkeep"
"""Pruning, and writing the catalogue of streams."""

_TAKE = """
INSERT INTO duty (name, holder) SELECT name, $1 FROM unnest($2::text[]) AS wanted (name) ORDER BY name
ON CONFLICT (name) DO NOTHING RETURNING name
"""


def of_sink(sink: str) -> str:
    """The duty of the one session that serves an ordered sink, or a lane.

    It is taken and given up with the queue (`serving`), not by `Membership`.
    """
    return f"sink:{sink}"


def of_replays(sink: str) -> str:
    """The duty of the one session that queues the replayed events of a sink with several queues."""
    return f"replays:{sink}"


async def take(link: Link, session: int, wanted: Sequence[str]) -> list[str]:
    """Take the duties that nobody has; returns those of them that the session has now."""
    await link.fetch(_TAKE, session, list(wanted))
    rows = await link.fetch(
        "SELECT name FROM duty WHERE holder = $1 AND name = ANY($2::text[])", session, list(wanted)
    )
    return [name for (name,) in rows]


async def give_up(link: Link, session: int, name: str) -> bool:
    """End a duty; returns whether the session had it."""
    ended = await link.execute("DELETE FROM duty WHERE name = $1 AND holder = $2", name, session)
    return affected(ended) > 0
