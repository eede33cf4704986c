"""Writes the catalogue of streams to the table `stream`. With the last portion of a round, `meta` gets the number."""

import sqlite3

from poller.core.catalogue import Catalogue
from poller.runtime.clock import Clock
from poller.runtime.failpoints import reached
from poller.spools.catalogue_rounds import CatalogueRounds, catalogue_of
from poller.spools.sqlite import meta


def read_rows(connection: sqlite3.Connection) -> Catalogue:
    """The catalogue as it is written; raises `Unreadable`."""
    return catalogue_of(connection.execute("SELECT known FROM stream"))


class CatalogueRows(CatalogueRounds):
    """Works inside the writer's transactions."""

    def __init__(self, connection: sqlite3.Connection, catalogue: Catalogue, clock: Clock) -> None:
        super().__init__(catalogue, clock)
        self._connection = connection

    def write(self, covered: int, *, whole: bool = False) -> None:
        """Write a portion, or with `whole` all that has changed. Called at the beginning of a transaction.

        `covered` is the number that the transaction's first event gets.
        """
        if (portion := self._next(covered, whole=whole)) is None:
            return
        self._connection.executemany("INSERT OR REPLACE INTO stream VALUES (?, ?, ?)", portion.rows)
        if portion.covered is not None:
            meta.put_number(self._connection, meta.CATALOGUE, portion.covered)
        reached("catalogue.written")
