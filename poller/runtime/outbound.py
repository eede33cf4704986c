"""Rules for outgoing HTTP: allowed addresses, TLS from files, and `Retry-After`.

A target is checked at the connect, by the address itself, where it can no longer change. So neither an odd
spelling (`http://0x7f.1/`, `http://[::ffff:127.0.0.1]/`) nor a name that resolves differently the second time
gets past the check.
"""

import errno
import ipaddress
import re
import socket
import ssl
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote

from poller import __version__
from poller.core.errors import LONGEST_WAIT, PollerError
from poller.runtime.addresses import Network
from poller.runtime.http_head import read_date
from poller.runtime.resolver import AddrInfo

USER_AGENT = f"poller/{__version__}"
CONNECT_TIMEOUT = 10.0


# ---------------------------------------------------------------- addresses

# IANA's IPv4 special-purpose registry (reachable or not), multicast, and one cloud's metadata address.
_SPECIAL_V4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure answers here with a machine's own secrets
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Everything global in IPv6 lies here; so NAT64, unique local, link- and site-local, multicast and
# IPv4-compatible addresses need no entry below.
_GLOBAL_V6 = IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarking, AMT
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",
        "3ffe::/16",
        "3fff::/20",
    )
)


class AddressRefused(PollerError, OSError):
    """A connect to an address that is not global unicast and not in `allow_cidr`; `address` is the one.

    Its text is the same for every address on purpose: when all addresses of a name are refused, aiohappyeyeballs
    then raises this very error and not a mixture.
    """

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, "an address that is not public is refused; allow_cidr can permit it")
        self.address = address


ANYWHERE: Final[Sequence[Network]] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
"""For an `AddressGuard` that allows all addresses."""


class AddressGuard:
    """Allows connects only to global unicast addresses and to `allow_cidr`.

    An IPv4-mapped IPv6 address is treated as its IPv4 address. Addresses that embed an IPv4 address for a
    gateway (6to4, Teredo, NAT64) are refused unless `allow_cidr` contains the IPv6 address itself.
    """

    def __init__(self, allow_cidr: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allow_cidr)

    def allows(self, host: str) -> bool:
        """Whether this address may be connected to; false for what is not an address in canonical form."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return is_public(address) or any(address in network for network in self._allowed)

    def check(self, addr_info: AddrInfo) -> None:
        """Raises `AddressRefused` unless this address may be connected to."""
        host = str(addr_info[4][0])
        if not self.allows(host):
            raise AddressRefused(host)

    def socket_factory(self, addr_info: AddrInfo) -> socket.socket:
        """Open the socket for one connect; raises `AddressRefused`."""
        family, kind, proto, *_ = addr_info
        self.check(addr_info)
        return socket.socket(family=family, type=kind, proto=proto)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is global unicast and nobody's gateway into another network."""
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _SPECIAL_V4)
    return address in _GLOBAL_V6 and not any(address in block for block in _SPECIAL_V6)


def literal_address(host: str) -> str | None:
    """The address that a URL's host spells out, or `localhost` means, in canonical form; None for any other name.

    Also as `inet_aton` reads it (`0x7f.1`, `2130706433`), in other scripts' digits and percent-encoded.
    """
    name = unicodedata.normalize("NFKC", unquote(host)).rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not re.fullmatch(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}", name):
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except OSError:
        return None


# ---------------------------------------------------------------- TLS


class TlsFiles(Protocol):
    """The files of a `tls:` section: who is trusted, and who we are."""

    @property
    def ca_file(self) -> Path | None: ...
    @property
    def cert_file(self) -> Path | None: ...
    @property
    def key_file(self) -> Path | None: ...


def ssl_context(tls: TlsFiles | None) -> ssl.SSLContext | None:
    """The context for a `tls:` section, None for no section; `OSError` (as `ssl.SSLError` is) for a bad file.

    `ca_file` replaces the system's authorities. `cert_file` alone holds certificate and key.
    """
    if tls is None:
        return None
    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.cert_file is not None:
        # Without a password OpenSSL would ask for one on the terminal and wait.
        context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    return context


# ---------------------------------------------------------------- Retry-After


def wait_seconds(retry_after: str, now: datetime) -> float | None:
    """Seconds that a `Retry-After` asks for, at most `LONGEST_WAIT`; None for zero, the past and the unreadable."""
    text = retry_after.strip()
    if re.fullmatch(r"[0-9]{1,300}(\.[0-9]{1,300})?", text):
        seconds = float(text)
    else:
        date = read_date(text)
        if date is None:
            return None
        seconds = (date - now).total_seconds()
    return min(seconds, LONGEST_WAIT) if seconds > 0 else None
