"""Settings of a sink of type `kafka`."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from poller.settings import (
    BatchSettings,
    Duration,
    Size,
    duration_between,
    size_between,
    wrong,
)
from poller.sinks.brokers import MODE_DESCRIPTION, Mode, Template, any_name
from poller.sinks.servers import ServerSettings

LAST_PORT: Final = 65535


def place_of(server: str) -> tuple[str, int]:
    """Host and port of `host:port`, also of `[::1]:9092`; raises `ValueError`."""
    host, _, port = server.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    for server in servers:
        if not re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}", server, re.ASCII):
            raise wrong("a server is written host:9092")
        if not 1 <= place_of(server)[1] <= LAST_PORT:
            raise wrong("a port is a number from 1 to 65535")
    return servers


def can_be_topic(name: str) -> bool:
    """Whether brokers take this name for a topic."""
    return name not in (".", "..") and re.fullmatch(r"[A-Za-z0-9._-]{1,249}", name) is not None


def _topic(template: str) -> str:
    if not can_be_topic(any_name(template)):
        raise wrong("the name of a topic is letters, digits, . _ and -, besides the fields")
    return template


class KafkaSettings(ServerSettings):
    """Settings of a sink of type `kafka`."""

    servers: Annotated[tuple[str, ...], AfterValidator(_servers)] = Field(
        min_length=1,
        description="Some brokers of the cluster (bootstrap servers). They name the others.",
        examples=[["kafka-1.example.com:9092", "kafka-2.example.com:9092"]],
    )
    topic: Annotated[Template, AfterValidator(_topic)] = Field(
        default="live",
        description="The topic, with {account}, {kind} and {stream}. In them, what a topic cannot hold becomes _.",
        examples=["live-{kind}"],
    )
    mode: Mode = Field(default="structured", description=MODE_DESCRIPTION)
    min_insync_replicas: int = Field(
        default=2,
        ge=1,
        le=32,
        description="How many replicas must have a confirmed message. check reports a topic that asks for fewer.",
    )
    max_message_bytes: Annotated[Size, size_between("1KiB", "100MiB")] = Field(
        default=976 * 1024,
        description="The largest message and request, at most the topic's max.message.bytes. A larger event becomes a "
        "dead letter.",
    )
    sasl: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="How to log in: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."
    )
    timeout: Annotated[Duration, duration_between("3s", "1h")] = Field(
        default=30.0, description="How long one delivery may take before it counts as failed; 3s or more."
    )
    concurrency: int = Field(default=2, ge=1, le=256, description="The most batches at once.")
    batch: BatchSettings = Field(
        default=BatchSettings(max_events=100),
        description="How many events are sent before the confirmations are awaited.",
    )

    @model_validator(mode="after")
    def _whole_login(self) -> Self:
        given = [self.sasl, self.user, self.secret]
        if any(given) and not all(given):
            raise wrong("sasl needs a user, and password or password_file, and they need sasl", at="sasl")
        return self
