"""What sinks share that connect to a server: the settings for it, its certificates, its addresses, and why it fails."""

import re
from collections.abc import Sequence
from ssl import SSLContext, SSLError
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, model_validator

from poller.core.errors import BadConfiguration, TryLater
from poller.runtime.outbound import AddressGuard, ssl_context
from poller.runtime.resolver import Resolver
from poller.settings import Cidr, Secret, SecretFile, SinkSettings, TlsSettings, wrong

CONNECT_WITHIN: Final = 5.0
"""Seconds for a connection with its login, and for each question of a check."""
CLOSE_WITHIN: Final = 2.0
"""Seconds for closing a connection: the server may not answer."""
ALIVE_WITHIN: Final = 2.0
"""Seconds for a sign of life over a connection on which a delivery has waited in vain."""
LOGIN_REFUSED: Final = "the server refuses the login: check user and password"
LOST: Final = "connection lost"


# ---------------------------------------------------------------- settings


class ServerSettings(SinkSettings):
    """How a sink logs in to a server, and which addresses that server may have."""

    user: str | None = Field(default=None, description="The user to log in as.")
    password: Secret | None = Field(default=None, description="The user's password; prefer ${NAME} to it.")
    password_file: SecretFile | None = Field(default=None, description="A file with the password.")
    tls: TlsSettings | None = Field(
        default=None,
        description="Certificates for TLS. The connection is encrypted if this section is there, even if empty.",
    )
    allow_cidr: tuple[Cidr, ...] = Field(
        default=(), description="Networks that are allowed as targets although they are not public."
    )

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise wrong("does not go with password: remove one", at="password_file")
        return self

    @property
    def secret(self) -> str | None:
        """The password, wherever it is given."""
        given = self.password or self.password_file
        return None if given is None else given.get_secret_value()


def server_parts(server: str, form: str) -> SplitResult:
    """The parts of a server's URL, which is shown and so may hold no login.

    Raises the error of a setting. `form` is what it says where no host and port can be read, or where more follows the
    path.
    """
    try:
        parts = urlsplit(server)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x20\x7f?#]", server):
        raise wrong(f"{form}, with a port from 1 to 65535 if any")
    if "@" in parts.netloc:
        raise wrong("a name and a password do not belong in the URL: use user and password_file")
    return parts


def tls_context(sink: str, tls: TlsSettings | None) -> SSLContext | None:
    """The context for the section `tls` of a sink, None for no section; raises `BadConfiguration`."""
    try:
        return ssl_context(tls)
    except OSError as error:
        text = f"sinks.{sink}.tls: not usable PEM files, or an encrypted key ({error.strerror})"
        raise BadConfiguration([text]) from None


# ---------------------------------------------------------------- errors


def unreachable(error: BaseException | None) -> str:
    """Why a server could not be connected to, from an error of a library or from what caused it."""
    while error is not None:
        if isinstance(error, SSLError):
            return "TLS fails: check the certificates"
        if isinstance(error, TimeoutError):
            return "no answer in time"
        if isinstance(error, OSError):
            return "no server answers"
        error = error.__cause__ or error.__context__
    return LOST


def cannot_connect(error: BaseException, reason: str) -> TryLater:
    """The error of a failed connection. `reason` is the meaning of the library's error; instead of `LOST`, the cause is
    named."""
    return TryLater(f"cannot connect: {unreachable(error) if reason == LOST else reason}")


# ---------------------------------------------------------------- addresses


async def check_hosts(resolver: Resolver, guard: AddressGuard, places: Sequence[tuple[str, int]]) -> None:
    """Raise `TryLater` unless every address of these hosts may be connected to, and at least one host is known.

    `places` has at least one host.
    """
    unknown: list[str] = []
    for host, port in places:
        try:
            found = await resolver.resolve(host, port)
        except OSError:
            unknown.append(host)
            continue
        for _, _, _, _, target in found:
            if not guard.allows(str(target[0])):
                raise TryLater(f"{target[0]} is not a public address; allow_cidr can permit it")
    if len(unknown) == len(places):
        raise TryLater(f"{unknown[0]}: name not resolved")
