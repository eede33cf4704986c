"""The shares of unordered sinks: taking them, growing them, and moving their beginnings.

Invariants
    Each number below the cursor of a sink is settled, or in exactly one share, or in a batch that waits for a retry.
    Whoever takes a share locks the row of the sink first and computes from what it reads then: an `UPDATE` that
    returns the old cursor by a subquery may return a stale one, and two sessions would get the same numbers.
    The cursor moves only after the row of the share was written: a statement that moves it beside an `UPDATE` that
    finds no row would lose the numbers.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

import asyncpg
import msgspec

from poller.core.errors import Fenced
from poller.spools.postgres.conditions import affected, arrays, spread
from poller.spools.postgres.links import Link
from poller.spools.postgres.sessions import NOBODY
from poller.spools.rows import numbers_of
from poller.spools.share_queue import Share
from poller.spools.sink_queue import Changes

SHARE: Final = 1_600
"""The most numbers that are taken at once."""

_MOVE = (
    f"UPDATE share SET first = moved.first FROM {spread('bigint', 'bigint')} AS moved (id, first)"  # noqa: S608
    " WHERE share.id = moved.id AND holder = $3"
)
_FLOOR = """
WITH chosen AS (
    SELECT name, position FROM sink
    WHERE CASE WHEN $1::text[] IS NULL THEN parent IN (SELECT sink FROM attached) ELSE parent = ANY($1) END
)
SELECT least(
    (SELECT min(position) FROM chosen),
    (SELECT min(first) FROM share WHERE first < upto AND sink IN (SELECT name FROM chosen))
)
"""
_END = "DELETE FROM share WHERE id = ANY($1::bigint[]) AND holder = $2"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to take: up to `most` more numbers for a sink, of whose current share `left` numbers are left."""

    sink: str
    current: Share | None
    left: int
    most: int


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What taking a share brought.

    share:  the share, or the current one with its new end; None if there is nothing to take
    cursor: the cursor afterwards
    skip:   numbers in the share that are settled, or wait for a retry
    """

    share: Share | None
    cursor: int
    skip: tuple[int, ...] = ()


async def take(link: Link, session: int, wanted: Wanted) -> Taken:
    """Take numbers for a session.

    With nothing left, a share that nobody holds comes first. That one, or the current one, grows if it reaches the
    cursor. Else, with nothing left, a new one begins. Raises `Fenced` if the current share is gone.
    """
    sink, current = wanted.sink, wanted.current
    cursor = await link.fetchval("SELECT position FROM sink WHERE name = $1 FOR UPDATE", sink)
    freed = None if wanted.left else await _take_freed(link, session, sink)
    reached, upto = freed or current, min(await link.fetchval("SELECT head FROM log"), cursor + wanted.most)
    share = freed
    if upto > cursor and reached is not None and reached.upto == cursor:
        share = await _grow(link, session, reached, upto)
    elif upto > cursor and freed is None and not wanted.left:
        share = await _begin(link, session, sink, cursor, upto)
    else:
        upto = cursor
    if share is None:
        return Taken(share=None, cursor=cursor)
    if upto > cursor:
        await link.execute("UPDATE sink SET position = $2 WHERE name = $1", sink, upto)
    skip = await _marked(link, sink, cursor, upto) if freed is None else await ahead(link, sink, share)
    return Taken(share=share, cursor=upto, skip=skip)


async def _take_freed(link: Link, session: int, sink: str) -> Share | None:
    row = await link.fetchrow(
        "UPDATE share SET holder = $1 WHERE id ="
        " (SELECT id FROM share WHERE sink = $2 AND holder = $3 AND first < upto ORDER BY first LIMIT 1)"
        " RETURNING id, first, upto",
        session,
        sink,
        NOBODY,
    )
    return None if row is None else Share(*row)


async def _grow(link: Link, session: int, current: Share, upto: int) -> Share:
    grown = await link.execute(
        "UPDATE share SET upto = $3 WHERE id = $1 AND holder = $2 AND upto = $4",
        current.id,
        session,
        upto,
        current.upto,
    )
    if affected(grown) != 1:
        raise Fenced(f"spool: share {current.id} is not held any more")
    return Share(current.id, current.first, upto)


async def _begin(link: Link, session: int, sink: str, first: int, upto: int) -> Share:
    id = await link.fetchval(
        "INSERT INTO share (sink, first, upto, holder) VALUES ($1, $2, $3, $4) RETURNING id",
        sink,
        first,
        upto,
        session,
    )
    return Share(id, first, upto)


async def ahead(link: asyncpg.Connection, sink: str, share: Share) -> tuple[int, ...]:
    """The numbers in a share that are settled, or wait for a retry at any daemon."""
    rows = await link.fetch("SELECT numbers FROM waiting WHERE sink = $1", sink)
    waiting = [number for (blob,) in rows for number in numbers_of(blob)]
    marked = await _marked(link, sink, share.first, share.upto)
    return tuple([number for number in (*waiting, *marked) if share.first <= number < share.upto])


async def _marked(link: asyncpg.Connection, sink: str, first: int, upto: int) -> tuple[int, ...]:
    rows = await link.fetch(
        "SELECT number FROM dead_ahead WHERE sink = $1 AND number >= $2 AND number < $3", sink, first, upto
    )
    return tuple([number for (number,) in rows])


async def move(link: asyncpg.Connection, session: int, due: Sequence[Changes]) -> None:
    """Write how far shares are settled. Where several changes name a share, the last one counts.

    Raises `Fenced` if a share is gone.
    """
    last = {share.id: share for changes in due for share in changes.shares}
    ended = [id for id, share in last.items() if share.ended]
    going = [(id, share.first) for id, share in last.items() if not share.ended]
    if ended:
        _expect(len(ended), await link.execute(_END, ended, session))
    if going:
        _expect(len(going), await link.execute(_MOVE, *arrays(going), session))


def _expect(count: int, status: str) -> None:
    if affected(status) != count:
        raise Fenced("spool: a share of this daemon is not held any more")


async def free(link: Link, session: int, sink: str) -> None:
    """Free the shares and the waiting batches that a session holds of a sink."""
    await link.execute("DELETE FROM share WHERE holder = $1 AND sink = $2 AND first >= upto", session, sink)
    await link.execute("UPDATE share SET holder = $3 WHERE holder = $1 AND sink = $2", session, sink, NOBODY)
    await link.execute(
        "UPDATE waiting SET holder = $3 WHERE holder = $1 AND sink = $2", session, sink, NOBODY
    )


async def fold(link: Link, sink: str) -> int:
    """Turn the shares of a sink, which nobody holds, into a position; returns it.

    What is settled beyond the position is marked.
    """
    cursor = await link.fetchval("SELECT position FROM sink WHERE name = $1 FOR UPDATE", sink)
    rows = await link.fetch("DELETE FROM share WHERE sink = $1 RETURNING first, upto", sink)
    held = sorted((first, upto) for first, upto in rows if first < upto)
    position = held[0][0] if held else cursor
    await mark(link, sink, _between(position, cursor, held))
    await link.execute("UPDATE sink SET position = $2 WHERE name = $1", sink, position)
    return int(position)


def _between(start: int, end: int, held: Iterable[tuple[int, int]]) -> Iterable[int]:
    """The numbers from `start` up to `end` that are in none of the stretches, which are in order."""
    for first, upto in held:
        yield from range(start, first)
        start = max(start, upto)
    yield from range(start, end)


async def mark(link: Link, sink: str, numbers: Iterable[int]) -> None:
    """Note numbers as settled ahead of the position."""
    await link.execute(
        "INSERT INTO dead_ahead SELECT $1, unnest($2::bigint[]) ON CONFLICT DO NOTHING", sink, list(numbers)
    )


async def floor(link: asyncpg.Connection, sinks: Collection[str] | None = None) -> int | None:
    """The number below which all of these sinks have settled everything; of all sinks that are served by default.

    None where there is no sink. Batches that wait for a retry do not count: they have their events with them.
    """
    lowest: int | None = await link.fetchval(_FLOOR, None if sinks is None else list(sinks))
    return lowest
