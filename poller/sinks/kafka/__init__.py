"""The sink `kafka`: one message for each event, into a topic of Apache Kafka.

Delivered
    Every in-sync replica of the partition has the message (`acks=all`). The topic's `min.insync.replicas` says how many
    these are at least. Brokers write to their disks later, so one replica alone may lose what it confirmed.

Order
    The key of a message is its stream, so that a stream is in one partition. The producer is idempotent: the library
    repeats a request whose answer was lost, and the broker drops the repetition. The library refuses idempotence
    without repeating, so it repeats, but only until a delivery's time is over. After that the courier decides.

Twice
    A batch whose answers never came is delivered again, with the same ids (`ce_id`, or `id` in the JSON object).

The library's producer has threads of its own. One more thread here asks it for reports.
"""

from poller.sinks.kafka.settings import KafkaSettings
from poller.sinks.kafka.sink import Kafka

__all__ = ["Kafka", "KafkaSettings"]
