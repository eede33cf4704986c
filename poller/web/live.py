"""The paths of what goes on: `/api/streams` is the present state, `/api/live` each change of it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from aiohttp import web

from poller.web.hub import Hub
from poller.web.limits import EVENT_STREAMS
from poller.web.ring import Place

STILL_THERE: Final = 15.0
"""Seconds without a message after which a comment tells that the connection is alive."""
SLOW: Final = 10.0
"""Seconds that a write may wait for a slow reader."""
EVENT_STREAM: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy must not wait for more
}
UNKNOWN: Final = Place("", 0)
"""A place that no life of the daemon has."""
REFUSED: Final = frozenset({"q=0", "q=0.0", "q=0.00", "q=0.000"})


def routes(hub: Hub) -> list[web.RouteDef]:
    """The paths of this module."""

    async def streams(request: web.Request) -> web.Response:
        headers = {"Cache-Control": "no-store", "Vary": "Accept-Encoding"}
        if _accepts_gzip(request):
            headers["Content-Encoding"] = "gzip"
        body = await hub.compressed() if _accepts_gzip(request) else (await hub.snapshot()).plain
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def live(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=EVENT_STREAM)
        async with request.app[EVENT_STREAMS].place(request):
            with hub.watched():
                await _serve(request, response, hub.messages(_place(request)))
        return response

    return [web.get("/api/streams", streams), web.get("/api/live", live)]


def _accepts_gzip(request: web.Request) -> bool:
    codings = request.headers.get("Accept-Encoding", "").lower().replace(" ", "").split(",")
    return any(
        coding == "gzip" or (coding[:5] == "gzip;" and coding[5:] not in REFUSED) for coding in codings
    )


def _place(request: web.Request) -> Place | None:
    """Where a viewer goes on: what a browser sends by itself when it connects again, else the parameters."""
    last, query = request.headers.get("Last-Event-ID"), request.query
    if last is None and "epoch" not in query and "seq" not in query:
        return None
    text = last if last is not None else f"{query.get('epoch', '')}-{query.get('seq', '')}"
    return Place.read(text) or UNKNOWN


async def _serve(
    request: web.Request, response: web.StreamResponse, messages: AsyncGenerator[bytes, None]
) -> None:
    """Send messages until the viewer leaves, or is too slow."""
    try:
        await response.prepare(request)
        async with aclosing(messages):
            await _send(request, response, messages)
    except ConnectionError:
        pass  # the viewer left
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


async def _send(
    request: web.Request, response: web.StreamResponse, messages: AsyncGenerator[bytes, None]
) -> None:
    await response.write(b"retry: 1000\n\n")
    loop = asyncio.get_running_loop()
    quiet_since = loop.time()
    async for message in messages:
        if request.transport is None or request.transport.is_closing():
            return
        if not message and loop.time() - quiet_since < STILL_THERE:
            continue
        async with asyncio.timeout(SLOW):
            await response.write(message or b":\n\n")
        quiet_since = loop.time()
