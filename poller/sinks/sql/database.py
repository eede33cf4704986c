"""What the sink needs of a database, whichever it is."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

from poller.sinks.sql.table import Row


class Database(Protocol):
    """One connection, open. Every method raises a `SinkError`."""

    @abstractmethod
    async def store(self, rows: Sequence[Row]) -> int:
        """Store rows by one statement and commit; returns how many rows are new or changed."""
        ...

    @abstractmethod
    async def flaws(self) -> list[str]:
        """What is wrong with the table, or with how the database keeps it. Leaves nothing there."""
        ...

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether neither side has closed the connection, as far as is known."""
        ...

    @abstractmethod
    def close(self) -> None:
        """Close at once, without waiting for the server. May be repeated."""
        ...
