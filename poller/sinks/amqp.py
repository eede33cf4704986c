"""The sink `amqp`: one persistent message for each event, to an exchange of RabbitMQ (AMQP 0-9-1).

Delivered
    The broker has confirmed the message (`Ack` to a publisher confirm): every queue that it was routed to has it, and a
    durable queue has it on its disk, a quorum queue on most of its nodes. A message that no queue takes is not
    delivered (`mandatory`), nor is one that a queue refuses.

Twice
    `message_id` is the event's id. RabbitMQ keeps a repetition, so consumers have to drop it.

AMQP tells a client neither which queues an exchange feeds nor of what type a queue is. Facts about the broker are from
its documentation and from trying version 3.10.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext, SSLError
from types import TracebackType
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from aio_pika import Connection, DeliveryMode, Message, connect
from aio_pika.abc import AbstractChannel
from aiormq import exceptions as errors
from pydantic import AfterValidator, Field, model_validator

from poller.core.errors import BadConfiguration, Rejected, SinkError, TryLater
from poller.core.model import Batch, Event
from poller.core.ports import ChecksDestination, Sink
from poller.runtime.outbound import AddressGuard, ssl_context
from poller.runtime.resolver import Resolver
from poller.settings import BatchSettings, Cidr, Secret, SecretFile, SinkSettings, TlsSettings, wrong
from poller.sinks.brokers import (
    LOGIN_REFUSED,
    MODE_DESCRIPTION,
    Mode,
    Template,
    check_hosts,
    fill_in,
    messages,
    raise_for,
    server_parts,
)

PORTS: Final = {"amqp": 5672, "amqps": 5671}
CONNECT_WITHIN: Final = 5.0
CLOSE_WITHIN: Final = 2.0
ALIVE_WITHIN: Final = 2.0
"""Seconds for a sign of life over a connection on which a delivery has waited in vain."""
HEARTBEAT: Final = 10
"""Seconds between signs of life. The library gives a connection up after three of them."""
UNSAFE: Final = re.compile(r"[\s.*#\x00-\x1f\x7f]")
"""What a word of a routing key cannot hold without another meaning."""
LONGEST_KEY: Final = 255
"""Bytes of a routing key, by the protocol."""
_SIZE: Final = re.compile(r"larger than configured max size (\d+)")
_QUORUM: Final = {"x-queue-type": "quorum"}


# ---------------------------------------------------------------- settings

_FORM: Final = "a server is written amqp://host:5672, or amqps://host:5671"


def _servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    for server in servers:
        parts = server_parts(server, _FORM)
        if parts.scheme not in PORTS or parts.path:
            raise wrong(f"{_FORM}; vhost is a setting of its own")
    return servers


class AmqpBatch(BatchSettings):
    """How many events are sent before the confirmations are awaited."""

    max_events: int = Field(
        default=100, ge=1, le=1000, description="The most events in one batch, 1 to 1000."
    )


class AmqpSettings(SinkSettings):
    """Settings of a sink of type `amqp`."""

    servers: Annotated[tuple[str, ...], AfterValidator(_servers)] = Field(
        min_length=1,
        description="The nodes of the cluster. The first one that answers is used.",
        examples=[["amqp://rabbit-1.example.com:5672", "amqp://rabbit-2.example.com:5672"]],
    )
    vhost: str = Field(default="/", description="The virtual host.", examples=["live"])
    exchange: str = Field(
        default="live",
        max_length=127,
        description='The exchange. "" is the default exchange: the routing key is then the name of a queue.',
    )
    routing_key: Template = Field(
        default="{kind}.{stream}",
        description="The routing key, with {account}, {kind} and {stream}. In them, a blank . * # becomes _.",
    )
    mode: Mode = Field(default="structured", description=MODE_DESCRIPTION)
    queues: tuple[str, ...] = Field(
        default=(),
        description="Queues that check examines: AMQP does not tell which queues the exchange feeds. check reports one "
        "that is missing, is not durable, or is no quorum queue; for this the user needs configure permission.",
        examples=[["moderation"]],
    )
    user: str = Field(default="guest", description="The user to log in as.")
    password: Secret | None = Field(default=None, description="The user's password; prefer ${NAME} to it.")
    password_file: SecretFile | None = Field(default=None, description="A file with the password.")
    tls: TlsSettings | None = Field(default=None, description="Certificates for amqps:// servers.")
    allow_cidr: tuple[Cidr, ...] = Field(
        default=(), description="Networks that are allowed as targets although they are not public."
    )
    concurrency: int = Field(
        default=2, ge=1, le=256, description="The most batches at once, each on a channel."
    )
    batch: AmqpBatch = Field(default=AmqpBatch(), description="How events are put into batches.")

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise wrong("give password or password_file, and not both", at="password")
        return self

    def secret(self) -> str:
        """The password, wherever it is given."""
        given = self.password or self.password_file
        return "" if given is None else given.get_secret_value()


# ---------------------------------------------------------------- the sink


class Amqp(Sink, ChecksDestination):
    """Publishes events, each batch on a channel, over one connection that a delivery opens, also again."""

    Settings = AmqpSettings

    def __init__(self, name: str, settings: AmqpSettings, accounts: Mapping[str, object]) -> None:
        self.name = name
        self._settings = settings
        self._guard = AddressGuard(settings.allow_cidr)
        self._resolver = Resolver()
        self._connecting = asyncio.Lock()
        self._connection: Connection | None = None
        self._idle: list[AbstractChannel] = []
        self._doubted = False
        """Whether a delivery has waited in vain: packets may vanish, and the library would notice much later."""
        self._largest: int | None = None
        """The most bytes of a message, once the broker has told."""

    async def __aenter__(self) -> Self:
        try:
            self._tls = ssl_context(self._settings.tls or TlsSettings())
        except OSError as error:
            text = f"sinks.{self.name}.tls: not usable PEM files, or an encrypted key ({error.strerror})"
            raise BadConfiguration([text]) from None
        for library in ("aio_pika", "aiormq"):  # what fails is reported here
            logging.getLogger(library).setLevel(logging.CRITICAL + 1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._close()

    async def check(self) -> Sequence[str]:
        """See `ChecksDestination.check`. A message is published in a transaction that is rolled back."""
        connection = await self._connected()
        if text := await _cannot_publish(connection, self._settings.exchange):
            return [text]
        named = self._settings.queues
        if not named and not self._settings.exchange and "{" not in self._settings.routing_key:
            named = (self._settings.routing_key,)
        found = [await _flaw_of_queue(connection, queue) for queue in named]
        return [text for text in found if text]

    async def deliver(self, batch: Batch) -> None:
        """Publish the batch and wait for every confirmation; raises `PartlyFailed` for those that failed."""
        found = messages(batch.events, self._settings.mode, "cloudEvents:")
        async with self._channel() as channel:
            publishing = [
                self._publish(channel, event, headers, body)
                for event, (headers, body) in zip(batch.events, found, strict=True)
            ]
            try:
                outcomes = await asyncio.gather(*publishing)
            except asyncio.CancelledError:
                self._doubted = True
                raise
        failures = {
            event.id: error for event, error in zip(batch.events, outcomes, strict=True) if error is not None
        }
        raise_for(batch, failures)

    async def _publish(
        self, channel: AbstractChannel, event: Event, headers: Mapping[str, str], body: bytes
    ) -> SinkError | None:
        """Publish one message, and wait for its confirmation. The messages of a batch are sent in their order."""
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
        exchange = await channel.get_exchange(self._settings.exchange, ensure=False)
        try:
            await exchange.publish(message, key, mandatory=True)
        except (errors.AMQPError, errors.ChannelInvalidStateError, OSError) as error:
            return self._failure(error, len(body))
        return None

    def _failure(self, error: Exception, size: int) -> SinkError:
        """The error of one message. One that is too large closes the channel, and the others fail with it."""
        if isinstance(error, errors.ChannelPreconditionFailed) and (found := _SIZE.search(str(error))):
            self._largest = int(found[1])
            if size > self._largest:
                return Rejected(f"{size} bytes; the server takes {self._largest}")
            return TryLater("another message of the batch was too large")
        return _translate(error)

    # ------------------------------------------------------------ connection and channels

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[AbstractChannel]:
        """A channel that nobody else uses: an error of one batch closes no other's."""
        connection = await self._connected()
        channel = self._idle.pop() if self._idle else await _open_channel(connection)
        try:
            yield channel
        finally:
            if not channel.is_closed and connection is self._connection:
                self._idle.append(channel)

    async def _connected(self) -> Connection:
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
        if await _is_blocked(connection):
            raise TryLater("the broker takes no messages: its disk or its memory is full")
        self._doubted = False
        try:
            async with asyncio.timeout(ALIVE_WITHIN):
                self._idle.append(await _open_channel(connection))
        except (TryLater, TimeoutError):
            await self._close()

    async def _connect(self) -> Connection:
        """Connect to the first server that answers; raises `TryLater`."""
        failure = TryLater("no server answers")
        for server in self._settings.servers:
            parts = urlsplit(server)
            place = (parts.hostname or "", parts.port or PORTS[parts.scheme])
            try:
                await check_hosts(self._resolver, self._guard, [place])
                return await _connect(self._settings, place, self._tls if parts.scheme == "amqps" else None)
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


