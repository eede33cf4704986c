"""Who may do what: each request is judged here, before its handler.

Roles
    With tokens configured, `/api/*` and `/picture/*` need a session. Without tokens everybody on this machine looks,
    and nobody operates. Pages and static files hold no data and need no session.

Writes
    A write is a POST of JSON from one of our own pages. A browser says so in `Sec-Fetch-Site`, else in `Origin`. Every
    write but login and logout needs the role `operate`.
"""

from collections.abc import Mapping
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from poller.core.errors import PollerError
from poller.runtime.addresses import address
from poller.settings import WebSettings
from poller.web.callers import CALLER, ROLE, SESSION, SITE, check_operator, find_caller, local_end
from poller.web.errors import TEXTS, WebError, status_of
from poller.web.hosts import Site, find_site, same_origin
from poller.web.limits import LARGEST_BODY
from poller.web.login import LOGIN, LOGOUT, Login
from poller.web.sessions import LOOK

log = structlog.get_logger("web")

METHODS: Final = ("GET", "HEAD", "POST")
_OPEN_WRITES: Final = (LOGIN, LOGOUT)
"""Writes that do not need the role `operate`."""
_FORWARDED: Final = (
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
)


class Access:
    """Judges each request before its handler."""

    def __init__(self, settings: WebSettings, login: Login) -> None:
        self._listen = settings.listen.host
        self._hosts = settings.hosts
        self._login = login

    def guard(self) -> Any:
        """The middleware that judges each request."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._identify(request)
            self._check(request)
            if request.method != "POST":
                return await handler(request)
            await request.read()  # so that a handler has it at once, and a large one never gets there
            return await _logged(request, handler)

        return guard

    def _identify(self, request: web.Request) -> None:
        """Note who sends a request."""
        request[SITE] = site = self._site(request)
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ()))  # some proxies append a line
        request[CALLER] = find_caller(request.remote, forwarded, site)
        if not self._login.required:
            request[ROLE] = LOOK
        elif (session := self._login.session(request)) is not None:
            request[SESSION] = session
            request[ROLE] = session.role

    def _site(self, request: web.Request) -> Site:
        site = find_site(
            request.headers.getall("Host", []),
            request.raw_path,
            local=local_end(request),
            listen=self._listen,
            hosts=self._hosts,
            forwarded=request.headers.get("X-Forwarded-Proto", ""),
        )
        if site is None:
            raise WebError(
                421, "These pages are not served under this name. Add it to web.hosts if it is right."
            )
        return site

    def _check(self, request: web.Request) -> None:
        if request.method not in METHODS:
            raise WebError(405, TEXTS[405], headers={"Allow": ", ".join(METHODS)})
        if not self._login.required and not _is_direct(request):
            raise WebError(403, "Without tokens only this machine may look: set web.view_token_file.")
        if (request.content_length or 0) > LARGEST_BODY:
            raise WebError(413, TEXTS[413])
        needs_session = request.path.startswith(("/api/", "/picture/"))
        if request.method == "POST":
            check_write(request.headers, request.content_type, request[SITE])
            needs_session = request.path not in _OPEN_WRITES
        if needs_session and ROLE not in request:
            raise WebError(401, "You are not logged in.")
        if request.method == "POST" and request.path not in _OPEN_WRITES:
            check_operator(request)


# ---------------------------------------------------------------- parts of a request


async def _logged(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Handle a write, and log it with its end."""
    try:
        answer = await handler(request)
    except PollerError as error:
        _log_action(request, status_of(error))
        raise
    except web.HTTPException as error:
        _log_action(request, error.status)
        raise
    _log_action(request, answer.status)
    return answer


def _log_action(request: web.Request, status: int) -> None:
    if request.path in _OPEN_WRITES:  # they have lines of their own
        return
    caller = request[CALLER]
    log.info(
        "web_action",
        path=request.path[:200],
        status=status,
        role=request[ROLE],
        address=caller.address,
        proxy=caller.proxy,
    )


def check_write(headers: Mapping[str, str], content_type: str, site: Site) -> None:
    """Raise `WebError` (403) unless a write is JSON and comes from one of our own pages. Pure."""
    relation = headers.get("Sec-Fetch-Site")
    own = relation == "same-origin" if relation is not None else same_origin(headers.get("Origin", ""), site)
    if not own:
        raise WebError(403, "A change is taken only from poller's own pages.")
    if content_type != "application/json":
        raise WebError(403, "A change is sent as application/json.")


def _is_direct(request: web.Request) -> bool:
    """Whether a request comes from this machine, and not through a proxy on it."""
    peer = address(request.remote)
    proxied = any(name in request.headers for name in _FORWARDED)
    return peer is not None and peer.is_loopback and not proxied
