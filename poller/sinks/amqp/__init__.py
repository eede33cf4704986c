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

from poller.sinks.amqp.settings import AmqpSettings
from poller.sinks.amqp.sink import Amqp

__all__ = ["Amqp", "AmqpSettings"]
