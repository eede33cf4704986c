"""`/api/streams` answers with the present state of all streams, `/api/live` sends each change of it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from aiohttp import web

from poller.web.headers import accepts_gzip
from poller.web.hub import Hub
from poller.web.limits import EVENT_STREAMS
from poller.web.ring import Place

SLOW: Final = 10.0
"""Seconds that a write may wait for a slow reader."""
EVENT_STREAM: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy must not wait for more
}
UNKNOWN: Final = Place("", 0)
"""A place that no life of the daemon has."""


def routes(hub: Hub) -> list[web.RouteDef]:
    """The paths of this module."""

    async def streams(request: web.Request) -> web.Response:
        headers = {"Cache-Control": "no-store", "Vary": "Accept-Encoding"}
        if accepts_gzip(request):
            headers["Content-Encoding"] = "gzip"
        body = await hub.compressed() if accepts_gzip(request) else (await hub.snapshot()).plain
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def live(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=EVENT_STREAM)
        async with request.app[EVENT_STREAMS].place(request):
            with hub.watched():
                await _serve(request, response, hub.messages(_place(request)))
        return response

    return [web.get("/api/streams", streams), web.get("/api/live", live, allow_head=False)]


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
    """Send messages until the viewer is too slow. The place of the stream ends this when the viewer leaves."""
    async with aclosing(messages):
        try:
            await response.prepare(request)
            await response.write(b"retry: 1000\n\n")
            async for message in messages:
                async with asyncio.timeout(SLOW):
                    await response.write(message)
        except ConnectionError:
            pass  # the viewer left
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
