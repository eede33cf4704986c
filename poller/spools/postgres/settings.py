"""Settings of the PostgreSQL spool."""

import re
from typing import Annotated, ClassVar, Final, Literal, Self
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

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

FORM: Final = (
    "postgresql://user:password@host:5432/name, with signs such as @ : / in the password as %40 %3A %2F"
)
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


# ---------------------------------------------------------------- the dsn


def _dsn(given: SecretStr) -> SecretStr:
    """Refuse a dsn that cannot be read, or that would be read in another way than it was meant. No text quotes it."""
    dsn = given.get_secret_value()
    if not re.match("postgres(ql)?://", dsn):
        raise wrong(f"a dsn is written {FORM}")
    try:
        parts = urlsplit(dsn)
        options = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError:
        raise wrong(f"the dsn cannot be read; it is written {FORM}") from None
    if "#" in dsn or dsn.count("@") > 1 or ("@" in dsn and "@" not in parts.netloc):
        raise wrong("a sign in the password ends it: write % @ : / ? # in it as %25 %40 %3A %2F %3F %23")
    _check_servers(parts)
    if options.get("sslmode", ["prefer"])[-1] not in _SSL_MODES:
        raise wrong(f"sslmode is {', '.join(_SSL_MODES[:-1])} or {_SSL_MODES[-1]}")
    return given


def _check_servers(parts: SplitResult) -> None:
    """Refuse servers that cannot be read; none is right, because options of the dsn may name them."""
    servers = parts.netloc.rpartition("@")[2].split(",")
    if len(servers) > 1 and "" in servers:
        raise wrong("a server is missing before or after a comma")
    for server in servers:
        match = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:\s]*)(?::([0-9]{1,5}))?", server)
        if match is None or int(match[1] or 1) not in range(1, 65536):
            raise wrong("a server of the dsn is written host or host:5432, or [::1]:5432")


# ---------------------------------------------------------------- all settings


class PostgresSettings(SpoolSettings):
    """Settings of the PostgreSQL spool."""

    shared: ClassVar[bool] = True

    type: Literal["postgres"]
    dsn: Annotated[Secret, AfterValidator(_dsn)] | None = Field(
        default=None,
        description="The database: postgresql://user:password@host:5432/name; several hosts are separated by commas.",
    )
    dsn_file: Annotated[SecretFile, AfterValidator(_dsn)] | None = Field(
        default=None, description="A file with the dsn."
    )
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
