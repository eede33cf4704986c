"""Settings of a sink of type `sql`."""

import re
from typing import Annotated, Final, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, model_validator

from poller.settings import BatchSettings, Cidr, Secret, SecretFile, SinkSettings, TlsSettings, wrong
from poller.sinks.brokers import server_parts

PORTS: Final = {"postgresql": 5432, "mysql": 3306}
"""The engines, as the URL's scheme names them, and their usual ports."""


def _url(url: str) -> str:
    form = "a database is written postgresql://host:5432/database or mysql://host:3306/database"
    parts = server_parts(url, form)
    if parts.scheme not in PORTS or not re.fullmatch("/[^/]+", parts.path) or "%00" in parts.path:
        raise wrong(form)
    return url


class SqlBatch(BatchSettings):
    """How many events one statement stores."""

    max_events: int = Field(
        default=500, ge=1, le=1000, description="The most rows in one statement, 1 to 1000."
    )


class SqlSettings(SinkSettings):
    """Settings of a sink of type `sql`."""

    url: Annotated[str, AfterValidator(_url)] = Field(
        description="The database: postgresql://host:5432/name, or mysql://host:3306/name, which is for MariaDB too.",
        examples=["postgresql://db.example.com:5432/live"],
    )
    table: str = Field(
        default="live_events",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$",
        description="The table, or SCHEMA.TABLE. If it is missing, check --connect prints the statement that makes it.",
    )
    user: str = Field(description="The user to log in as.", examples=["poller"])
    password: Secret | None = Field(default=None, description="The user's password; prefer ${NAME} to it.")
    password_file: SecretFile | None = Field(default=None, description="A file with the password.")
    tls: TlsSettings | None = Field(
        default=None,
        description="Certificates. The connection is encrypted if this section is there, even if empty.",
    )
    allow_cidr: tuple[Cidr, ...] = Field(
        default=(), description="Networks that are allowed as targets although they are not public."
    )
    concurrency: int = Field(
        default=2, ge=1, le=256, description="The most batches at once, and the most connections."
    )
    batch: SqlBatch = Field(default=SqlBatch(), description="How events are put into batches.")

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise wrong("does not go with password: remove one", at="password_file")
        return self

    @property
    def engine(self) -> str:
        """`postgresql` or `mysql`."""
        return urlsplit(self.url).scheme

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or PORTS[parts.scheme]

    @property
    def database(self) -> str:
        """The name of the database."""
        return unquote(urlsplit(self.url).path.removeprefix("/"))

    @property
    def secret(self) -> str:
        """The password; empty for none."""
        given = self.password or self.password_file
        return "" if given is None else given.get_secret_value()
