"""Asks whether this user may publish, and whether queues keep what they take."""

import asyncio
from typing import Final

from aio_pika import Connection
from aiormq import exceptions as errors

from poller.sinks.amqp.answers import translate
from poller.sinks.amqp.connection import open_channel, why_closed
from poller.sinks.servers import CONNECT_WITHIN

_QUORUM: Final = {"x-queue-type": "quorum"}


async def cannot_publish(connection: Connection, exchange: str) -> str:
    """Why this user cannot publish; empty if nothing hinders. The broker asks for the right before the rollback."""
    channel = await open_channel(connection, confirms=False)
    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            raw = await channel.get_underlay_channel()
            await raw.tx_select()
            await raw.basic_publish(b"", exchange=exchange, routing_key="")
            await raw.tx_rollback()
            await channel.close()
    except errors.ChannelInvalidStateError as error:  # closed before the rollback began
        return f"exchange {exchange}: {translate(await why_closed(channel) or error).reason}"
    except (errors.AMQPError, OSError) as error:
        return f"exchange {exchange}: {translate(error).reason}"
    return ""


async def flaw_of_queue(connection: Connection, queue: str) -> str:
    """What is wrong with a queue; empty if nothing is.

    A second declaration that differs from the first one is refused, with the difference. The first question is passive,
    so that no queue is made.
    """
    try:
        async with asyncio.timeout(2 * CONNECT_WITHIN):
            channel = await open_channel(connection)
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
        return f"queue {queue}: {translate(error).reason}"
    return ""


def _difference(queue: str, told: str) -> str:
    """What a refused declaration says about a queue. Other differences, such as a length, come before the type."""
    if "'durable'" in told:
        return f"queue {queue} is not durable: a restart of the broker empties it"
    if "'x-queue-type'" in told:
        return f"queue {queue} is no quorum queue: it is lost with its node"
    return ""
