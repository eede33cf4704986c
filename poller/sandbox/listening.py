"""One HTTP server on one address, for as long as a `with` block lasts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from poller.sandbox.options import split_address

Answering = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = logging.getLogger("poller.sandbox.http")


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a failure is one of this program: bytes that are no HTTP are answered 400, and need no traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_log.addFilter(_is_ours)

REST_WITHIN: Final = 5.0
"""Seconds that the rest of a body may take once the request is answered."""


@contextlib.asynccontextmanager
async def serve_http(address: str, answer: Answering) -> AsyncIterator[str]:
    """Yields the base URL; on leaving, requests in flight are broken off."""

    async def answered(request: web.BaseRequest) -> web.StreamResponse:
        return await _answer(request, answer)

    # Without handler_cancellation a fault that hangs would outlive its client. Bodies are taken as they come: what
    # their Content-Encoding says is for whoever reads them.
    server = web.Server(
        answered,
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,
        lingering_time=0,
        logger=_log,
    )
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    host, port = split_address(address)
    try:
        await web.TCPSite(runner, host, port).start()
        name, number = runner.addresses[0][:2]
        yield f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"
    finally:
        await runner.cleanup()


async def _answer(request: web.BaseRequest, answer: Answering) -> web.StreamResponse:
    """Answers a request. Unread bytes of its body are drained, so that they are not read as the next request."""
    try:
        response = await answer(request)
    except web.RequestPayloadError:  # a body that breaks HTTP: where the next request begins is unknown
        response = web.Response(status=400)
        response.force_close()
    except web.HTTPException as refusal:  # aiohttp's own: a body beyond its limit
        response = web.Response(status=refusal.status)
    if request.content.is_eof():
        return response
    if "Expect" in request.headers:
        # It may send the body or not (RFC 9110, 10.1.1), so that only a new connection is clear to both.
        response.force_close()
    await response.prepare(request)
    await response.write_eof()
    if response.keep_alive and not await _drain(request):
        response.force_close()
    return response


async def _drain(request: web.BaseRequest) -> bool:
    """Reads and drops the rest of the body. Returns whether all of it came."""
    try:
        async with asyncio.timeout(REST_WITHIN):
            async for _ in request.content.iter_any():
                pass
    except (TimeoutError, web.RequestPayloadError, ConnectionError):
        return False
    return True
