"""What an operator's tools ask the daemon: `/metrics`, `/healthz`, `/readyz`."""

import hmac
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from poller.listen import Answer

Refresh = Callable[[], Awaitable[None]]
Reasons = Callable[[], Awaitable[list[str]]]
Notes = Callable[[], list[str]]


def answers(
    registry: CollectorRegistry, refresh: Refresh, reasons: Reasons, token: str | None, notes: Notes = list
) -> Answer:
    """Answer the three paths. `refresh` updates the gauges, `reasons` says why the daemon is not ready, `notes` what
    people should know although it is no reason.

    With a token, `/metrics` and `/readyz` want `Authorization: Bearer TOKEN`; `/healthz` says nothing that
    would need one.
    """

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return _text(405, "only GET")
        if request.path == "/healthz":
            return _text(200, "alive")
        if not _allowed(request, token):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"}, text="token needed\n")
        if request.path == "/metrics":
            await refresh()
            return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
        if request.path == "/readyz":
            return _readiness(await reasons(), notes())
        return _text(404, "try /metrics, /healthz or /readyz")

    return answer


def _readiness(reasons: list[str], notes: list[str]) -> web.Response:
    body = msgspec.json.encode({"ready": not reasons, "reasons": reasons, "notes": notes}) + b"\n"
    return web.Response(status=503 if reasons else 200, body=body, content_type="application/json")


def _allowed(request: web.BaseRequest, token: str | None) -> bool:
    if token is None:
        return True
    given = request.headers.get("Authorization", "")
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {token}".encode())


def _text(status: int, words: str) -> web.Response:
    return web.Response(status=status, text=words + "\n")
