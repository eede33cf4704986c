"""Settings of a sink of type `nats`."""

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from poller.settings import BatchSettings, Secret, SecretFile, TlsSettings, wrong
from poller.sinks.brokers import MODE_DESCRIPTION, Mode, Template, any_name
from poller.sinks.servers import ServerSettings, server_parts

UNSAFE: Final = re.compile(r"[\s.*>\x00-\x1f\x7f]")
"""What a token of a subject cannot hold."""
_FORM: Final = "a server is written nats://host:4222, or tls://host:4222"


def _servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    for server in servers:
        parts = server_parts(server, _FORM)
        if parts.scheme not in ("nats", "tls") or parts.path.strip("/"):
            raise wrong(_FORM)
    return servers


def _subject(template: str) -> str:
    tokens = any_name(template).split(".")
    if template.startswith("$") or not all(tokens) or any(UNSAFE.search(token) for token in tokens):
        raise wrong(
            "a subject is words with dots between them, without blanks, * and >, and no $ at the start"
        )
    return template


class NatsSettings(ServerSettings):
    """Settings of a sink of type `nats`."""

    servers: Annotated[tuple[str, ...], AfterValidator(_servers)] = Field(
        min_length=1,
        description="The servers of the cluster. The first one that answers is used.",
        examples=[["nats://nats-1.example.com:4222", "nats://nats-2.example.com:4222"]],
    )
    subject: Annotated[Template, AfterValidator(_subject)] = Field(
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
