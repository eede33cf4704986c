"""Settings of a sink of type `amqp`."""

from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from poller.settings import BatchSettings, TlsSettings, wrong
from poller.sinks.brokers import MODE_DESCRIPTION, Mode, Template
from poller.sinks.servers import ServerSettings, server_parts

PORTS: Final = {"amqp": 5672, "amqps": 5671}
_FORM: Final = "a server is written amqp://host:5672, or amqps://host:5671"


def _servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    for server in servers:
        parts = server_parts(server, _FORM)
        if parts.scheme not in PORTS or parts.path:
            raise wrong(f"{_FORM}; vhost is a setting of its own")
    return servers


class AmqpSettings(ServerSettings):
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
    tls: TlsSettings | None = Field(default=None, description="Certificates for amqps:// servers.")
    concurrency: int = Field(
        default=2, ge=1, le=256, description="The most batches at once, each on a channel."
    )
    batch: BatchSettings = Field(
        default=BatchSettings(max_events=100),
        description="How many events are sent before the confirmations are awaited.",
    )

    @model_validator(mode="after")
    def _has_password(self) -> Self:
        if self.secret is None:
            raise wrong("is missing: give password or password_file", at="password")
        return self
