"""Settings of a sink of type `sql`."""

import re
from typing import Annotated, Final
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field

from poller.settings import BatchSettings, wrong
from poller.sinks.servers import ServerSettings, server_parts

PORTS: Final = {"postgresql": 5432, "mysql": 3306}
"""The engines, as the URL's scheme names them, and their usual ports."""


def _url(url: str) -> str:
    form = "a database is written postgresql://host:5432/database or mysql://host:3306/database"
    parts = server_parts(url, form)
    if parts.scheme not in PORTS or not re.fullmatch("/[^/]+", parts.path) or "%00" in parts.path:
        raise wrong(form)
    return url


class SqlSettings(ServerSettings):
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
    concurrency: int = Field(
        default=2, ge=1, le=256, description="The most batches at once, and the most connections."
    )
    batch: BatchSettings = Field(
        default=BatchSettings(max_events=500), description="How many events one statement stores."
    )

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
