"""Sessions: each daemon that shares the spool has one, with a lease that it prolongs.

Invariants
    A session's number grows and is never used again: it is the fencing token. Each transaction that writes holds its
    session's row (`check`). Ending a session deletes the row, which waits for such transactions, and hands over what
    the session held in the same transaction. So the daemon of an ended session writes nothing more.
    A lease that has ended goes on with the next sign of life, as long as nobody has ended the session.
    Sessions begin one at a time. One that is alone begins when there is no other, and no other begins beside it.
"""

from datetime import timedelta
from typing import Final

import asyncpg
import msgspec

from poller.core.errors import Fenced, StorageLocked
from poller.core.spool import Member
from poller.spools.postgres.links import Link
from poller.spools.postgres.schema import check_version

NOBODY = 0
"""The holder of what no session holds."""

FREED: Final = "freed"
CORRECTED: Final = "corrected"
CHANGED: Final = "changed"
WORDS: Final = (FREED, CORRECTED, CHANGED)
"""What daemons tell each other: shares or batches that nobody holds; corrections; pauses, replays or members."""
HEAD: Final = "head"
"""What an append tells the others, followed by the number of the next event; 0 stands for an unknown one."""

_CHANNEL = "'poller_' || md5(current_schema())"
_GATE = "hashtext('poller gate ' || current_schema())"
_FREE = """
WITH ended AS (SELECT unnest($1::bigint[]) AS id),
duties AS (DELETE FROM duty USING ended WHERE holder = ended.id),
attachments AS (DELETE FROM attached USING ended WHERE session = ended.id),
shares AS (UPDATE share SET holder = 0 FROM ended WHERE holder = ended.id),
batches AS (UPDATE waiting SET holder = 0 FROM ended WHERE holder = ended.id),
counters AS (DELETE FROM written USING ended WHERE session = ended.id),
counts AS (DELETE FROM tally USING ended WHERE session = ended.id RETURNING owner, book, count, at)
INSERT INTO tally (owner, book, session, count, at)
SELECT owner, book, 0, sum(count), max(at) FROM counts GROUP BY owner, book ORDER BY owner, book
ON CONFLICT (owner, book, session) DO UPDATE
SET count = tally.count + excluded.count, at = greatest(tally.at, excluded.at)
"""
_RENEW = """
WITH mine AS (UPDATE session SET due = clock_timestamp() + $2::interval WHERE id = $1 RETURNING id)
SELECT EXISTS (SELECT FROM mine), (SELECT count(*) FROM session WHERE NOT visits OR id = $1),
    (SELECT extract(epoch FROM min(due) - clock_timestamp())::float8 FROM session WHERE id <> $1)
"""
_BEGIN = """
INSERT INTO session (id, name, visits, alone, due)
VALUES (nextval('session_number'), $1, $2, $3, clock_timestamp() + $4::interval) RETURNING id
"""
_END_OVERDUE = """
DELETE FROM session WHERE id IN (
    SELECT id FROM session WHERE due < clock_timestamp() AND (alone OR NOT $1) ORDER BY id FOR UPDATE SKIP LOCKED
) RETURNING id, name
"""
_OF_SESSION = "hashtext('poller session ' || current_schema())"
"""With the number of a session, the advisory lock that its connections with locks hold (`mark`)."""
_END_HANGING = f"""
SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid), session
WHERE locktype = 'advisory' AND objsubid = 2 AND datname = current_database() AND usename = current_user
    AND database = datid AND classid = {_OF_SESSION}::oid AND objid = id::int::oid
    AND due < clock_timestamp() - $1::interval AND (alone OR NOT $2)
"""  # noqa: S608 - our own words
_IN_THE_WAY = """
SELECT name, greatest(0, ceil(extract(epoch FROM due - clock_timestamp())))::bigint
FROM session WHERE alone OR $1 ORDER BY id
"""
_MEMBERS = """
SELECT id, name, since, extract(epoch FROM due - clock_timestamp())::float8,
    ARRAY(SELECT duty.name FROM duty WHERE holder = session.id ORDER BY duty.name),
    (SELECT coalesce(json_object_agg(parent, held), '{}') FROM (
        SELECT parent, sum(count) AS held FROM (
            SELECT sink, upto - first AS count FROM share WHERE holder = session.id
            UNION ALL SELECT sink, size FROM waiting WHERE holder = session.id
        ) AS held JOIN sink ON name = sink GROUP BY parent HAVING sum(count) > 0
    ) AS by_sink), visits
FROM session ORDER BY id
"""


_held = msgspec.json.Decoder(dict[str, int])


def fenced(name: str) -> Fenced:
    """The error of a daemon whose session has ended."""
    return Fenced(
        f"{name}: the session of this daemon has ended, and other daemons have taken over what it held"
    )


async def begin(
    link: Link, name: str, holder: str, lease: float, *, visits: bool = False, alone: bool = False
) -> int:
    """Begin a session of this holder, tell the others, and return its number.

    Raises `StorageLocked` while a session that is alone goes on; for one that is to be alone, while any session does.
    Raises `StorageError` if the tables have another version than the program: they may have been migrated just now.

    Overdue sessions do not count: they are ended first, but for one that is within a transaction. The connections of
    one that is overdue for half a lease are ended, so that the next attempt succeeds; without `alone`, only of one that
    is alone.
    """
    async with link.transaction():
        await _make_way(link, name, lease, alone=alone)
        await check_version(link)
        number = await link.fetchval(_BEGIN, holder, visits, alone, timedelta(seconds=lease))
        await notify(link, CHANGED)
    return int(number)


