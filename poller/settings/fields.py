"""Addresses, networks, URLs, names, paths and secrets: their written forms and their values."""

import ipaddress
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)

from poller.settings.units import VARIABLE, WrittenForm, is_number, wrong

MAX_SECRET: Final = 65536

# ---------------------------------------------------------------- listening addresses


@dataclass(frozen=True, kw_only=True, slots=True)
class Listen(WrittenForm):
    """An address to bind, written `127.0.0.1:9464` or `"[::1]:9464"`. Port 0 means any free port."""

    PATTERN = r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}"
    EXAMPLES = ("127.0.0.1:9464", "[::1]:9464")

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @classmethod
    def parse(cls, value: object) -> Self:
        """The address for a written form. A port without a host is refused: it does not say who may connect."""
        form = 'an address is written 127.0.0.1:9464 or "[::1]:9464"'
        match = re.fullmatch(cls.PATTERN, value) if isinstance(value, str) else None
        if not isinstance(value, str) or match is None:
            raise wrong(f"{form}, with host and port", echo=True)
        host, _, port = value.rpartition(":")
        if int(port) > 65535:
            raise wrong("a port is at most 65535", echo=True)
        if host.startswith("[") or re.fullmatch(r"[0-9.]+", host):
            _address(host.strip("[]"), form)
        return cls(host=host.strip("[]"), port=int(port))


