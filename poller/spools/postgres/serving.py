"""Which sinks a session serves: attaching and leaving them, and what it takes over with them.

A sink is served in one way at a time, its mode: by shares, or in order by one session. It changes once no session
serves it in the mode before.
"""

from datetime import datetime
from typing import Final

import msgspec

from poller.spools.postgres import duties, modes, sessions, shares
from poller.spools.postgres.links import Link
from poller.spools.postgres.modes import Mode
from poller.spools.postgres.page_times import number_at
from poller.spools.postgres.sessions import NOBODY
from poller.spools.postgres.waiting_rows import WAITING_COLUMNS
from poller.spools.rows import waiting_of
from poller.spools.sink_queue import MOST_RETRYING
from poller.spools.waiting import Waiting

_OTHERS: Final = """
SELECT session FROM attached WHERE sink = $1 AND session <> $2 AND mode <> $3 AND serves ORDER BY session
"""
_ADOPT = f"""
UPDATE waiting SET holder = $1 WHERE sink = $2 AND holder = $3 AND id IN (
    SELECT id FROM (
        SELECT id, sum(size) OVER (ORDER BY due, id) AS total FROM waiting WHERE sink = $2 AND holder = $3
    ) AS free WHERE total <= $4
) RETURNING {WAITING_COLUMNS}
"""  # noqa: S608 - our own words


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """How many sessions serve a sink; 0 while it waits for the sessions `after`, which serve it in another mode."""

    sessions: int = 0
    after: list[int] = []


class Entered(msgspec.Struct, frozen=True, kw_only=True):
    """What a session begins to serve a sink with.

    position: where it begins in order; in the mode of shares, the cursor
    ahead:    the numbers beyond the position that are settled
    since:    the number from which on the sink is served in order; None in the mode of shares
    """

    waiting: list[Waiting]
    position: int
    ahead: tuple[int, ...] = ()
    since: int | None = None


async def attach(link: Link, session: int, sink: str, mode: Mode, start: datetime | None) -> None:
    """Note that a session knows a sink, and wants to serve it in this mode.

    A new sink begins at the first event that was received at `start` or later; by default at the end of the log.
    """
    await link.execute("SELECT pg_advisory_xact_lock(hashtext(current_schema() || $1))", f" sink {sink}")
    if await link.fetchval("SELECT 1 FROM sink WHERE name = $1", sink) is None:
        head = await link.fetchval("SELECT head FROM log FOR SHARE")
        position = head if start is None else await number_at(start, head, link)
        since = position if mode.ordered else None
        await link.execute("INSERT INTO sink VALUES ($1, $1, $2, $3, $4)", sink, position, str(mode), since)
        if mode.lanes > 1:
            await modes.divide(link, sink, mode)
    await link.execute(
        "INSERT INTO attached VALUES ($1, $2, $3, false)"
        " ON CONFLICT (sink, session) DO UPDATE SET mode = excluded.mode, serves = false",
        sink,
        session,
        str(mode),
    )
    await _agree(link, session, sink, mode)


async def _agree(link: Link, session: int, sink: str, mode: Mode) -> list[int]:
    """Let the sink be served in this mode, unless others serve it in another one. Returns those others."""
    before = await link.fetchval("SELECT mode FROM sink WHERE name = $1 FOR UPDATE", sink)
    if before == str(mode):
        return []
    if others := await link.fetch(_OTHERS, sink, session, str(mode)):
        return [number for (number,) in others]
    await modes.change(link, sink, Mode.of(before), mode)
    return []


async def admit(link: Link, session: int, sink: str, mode: Mode) -> Admitted:
    """Let a session serve a sink, unless others serve it in another mode."""
    if others := await _agree(link, session, sink, mode):
        return Admitted(after=others)
    await link.execute(
        "UPDATE attached SET serves = true WHERE sink = $1 AND session = $2 AND NOT serves", sink, session
    )
    count = await link.fetchval("SELECT count(*) FROM attached WHERE sink = $1 AND serves", sink)
    return Admitted(sessions=count)


async def enter(link: Link, session: int, key: str, mode: Mode) -> Entered | None:
    """Take a queue of a sink that the session was admitted to; None while another session serves it in order."""
    position, since = await link.fetchrow("SELECT position, since FROM sink WHERE name = $1 FOR UPDATE", key)
    if not mode.ordered:
        await shares.free(link, session, key)  # what was left behind where leaving failed
        return Entered(waiting=await adopt(link, session, key, MOST_RETRYING), position=position)
    if not await duties.take(link, session, [duties.of_sink(key)]):
        return None
    await shares.free(link, session, key)
    numbers = await link.fetch("SELECT number FROM dead_ahead WHERE sink = $1 ORDER BY number", key)
    return Entered(
        waiting=await adopt(link, session, key, None),
        position=position,
        ahead=tuple([number for (number,) in numbers]),
        since=since,
    )


async def adopt(link: Link, session: int, sink: str, room: int | None) -> list[Waiting]:
    """Take the waiting batches of a sink that nobody holds, with up to `room` events, those first that are due first.

    None stands for all of them.
    """
    rows = await link.fetch(_ADOPT, session, sink, NOBODY, 2**62 if room is None else room)
    found = [waiting_of(tuple(row)) for row in rows]
    return sorted(found, key=lambda waiting: waiting.id)


async def leave(link: Link, session: int, key: str, mode: Mode) -> None:
    """Serve a queue no more; what the session held of it is free."""
    await shares.free(link, session, key)
    if mode.ordered:
        await duties.give_up(link, session, duties.of_sink(key))
    await sessions.notify(link, sessions.FREED)
    await sessions.notify(link, sessions.CHANGED)


async def rest(link: Link, session: int, sink: str) -> None:
    """Note that a session which has left all queues of a sink serves it no more, until it is admitted again."""
    await link.execute("UPDATE attached SET serves = false WHERE sink = $1 AND session = $2", sink, session)
    await sessions.notify(link, sessions.CHANGED)


async def detach(link: Link, session: int, sink: str) -> None:
    """Know a sink no more, and hold nothing back for it."""
    await link.execute("DELETE FROM attached WHERE sink = $1 AND session = $2", sink, session)


async def served(link: Link) -> list[str]:
    """The sinks that any session knows."""
    return [sink for (sink,) in await link.fetch("SELECT DISTINCT sink FROM attached ORDER BY sink")]
