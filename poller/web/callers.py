"""Who sends a request: the site that it is for, the address, the session and the role. `Access` sets these keys."""

from typing import Final

import msgspec
from aiohttp import web

from poller.runtime.addresses import Address, address, caller_key
from poller.web.errors import WebError
from poller.web.hosts import Local, Site
from poller.web.sessions import OPERATE, Session


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request comes from. `proxy` is the address of the proxy that says so, None if there is none."""

    address: str
    key: str
    proxy: str | None = None


SITE: Final = web.RequestKey("site", Site)
CALLER: Final = web.RequestKey("caller", Caller)
SESSION: Final = web.RequestKey("session", Session)
"""Absent where nobody is logged in."""
ROLE: Final = web.RequestKey("role", str)
"""`look` or `operate`; absent where people have to log in and nobody is."""


def check_operator(request: web.Request) -> None:
    """Raise `WebError` (403) unless the sender may operate."""
    if request.get(ROLE) != OPERATE:
        raise WebError(403, "You may look, and not operate.")


def find_caller(peer: str | None, forwarded: str, site: Site) -> Caller:
    """Where a request comes from: the other side of the connection, or what the configured proxy says.

    A proxy appends the address that it sees, so that only the last one counts. Pure.
    """
    direct = address(peer)
    told = address(forwarded.rpartition(",")[2]) if site.proxied else None
    found: Address | None = told or direct
    return Caller(address=str(found), key=caller_key(found), proxy=str(direct) if told is not None else None)


def local_end(request: web.Request) -> Local:
    """Our end of the connection of a request."""
    name = request.get_extra_info("sockname") or ("", 0)
    return Local(address=str(name[0]), port=int(name[1]))
