"""The lease: one session owns the spool at a time.

Invariants
    A session takes the lease when it is free or has ended, in a transaction that waits for the transactions of the
    session before. Each transaction that writes checks the session (`check`), so a daemon whose lease was taken over
    writes nothing more. A lease that has ended and that nobody has taken goes on with the next heartbeat.
"""

import asyncio
from datetime import timedelta
from typing import Final

import msgspec

from poller.core.errors import StorageError, StorageLocked
from poller.spools.postgres.links import Link

LOOK_EVERY: Final = 0.5
"""Seconds between two looks of a daemon that stands by."""


class Fenced(StorageError):
    """Another session has taken the spool over. This process must write nothing more."""


class Held(msgspec.Struct, frozen=True):
    """Who holds the lease, and for how many seconds at most."""

    holder: str
    seconds: float


async def held_by(link: Link) -> Held | None:
    """Who holds the lease; None if it is free or has ended."""
    row = await link.fetchrow(
        "SELECT holder, extract(epoch FROM due - clock_timestamp())::float8 FROM lease, heartbeat"
        " WHERE due > clock_timestamp()"
    )
    return None if row is None else Held(row[0], row[1])


async def take(link: Link, name: str, holder: str, seconds: float) -> int:
    """Take the lease, and return the session's number. Raises `StorageLocked` while another session holds it."""
    async with link.transaction():
        await link.execute("SELECT 1 FROM lease FOR UPDATE")
        if (held := await held_by(link)) is not None:
            raise StorageLocked(f"spool {name}: {held.holder} holds it, for {held.seconds:.0f} s at most")
        session = await link.fetchval("SELECT nextval('session_number')")
        await link.execute("UPDATE lease SET session = $1, holder = $2", session, holder)
        await _prolong(link, seconds, session)
    return int(session)


async def wait_until_free(link: Link, schema: str) -> None:
    """Wait until the lease is free or has ended."""
    while await _is_held(link, schema):
        await asyncio.sleep(LOOK_EVERY)


async def _is_held(link: Link, schema: str) -> bool:
    is_made = await link.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{schema}.heartbeat")
    return bool(is_made) and await held_by(link) is not None


async def check(link: Link, name: str, session: int) -> None:
    """Hold the lease until the end of the transaction; raises `Fenced` if another session has it."""
    if await link.fetchval("SELECT session FROM lease FOR SHARE") != session:
        raise fenced(name)


async def renew(link: Link, name: str, session: int, seconds: float) -> None:
    """Prolong the lease, which then ends `seconds` from now. Raises `Fenced`."""
    if not await _prolong(link, seconds, session):
        raise fenced(name)


async def release(link: Link, session: int) -> None:
    """End the lease, so that another daemon need not wait for its end."""
    await link.execute(
        "UPDATE heartbeat SET due = '-infinity' WHERE $1 = (SELECT session FROM lease)", session
    )


async def _prolong(link: Link, seconds: float, session: int) -> bool:
    statement = (
        "UPDATE heartbeat SET due = clock_timestamp() + $1::interval WHERE $2 = (SELECT session FROM lease)"
    )
    return bool(await link.execute(statement, timedelta(seconds=seconds), session) == "UPDATE 1")


def fenced(name: str) -> Fenced:
    """The error of a daemon whose lease was taken over."""
    return Fenced(
        f"spool {name}: the lease of this daemon ended, and another daemon has taken the spool over"
    )
