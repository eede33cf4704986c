"""The sink `nats`: one message for each event, into a stream of NATS JetStream.

Delivered
    The stream has confirmed the message (`PubAck`). The server writes a confirmed message to its disk within two
    minutes, unless its `jetstream` block says `sync_interval: always`. A stream in memory is refused.

Twice
    `Nats-Msg-Id` is the event's id. Within the stream's duplicate window the server drops a repetition.

Facts about the server are from its documentation and its error list (`server/errors.json`, 2.10 and later).
"""

from poller.sinks.nats.settings import NatsSettings
from poller.sinks.nats.sink import Nats

__all__ = ["Nats", "NatsSettings"]
