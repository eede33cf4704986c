"""Settings of the PostgreSQL spool."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from poller.settings import (
    Duration,
    Secret,
    SecretFile,
    Size,
    SpoolSettings,
    duration_between,
    size_between,
    wrong,
)


class PostgresSettings(SpoolSettings):
    """Settings of the PostgreSQL spool."""

    shared: ClassVar[bool] = True

    type: Literal["postgres"]
    dsn: Secret | None = Field(
        default=None,
        description="The database: postgresql://user:password@host:5432/name; several hosts are separated by commas.",
    )
    dsn_file: SecretFile | None = Field(default=None, description="A file with the dsn.")
    schema_name: str = Field(
        default="poller",
        alias="schema",
        pattern="^[a-z_][a-z0-9_]{0,62}$",
        description="The schema with the tables of this spool. A missing schema is created.",
    )
    lease: Annotated[Duration, duration_between("2s", "60s")] = Field(
        default=10.0,
        description="How long after a daemon's last sign of life the others take over what it held.",
    )
    pollers: Literal["one", "all"] = Field(
        default="one",
        description="Who polls a queue: one daemon at a time while the others stand by, or all, with the rate of "
        "the account divided among them.",
    )
    max_bytes: Annotated[Size, size_between("64MiB", "16TiB")] = Field(
        default=10 * 2**30,
        description="Polling pauses when more than this is stored, and resumes below nine tenths of it.",
    )

    @model_validator(mode="after")
    def _one_dsn(self) -> Self:
        if (self.dsn is None) == (self.dsn_file is None):
            raise wrong("give dsn or dsn_file, one of them", at="dsn")
        return self

    @property
    def competing(self) -> bool:
        """See `SpoolSettings.competing`."""
        return self.pollers == "all"

    @property
    def database(self) -> str:
        """The dsn from wherever it was given, with its password."""
        given = self.dsn or self.dsn_file
        assert given is not None
        return given.get_secret_value()
