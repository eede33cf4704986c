"""Settings of a sink of type `amqp`."""

from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from poller.settings import BatchSettings, Cidr, Secret, SecretFile, SinkSettings, TlsSettings, wrong
from poller.sinks.brokers import MODE_DESCRIPTION, Mode, Template

PORTS: Final = {"amqp": 5672, "amqps": 5671}


def _servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    for server in servers:
        parts = urlsplit(server)
        if parts.scheme not in PORTS or not parts.hostname or parts.path or parts.query:
            raise wrong(
                "a server is written amqp://host:5672, or amqps://host:5671; vhost is a setting of its own"
            )
        if parts.username is not None or parts.password is not None:
            raise wrong("a name and a password do not belong in the URL: use user and password_file")
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
