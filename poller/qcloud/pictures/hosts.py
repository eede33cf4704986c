"""Decides which URLs may be fetched: an allow list of hosts, and a strict parser of URLs. Pure.

A URL is sent exactly as it was checked. It must be legal ASCII without any encoding, so that no other parser
(of the resolver, the client or a proxy) can find another host in it. Only ASCII letters are compared without
case: in Unicode, U+212A is a k too.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

import msgspec

from poller.core.errors import Rejected

_NAME: Final = r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_URL: Final = re.compile(
    rf"(?P<scheme>https?)://(?:(?P<name>{_NAME})|\[(?P<six>[0-9a-f:.]{{2,45}})\])(?::(?P<port>[0-9]{{1,5}}))?"
    r"(?P<path>/(?:[A-Za-z0-9_.~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?"
    r"(?:\?(?:[A-Za-z0-9_.~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?(?:\#.*)?",
    re.IGNORECASE | re.ASCII,
)
_ENTRY: Final = re.compile(
    rf"(?:(?P<any>\*\.)?(?P<name>{_NAME})|\[(?P<six>[0-9a-f:.]+)\])(?::(?P<port>[0-9]{{1,5}}))?",
    re.IGNORECASE | re.ASCII,
)
LONGEST_URL: Final = 8192
NO_URL: Final = (
    "the event has no URL: say where the account's pictures are (cos), then retry this dead letter"
)
FOREIGN_REMEDY: Final = (
    "name it under the account's hosts, or in the sink's allow_hosts, then retry this dead letter"
)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A URL that may be fetched, as it is sent, with its host, and its decoded path without leading slashes."""

    url: str
    host: str
    path: str


class HostList(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts by exact name, and by suffix (from `*.`), each with its allowed port, or None for any port."""

    exact: frozenset[tuple[str, int | None]]
    suffixes: frozenset[tuple[str, int | None]] = frozenset()

    def holds(self, host: str, port: int) -> bool:
        """Whether a lower-case host (IPv6 without brackets) on this port is on the list."""
        if (host, None) in self.exact or (host, port) in self.exact:
            return True
        return any(host.endswith(suffix) and only in {None, port} for suffix, only in self.suffixes)


def host_list(entries: Iterable[str]) -> HostList:
    """Parse entries like `shots.example.com`, `*.example.com`, `[::1]`, each with or without a port.

    Raises `ValueError` for any other form.
    """
    exact, suffixes = set(), set()
    for entry in entries:
        wild, host, port = _entry(entry)
        if wild:
            suffixes.add((f".{host}", port))
        else:
            exact.add((host, port))
    return HostList(exact=frozenset(exact), suffixes=frozenset(suffixes))


def vet(url: str | None, hosts: HostList) -> Target:
    """The target of a URL that may be fetched; raises `Rejected` otherwise, with a text that never shows the URL."""
    if url is None:
        raise Rejected(NO_URL)
    match = _URL.fullmatch(url) if len(url) <= LONGEST_URL else None
    if match is None:
        raise Rejected("not a plain http or https URL (user names and unencoded characters are refused too)")
    host = (match["name"] or match["six"]).lower()
    port = int(match["port"] or (443 if match["scheme"].lower() == "https" else 80))
    if port > 65535 or not hosts.holds(host, port):
        raise Rejected(f"{host}:{port} is not among the hosts that pictures may come from: {FOREIGN_REMEDY}")
    return Target(
        url=url.partition("#")[0],
        host=host,
        path=unquote(match["path"] or "", errors="surrogateescape").lstrip("/"),
    )


def _entry(entry: str) -> tuple[bool, str, int | None]:
    if ":" in entry and "[" not in entry and entry.count(":") > 1:
        entry = f"[{entry}]"
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ValueError(_what_is_wrong(entry))
    if match["six"] is not None:
        ipaddress.IPv6Address(match["six"])
    port = None if match["port"] is None else int(match["port"])
    return bool(match["any"]), (match["name"] or match["six"]).lower(), port


def _what_is_wrong(entry: str) -> str:
    if "/" in entry:
        return "a host and not a URL is wanted: shots.example.com"
    if "*" in entry:
        return "a star may only stand for whole labels at the start: *.example.com"
    if not entry.isascii():
        return "write the host as it stands in URLs, in ASCII (xn--…)"
    return "not a host: shots.example.com, *.example.com, 127.0.0.1:8080"
