"""The library's options, for connecting and for producing."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from poller.sinks.kafka.settings import KafkaSettings
from poller.sinks.servers import CONNECT_WITHIN

Option = str | int | float | bool
"""A value of the library's options."""
LAST_MOMENT: Final = 2.0
"""The seconds between a message's expiry and the sink's timeout: the library looks once a second."""


def options(settings: KafkaSettings) -> dict[str, Option]:
    """The library's options for connecting."""
    found: dict[str, Option] = {
        "bootstrap.servers": ",".join(settings.servers),
        "client.id": "poller",
        "socket.keepalive.enable": "true",
        "socket.connection.setup.timeout.ms": int(CONNECT_WITHIN * 1000),
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 1000,
    }
    if settings.tls is not None:
        files: Mapping[str, Path | None] = {
            "ssl.ca.location": settings.tls.ca_file,
            "ssl.certificate.location": settings.tls.cert_file,
            "ssl.key.location": settings.tls.key_file,
        }
        found |= {name: str(file) for name, file in files.items() if file is not None}
    if settings.sasl is not None and settings.user is not None and settings.secret is not None:
        found |= {"sasl.mechanism": settings.sasl, "sasl.username": settings.user}
        found["sasl.password"] = settings.secret
    words = [*(["SASL"] if settings.sasl else []), "PLAINTEXT" if settings.tls is None else "SSL"]
    return {**found, "security.protocol": "_".join(words)}


def producer_options(settings: KafkaSettings) -> dict[str, Option]:
    """The library's options for producing."""
    return {
        **options(settings),
        "acks": "all",
        "enable.idempotence": "true",
        "partitioner": "murmur2_random",  # the same partition for a key as the Java client's
        "linger.ms": 1,
        "message.timeout.ms": int((settings.timeout - LAST_MOMENT) * 1000),
        "topic.metadata.propagation.max.ms": 1000,
        "message.max.bytes": settings.max_message_bytes,
        "batch.size": settings.max_message_bytes,
    }


def silent_logger() -> logging.Logger:
    """A logger that drops the library's own lines, which would go to stderr. The sink reports the errors."""
    return logging.Logger("kafka", logging.CRITICAL + 1)  # noqa: LOG001 - it has no parent, so its lines end here
