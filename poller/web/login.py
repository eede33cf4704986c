"""Login and logout: `POST /login`, `POST /logout`, and `GET /api/me`.

With tokens configured, a login with a token or a one-time code begins a session. The token of `view_token_file` gives
the role `look`, that of `token_file` the role `operate`. Without tokens there is no login.
"""

import time
from typing import Final, NoReturn

import msgspec
import structlog
from aiohttp import web

from poller.settings import WebSettings
from poller.web.backend import json_answer
from poller.web.callers import CALLER, ROLE, SESSION, SITE, Caller, local_end
from poller.web.errors import WebError
from poller.web.hosts import Site
from poller.web.limits import EventStreams, Tries
from poller.web.sessions import LIFETIME, OPERATE, Codes, Session, Sessions, Tokens

log = structlog.get_logger("web")

LOGIN: Final = "/login"
LOGOUT: Final = "/logout"
_WRONG: Final = {
    "token": "This token is not right.",
    "code": "This link was used already, or is too old. The command poller pages prints another.",
}


class LoginBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /login`: a token, or a one-time code."""

    token: str | None = None
    code: str | None = None


class Login:
    """Begins and ends sessions."""

    def __init__(self, settings: WebSettings, streams: EventStreams) -> None:
        self._tokens = Tokens(operate=settings.token_value, look=settings.view_token_value)
        self._sessions = Sessions(ended=streams.end_session)
        self._codes = Codes()
        self._tries = Tries(time.monotonic)

    @property
    def required(self) -> bool:
        """Whether people have to log in."""
        return self._tokens.login

    def one_time_code(self) -> str:
        """A code that logs in once, with the role `operate`."""
        return self._codes.create(OPERATE)

    def session(self, request: web.Request) -> Session | None:
        """The session of a request, by its cookie."""
        id = request.cookies.get(_cookie(request, request[SITE]))
        return self._sessions.find(id) if id is not None else None

    def routes(self) -> list[web.RouteDef]:
        """The paths of this module."""
        return [web.post(LOGIN, self._log_in), web.post(LOGOUT, self._log_out), web.get("/api/me", self._me)]

    async def _log_in(self, request: web.Request) -> web.Response:
        given, caller = await _given(request), request[CALLER]
        if not self.required:
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
        return self._begin_session(request, role)

    def _take(self, code: str | None) -> str | None:
        return self._codes.take(code) if code is not None else None

    def _refuse(self, caller: Caller, what: str) -> NoReturn:
        self._tries.fail(caller.key)
        wait = self._tries.wait(caller.key)
        log.warning(
            "web_login_failed",
            reason=f"wrong {what}",
            address=caller.address,
            proxy=caller.proxy,
            blocked_for=wait,
        )
        raise WebError(401, _WRONG[what], more={"wait": wait} if wait else None)

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
        now = round(time.time(), 3)
        return json_answer({"role": request.get(ROLE), "login": self.required, "now": now})


async def _given(request: web.Request) -> LoginBody:
    try:
        given = msgspec.json.decode(await request.read(), type=LoginBody)
    except (msgspec.MsgspecError, UnicodeError):
        raise WebError(400, 'A login is {"token": "…"} or {"code": "…"}.') from None
    if (given.token is None) == (given.code is None):
        raise WebError(400, 'A login is {"token": "…"} or {"code": "…"}.')
    return given


def _cookie(request: web.Request, site: Site) -> str:
    """The name of the session's cookie. Cookies are shared by all ports of a host, so that the port is in the name."""
    return "__Host-poller" if site.scheme == "https" else f"poller-{local_end(request).port}"
