"""The sink itself: connections that are kept, and the address check."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

from poller.core.errors import Rejected, TryLater
from poller.core.model import Batch
from poller.core.ports import ChecksDestination, Sink
from poller.runtime.outbound import AddressGuard
from poller.runtime.resolver import Resolver
from poller.sinks.servers import check_hosts, tls_context
from poller.sinks.sql import mysql, postgresql
from poller.sinks.sql.database import Database
from poller.sinks.sql.settings import SqlSettings
from poller.sinks.sql.table import rows

ENGINES: Final = {"postgresql": postgresql.connect, "mysql": mysql.connect}


class Sql(Sink, ChecksDestination):
    """Stores events over at most `concurrency` connections, which are opened when they are needed and then kept."""

    Settings = SqlSettings

    def __init__(self, name: str, settings: SqlSettings, accounts: Mapping[str, object]) -> None:
        self.name = name
        self._settings = settings
        self._guard = AddressGuard(settings.allow_cidr)
        self._resolver = Resolver()
        self._idle: list[Database] = []

    async def __aenter__(self) -> Self:
        self._tls = tls_context(self.name, self._settings.tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._close_idle()

    async def check(self) -> Sequence[str]:
        """See `ChecksDestination.check`. A row is stored and rolled back."""
        async with self._connection() as connection:
            return await connection.flaws()

    async def deliver(self, batch: Batch) -> None:
        """Store the batch by one statement. `Rejected` means that one of its values, or more, cannot be stored."""
        async with self._connection() as connection:
            await connection.store(rows(batch.events))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Database]:
        """A connection for one batch. It is kept unless its state is unknown afterwards."""
        connection = self._take_idle() or await self._connect()
        try:
            yield connection
        except Rejected:
            self._keep(connection)
            raise
        except TryLater:
            connection.close()
            self._close_idle()  # what befell this one has befallen those, as far as anybody knows
            raise
        except BaseException:
            connection.close()
            raise
        self._keep(connection)

    def _take_idle(self) -> Database | None:
        """A connection of an earlier batch; None if none is open."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            connection.close()
        return None

    def _keep(self, connection: Database) -> None:
        if connection.is_open:
            self._idle.append(connection)

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _connect(self) -> Database:
        await check_hosts(self._resolver, self._guard, [self._settings.place])
        return await ENGINES[self._settings.engine](self._settings, self._tls)