async def _connect(settings: AmqpSettings, place: tuple[str, int], tls: SSLContext | None) -> Connection:
    """Connect to one server. The library does not reconnect: the courier decides when to try again."""
    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            found = await connect(
                host=place[0],
                port=place[1],
                login=settings.user,
                password=settings.secret(),
                virtualhost=settings.vhost,
                ssl=tls is not None,
                ssl_context=tls,
                client_properties={"connection_name": "poller"},
                heartbeat=HEARTBEAT,
            )
    except (errors.AMQPError, OSError, TimeoutError) as error:
        raise TryLater(f"cannot connect: {_translate(error).reason}") from None
    assert isinstance(found, Connection)
    return found


async def _is_blocked(connection: Connection) -> bool:
    """Whether the broker has said that this connection may not publish (`connection.blocked`)."""
    if connection.transport is None or connection.is_closed or not connection.connected.is_set():
        return False
    try:
        async with asyncio.timeout(0):
            await connection.transport.ready()
    except TimeoutError:
        return True
    return False


async def _open_channel(connection: Connection, *, confirms: bool = True) -> AbstractChannel:
    channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            await channel.initialize()
    except (errors.AMQPError, errors.ChannelInvalidStateError, OSError, RuntimeError) as error:
        raise _translate(error) from None
    return channel


