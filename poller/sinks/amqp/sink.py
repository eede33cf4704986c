"""The sink itself: one connection, and a channel for each batch."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from aio_pika import Connection, DeliveryMode, Message
from aio_pika.abc import AbstractChannel
from aiormq import exceptions as errors

from poller.core.errors import Rejected, SinkError, TryLater
from poller.core.model import Batch, Event
from poller.core.ports import ChecksDestination, Sink
from poller.runtime.outbound import AddressGuard
from poller.runtime.resolver import Resolver
from poller.settings import TlsSettings
from poller.sinks.amqp.answers import translate
from poller.sinks.amqp.check import cannot_publish, flaw_of_queue
from poller.sinks.amqp.connection import (
    connect_to,
    is_blocked,
    is_closing,
    open_channel,
    until_sent,
    why_closed,
)
from poller.sinks.amqp.settings import PORTS, AmqpSettings
from poller.sinks.brokers import fill_in, messages, raise_for
from poller.sinks.servers import ALIVE_WITHIN, CLOSE_WITHIN, check_hosts, tls_context

UNSAFE: Final = re.compile(r"[\s.*#\x00-\x1f\x7f]")
"""What a word of a routing key cannot hold without another meaning."""
LONGEST_KEY: Final = 255
"""Bytes of a routing key, by the protocol."""
_SIZE: Final = re.compile(r"larger than configured max size (\d+)")


class Amqp(Sink, ChecksDestination):
    """Publishes events over one connection, each batch on a channel. A delivery opens it if there is none."""

    Settings = AmqpSettings

    def __init__(self, name: str, settings: AmqpSettings, accounts: Mapping[str, object]) -> None:
        self.name = name
        self._settings = settings
        self._guard = AddressGuard(settings.allow_cidr)
        self._resolver = Resolver()
        self._connecting = asyncio.Lock()
        self._sending = asyncio.Lock()
        """Held while one message is sent, over whichever channel."""
        self._connection: Connection | None = None
        self._idle: list[AbstractChannel] = []
        self._doubted = False
        """Whether a delivery has waited in vain: packets may vanish, and the library would notice much later."""
        self._largest: int | None = None
        """The most bytes of a message, once the broker has told."""

    async def __aenter__(self) -> Self:
        is_secure = any(urlsplit(server).scheme == "amqps" for server in self._settings.servers)
        usual = TlsSettings() if is_secure else None  # the system's authorities take a while to read
        self._tls = tls_context(self.name, self._settings.tls or usual)
        for library in ("aio_pika", "aiormq"):  # what fails is reported here
            logging.getLogger(library).setLevel(logging.CRITICAL + 1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._close()

    async def check(self) -> Sequence[str]:
        """See `ChecksDestination.check`. A message is published in a transaction that is rolled back."""
        connection = await self._ensure_connected()
        if text := await cannot_publish(connection, self._settings.exchange):
            return [text]
        named = self._settings.queues
        if not named and not self._settings.exchange and "{" not in self._settings.routing_key:
            named = (self._settings.routing_key,)
        found = [await flaw_of_queue(connection, queue) for queue in named]
        return [text for text in found if text]

    async def deliver(self, batch: Batch) -> None:
        """Publish the batch and wait for every confirmation; raises `PartlyFailed` for those that failed."""
        found = messages(batch.events, self._settings.mode, "cloudEvents:")
        async with self._channel() as channel:
            outcomes = await self._publish_all(channel, batch.events, found)
        cut = any(isinstance(error, errors.ChannelInvalidStateError) for error in outcomes)
        closed = await why_closed(channel) if cut else None
        failures = {
            event.id: self._failure(error, closed, len(body))
            for event, (_, body), error in zip(batch.events, found, outcomes, strict=True)
            if error is not None
        }
        raise_for(batch, failures)

    async def _publish_all(
        self,
        channel: AbstractChannel,
        events: Sequence[Event],
        found: Sequence[tuple[Mapping[str, str], bytes]],
    ) -> list[Exception | None]:
        """Publish messages in their order, and wait for all confirmations. Returns what went wrong with each.

        The next message is begun when the last one is on its way: see `is_closing`.
        """
        publishing: list[asyncio.Future[Exception | None]] = []
        try:
            for event, (headers, body) in zip(events, found, strict=True):
                async with self._sending:
                    publishing.append(asyncio.ensure_future(self._publish(channel, event, headers, body)))
                    await asyncio.sleep(0)  # it begins
                    await until_sent(channel)
            return await asyncio.gather(*publishing)
        except asyncio.CancelledError:
            self._doubted = True
            for one in publishing:
                one.cancel()
            raise

    async def _publish(
        self, channel: AbstractChannel, event: Event, headers: Mapping[str, str], body: bytes
    ) -> Exception | None:
        """Publish one message, and wait for its confirmation. Returns what went wrong."""
        key = fill_in(self._settings.routing_key, event, UNSAFE)
        if len(key.encode()) > LONGEST_KEY:
            return Rejected(f"the routing key is longer than {LONGEST_KEY} bytes")
        if self._largest is not None and len(body) > self._largest:
            return Rejected(f"{len(body)} bytes; the server takes {self._largest}")
        rest = {name: value for name, value in headers.items() if name != "content-type"}
        message = Message(
            body,
            headers=dict(rest),
            content_type=headers["content-type"],
            message_id=event.id,
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        if await is_closing(channel):
            return errors.ChannelInvalidStateError()
        exchange = await channel.get_exchange(self._settings.exchange, ensure=False)
        try:
            await exchange.publish(message, key, mandatory=True)
        except (errors.AMQPError, errors.ChannelInvalidStateError, OSError) as error:
            return error
        return None

    def _failure(self, error: BaseException, closed: BaseException | None, size: int) -> SinkError:
        """The error of one message. `closed` is why its channel was closed, if it was."""
        if isinstance(error, SinkError):
            return error
        if closed is not None and isinstance(error, errors.ChannelInvalidStateError):
            error = closed
        if isinstance(error, errors.ChannelPreconditionFailed) and (found := _SIZE.search(str(error))):
            self._largest = int(found[1])
            if size > self._largest:
                return Rejected(f"{size} bytes; the server takes {self._largest}")
            return TryLater("another message of the batch was too large")
        return translate(error)

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[AbstractChannel]:
        """A channel that nobody else uses, because an error closes its channel."""
        connection = await self._ensure_connected()
        channel = self._idle.pop() if self._idle else await open_channel(connection)
        try:
            yield channel
        finally:
            if not channel.is_closed and connection is self._connection:
                self._idle.append(channel)

    async def _ensure_connected(self) -> Connection:
        """The connection, opened again if it is lost or does not answer; raises `TryLater`."""
        async with self._connecting:
            self._idle = [one for one in self._idle if not one.is_closed]
            if self._doubted and self._connection is not None:
                await self._prove_alive(self._connection)
            if (
                self._connection is None
                or self._connection.is_closed
                or not self._connection.connected.is_set()
            ):
                await self._close()
                self._connection = await self._connect()
            return self._connection

    async def _prove_alive(self, connection: Connection) -> None:
        """Close the connection unless the broker opens a channel over it. Raises `TryLater` for a broker that has told
        that it takes no messages: it would take those of a closed connection later."""
        if await is_blocked(connection):
            raise TryLater("the broker takes no messages: its disk or its memory is full")
        try:
            async with asyncio.timeout(ALIVE_WITHIN):
                self._idle.append(await open_channel(connection))
        except (TryLater, TimeoutError):
            await self._close()
        self._doubted = False  # not if the caller was cancelled meanwhile

    async def _connect(self) -> Connection:
        """Connect to the first server that answers; raises `TryLater`."""
        failure = TryLater("no server answers")
        for server in self._settings.servers:
            parts = urlsplit(server)
            place = (parts.hostname or "", parts.port or PORTS[parts.scheme])
            try:
                await check_hosts(self._resolver, self._guard, [place])
                return await connect_to(self._settings, place, self._tls if parts.scheme == "amqps" else None)
            except TryLater as error:
                failure = error
        raise failure

    async def _close(self) -> None:
        """Close without waiting for a broker that does not answer."""
        connection, self._connection, self._idle = self._connection, None, []
        if connection is None:
            return
        with suppress(errors.AMQPError, errors.ChannelInvalidStateError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN):
                await connection.close()
