"""Settings of a sink of type `nats`."""

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from poller.settings import BatchSettings, Secret, SecretFile, TlsSettings, wrong
from poller.sinks.brokers import MODE_DESCRIPTION, Mode, Template
from poller.sinks.servers import ServerSettings, refuse_login_in_url


def _servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    for server in servers:
        parts = urlsplit(server)
        if parts.scheme not in ("nats", "tls") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise wrong("a server is written nats://host:4222, or tls://host:4222")
        refuse_login_in_url(parts)
    return servers


class NatsSettings(ServerSettings):
    """Settings of a sink of type `nats`."""

    servers: Annotated[tuple[str, ...], AfterValidator(_servers)] = Field(
        min_length=1,
        description="The servers of the cluster. The first one that answers is used.",
        examples=[["nats://nats-1.example.com:4222", "nats://nats-2.example.com:4222"]],
    )
    subject: Template = Field(
        default="live.{kind}.{stream}",
        description="The subject of a message, with {account}, {kind} and {stream}. In them, a blank . * > becomes _.",
    )
    mode: Mode = Field(default="structured", description=MODE_DESCRIPTION)
    synced: bool = Field(
        default=False,
        description="Says that the servers have sync_interval: always, so that a confirmed message survives a power "
        "cut. Without it, a warning is logged at the start.",
    )
    token: Secret | None = Field(
        default=None, description="Instead of a user: a token; prefer ${NAME} to it."
    )
    token_file: SecretFile | None = Field(default=None, description="A file with the token.")
    tls: TlsSettings | None = Field(default=None, description="Certificates for tls:// servers.")
    concurrency: int = Field(default=2, ge=1, le=256, description="The most batches at once.")
    batch: BatchSettings = Field(
        default=BatchSettings(max_events=100),
        description="How many events are sent before the confirmations are awaited.",
    )

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        given = [name for name in ("password", "password_file", "token", "token_file") if getattr(self, name)]
        if len(given) > 1:
            raise wrong(f"does not go with {given[0]}: remove one", at=given[1])
        if (self.user is None) != (self.secret is None):
            raise wrong("a user needs password or password_file, and a password needs a user", at="user")
        return self

    def login(self) -> dict[str, str]:
        """The client's options that log in."""
        if (token := self.token or self.token_file) is not None:
            return {"token": token.get_secret_value()}
        if self.user is not None and self.secret is not None:
            return {"user": self.user, "password": self.secret}
        return {}
