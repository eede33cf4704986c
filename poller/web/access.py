"""Who may do what: the Host, the session, the role, and where a write comes from.

Roles
    With tokens configured, `/api/*` and `/picture/*` need a session, which `POST /login` begins. The token of
    `view_token_file` gives the role `look`, that of `token_file` the role `operate`. Without tokens there is no login:
    everybody on this machine looks, and nobody operates. Pages and static files hold no data and need no session.

Writes
    A write is a POST of JSON from one of our own pages. A browser says so in `Sec-Fetch-Site`, else in `Origin`.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from poller.core.errors import PollerError
from poller.runtime.addresses import Address, address, caller_key
from poller.settings import WebSettings
from poller.web.backend import json_answer
from poller.web.errors import TEXTS, WebError, status_of
from poller.web.hosts import Local, Site, find_site, same_origin
from poller.web.limits import LARGEST_BODY, SESSION, EventStreams, Tries
from poller.web.sessions import LIFETIME, LOOK, OPERATE, Codes, Session, Sessions, Tokens

log = structlog.get_logger("web")

ROLE: Final = "role"
"""The key of a request under which its role is found: `look` or `operate`; None where nobody is logged in."""
METHODS: Final = ("GET", "HEAD", "POST")
_OPEN_WRITES: Final = ("/login", "/logout")
"""Writes that do not need the role `operate`."""
_FORWARDED: Final = (
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
)


class Login(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /login`: a token, or a one-time code."""

    token: str | None = None
    code: str | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request comes from. `proxy` is the address of the proxy that says so, None if there is none."""

    address: str
    key: str
    proxy: str | None = None


SITE: Final = web.RequestKey("site", Site)
CALLER: Final = web.RequestKey("caller", Caller)


class Access:
    """Judges each request before its handler, and serves login and logout."""

    def __init__(self, settings: WebSettings, streams: EventStreams) -> None:
        self._listen = settings.listen.host
        self._hosts = settings.hosts
        self._tokens = Tokens(operate=settings.token_value, look=settings.view_token_value)
        self._sessions = Sessions(ended=streams.end_session)
        self._codes = Codes()
        self._tries = Tries(time.monotonic)

    @property
    def login(self) -> bool:
        """Whether people have to log in."""
        return self._tokens.login

    def one_time_code(self) -> str:
        """A code that logs in once, with the role `operate`."""
        return self._codes.create(OPERATE)

    def routes(self) -> list[web.RouteDef]:
        """The paths of this module."""
        return [
            web.post("/login", self._log_in),
            web.post("/logout", self._log_out),
            web.get("/api/me", self._me),
        ]

    # ------------------------------------------------------------ every request

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
        request[SITE] = site = self._site(request)
        request[CALLER] = find_caller(request.remote, request.headers, site)
        session = self._session(request, site)
        if session is not None:
            request[SESSION] = session
        request[ROLE] = (session.role if session is not None else None) if self.login else LOOK

    def _site(self, request: web.Request) -> Site:
        site = find_site(
            request.headers.getall("Host", []),
            request.raw_path,
            local=_local(request),
            listen=self._listen,
            hosts=self._hosts,
            forwarded=request.headers.get("X-Forwarded-Proto", ""),
        )
        if site is None:
            raise WebError(
                421, "These pages are not served under this name. Add it to web.hosts if it is right."
            )
        return site

    def _session(self, request: web.Request, site: Site) -> Session | None:
        id = request.cookies.get(_cookie(request, site))
        return self._sessions.find(id) if id is not None else None

    def _check(self, request: web.Request) -> None:
        if request.method not in METHODS:
            raise WebError(405, TEXTS[405], headers={"Allow": ", ".join(METHODS)})
        if not self.login and not _is_direct(request):
            raise WebError(403, "Without tokens only this machine may look: set web.view_token_file.")
        if (request.content_length or 0) > LARGEST_BODY:
            raise WebError(413, TEXTS[413])
        needs_session = request.path.startswith(("/api/", "/picture/"))
        if request.method == "POST":
            check_write(request.headers, request.content_type, request[SITE])
            needs_session = request.path not in _OPEN_WRITES
        if needs_session and request[ROLE] is None:
            raise WebError(401, "You are not logged in.")
        if request.method == "POST" and request[ROLE] != OPERATE and request.path not in _OPEN_WRITES:
            raise WebError(403, "You may look, and not operate.")

    # ------------------------------------------------------------ login

    async def _log_in(self, request: web.Request) -> web.Response:
        given, caller = await _given(request), request[CALLER]
        if not self.login:
            raise WebError(404, "There is no login: web.token_file and web.view_token_file are not set.")
        if wait := self._tries.wait(caller.key):
            raise WebError(
                429,
                f"Too many tries. Wait {wait} s.",
                headers={"Retry-After": str(wait)},
                more={"wait": wait},
            )
        role = self._tokens.role(given.token) if given.token is not None else self._take(given.code)
        if role is None:
            self._refuse(caller, "token" if given.token is not None else "code")
        self._end_session(request)
        log.info("web_login", role=role, address=caller.address, proxy=caller.proxy)
        return self._begin_session(request, str(role))

    def _take(self, code: str | None) -> str | None:
        return self._codes.take(code) if code is not None else None

    def _refuse(self, caller: Caller, what: str) -> None:
        self._tries.fail(caller.key)
        wait = self._tries.wait(caller.key)
        log.warning(
            "web_login_failed",
            reason=f"wrong {what}",
            address=caller.address,
            proxy=caller.proxy,
            blocked_for=wait,
        )
        wrong = (
            "This token is not right." if what == "token" else "This link was used already, or is too old."
        )
        raise WebError(401, wrong, more={"wait": wait} if wait else None)

    def _begin_session(self, request: web.Request, role: str) -> web.Response:
        site = request[SITE]
        answer = json_answer({"role": role, "login": True})
        answer.set_cookie(
            _cookie(request, site),
            self._sessions.create(role),
            max_age=int(LIFETIME),
            path="/",
            httponly=True,
            samesite="Strict",
            secure=site.scheme == "https",
        )
        return answer

    async def _log_out(self, request: web.Request) -> web.Response:
        answer, site = json_answer({}), request[SITE]
        if SESSION in request:
            caller = request[CALLER]
            log.info("web_logout", role=request[ROLE], address=caller.address, proxy=caller.proxy)
            self._end_session(request)
        answer.del_cookie(
            _cookie(request, site), path="/", httponly=True, samesite="Strict", secure=site.scheme == "https"
        )
        return answer

    def _end_session(self, request: web.Request) -> None:
        if (id := request.cookies.get(_cookie(request, request[SITE]))) is not None:
            self._sessions.end(id)

    async def _me(self, request: web.Request) -> web.Response:
        return json_answer({"role": request[ROLE], "login": self.login})


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


def find_caller(peer: str | None, headers: Mapping[str, str], site: Site) -> Caller:
    """Where a request comes from: the other side of the connection, or what the configured proxy says.

    A proxy appends the address that it sees, so that only the last one counts. Pure.
    """
    direct = address(peer)
    last = headers.get("X-Forwarded-For", "").rpartition(",")[2]
    told = address(last) if site.proxied else None
    found: Address | None = told or direct
    return Caller(address=str(found), key=caller_key(found), proxy=str(direct) if told is not None else None)


def check_write(headers: Mapping[str, str], content_type: str, site: Site) -> None:
    """Raise `WebError` (403) unless a write is JSON and comes from one of our own pages. Pure."""
    told = headers.get("Sec-Fetch-Site")
    own = told == "same-origin" if told is not None else same_origin(headers.get("Origin", ""), site)
    if not own:
        raise WebError(403, "A change is taken only from poller's own pages.")
    if content_type != "application/json":
        raise WebError(403, "A change is sent as application/json.")


async def _given(request: web.Request) -> Login:
    try:
        given = msgspec.json.decode(await request.read(), type=Login)
    except (msgspec.MsgspecError, UnicodeError):
        raise WebError(400, 'A login is {"token": "…"} or {"code": "…"}.') from None
    if (given.token is None) == (given.code is None):
        raise WebError(400, 'A login is {"token": "…"} or {"code": "…"}.')
    return given


def _local(request: web.Request) -> Local:
    name = request.get_extra_info("sockname") or ("", 0)
    return Local(address=str(name[0]), port=int(name[1]))


def _is_direct(request: web.Request) -> bool:
    """Whether a request comes from this machine, and not through a proxy on it."""
    peer = address(request.remote)
    proxied = any(name in request.headers for name in _FORWARDED)
    return peer is not None and peer.is_loopback and not proxied


def _cookie(request: web.Request, site: Site) -> str:
    """The name of the session's cookie. Cookies are shared by all ports of a host, so that the port is in the name."""
    return "__Host-poller" if site.scheme == "https" else f"poller-{_local(request).port}"
