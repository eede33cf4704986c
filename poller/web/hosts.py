"""Under which names the pages are served. Pure.

A page of a stranger can make a browser send requests to this port, and can point a name of its own here (DNS
rebinding). So the Host header must be a name that is ours: a loopback name or the address that the connection came to,
with our port, or one of the setting `hosts`.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from poller.runtime.addresses import address

_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


class Local(NamedTuple):
    """Our end of a connection."""

    address: str
    port: int


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """The name under which a request reached us. `proxied`: it is one of the setting `hosts`."""

    scheme: str
    authority: str
    proxied: bool

    @property
    def origin(self) -> str:
        """The origin of our own pages, as a browser writes it."""
        return _plain_origin(f"{self.scheme}://{self.authority}")


def find_site(
    given: Sequence[str], target: str, *, local: Local, listen: str, hosts: Sequence[str], forwarded: str
) -> Site | None:
    """The site that a request is for; None if it is not ours.

    given:     the values of all Host headers
    target:    the request's target as it was sent, maybe with a scheme and a host
    forwarded: the value of `X-Forwarded-Proto`, which counts only where a proxy is configured
    """
    if len(given) != 1 or not _same_host(target, given[0]):
        return None
    authority = given[0].lower()
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return None
    name, port = match.groups()
    if any(_is_host(name, port, one) for one in hosts):
        return Site(scheme="https" if forwarded == "https" else "http", authority=authority, proxied=True)
    if int(port or 80) == local.port and _is_ours(name, local.address, listen):
        return Site(scheme="http", authority=authority, proxied=False)
    return None


def same_origin(origin: str, site: Site) -> bool:
    """Whether the header Origin names the site itself."""
    return _plain_origin(origin.lower()) == site.origin


def _same_host(target: str, host: str) -> bool:
    """Whether a target has no host, or the same as the header."""
    if target.startswith("/") or target == "*":
        return True
    try:
        return urlsplit(target).netloc.lower() == host.lower()
    except ValueError:
        return False


def _is_host(name: str, port: str | None, configured: str) -> bool:
    """Whether a Host header matches an entry of `hosts`. An entry without a port matches every port."""
    match = _AUTHORITY.fullmatch(configured)
    if match is None or match[1] != name:
        return False
    return match[2] is None or match[2] == port or (port is None and match[2] in _DEFAULT_PORTS.values())


def _is_ours(name: str, local: str, listen: str) -> bool:
    if name in ("localhost", listen.lower()):
        return True
    literal = address(name)
    return literal is not None and (literal.is_loopback or literal == address(local))


def _plain_origin(origin: str) -> str:
    """An origin without its scheme's own port."""
    scheme, _, authority = origin.partition("://")
    return f"{scheme}://{authority.removesuffix(':' + _DEFAULT_PORTS.get(scheme, ''))}"
