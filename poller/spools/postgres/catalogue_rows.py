"""Writes the catalogue of streams to the table `stream`. With the last portion of a round, `meta` gets the number."""

from typing import Self

import asyncpg

from poller.core.catalogue import Catalogue
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.spools.catalogue_rounds import CatalogueRounds, catalogue_of
from poller.spools.postgres import meta
from poller.spools.postgres.conditions import arrays, spread
from poller.spools.postgres.pages import load_pages
from poller.spools.postgres.schema import to_bytes
from poller.spools.tail import members_of

_PUT = (
    f"INSERT INTO stream (account, stream_id, known) SELECT * FROM {spread('text', 'bytea', 'bytea')}"  # noqa: S608 - our own words
    " ON CONFLICT (account, stream_id) DO UPDATE SET known = excluded.known"
)


async def read_rows(connection: asyncpg.Connection) -> Catalogue:
    """The catalogue as it is written; raises `Unreadable`."""
    return catalogue_of(await connection.fetch("SELECT known FROM stream"))


class CatalogueRows(CatalogueRounds):
    """Works inside the writer's transactions."""

    @classmethod
    async def load(cls, connection: asyncpg.Connection, clock: Clock) -> tuple[Catalogue, Self, int]:
        """The catalogue with all events of the log, what writes it, and the number of the next event.

        Raises `Unreadable`.
        """
        head = await meta.read_head(connection)
        catalogue = await read_rows(connection)
        covered = await meta.read_number(connection, meta.CATALOGUE)
        while chunks := await load_pages(covered, connection):
            for number, event in members_of(chunks):
                if number >= covered:
                    catalogue.note(event, number)
            covered = chunks[-1].end
        catalogue.keep()
        return catalogue, cls(catalogue, clock), max(head, covered)

    async def write(self, connection: asyncpg.Connection, covered: int, *, whole: bool = False) -> None:
        """Write a portion, or with `whole` all that has changed. Called at the beginning of a transaction.

        `covered` is the number that the transaction's first event gets.
        """
        if (portion := self._next(covered, whole=whole)) is None:
            return
        if rows := [(account, to_bytes(id), known) for account, id, known in portion.rows]:
            await connection.execute(_PUT, *arrays(rows))
        if portion.covered is not None:
            await meta.put_number(connection, meta.CATALOGUE, portion.covered)
        reached("catalogue.written")
