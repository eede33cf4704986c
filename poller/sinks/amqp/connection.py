"""Connections and channels of the library."""

import asyncio
from contextlib import suppress
from ssl import SSLContext
from typing import Final

from aio_pika import Connection, connect
from aio_pika.abc import AbstractChannel
from aiormq import exceptions as errors
from aiormq.channel import Channel

from poller.core.errors import TryLater
from poller.sinks.amqp.answers import translate
from poller.sinks.amqp.settings import AmqpSettings
from poller.sinks.servers import CLOSE_WITHIN, CONNECT_WITHIN

HEARTBEAT: Final = 10
"""Seconds between signs of life. The library gives a connection up after three of them."""


async def connect_to(settings: AmqpSettings, place: tuple[str, int], tls: SSLContext | None) -> Connection:
    """Connect to one server. The library does not reconnect: the courier decides when to try again."""
    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            found = await connect(
                host=place[0],
                port=place[1],
                login=settings.user,
                password=settings.secret or "",
                virtualhost=settings.vhost,
                ssl=tls is not None,
                ssl_context=tls,
                client_properties={"connection_name": "poller"},
                heartbeat=HEARTBEAT,
            )
    except (errors.AMQPError, OSError, TimeoutError) as error:
        raise TryLater(f"cannot connect: {translate(error).reason}") from None
    assert isinstance(found, Connection)
    return found


async def is_blocked(connection: Connection) -> bool:
    """Whether the broker has said that this connection may not publish (`connection.blocked`)."""
    if connection.transport is None or connection.is_closed or not connection.connected.is_set():
        return False
    try:
        async with asyncio.timeout(0):
            await connection.transport.ready()
    except TimeoutError:
        return True
    return False


async def open_channel(connection: Connection, *, confirms: bool = True) -> AbstractChannel:
    channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            await channel.initialize()
    except (errors.AMQPError, errors.ChannelInvalidStateError, OSError, RuntimeError) as error:
        raise translate(error) from None
    return channel


async def is_closing(channel: AbstractChannel) -> bool:
    """Whether the broker has closed a channel. The library calls it closed only some steps of the loop later.

    Until then it sends messages that wait for their turn, and the broker closes the connection for that. So none may
    wait.
    """
    raw = await channel.get_underlay_channel()
    return raw.connection.channels.get(raw.number) is not raw


async def until_sent(channel: AbstractChannel) -> None:
    """Wait until messages whose publication has begun on a channel are on their way, or the channel is closed."""
    raw = await channel.get_underlay_channel()
    assert isinstance(raw, Channel)
    with suppress(errors.ChannelInvalidStateError):
        async with raw.lock:  # the library holds it for each message until that is written
            return


async def why_closed(channel: AbstractChannel) -> BaseException | None:
    """Why a channel was closed. The library tells a message that waits only that it was; the reason comes a moment
    later."""
    closing = (await channel.get_underlay_channel()).closing
    await asyncio.wait([closing], timeout=CLOSE_WITHIN)
    return closing.exception() if closing.done() and not closing.cancelled() else None
