"""The sink itself: batches as transactions, and connections that are kept."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from redis.exceptions import (
    NoPermissionError,
    RedisError,
    ResponseError,
)

from poller.core.errors import PartlyFailed, SinkError, TryLater
from poller.core.model import Batch, Event
from poller.core.ports import ChecksDestination, Sink
from poller.runtime.outbound import AddressGuard
from poller.runtime.resolver import Resolver
from poller.sinks.brokers import any_name, fill_in
from poller.sinks.redis.answers import IMPOSSIBLE, Command, failures_of, refusal, translate, unwritable
from poller.sinks.redis.connection import RedisConnection, new_client
from poller.sinks.redis.settings import RedisSettings
from poller.sinks.servers import cannot_connect, check_hosts, tls_context

PORT: Final = 6379
UNSAFE: Final = re.compile(r"[\x00-\x20\x7f]")
"""Blanks and control characters. The server takes them in a key, but people can hardly read or type them."""


class Redis(Sink, ChecksDestination):
    """Adds entries over connections that are opened when they are needed and kept for the next batches."""

    Settings = RedisSettings

    def __init__(self, name: str, settings: RedisSettings, accounts: Mapping[str, object]) -> None:
        self.name = name
        self._settings = settings
        parts = urlsplit(settings.url)
        self._place = (parts.hostname or "", parts.port or PORT)
        self._guard = AddressGuard(settings.allow_cidr)
        self._resolver = Resolver()
        self._idle: list[RedisConnection] = []

    async def __aenter__(self) -> Self:
        self._tls = tls_context(self.name, self._settings.tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._close_idle()

    async def check(self) -> Sequence[str]:
        """See `ChecksDestination.check`. The entry that it tries to add has an id that no entry can have."""
        async with self._connection() as connection:
            flaw = await connection.flaw()
            key = any_name(self._settings.key)
            kind, added = await connection.ask([("TYPE", key), ("XADD", key, IMPOSSIBLE, "id", "")])
        return [text for text in (flaw, unwritable(key, kind, added)) if text]

    async def deliver(self, batch: Batch) -> None:
        """Add the batch and wait until it is synced; raises `PartlyFailed` if only some keys refuse their events."""
        async with self._connection() as connection:
            if not connection.proven:
                if flaw := await connection.flaw():
                    raise TryLater(flaw)
                connection.proven = True
            failures = await self._add(connection, batch.events)
        if len(failures) == len(batch.events) == 1:
            raise next(iter(failures.values()))
        if failures:
            raise PartlyFailed(failures)

    async def _add(self, connection: RedisConnection, events: Sequence[Event]) -> dict[str, SinkError]:
        """Add events and have the proof; the errors of those whose keys refuse them. Raises `TryLater` for all of them.

        In a transaction a full memory stops all events or none, so that none overtakes another of its key.
        """
        entries = [self._entry(event) for event in events]
        _, *queued, done, proof = await connection.ask(
            [("MULTI",), *entries, ("EXEC",), connection.proof(self._settings.wait)]
        )
        if forbidden := failures_of(events, queued):
            rest = [event for event in events if event.id not in forbidden]
            if rest and all(isinstance(one, NoPermissionError | str | bytes) for one in queued):
                return forbidden | await self._add(connection, rest)
            raise next(iter(forbidden.values()))
        if isinstance(done, ResponseError):
            raise refusal(done)
        failures = failures_of(events, done)
        if len(failures) < len(events) and (text := connection.unproven(proof)):
            raise TryLater(text)
        return failures

    def _entry(self, event: Event) -> Command:
        key, most = fill_in(self._settings.key, event, UNSAFE), self._settings.max_length
        trim = () if most is None else ("MAXLEN", "~", most)
        return "XADD", key, *trim, "*", "id", event.id, "event", event.encoded, "stream", event.stream_id

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[RedisConnection]:
        """A connection for one batch. After any error it is closed: answers could be left in it."""
        connection = await self._take_idle() or await self._connect()
        try:
            yield connection
        except SinkError:
            await connection.close()
            raise
        except (RedisError, OSError) as error:
            await connection.close()
            await self._close_idle()
            raise translate(error) from None
        except BaseException:
            await connection.close()
            raise
        self._idle.append(connection)

    async def _take_idle(self) -> RedisConnection | None:
        """A connection of an earlier batch; None if none is good."""
        while self._idle:
            connection = self._idle.pop()
            if await connection.is_good():
                return connection
            await connection.close()
        return None

    async def _connect(self) -> RedisConnection:
        await check_hosts(self._resolver, self._guard, [self._place])
        connection = RedisConnection(
            new_client(self._settings, self._place, self._tls), self._settings.replicas
        )
        try:
            await connection.open()
        except BaseException as error:
            await connection.close()
            if isinstance(error, RedisError | OSError):
                raise cannot_connect(error, translate(error).reason) from None
            raise
        return connection

    async def _close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()