# ---------------------------------------------------------------- answers


def _translate(error: BaseException) -> TryLater:
    """What an operator may know of an error. Texts of the library may hold a URL with the password."""
    if isinstance(error, errors.AMQPConnectionError) and isinstance(error.__cause__, SSLError):
        error = error.__cause__
    text = next((text for kind, text in _REASONS.items() if isinstance(error, kind)), type(error).__name__)
    return TryLater(text)


_REASONS: Final[Mapping[type[BaseException], str]] = {  # special classes first
    errors.PublishError: "no queue takes the routing key",
    errors.DeliveryError: "a queue refuses the message: it is full, or has failed",
    errors.ChannelNotFoundEntity: "there is no such exchange",
    errors.ChannelAccessRefused: "this user may not write to the exchange",
    errors.ProbableAuthenticationError: LOGIN_REFUSED,
    errors.AuthenticationError: LOGIN_REFUSED,
    errors.InvalidFrameError: "the server refuses the virtual host",  # it closes instead of opening
    errors.ChannelClosed: "channel closed before the confirmation",
    errors.ChannelInvalidStateError: "connection lost before the confirmation",
    errors.ConnectionClosed: "connection lost before the confirmation",
    SSLError: "TLS fails: check the certificates",
    TimeoutError: "no answer in time",
    OSError: "no server answers",
}


# ---------------------------------------------------------------- the check


async def _cannot_publish(connection: Connection, exchange: str) -> str:
    """Why this user cannot publish; empty if nothing hinders. The broker asks for the right before the rollback."""
    channel = await _open_channel(connection, confirms=False)
    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            raw = await channel.get_underlay_channel()
            await raw.tx_select()
            await raw.basic_publish(b"", exchange=exchange, routing_key="")
            await raw.tx_rollback()
            await channel.close()
    except (errors.AMQPError, errors.ChannelInvalidStateError, OSError) as error:
        return f"exchange {exchange}: {_translate(error).reason}"
    return ""


async def _flaw_of_queue(connection: Connection, queue: str) -> str:
    """What is wrong with a queue; empty if nothing is.

    A second declaration that differs from the first one is refused, with the difference. The first question is passive,
    so that no queue is made.
    """
    try:
        async with asyncio.timeout(2 * CONNECT_WITHIN):
            channel = await _open_channel(connection)
            await channel.declare_queue(queue, passive=True)
            await channel.declare_queue(queue, durable=True, arguments=dict(_QUORUM))
            await channel.close()
    except errors.ChannelNotFoundEntity:
        return f"there is no queue {queue}"
    except errors.ChannelAccessRefused:
        return f"queue {queue}: this user may not ask whether it is a quorum queue"
    except errors.ChannelPreconditionFailed as error:
        return _difference(queue, str(error))
    except (errors.AMQPError, errors.ChannelInvalidStateError, OSError) as error:
        return f"queue {queue}: {_translate(error).reason}"
    return ""


def _difference(queue: str, told: str) -> str:
    """What a refused declaration says about a queue. Other differences, such as a length, come before the type."""
    if "'durable'" in told:
        return f"queue {queue} is not durable: a restart of the broker empties it"
    if "'x-queue-type'" in told:
        return f"queue {queue} is no quorum queue: it is lost with its node"
    return ""
