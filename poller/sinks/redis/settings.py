"""Settings of a sink of type `redis`."""

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from poller.settings import BatchSettings, TlsSettings, wrong
from poller.sinks.brokers import Template
from poller.sinks.servers import ServerSettings, server_parts

SHARE_OF_TIMEOUT: Final = 0.9
"""The part of the sink's timeout that the server may take for the proof, so that its answer still comes in time."""


def _url(url: str) -> str:
    form = "a server is written redis://host:6379/0, or rediss://host:6379/0 for TLS"
    parts = server_parts(url, form)
    if parts.scheme not in ("redis", "rediss") or not re.fullmatch(r"(/[0-9]{0,5})?", parts.path):
        raise wrong(form)
    return url


class RedisSettings(ServerSettings):
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
    tls: TlsSettings | None = Field(default=None, description="Certificates for a rediss:// server.")
    concurrency: int = Field(
        default=4, ge=1, le=256, description="The most batches at once, and the most connections."
    )
    batch: BatchSettings = Field(
        default=BatchSettings(max_events=500),
        description="How many events are added before the server is asked for the proof.",
    )

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        if self.user is not None and self.secret is None:
            raise wrong("a user needs password or password_file", at="user")
        if self.tls is not None and not self.url.startswith("rediss:"):
            raise wrong("needs a URL that begins with rediss://", at="tls")
        return self

    @property
    def wait(self) -> int:
        """Milliseconds that the server may take until a batch is synced."""
        return max(1, int(self.timeout * 1000 * SHARE_OF_TIMEOUT))
