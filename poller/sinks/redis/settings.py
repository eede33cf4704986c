"""Settings of a sink of type `redis`."""

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from poller.settings import BatchSettings, Cidr, Secret, SecretFile, SinkSettings, TlsSettings, wrong
from poller.sinks.brokers import Template, server_parts

SHARE_OF_TIMEOUT: Final = 0.9
"""The part of the sink's timeout that the server may take for the proof, so that its answer still comes in time."""


def _url(url: str) -> str:
    form = "a server is written redis://host:6379/0, or rediss://host:6379/0 for TLS"
    parts = server_parts(url, form)
    if parts.scheme not in ("redis", "rediss") or not re.fullmatch(r"(/[0-9]{0,5})?", parts.path):
        raise wrong(form)
    return url


class RedisBatch(BatchSettings):
    """How many events are sent before the server is asked for the proof."""

    max_events: int = Field(
        default=500, ge=1, le=1000, description="The most events in one batch, 1 to 1000."
    )


class RedisSettings(SinkSettings):
    """Settings of a sink of type `redis`."""

    url: Annotated[str, AfterValidator(_url)] = Field(
        description="The server and the number of its database; rediss:// for TLS. Redis Cluster is not supported.",
        examples=["rediss://redis.example.com:6379/0"],
    )
    key: Template = Field(
        default="live:{kind}",
        description="The key of the stream, with {account}, {kind} and {stream}. Order holds within one key. "
        "In the fields, blanks and control characters become _.",
    )
    max_length: int | None = Field(
        default=None,
        ge=1,
        description="Keeps about so many entries a key: older ones are dropped, read or not. By default none are.",
        examples=[1000000],
    )
    replicas: int = Field(
        default=0, ge=0, le=100, description="How many replicas must have synced each event too (WAITAOF)."
    )
    user: str | None = Field(default=None, description="The user to log in as; the default user without it.")
    password: Secret | None = Field(default=None, description="The user's password; prefer ${NAME} to it.")
    password_file: SecretFile | None = Field(default=None, description="A file with the password.")
    tls: TlsSettings | None = Field(default=None, description="Certificates for a rediss:// server.")
    allow_cidr: tuple[Cidr, ...] = Field(
        default=(), description="Networks that are allowed as targets although they are not public."
    )
    concurrency: int = Field(
        default=4, ge=1, le=256, description="The most batches at once, and the most connections."
    )
    batch: RedisBatch = Field(default=RedisBatch(), description="How events are put into batches.")

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise wrong("does not go with password: remove one", at="password_file")
        if self.user is not None and self.password is None and self.password_file is None:
            raise wrong("a user needs password or password_file", at="user")
        if self.tls is not None and not self.url.startswith("rediss:"):
            raise wrong("needs a URL that begins with rediss://", at="tls")
        return self

    @property
    def wait(self) -> int:
        """Milliseconds that the server may take until a batch is synced."""
        return max(1, int(self.timeout * 1000 * SHARE_OF_TIMEOUT))
