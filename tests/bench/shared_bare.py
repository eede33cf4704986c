"""The bare loop over PostgreSQL: asyncpg and the statements that a shared log needs, and nothing else.

One connection, no session, no fence, no books, no catalogue, no retries. What is done is durable when a call returns.
The tables lie in the schema `bare`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import asyncpg

from poller.core.model import ParsedPage

SHARE: Final = 1_600
"""The numbers that are taken at once, as by the spool."""

SCHEMA: Final = """
CREATE SCHEMA bare;
CREATE TABLE bare.log (head bigint NOT NULL);
INSERT INTO bare.log VALUES (1);
CREATE TABLE bare.page (first bigint PRIMARY KEY, last bigint NOT NULL, events bytea NOT NULL);
CREATE TABLE bare.seen (key bigint PRIMARY KEY);
CREATE TABLE bare.sink (name text PRIMARY KEY, position bigint NOT NULL);
CREATE TABLE bare.share (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, sink text NOT NULL, first bigint NOT NULL, upto bigint NOT NULL
)
"""
_REMEMBER = (
    "INSERT INTO bare.seen SELECT key FROM unnest($1::bigint[]) AS asked(key) ORDER BY key"
    " ON CONFLICT DO NOTHING RETURNING key"
)
_PUT = "INSERT INTO bare.page SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])"


class Share(NamedTuple):
    """A stretch of the log that was taken, up to `upto` (not included)."""

    id: int
    first: int
    upto: int


class Bare:
    """A connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, dsn: str) -> "Bare":
        """Open a connection to tables that are there."""
        return cls(await asyncpg.connect(dsn))

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def append(self, readings: Sequence[ParsedPage]) -> int:
        """Write the new events of pages in one transaction; returns how many there were."""
        async with self._connection.transaction():
            first = await self._connection.fetchval("SELECT head FROM bare.log FOR UPDATE")
            keys = [_key(event.id) for one in readings for event in one.events]
            new = {key for (key,) in await self._connection.fetch(_REMEMBER, keys)}
            rows, number = [], first
            for one in readings:
                fresh = [event.encoded for event in one.events if _key(event.id) in new]
                if fresh:
                    rows.append((number, number + len(fresh) - 1, b"\n".join(fresh)))
                    number += len(fresh)
            await self._connection.execute(_PUT, *zip(*rows, strict=True))
            await self._connection.execute("UPDATE bare.log SET head = $1", number)
            await self._connection.execute("SELECT pg_notify('bare', $1)", str(number))
        return int(number - first)

    async def take(self, sink: str, done: Share | None = None) -> Share | None:
        """Take the next share of a sink; None if there is nothing. The share `done` is delivered."""
        async with self._connection.transaction():
            if done is not None:
                await self._connection.execute("DELETE FROM bare.share WHERE id = $1", done.id)
            first = await self._connection.fetchval(
                "SELECT position FROM bare.sink WHERE name = $1 FOR UPDATE", sink
            )
            upto = min(await self._connection.fetchval("SELECT head FROM bare.log"), first + SHARE)
            if upto == first:
                return None
            id = await self._connection.fetchval(
                "INSERT INTO bare.share (sink, first, upto) VALUES ($1, $2, $3) RETURNING id",
                sink,
                first,
                upto,
            )
            await self._connection.execute("UPDATE bare.sink SET position = $2 WHERE name = $1", sink, upto)
        return Share(id, first, upto)

    async def batches(self, share: Share, each: int) -> Iterator[list[bytes]]:
        """The events of a share, in batches of up to `each`."""
        rows = await self._connection.fetch(
            "SELECT first, events FROM bare.page WHERE last >= $1 AND first < $2"
            " AND first >= coalesce((SELECT max(first) FROM bare.page WHERE first <= $1), 0) ORDER BY first",
            share.first,
            share.upto,
        )
        lines = [
            line
            for first, blob in rows
            for number, line in enumerate(blob.split(b"\n"), first)
            if share.first <= number < share.upto
        ]
        return (lines[start : start + each] for start in range(0, len(lines), each))


def _key(id: str) -> int:
    return int(id[:16], 16) - (1 << 63)
