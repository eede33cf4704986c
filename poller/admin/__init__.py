"""The HTTP pages for monitoring: `/metrics`, `/healthz`, `/readyz`."""

import hmac
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from poller.operations.health import Health
from poller.runtime.http_server import Handler

Examine = Callable[[], Awaitable[Health]]


def answers(registry: CollectorRegistry, examine: Examine, token: str | None) -> Handler:
    """A handler for the three paths. `examine` determines the condition of all parts and sets the gauges.

    With a token, `/metrics` and `/readyz` require `Authorization: Bearer TOKEN`. `/healthz` shows no secret, and never
    requires it.
    """

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return _text(405, "only GET")
        if request.path == "/healthz":
            return _text(200, "alive")
        if not _allowed(request, token):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"}, text="token needed\n")
        if request.path == "/metrics":
            await examine()
            return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
        if request.path == "/readyz":
            return _readiness(request.query.getall("for", []), await examine())
        return _text(404, "try /metrics, /healthz or /readyz")

    return answer


def _readiness(asked_for: list[str], health: Health) -> web.Response:
    """The answer of `/readyz`. With `for=pushes` only the spool and the receivers count, so that a bad sink does not
    stop pushes."""
    if asked_for not in ([], ["pushes"]):
        return _text(400, "try /readyz or /readyz?for=pushes")
    reasons = health.reasons_for_pushes if asked_for else health.reasons
    body = msgspec.json.encode({"ready": not reasons, "reasons": reasons, "notes": health.notes}) + b"\n"
    return web.Response(status=503 if reasons else 200, body=body, content_type="application/json")


def _allowed(request: web.BaseRequest, token: str | None) -> bool:
    if token is None:
        return True
    given = request.headers.get("Authorization", "")
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {token}".encode())


def _text(status: int, words: str) -> web.Response:
    return web.Response(status=status, text=words + "\n")
