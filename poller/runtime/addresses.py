"""Addresses of callers: parsing them, looking them up in networks, and the key by which they are counted. Pure."""

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def address(text: str | None) -> Address | None:
    """Read an address, maybe with a port; an IPv4 address inside an IPv6 one is the IPv4 address."""
    text = (text or "").strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def holds(networks: Sequence[Network], address: Address) -> bool:
    """Whether an address is in one of the networks."""
    return any(address in network for network in networks)


def caller_key(caller: Address | None) -> str:
    """The name under which a caller is counted: an IPv4 address, or an IPv6 network (/64)."""
    if isinstance(caller, IPv6Address):
        return str(ipaddress.ip_network((caller, 64), strict=False))
    return str(caller)