def _address(text: str, form: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise wrong(f"not an IP address: {form}", echo=True) from None


# ---------------------------------------------------------------- networks, URLs, names


def _network(value: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    form = "a network is written 10.0.0.0/8, 127.0.0.1 or fd00::/8"
    if not isinstance(value, str) or "%" in value:
        raise wrong(form, echo=True)
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        hint = "; bits are set behind the prefix" if "host bits" in str(error) else ""
        raise wrong(form + hint, echo=True) from None


Cidr = Annotated[
    ipaddress.IPv4Network | ipaddress.IPv6Network,
    PlainValidator(_network),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8", "127.0.0.1", "fd00::/8"]}),
]
"""An IP network, written `10.0.0.0/8`, or a single address."""


def _url(value: object) -> str:
    if not isinstance(value, str) or not re.match(r"https?://", value):
        raise wrong("a URL begins with http:// or https://")
    if re.search(r"[\s\x00-\x20\x7f\\]", value):
        raise wrong("a URL holds no blanks, control characters or backslashes: percent-encode them")
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise wrong("the URL's host or port is not valid") from None
    if "@" in parts.netloc:
        raise wrong("a URL takes no user or password: they would show in logs")
    if not host or parts.netloc.endswith(":") or parts.port == 0:
        raise wrong("the URL needs a host, and a port from 1 to 65535 if any")
    if "#" in value:
        raise wrong("a URL takes no fragment (#): it would never be sent")
    return value


Url = Annotated[
    str,
    PlainValidator(_url),
    WithJsonSchema(
        {"type": "string", "pattern": r"^(https?://[^\s#@]+|.*\$\{.*)$", "examples": ["https://example.com/"]}
    ),
]
"""An http or https URL with a host, without user, password or fragment."""


_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"


def _host_name(value: object) -> str:
    form = "a host is written as in URLs, without scheme, port, path or star: cdn.example.com"
    if not isinstance(value, str):
        raise wrong(form)
    if not value.isascii():
        raise wrong(f"{form}; a name that is not ASCII as xn--…", echo=True)
    name = value.lower()
    if len(name) > 253 or not re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*", name):
        raise wrong(form, echo=True)
    if re.fullmatch(r"[0-9.]+", name):
        _address(name, form)
    return name


HostName = Annotated[
    str,
    PlainValidator(_host_name),
    WithJsonSchema({"type": "string", "pattern": r"^[A-Za-z0-9._${}-]+$", "examples": ["cdn.example.com"]}),
]
"""The name of a host, or an IPv4 address. The value is in lower case."""


def _site_name(value: object) -> str:
    form = "a name is written as in the Host header, without scheme or path: wall.example.com or wall.example.com:8443"
    if not isinstance(value, str):
        raise wrong(form)
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", value)
    if match is None or int(match[2] or 1) not in range(1, 65536):
        raise wrong(form, echo=True)
    if value.startswith("["):
        _address(match[1].strip("[]"), form)
    else:
        _host_name(match[1])
    return value.lower()


SiteName = Annotated[
    str,
    PlainValidator(_site_name),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[A-Za-z0-9._:${}\[\]-]+$", "examples": ["wall.example.com"]}
    ),
]
"""A name as in the Host header: a host or an address, maybe with a port. The value is in lower case."""


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
        raise wrong("a name is 1 to 64 letters, digits, _ or -")
    return value


Name = Annotated[str, AfterValidator(_name)]
"""The name of an account, a source or a sink."""


def _customer_id(value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value):
        return value
    raise wrong("an id is a number, as the platform's console shows it", echo=True)


CustomerId = Annotated[
    int | str,
    PlainValidator(_customer_id),
    WithJsonSchema({"type": ["integer", "string"], "pattern": rf"^([0-9]{{1,20}}|.*{VARIABLE}.*)$"}),
]
"""The platform's number of a customer, with or without quotes. The platform's documents say that it is an int."""

Kind = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", examples=["screenshot"])]
"""A kind of event."""

Pattern = Annotated[str, Field(min_length=1, max_length=256, examples=["room-*", "show-[0-9]"])]
"""A shell glob."""

# ---------------------------------------------------------------- paths and secrets


def _path(value: object, info: ValidationInfo) -> Path:
    """The absolute path. A relative path starts from the folder of the configuration file."""
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or not value or "\0" in value:
        raise wrong("a path is text that is not empty")
    if value.startswith("~"):
        raise wrong("a path takes no ~: write the folder out, or use ${HOME}")
    folder = (info.context or {}).get("folder", Path())
    return Path(folder).absolute() / value


def _resolve(value: object, info: ValidationInfo) -> Path:
    return Path(os.path.realpath(_path(value, info)))


def _readable(value: object, info: ValidationInfo) -> Path:
    path = _path(value, info)
    _contents(path)
    return path


def _contents(path: Path) -> bytes:
    with _reading():
        if not stat.S_ISREG(path.stat().st_mode):
            raise wrong("is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_SECRET + 1)
    if not content.strip():
        raise wrong("the file is empty")
    return content


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
        raise wrong(f"the file cannot be read: {reason}") from None


_PATH_SCHEMA: Final = WithJsonSchema({"type": "string", "minLength": 1})

FilePath = Annotated[
    Path, PlainValidator(_path), PlainSerializer(str, return_type=str, when_used="json"), _PATH_SCHEMA
]
"""A path, written relative to the folder of the configuration file or absolute. The value is absolute."""

ResolvedPath = Annotated[
    Path, PlainValidator(_resolve), PlainSerializer(str, return_type=str, when_used="json"), _PATH_SCHEMA
]
"""A `FilePath` with all symbolic links resolved: the files beside it are the same, whichever link names it."""

ReadableFile = Annotated[
    Path, PlainValidator(_readable), PlainSerializer(str, return_type=str, when_used="json"), _PATH_SCHEMA
]
"""The path of a file that was readable and not empty when the settings were read."""


_UNSEEN: Final = frozenset(
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u180f\u2800\u3164\uffa0"
)
"""Invisible characters that Unicode does not class as formats or blanks."""


def visible(secret: str) -> str:
    """A secret without the byte order mark before it and the line ends after it.

    Any other invisible character is a finding, because the secret would be wrong and look right. The finding
    names the character and shows nothing of the secret.
    """
    text = secret.removeprefix("\ufeff").rstrip("\r\n")
    if not text.strip():
        raise wrong("a secret cannot be empty")
    if text != text.strip(" "):
        raise wrong("the secret begins or ends with a blank: remove it")
    for position, character in enumerate(text, 1):
        if _is_invisible(character):
            name = unicodedata.name(character, "a control character")
            raise wrong(
                f"the secret's character {position} is invisible (U+{ord(character):04X}, {name}): remove it"
            )
    return text


def _is_invisible(character: str) -> bool:
    if character == " ":
        return False
    variation = "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
    return (
        variation or character in _UNSEEN or unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Zs"}
    )


def _secret(value: object) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if is_number(value):
        return str(value)
    if not isinstance(value, str):
        raise wrong("a secret is text: put it in quotes")
    if not value.strip():
        raise wrong("a secret cannot be empty")
    return visible(value)


def _secret_text(value: object, info: ValidationInfo) -> str:
    content = _contents(_path(value, info))
    if len(content) > MAX_SECRET:
        raise wrong(f"the file holds more than {MAX_SECRET} bytes: it is no secret")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or (b"\0" in content[:2] and len(content) > 1):
        raise wrong("the file is UTF-16: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise wrong("the file is not UTF-8 text") from None


def _secret_file(value: object, info: ValidationInfo) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return visible(_secret_text(value, info))


def _secrets_file(value: object, info: ValidationInfo) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    lines = re.split(r"\r?\n", _secret_text(value, info))
    return "\n".join(visible(line) for line in lines if line.strip())


Secret = Annotated[
    SecretStr, BeforeValidator(_secret), WithJsonSchema({"type": ["string", "integer"], "minLength": 1})
]
"""Text that is never shown. `get_secret_value()` returns it."""

SecretFile = Annotated[SecretStr, BeforeValidator(_secret_file), _PATH_SCHEMA]
"""The path of a file with a secret. The value is the secret, read once, without the line ends after it."""

SecretsFile = Annotated[SecretStr, BeforeValidator(_secrets_file), _PATH_SCHEMA]
"""The path of a file with secrets, one a line. The value is these lines, without empty ones."""
