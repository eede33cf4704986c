"""Writes the catalogue of streams to the table `stream`, in portions.

A round writes all streams that have changed since the round before began. It begins when it has four events for each
row, or after half a minute: where each of many streams has a picture every ten seconds, rows would be most of what is
written. At its beginning the catalogue holds all events below the number `covered`. Each transaction writes a portion,
the streams as they are by then. With the last portion, `meta` gets the number. A transaction behind one that belongs to
a burst writes nothing, unless the round is overdue.

After a crash, the events from the number in `meta` on are noted again. Rows of an unfinished round are newer than that
number. A stream keeps its state when events are noted again that its state includes.
"""

from collections.abc import Iterable, Sequence
from typing import Self

import asyncpg
import msgspec

from poller.core.catalogue import Catalogue, Key, Stream
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.spools.postgres import meta
from poller.spools.postgres.pages import load_pages
from poller.spools.postgres.schema import to_bytes
from poller.spools.rows import reads_back
from poller.spools.tail import members_of

BURST = 100
"""A transaction with more new events is part of a burst: it holds several answers."""
EVERY = 5.0
"""The least seconds between two rounds. After a crash, the later events are read from the log."""
LONGEST = 30.0
"""Seconds after a round until the next one begins, however few events there are."""
EVENTS_A_ROW = 4
OVERDUE = 60.0
"""Seconds after a round from which on bursts do not hold up the next one."""
PORTION = 2_000
"""Rows written in one transaction, which takes some ten milliseconds."""

_read = msgspec.msgpack.Decoder(Stream)
_packed = msgspec.msgpack.Encoder().encode


_PUT = """
INSERT INTO stream (account, stream_id, known) SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[])
ON CONFLICT (account, stream_id) DO UPDATE SET known = excluded.known
"""


async def read_rows(connection: asyncpg.Connection) -> Catalogue:
    """The catalogue as it is written; raises `Unreadable`."""
    return _catalogue(await connection.fetch("SELECT known FROM stream"))


@reads_back
def _catalogue(rows: Iterable[Sequence[bytes]]) -> Catalogue:
    return Catalogue(_read.decode(known) for (known,) in rows)


class CatalogueRows:
    """Works inside the writer's transactions. The writer calls `keep` or `discard` after each transaction."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._ended = clock.monotonic() - LONGEST
        self._left: list[Key] = []
        """The streams that the round has still to write, in reverse order."""
        self._covered = 0
        """The first number that the last round, or the one that has begun, does not cover."""
        self._written = 0
        self._in_burst = False

    @classmethod
    async def load(cls, connection: asyncpg.Connection, clock: Clock) -> tuple[Catalogue, Self]:
        """The catalogue with all events of the log, and what writes it. Raises `Unreadable`."""
        catalogue = await read_rows(connection)
        covered = await meta.read_number(connection, meta.CATALOGUE)
        while chunks := await load_pages(covered, connection):
            for number, event in members_of(chunks):
                if number >= covered:
                    catalogue.note(event, number)
            covered = chunks[-1].end
        catalogue.keep()
        return catalogue, cls(catalogue, clock)

    @property
    def unfinished(self) -> bool:
        """Whether a round has begun and not ended."""
        return bool(self._left)

    async def write(self, connection: asyncpg.Connection, covered: int, *, whole: bool = False) -> None:
        """Write a portion, or with `whole` all that has changed. Called at the beginning of a transaction.

        `covered` is the number that the transaction's first event gets.
        """
        if whole:
            self._begin(covered)
            await self._write(connection, len(self._left))
            return
        since = self._clock.monotonic() - self._ended
        if self._in_burst and since < OVERDUE:
            return
        if not self._left and self._is_due(since, covered - self._covered):
            self._begin(covered)
        await self._write(connection, PORTION)

    def _is_due(self, since: float, events: int) -> bool:
        worth = events >= EVENTS_A_ROW * len(self._catalogue.unsaved)
        return since >= LONGEST or (since >= EVERY and worth)

    async def _write(self, connection: asyncpg.Connection, most: int) -> None:
        if not self._left:
            return
        some = self._left[-most:]
        self._written = len(some)
        rows = [
            (account, to_bytes(id), _packed(stream))
            for account, id in reversed(some)
            if (stream := self._catalogue.find((account, id)))
        ]
        if rows:
            await connection.execute(_PUT, *zip(*rows, strict=True))
        if self._written == len(self._left):
            await meta.put_number(connection, meta.CATALOGUE, self._covered)
        reached("catalogue.written")

    def _begin(self, covered: int) -> None:
        # sorted: rows that follow each other lie on the same pages of the index
        self._left = sorted(self._catalogue.unsaved.union(self._left), reverse=True)
        self._catalogue.unsaved.clear()
        self._covered = covered

    def keep(self, events: int) -> None:
        """The transaction is durable, with this number of events."""
        self._in_burst = events > BURST
        if self._written:
            del self._left[-self._written :]
            self._written = 0
            if not self._left:
                self._ended = self._clock.monotonic()

    def discard(self) -> None:
        """The transaction was rolled back: its portion is written again."""
        self._written = 0