async def _make_way(link: Link, name: str, lease: float, *, alone: bool) -> None:
    """Let no session begin until the end of the transaction. Raises `StorageLocked` as `begin` does."""
    await link.execute("SELECT pg_advisory_xact_lock(hashtext(current_schema() || ' sessions'))")
    await end_hanging(link, lease / 2, only_alone=not alone)
    await end_overdue(link, only_alone=not alone)
    if others := await link.fetch(_IN_THE_WAY, alone):
        holders = "; ".join(f"{who} holds it, for {seconds} s at most" for who, seconds in others)
        raise StorageLocked(f"{name}: {holders}")


async def renew(link: Link, name: str, session: int, lease: float) -> tuple[int, float]:
    """Prolong the lease, which then ends `lease` seconds from now. Raises `Fenced`.

    Returns how many sessions of daemons there are, and the seconds until one of the others is overdue.
    """
    renewed, sessions, due_in = await link.fetchrow(_RENEW, session, timedelta(seconds=lease))
    if not renewed:
        raise fenced(name)
    return sessions, lease if due_in is None else due_in


async def check(link: Link, name: str, session: int) -> None:
    """Keep the session from being ended until the end of the transaction; raises `Fenced` if it has ended.

    The lock does not hold up a heartbeat.
    """
    if await link.fetchval("SELECT 1 FROM session WHERE id = $1 FOR KEY SHARE", session) is None:
        raise fenced(name)


async def mark(link: Link, session: int) -> None:
    """Let others find this connection of a session, until it is closed: see `end_hanging`."""
    await link.execute(f"SELECT pg_advisory_lock_shared({_OF_SESSION}, $1::bigint::int)", session)


async def end_hanging(link: Link, patience: float, *, only_alone: bool = False) -> None:
    """End the connections of sessions that are overdue for more than `patience` seconds.

    `end_overdue` leaves a session that is within a transaction. The server ends a transaction that stands still, but
    not one whose client stands still between two messages of a statement: it takes that for a statement at work.
    """
    await link.execute(_END_HANGING, timedelta(seconds=patience), only_alone)


async def pass_gate(link: Link, *, alone: bool) -> None:
    """Let no other writer have a transaction until this one ends; if not `alone`, no writer that must be alone."""
    await link.execute(f"SELECT pg_advisory_xact_lock{'' if alone else '_shared'}({_GATE})")


async def end_overdue(link: Link, *, only_alone: bool = False) -> dict[int, str]:
    """End the sessions whose lease has ended, and free what they held. Returns their numbers and names.

    One that is within a transaction is left: the server ends a transaction that stands still. While a writer must be
    alone, none is ended.
    """
    async with link.transaction():
        if not await link.fetchval(f"SELECT pg_try_advisory_xact_lock_shared({_GATE})"):
            return {}
        ended = dict(map(tuple, await link.fetch(_END_OVERDUE, only_alone)))
        await _free(link, list(ended))
    return ended


async def end(link: Link, session: int) -> None:
    """End one's own session, and free what it held."""
    async with link.transaction():
        await pass_gate(link, alone=False)
        await link.execute("DELETE FROM session WHERE id = $1", session)
        await _free(link, [session])


async def end_all(link: Link, name: str, lease: float) -> None:
    """End all sessions, also those that go on, and free what they held, in the caller's transaction.

    No session begins until its end. Raises `StorageLocked` while the spool is moved.
    """
    await _make_way(link, name, lease, alone=False)
    await end_hanging(link, lease / 2)
    await _free(link, [id for (id,) in await link.fetch("DELETE FROM session RETURNING id")])


async def _free(link: Link, ended: list[int]) -> None:
    if ended:
        await link.execute(_FREE, ended)
        await notify(link, FREED)
        await notify(link, CHANGED)


async def channel(link: Link) -> str:
    """The name under which the daemons of this spool hear each other."""
    return str(await link.fetchval(f"SELECT {_CHANNEL}"))


async def notify(link: Link, word: str) -> None:
    """Tell all daemons a word, with the commit of the transaction."""
    await link.execute(f"SELECT pg_notify({_CHANNEL}, $1)", word)


async def members(link: asyncpg.Connection) -> list[Member]:
    """All sessions."""
    return [
        Member(
            number=number,
            name=name,
            since=since,
            expires=max(0.0, expires),
            duties=tuple(duties),
            held=_held.decode(held),
            visits=visits,
        )
        for number, name, since, expires, duties, held, visits in await link.fetch(_MEMBERS)
    ]


# ---------------------------------------------------------------- the number of transactions


async def begin_counting(link: Link, session: int, place: str) -> None:
    """Count the transactions of one connection of a session, from 0 on."""
    await link.execute("INSERT INTO written (session, place, count) VALUES ($1, $2, 0)", session, place)


async def count(link: Link, session: int, place: str) -> int | None:
    """How many transactions took effect; None when the session has ended.

    Waits for one that has written its number and is not over: its connection is lost, and it may still be committed.
    """
    found: int | None = await link.fetchval(
        "SELECT count FROM written WHERE session = $1 AND place = $2 FOR SHARE", session, place
    )
    return found


async def put_count(link: Link, session: int, place: str, number: int) -> None:
    """Write how many transactions there are, counting the one that writes this."""
    await link.execute(
        "UPDATE written SET count = $3 WHERE session = $1 AND place = $2", session, place, number
    )


async def touch_count(link: Link, session: int, place: str) -> None:
    """Write a row as it is: this commit waits for the standby as the one before should have."""
    await link.execute("UPDATE written SET count = count WHERE session = $1 AND place = $2", session, place)
