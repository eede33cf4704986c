"""The sink itself: one connection, and the warning about what may be lost."""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import structlog

from poller.core.model import Batch
from poller.core.ports import ChecksDestination, Sink
from poller.runtime.outbound import AddressGuard
from poller.runtime.resolver import Resolver
from poller.sinks.brokers import any_name, fill_in, messages, raise_for
from poller.sinks.nats.connection import NatsConnection, connect
from poller.sinks.nats.settings import UNSAFE, NatsSettings
from poller.sinks.servers import check_hosts, tls_context

log = structlog.get_logger("sink")

PORT: Final = 4222


class Nats(Sink, ChecksDestination):
    """Publishes events over one connection. A delivery opens the connection if there is none."""

    Settings = NatsSettings

    def __init__(self, name: str, settings: NatsSettings, accounts: Mapping[str, object]) -> None:
        self.name = name
        self._settings = settings
        self._places = [
            (parts.hostname or "", parts.port or PORT) for parts in map(urlsplit, settings.servers)
        ]
        self._guard = AddressGuard(settings.allow_cidr)
        self._resolver = Resolver()
        self._connecting = asyncio.Lock()
        self._connection: NatsConnection | None = None

    async def __aenter__(self) -> Self:
        self._tls = tls_context(self.name, self._settings.tls)
        if not self._settings.synced:
            log.warning("nats_not_synced", sink=self.name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def check(self) -> Sequence[str]:
        """See `ChecksDestination.check`. No message is published."""
        subject = any_name(self._settings.subject)
        connection = await self._ensure_connected()
        return [text] if (text := await connection.flaw(subject)) else []

    async def deliver(self, batch: Batch) -> None:
        """Publish the batch and wait for every confirmation; raises `PartlyFailed` for those that failed."""
        connection = await self._ensure_connected()
        named = messages(batch.events, self._settings.mode, "ce-")
        subjects = [fill_in(self._settings.subject, event, UNSAFE) for event in batch.events]
        try:
            sent = [
                await connection.send(event.id, subject, headers, body)
                for event, subject, (headers, body) in zip(batch.events, subjects, named, strict=True)
            ]
            failures = await connection.confirmations(batch.events, sent)
        except asyncio.CancelledError:
            connection.doubted = True
            raise
        raise_for(batch, failures)

    async def _ensure_connected(self) -> NatsConnection:
        """The connection, opened again if it is lost or does not answer; raises `TryLater`."""
        async with self._connecting:
            if self._connection is not None and self._connection.doubted:
                await self._connection.prove_alive()
            if self._connection is None or self._connection.lost.done():
                await check_hosts(self._resolver, self._guard, self._places)
                self._connection = await connect(self._settings, self._tls)
            return self._connection
